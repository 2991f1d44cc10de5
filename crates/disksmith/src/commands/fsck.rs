//! `fsck`: look for damage in a filesystem, and mend it.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_filesystems::ext::{self, Repair};
use disksmith_filesystems::fat;
use disksmith_formats::OpenMode;
use disksmith_open::{Locking, open_disk};
use serde_json::json;

use super::Verb;
use super::common::Form;
use crate::face::{Face, Failure, Outcome, usage};
use crate::guest::Access;
use crate::render::json::pretty;

/// Nothing was wrong.
const CLEAN: u8 = 0;
/// Something was, and nothing is any more.
const CORRECTED: u8 = 1;
/// Something is.
const LEFT: u8 = 4;
/// It could not be looked at.
const OPERATIONAL: u8 = 8;

/// The arguments of `fsck`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = "\
Exit status, as e2fsck's: 0 clean; 1 damage was found and mended; 4 damage is left; 8 it could not be
checked; 2 the command line makes no sense.")]
pub(crate) struct Fsck {
    #[command(flatten)]
    pub access: Access,
    /// Change nothing, only tell what is wrong (the default)
    #[arg(short = 'n', long, conflicts_with_all = ["safe", "yes"])]
    pub no: bool,
    /// Mend what can be mended without a doubt: counts, bitmaps, the journal
    #[arg(short = 'p', long, visible_short_alias = 'a', conflicts_with = "yes")]
    pub safe: bool,
    /// Mend everything
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Accepted for e2fsck's sake: the check is always a full one
    #[arg(short = 'f', long, hide = true)]
    pub force: bool,
    #[command(flatten)]
    pub form: Form,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Which: IMAGE, IMAGE:PART
    #[arg(value_name = "ADDRESS")]
    pub address: String,
}

/// What a check or a repair of any filesystem tells.
#[derive(Debug, Default)]
struct Told {
    /// What was wrong.
    found: Vec<String>,
    /// What still is.
    left: Vec<String>,
    /// Of these, how many there are in all.
    left_count: u64,
    /// Something was written.
    changed: bool,
    /// One line about what is in it.
    summary: String,
}

impl Verb for Fsck {
    const NAME: &'static str = "fsck";
    const ABOUT: &'static str = "Look for damage in a filesystem, and mend it";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let address = self.access.address(&self.address);
        if address.path.is_some() {
            return usage("a filesystem is named by IMAGE or IMAGE:PART, not by a path");
        }
        match self.look(&address) {
            Ok((told, shown)) => Ok(self.tell(face, &told, &shown, json)),
            Err(Failure::Error(error)) => {
                face.report(&error);
                Ok(OPERATIONAL)
            }
            Err(other) => Err(other),
        }
    }
}

impl Fsck {
    fn repair(&self) -> Option<Repair> {
        match (self.yes, self.safe) {
            (true, _) => Some(Repair::All),
            (_, true) => Some(Repair::Safe),
            _ => None,
        }
    }

    fn look(&self, address: &disksmith_open::Address) -> Result<(Told, String), Failure> {
        let repair = self.repair();
        let mut settings = self.access.settings(repair.is_some())?;
        if repair.is_some() {
            (settings.mode, settings.locking) = (OpenMode::Write, Locking::Serve);
        }
        let mut only = address.clone();
        only.part.get_or_insert_default();
        let opened = match open_disk(&only, &settings) {
            // A filesystem that is not recognised any more may fill the whole disk.
            Err(why) if address.part.is_none() && why.kind() == Kind::NotFound => {
                open_disk(address, &settings).map_err(|_| why)?
            }
            other => other?,
        };
        let attempt = || format!("Could not check '{}'", opened.shown);
        let told = judge(&opened.disk, repair).with_context(attempt)?;
        let shown = self.address.clone();
        if repair.is_some() {
            opened.close()?;
        }
        Ok((told, shown))
    }

