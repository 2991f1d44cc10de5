//! `amend`: change options of an existing image.

use disksmith_formats::{OpenMode, Options, driver};

use super::Verb;
use super::common::{Purpose, Source, two_lines};
use crate::face::{DONE, Face, Failure, Outcome, refuse, usage};
use crate::making::{amendable, join_lists, wants_help};
use crate::progress::Telling;
use crate::render::options;

/// The arguments of `amend`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Amend {
    #[command(flatten)]
    pub source: Source,
    /// Options of the format, as name=value,…; "help" lists them
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Cache mode
    #[arg(short = 't', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// Allow what may make the image unreadable, such as erasing the last key slot
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub telling: Telling,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
}

impl Verb for Amend {
    const NAME: &'static str = "amend";
    const ABOUT: &'static str = "Change options of an existing image";

    fn run(self, face: &Face) -> Outcome {
        if self.options.is_empty() {
            return usage("Must specify options (-o)");
        }
        let help = wants_help(&self.options);
        let given = join_lists(&self.options)?;
        if let Some(format) = self.source.format.as_deref().filter(|_| help) {
            return list(face, format);
        }
        let Some(name) = &self.image else { return refuse("Expecting one image file name") };
        let purpose = Purpose::new(OpenMode::Write).cached(self.cache.as_deref())?;
        let node = self.source.open(face, name, purpose)?;
        let Some(driver) = driver(node.image.format()) else {
            return refuse("the format is not registered");
        };
        if help || driver.amend_options.is_empty() {
            return list(face, driver.name);
        }
        given.check(driver.amend_options).map_err(|error| {
            let mut known = options::create_options(driver);
            known.extend_from_slice(driver.amend_options);
            match given.check(&known) {
                Ok(()) => error.with_hint("This option is only supported for image creation"),
                Err(_) => error,
            }
        })?;
        let mut progress = self.telling.progress(face);
        progress.show(0, 1);
        let given = self.with_secrets(&given)?;
        let result = node.image.amend(&given, self.force, &mut |done, total| progress.show(done, total));
        progress.show(1, 1);
        progress.finish();
        result.map_err(|error| two_lines(face, error, "Failed to turn zero into data clusters"))?;
        node.close()?;
        Ok(DONE)
    }
}

impl Amend {
    /// The options with passphrases in the place of the ids that name them.
    fn with_secrets(&self, given: &Options) -> Result<Options, Failure> {
        let secrets = self.source.keys.secrets()?;
        let mut options = Options::new();
        for (name, value) in given.iter() {
            if name.ends_with("new-secret") || name.ends_with("old-secret") {
                let passphrase = secrets.get(value)?.bytes();
                options.set(name, String::from_utf8_lossy(passphrase));
            } else {
                options.set(name, value);
            }
        }
        Ok(options)
    }
}

fn list(face: &Face, format: &str) -> Outcome {
    let driver = amendable(format)?;
    face.print(&format!(
        "Amend options for '{}':\n{}",
        driver.name,
        options::help(driver.amend_options)
    ));
    Ok(DONE)
}
