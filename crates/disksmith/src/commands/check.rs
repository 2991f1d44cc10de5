//! `check`: look for damage in an image, and mend it.

use disksmith_formats::{CheckReport, OpenMode, Repair};
use serde_json::{Map, json};

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, FAILED, Face, Failure, Outcome, usage};
use crate::render::json::pretty;

/// Status when corruptions are left.
const CORRUPT: u8 = 2;
/// Status when only leaks are left.
const LEAKS: u8 = 3;
/// Status when the format has no check.
const NO_CHECK: u8 = 63;

/// The arguments of `check`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Check {
    #[command(flatten)]
    pub source: Source,
    /// Mend the image: leaks (only give unused space back) or all
    #[arg(short, long, value_name = "leaks|all")]
    pub repair: Option<String>,
    /// Cache mode
    #[arg(short = 'T', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// Check even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub form: Form,
    /// Print only what is wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Check {
    const NAME: &'static str = "check";
    const ABOUT: &'static str = "Look for damage in an image, and mend it";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let repair = match self.repair.as_deref() {
            None => Repair::None,
            Some("leaks") => Repair::Leaks,
            Some("all") => Repair::All,
            Some(other) => {
                return usage(format!("--repair (-r) expects 'leaks' or 'all' not '{other}'"));
            }
        };
        let mode = if repair == Repair::None { OpenMode::Check } else { OpenMode::Repair };
        let purpose = Purpose {
            follow_backing: false,
            ..Purpose::new(mode).shared(self.force_share).cached(self.cache.as_deref())?
        };
        let node = self.source.open(face, &self.image, purpose)?;
        let look = |repair| {
            node.image
                .check(repair, &mut |finding| face.note(&format!("{}\n", finding.text)))
                .map_err(|error| error.context("Check failed"))
        };
        let Some(mut report) = look(repair)? else {
            face.complain("This image format does not support checks");
            return Ok(NO_CHECK);
        };
        let mut text = String::new();
        if report.corruptions_fixed > 0 || report.leaks_fixed > 0 {
            if !json {
                text += &repaired(&report);
            }
            // qemu-img's results stay in its buffer while findings are told; scripts that merge
            // both streams see them in that order.
            if !face.drop_in {
                self.print(face, &std::mem::take(&mut text));
            }
            let fixed = report;
            report = look(Repair::None)?.unwrap_or(report);
            report.corruptions_fixed = fixed.corruptions_fixed;
            report.leaks_fixed = fixed.leaks_fixed;
        }
        if mode.writes() {
            node.close()?;
        }
        text += &match json {
            true => as_json(&report, &self.image, node.image.format()),
            false => as_text(&report),
        };
        self.print(face, &text);
        status(face, &report)
    }
}

impl Check {
    fn print(&self, face: &Face, text: &str) {
        if !self.quiet {
            face.print(text);
        }
    }
}

fn status(face: &Face, report: &CheckReport) -> Result<u8, Failure> {
    if report.check_errors > 0 {
        face.complain("Check failed");
        return Ok(FAILED);
    }
    Ok(match (report.corruptions, report.leaks) {
        (0, 0) => DONE,
        (0, _) => LEAKS,
        _ => CORRUPT,
    })
}

fn repaired(report: &CheckReport) -> String {
    format!(
        "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\nDouble checking the fixed image now...\n",
        report.leaks_fixed, report.corruptions_fixed
    )
}

fn as_text(report: &CheckReport) -> String {
    let mut text = String::new();
    let CheckReport { corruptions, leaks, check_errors, .. } = *report;
    if (corruptions, leaks, check_errors) == (0, 0, 0) {
        text += "No errors were found on the image.\n";
    }
    if corruptions > 0 {
        text += &format!(
            "\n{corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n"
        );
    }
    if leaks > 0 {
        text += &format!(
            "\n{leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n"
        );
    }
    if check_errors > 0 {
        text += &format!("\n{check_errors} internal errors have occurred during the check.\n");
    }
    let (all, allocated) = (report.total_clusters, report.allocated_clusters);
    if all > 0 && allocated > 0 {
        let part = |count: u64, of: u64| count as f64 * 100.0 / of as f64;
        text += &format!(
            "{allocated}/{all} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            part(allocated, all),
            part(report.fragmented_clusters, allocated),
            part(report.compressed_clusters, allocated)
        );
    }
    if let Some(end) = report.image_end_offset.filter(|end| *end > 0) {
        text += &format!("Image end offset: {end}\n");
    }
    text
}

fn as_json(report: &CheckReport, name: &str, format: &str) -> String {
    let mut map = Map::new();
    for (key, count) in [
        ("image-end-offset", report.image_end_offset.unwrap_or(0)),
        ("compressed-clusters", report.compressed_clusters),
        ("total-clusters", report.total_clusters),
        ("corruptions", report.corruptions),
        ("corruptions-fixed", report.corruptions_fixed),
        ("check-errors", report.check_errors),
        ("leaks", report.leaks),
        ("leaks-fixed", report.leaks_fixed),
        ("allocated-clusters", report.allocated_clusters),
    ] {
        if count > 0 || key == "check-errors" {
            map.insert(key.into(), json!(count));
        }
    }
    map.insert("filename".into(), json!(name));
    map.insert("format".into(), json!(format));
    if report.fragmented_clusters > 0 {
        map.insert("fragmented-clusters".into(), json!(report.fragmented_clusters));
    }
    pretty(&map.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_qemu_imgs() {
        let report = CheckReport {
            leaks: 1,
            total_clusters: 160,
            allocated_clusters: 2,
            image_end_offset: Some(393_216),
            ..CheckReport::default()
        };
        assert_eq!(
            as_text(&report),
            "\n1 leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n2/160 = 1.25% allocated, 0.00% fragmented, 0.00% compressed clusters\nImage end offset: 393216\n"
        );
        assert!(as_json(&report, "a", "qcow2").starts_with("{\n    \"image-end-offset\": 393216,\n    \"total-clusters\": 160,\n    \"check-errors\": 0,\n    \"leaks\": 1,"));
    }
}
