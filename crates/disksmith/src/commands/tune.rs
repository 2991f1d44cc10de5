//! `tune`: what an ext filesystem says of itself, in tune2fs's words.

use disksmith_disk::Context;
use disksmith_filesystems::ext::{OnError, Tune as Changes, tune};
use disksmith_formats::OpenMode;
use disksmith_open::{Locking, open_disk};

use super::Verb;
use super::label::new_uuid;
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::guest::Access;

/// Seconds of a day.
const DAY: u32 = 86_400;

/// The arguments of `tune`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Tune {
    #[command(flatten)]
    pub access: Access,
    /// Label, of at most 16 bytes
    #[arg(short = 'L', long)]
    pub label: Option<String>,
    /// UUID, or random or clear
    #[arg(long, value_name = "UUID|random|clear")]
    pub uuid: Option<String>,
    /// Per cent of the blocks that only root may use
    #[arg(short = 'm', long, value_name = "PERCENT")]
    pub reserved: Option<f64>,
    /// So many blocks that only root may use
    #[arg(short = 'r', long, value_name = "COUNT", conflicts_with = "reserved")]
    pub reserved_blocks: Option<u64>,
    /// Features to add, or with ^ to take away: ^has_journal,metadata_csum
    #[arg(short = 'O', long, value_name = "LIST", allow_hyphen_values = true)]
    pub features: Option<String>,
    /// Add a journal: ext2 becomes ext3
    #[arg(short = 'j', long)]
    pub journal: bool,
    /// Add a journal of so many MiB
    #[arg(short = 'J', long, value_name = "size=MIB")]
    pub journal_size: Option<String>,
    /// Mounts after which a check is due; 0 or -1: never
    #[arg(short = 'c', long, value_name = "COUNT", allow_hyphen_values = true)]
    pub max_mounts: Option<i16>,
    /// Mounts since the last check
    #[arg(short = 'C', long, value_name = "COUNT")]
    pub mounts: Option<u16>,
    /// Time after which a check is due: days, or with d, w, m; 0: never
    #[arg(short = 'i', long, value_name = "TIME")]
    pub interval: Option<String>,
    /// What Linux does when it meets damage: continue, remount-ro or panic
    #[arg(short = 'e', long, value_name = "WHAT")]
    pub errors: Option<String>,
    /// Default mount options, with ^ to take them away: acl,^user_xattr
    #[arg(short = 'o', long, value_name = "LIST", allow_hyphen_values = true)]
    pub mount_options: Option<String>,
    /// User id that may use reserved blocks
    #[arg(short = 'u', long, value_name = "UID")]
    pub user: Option<u16>,
    /// Group id that may use reserved blocks
    #[arg(short = 'g', long, value_name = "GID")]
    pub group: Option<u16>,
    /// Which: IMAGE, IMAGE:PART
    #[arg(value_name = "ADDRESS")]
    pub address: String,
}

impl Verb for Tune {
    const NAME: &'static str = "tune";
    const ABOUT: &'static str = "Change features and settings of an ext filesystem";

    fn run(self, _face: &Face) -> Outcome {
        let mut address = self.access.address(&self.address);
        if address.path.is_some() {
            return usage("a filesystem is named by IMAGE or IMAGE:PART, not by a path");
        }
        if address.part.is_none() {
            address.part = Some(String::new());
        }
        let changes = self.changes()?;
        if changes == Changes::default() && !self.adds_journal() {
            return usage(
                "say what to change: -L, --uuid, -m, -r, -O, -j, -c, -C, -i, -e, -o, -u or -g",
            );
        }
        let mut settings = self.access.settings(true)?;
        (settings.mode, settings.locking) = (OpenMode::Write, Locking::Serve);
        let opened = open_disk(&address, &settings)?;
        let attempt = || format!("Could not tune '{}'", opened.shown);
        let changes = self.with_journal(changes, &*opened.disk)?;
        tune(&opened.disk, &changes).with_context(attempt)?;
        opened.close()?;
        Ok(DONE)
    }
}

impl Tune {
    fn adds_journal(&self) -> bool {
        self.journal || self.journal_size.is_some()
    }

    fn changes(&self) -> Result<Changes, Failure> {
        let label = self.label.clone().map(String::into_bytes);
        if label.as_ref().is_some_and(|label| label.len() > 16) {
            return usage("a label has at most 16 bytes");
        }
        let on_error = match self.errors.as_deref() {
            None => None,
            Some("continue") => Some(OnError::Continue),
            Some("remount-ro") => Some(OnError::ReadOnly),
            Some("panic") => Some(OnError::Panic),
            Some(other) => {
                return usage(format!("-e expects continue, remount-ro or panic, not '{other}'"));
            }
        };
        Ok(Changes {
            label,
            uuid: self.uuid.as_deref().map(new_uuid).transpose()?,
            reserved_blocks: self.reserved_blocks,
            reserved_percent: self.reserved,
            features: self.features.clone(),
            max_mounts: self.max_mounts,
            mounts: self.mounts,
            check_interval: self.interval.as_deref().map(interval).transpose()?,
            on_error,
            reserved_uid: self.user,
            reserved_gid: self.group,
            mount_options: self.mount_options.clone(),
            journal_blocks: None,
        })
    }

    /// The journal's size is given in MiB, its length counts the filesystem's blocks.
    fn with_journal(
        &self,
        changes: Changes,
        disk: &dyn disksmith_disk::Disk,
    ) -> Result<Changes, Failure> {
        let blocks = match self.journal_size.as_deref() {
            None if self.journal => 0,
            None => return Ok(changes),
            Some(text) => {
                let number = text.strip_prefix("size=").and_then(|n| n.parse::<u32>().ok());
                let Some(mebibytes) = number.filter(|n| *n > 0 && *n <= 1 << 20) else {
                    return usage(format!("-J expects size=MIB, not '{text}'"));
                };
                let mut log = [0; 4];
                disk.read_at(&mut log, 1024 + 0x18)?;
                let bits = 10 + u32::from_le_bytes(log).min(6);
                ((u64::from(mebibytes) << 20 >> bits) as u32).max(1)
            }
        };
        Ok(Changes { journal_blocks: Some(blocks), ..changes })
    }
}

/// Days, weeks or months as tune2fs takes them, in seconds.
fn interval(text: &str) -> Result<u32, Failure> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'd')) => (&text[..at], DAY),
        Some((at, 'w')) => (&text[..at], 7 * DAY),
        Some((at, 'm')) => (&text[..at], 30 * DAY),
        Some((at, 's')) => (&text[..at], 1),
        _ => (text, DAY),
    };
    match number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(seconds) => Ok(seconds),
        None => usage(format!("'{text}' is no time: 180d, 4w, 6m, 0")),
    }
}