    fn tell(&self, face: &Face, told: &Told, shown: &str, json: bool) -> u8 {
        let status = match (told.left_count > 0, told.changed) {
            (true, _) => LEFT,
            (false, true) => CORRECTED,
            (false, false) => CLEAN,
        };
        if json {
            face.print(&pretty(&json!({
                "found": told.found,
                "left": told.left,
                "left-count": told.left_count,
                "changed": told.changed,
                "status": status,
            })));
            return status;
        }
        if self.quiet {
            return status;
        }
        let mut text = String::new();
        for line in &told.found {
            text += &format!("{line}\n");
        }
        text += &match status {
            CLEAN => format!("{shown}: clean, {}\n", told.summary),
            CORRECTED => format!("{shown}: damage was mended, {}\n", told.summary),
            _ => format!("{shown}: {} left\n", findings(told.left_count)),
        };
        face.print(&text);
        if status == LEFT && !self.yes {
            face.note("Run it with -y to mend the damage.\n");
        }
        status
    }
}

fn findings(count: u64) -> String {
    if count == 1 { "1 finding".into() } else { format!("{count} findings") }
}

/// Checks, and with `repair` mends, whichever filesystem is on `disk`.
fn judge(disk: &Arc<dyn Disk>, repair: Option<Repair>) -> Result<Told> {
    let content = disksmith_partitions::probe(&**disk)?.map(|content| content.kind.to_string());
    match content.as_deref() {
        // What is not recognised may be an ext filesystem that lost its superblock.
        None | Some("ext2" | "ext3" | "ext4") => judge_ext(disk, repair),
        Some("vfat") => judge_fat(disk, repair, (fat::check, fat::repair)),
        Some("exfat") => judge_fat(disk, repair, (fat::exfat::check, fat::exfat::repair)),
        Some(other) => Err(Error::new(
            Kind::Unsupported,
            format!("There is no check for {other} (but for ext2, ext3, ext4, FAT and exFAT)"),
        )),
    }
}

fn judge_ext(disk: &Arc<dyn Disk>, repair: Option<Repair>) -> Result<Told> {
    let Some(what) = repair else {
        let report = ext::check(disk.clone())?;
        return Ok(Told {
            left: report.findings.clone(),
            left_count: report.count,
            changed: false,
            summary: ext_summary(&report),
            found: report.findings,
        });
    };
    let report = ext::repair(disk.clone(), what)?;
    Ok(Told {
        changed: report.changed(),
        left: report.last.findings.clone(),
        left_count: report.last.count,
        summary: ext_summary(&report.last),
        found: report.found,
    })
}

/// What checks a FAT or exFAT, and what mends it.
type FatJudges = (
    fn(Arc<dyn Disk>) -> Result<fat::CheckReport>,
    fn(Arc<dyn Disk>, fat::Mend) -> Result<fat::RepairReport>,
);

fn judge_fat(
    disk: &Arc<dyn Disk>,
    repair: Option<Repair>,
    (check, mend_all): FatJudges,
) -> Result<Told> {
    let mend = match repair {
        None => None,
        Some(Repair::Safe) => Some(fat::Mend::Safe),
        Some(Repair::All) => Some(fat::Mend::All(fat::Lost::Keep)),
    };
    let summary =
        |report: &fat::CheckReport| format!("{} files, {} clusters", report.files, report.clusters);
    let Some(what) = mend else {
        let report = check(disk.clone())?;
        return Ok(Told {
            left: report.findings.clone(),
            left_count: report.count,
            changed: false,
            summary: summary(&report),
            found: report.findings,
        });
    };
    let report = mend_all(disk.clone(), what)?;
    Ok(Told {
        changed: report.changed(),
        left: report.last.findings.clone(),
        left_count: report.last.count,
        summary: summary(&report.last),
        found: report.found,
    })
}

fn ext_summary(report: &ext::CheckReport) -> String {
    format!("{} files, {} blocks", report.files, report.blocks)
}
