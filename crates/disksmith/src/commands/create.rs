//! `create`: make an empty image, or one on top of another.

use disksmith_disk::{Disk, Error, Kind};
use disksmith_formats::{Backing, Options};
use serde_json::json;

use super::Verb;
use super::common::{Form, Keys};
use crate::face::{DONE, Face, Failure, Outcome, refuse, usage};
use crate::making::{Plan, creatable, format_of_name, join_lists, names_format, wants_help};
use crate::render::json::pretty;
use crate::render::options;

/// The arguments of `create`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Create {
    /// Format of the new image; told from the suffix of its name when not given
    #[arg(short, long, value_name = "FMT")]
    pub format: Option<String>,
    /// Options of the format, as name=value,…; "help" lists them
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Let the new image stand on this one
    #[arg(short, long, value_name = "FILE")]
    pub backing: Option<String>,
    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT")]
    pub backing_format: Option<String>,
    /// Do not open the backing file
    #[arg(short = 'u', long)]
    pub backing_unsafe: bool,
    /// Do not tell what is made
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub form: Form,
    #[command(flatten)]
    pub keys: Keys,
    /// The image to make
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Its size: 10G, 1.5T, 512M
    #[arg(value_name = "SIZE")]
    pub size: Option<String>,
}

impl Verb for Create {
    const NAME: &'static str = "create";
    const ABOUT: &'static str = "Make an empty image, or one that stands on another";

    fn run(self, face: &Face) -> Outcome {
        let lists = join_lists(&self.options)?;
        if wants_help(&self.options) {
            return self.help(face);
        }
        let Some(name) = self.image.clone() else {
            return usage("Expecting image file name");
        };
        let size = self.size.as_deref().map(|text| crate::numbers::size(face, "image size", text)).transpose()?;
        let plan = self.plan(face, &name, size, lists);
        plan.and_then(|plan| self.make(face, &plan)).map_err(|failure| match failure {
            Failure::Error(error) => Failure::Error(error.context(name)),
            other => other,
        })
    }
}

impl Create {
    fn format(&self, face: &Face) -> String {
        let guess = || match face.drop_in {
            true => None,
            false => self
                .image
                .as_deref()
                .and_then(format_of_name)
                .or(self.backing.is_some().then_some("qcow2")),
        };
        self.format.clone().unwrap_or_else(|| guess().unwrap_or("raw").to_string())
    }

    fn help(&self, face: &Face) -> Outcome {
        let driver = creatable(&self.format(face))?;
        face.print(&options::create_help(driver, self.image.is_some()));
        Ok(DONE)
    }

    fn plan(&self, face: &Face, name: &str, size: Option<u64>, options: Options) -> Result<Plan, Failure> {
        let driver = creatable(&self.format(face))?;
        let mut plan = Plan { driver, name: name.to_string(), options };
        plan.path()?;
        plan.check()?;
        if let Some(size) = size {
            if plan.options.text("size").is_some() {
                return refuse("The image size must be specified only once");
            }
            plan.options.set("size", size.to_string());
        }
        let unsupported = |what: &str| {
            Error::new(
                Kind::Unsupported,
                format!("{what} not supported for file format '{}'", driver.name),
            )
        };
        if self.backing.as_deref() == Some("") {
            return refuse("Expected backing file name, got empty string");
        }
        if let Some(backing) = &self.backing {
            if !driver.backing {
                return Err(unsupported("Backing file").into());
            }
            plan.options.set("backing_file", backing);
        }
        if let Some(format) = &self.backing_format {
            if !driver.backing {
                return Err(unsupported("Backing format").into());
            }
            plan.options.set("backing_fmt", format);
        }
        if let Some(backing) = plan.backing() {
            self.stand_on(face, &mut plan, &backing)?;
        }
        if plan.options.text("size").is_none() {
            return refuse("Image creation needs a size parameter");
        }
        Ok(plan)
    }

    /// Looks at the backing file: for its size, and that its format is what the new image says.
    fn stand_on(&self, face: &Face, plan: &mut Plan, backing: &Backing) -> Result<(), Failure> {
        if backing.name == plan.name {
            return refuse("Error: Trying to create an image with the same filename as the backing file");
        }
        let unstated = || Error::new(Kind::InvalidInput, "Backing file specified without backing format");
        if self.backing_unsafe {
            if backing.format.is_none() {
                return Err(unstated().into());
            }
            return Ok(());
        }
        let node = plan.open_backing(backing, &self.keys.secrets()?)?;
        if backing.format.is_none() {
            let detected = node.image.format();
            if face.drop_in {
                return Err(unstated().with_hint(format!("Detected format of {detected}.")).into());
            }
            plan.options.set("backing_fmt", detected);
        }
        if plan.options.text("size").is_none() {
            plan.options.set("size", node.image.size().to_string());
        }
        Ok(())
    }

    fn make(&self, face: &Face, plan: &Plan) -> Outcome {
        if let Some(format) = plan.options.text("backing_fmt")
            && !names_format(format)
        {
            return refuse(format!("Unknown backing file format '{format}'"));
        }
        let json = self.form.is_json()?;
        if !self.quiet && !json {
            let mut list = options::create_options(plan.driver);
            list.extend_from_slice(options::PROTOCOL);
            let values = options::values(&list, &plan.options)?;
            face.print(&format!("Formatting '{}', fmt={}{values}\n", plan.name, plan.driver.name));
        }
        plan.make(face, &self.keys.secrets()?)?.keep()?;
        if json {
            let mut made = json!({
                "virtual-size": plan.options.size("size")?,
                "filename": plan.name,
                "format": plan.driver.name,
            });
            if let Some(backing) = plan.backing() {
                made["backing-filename"] = backing.name.into();
                made["backing-filename-format"] = backing.format.into();
            }
            face.print(&pretty(&made));
        }
        Ok(DONE)
    }
}
