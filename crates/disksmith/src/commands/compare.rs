//! `compare`: whether two images hold the same.

use disksmith_formats::OpenMode;
use disksmith_open::Cache;
use disksmith_operations::{CompareError, CompareRequest, CompareStage, Verdict, compare};
use serde_json::json;

use super::Verb;
use super::common::{Form, Purpose, Source};
use super::convert::source_cache;
use crate::face::{DONE, Face, Failure, Outcome};
use crate::progress::{Telling, Watch};
use crate::render::json::pretty;

/// Status when they differ.
const DIFFERENT: u8 = 1;
/// Status when one could not be opened.
const CANNOT_OPEN: u8 = 2;
/// Status when what is where cannot be read.
const CANNOT_MAP: u8 = 3;
/// Status when content cannot be read.
const CANNOT_READ: u8 = 4;

/// The arguments of `compare`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Compare {
    /// Format of the first image
    #[arg(short = 'f', long, value_name = "FMT")]
    pub a_format: Option<String>,
    /// Format of the second image
    #[arg(short = 'F', long, value_name = "FMT")]
    pub b_format: Option<String>,
    /// The images are described by options
    #[arg(long)]
    pub image_opts: bool,
    #[command(flatten)]
    pub keys: super::common::Keys,
    /// Refuse images that refer to other files
    #[arg(long)]
    pub untrusted: bool,
    /// Sizes and allocation must be equal too
    #[arg(short, long)]
    pub strict: bool,
    /// Cache mode
    #[arg(short = 'T', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// Read even while other processes write the images
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub telling: Telling,
    #[command(flatten)]
    pub form: Form,
    /// One image
    #[arg(value_name = "IMAGE1")]
    pub first: String,
    /// The other
    #[arg(value_name = "IMAGE2")]
    pub second: String,
}

const SIZES_DIFFER: &str = "Warning: Image size mismatch!\n";

impl Verb for Compare {
    const NAME: &'static str = "compare";
    const ABOUT: &'static str = "Tell whether two images hold the same";

    fn run(self, face: &Face) -> Outcome {
        match self.compare(face) {
            // Whatever keeps it from comparing must not look like "different".
            Err(Failure::Error(error)) => {
                face.report(&error);
                Ok(CANNOT_OPEN)
            }
            other => other,
        }
    }
}

impl Compare {
    fn source(&self, format: &Option<String>) -> Source {
        Source {
            format: format.clone(),
            image_opts: self.image_opts,
            keys: self.keys.clone(),
            untrusted: self.untrusted,
        }
    }

    fn compare(&self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let cache = self.cache.as_deref().map(source_cache).transpose()?.unwrap_or(Cache::WriteBack);
        let purpose = Purpose { cache, ..Purpose::new(OpenMode::Read).shared(self.force_share) };
        let a = self.source(&self.a_format).open(face, &self.first, purpose)?;
        let b = self.source(&self.b_format).open(face, &self.second, purpose)?;
        let watch = Watch::new(face, self.telling.progress(face));
        let request = CompareRequest { a: &a, b: &b, strict: self.strict };
        let comparison = match compare(&request, &watch) {
            Ok(comparison) => comparison,
            Err(error) => {
                watch.finish();
                let status = self.failed(face, &error);
                if error.past_common && !json && !self.telling.quiet {
                    face.print(SIZES_DIFFER);
                }
                return Ok(status);
            }
        };
        let (status, text) = match comparison.verdict {
            Verdict::Identical => (DONE, "Images are identical.\n".to_string()),
            Verdict::ContentDiffers(at) => (DIFFERENT, format!("Content mismatch at offset {at}!\n")),
            Verdict::SizeDiffers => (DIFFERENT, "Strict mode: Image size mismatch!\n".to_string()),
            Verdict::StatusDiffers(at) => {
                (DIFFERENT, format!("Strict mode: Offset {at} block status mismatch!\n"))
            }
        };
        if json {
            let offset = match comparison.verdict {
                Verdict::ContentDiffers(at) | Verdict::StatusDiffers(at) => json!(at),
                _ => serde_json::Value::Null,
            };
            face.print(&pretty(&json!({
                "identical": status == DONE,
                "size-mismatch": comparison.size_mismatch || comparison.verdict == Verdict::SizeDiffers,
                "first-difference": offset,
            })));
        } else if !self.telling.quiet {
            if comparison.size_mismatch {
                face.print(SIZES_DIFFER);
            }
            face.print(&text);
        }
        watch.finish();
        Ok(status)
    }

    fn failed(&self, face: &Face, failure: &CompareError) -> u8 {
        let name = if failure.second { &self.second } else { &self.first };
        match failure.stage {
            CompareStage::Map => {
                face.complain(&format!("Sector allocation test failed for {name}"));
                CANNOT_MAP
            }
            CompareStage::Data => {
                face.report(&failure.error);
                CANNOT_READ
            }
        }
    }
}
