//! `bitmap`: add, remove, clear, switch and merge persistent dirty bitmaps.

use disksmith_disk::{Error, Kind};
use disksmith_formats::{Image, OpenMode};
use disksmith_open::{ImageSpec, Node, Settings};

use super::Verb;
use super::common::{Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome, refuse};

/// The arguments of `bitmap`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Bitmap {
    #[command(flatten)]
    pub source: Source,
    /// Add the bitmap
    #[arg(long, overrides_with = "add")]
    pub add: bool,
    /// Remove it
    #[arg(long)]
    pub remove: bool,
    /// Mark everything clean in it
    #[arg(long)]
    pub clear: bool,
    /// Record changes from now on
    #[arg(long)]
    pub enable: bool,
    /// Stop recording
    #[arg(long)]
    pub disable: bool,
    /// Mark dirty in it what is dirty in this one
    #[arg(long, value_name = "BITMAP")]
    pub merge: Vec<String>,
    /// Bytes per bit of an added bitmap
    #[arg(short, long, value_name = "SIZE")]
    pub granularity: Option<String>,
    /// The image that holds the bitmap to merge from
    #[arg(short = 'b', long, value_name = "FILE")]
    pub source_file: Option<String>,
    /// Format of that image
    #[arg(short = 'F', long, value_name = "FMT")]
    pub source_format: Option<String>,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The name of the bitmap
    #[arg(value_name = "BITMAP")]
    pub bitmap: String,
    /// The actions in the order given, where the caller knows it
    #[arg(skip)]
    pub ordered: Vec<Action>,
}

/// What to do with a bitmap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Add,
    Remove,
    Clear,
    Enable,
    Disable,
    Merge(String),
}

impl Action {
    fn word(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Clear => "clear",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Merge(_) => "merge",
        }
    }
}

impl Verb for Bitmap {
    const NAME: &'static str = "bitmap";
    const ABOUT: &'static str = "Change the persistent dirty bitmaps of an image";

    fn run(self, face: &Face) -> Outcome {
        let actions = self.actions();
        if actions.is_empty() {
            return refuse("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
        }
        let granularity = self
            .granularity
            .as_deref()
            .map(|text| crate::numbers::bounded(face, "granularity", text, 1, i64::MAX as u64))
            .transpose()?;
        if granularity.is_some() && !actions.contains(&Action::Add) {
            return refuse("granularity only supported with --add");
        }
        if self.source_format.is_some() && self.source_file.is_none() {
            return refuse("-F only supported with -b");
        }
        let merges = actions.iter().any(|action| matches!(action, Action::Merge(_)));
        if self.source_file.is_some() && !merges {
            return refuse("Merge bitmap source file only supported with --merge");
        }
        let purpose = Purpose { follow_backing: false, ..Purpose::new(OpenMode::Write) };
        let node = self.source.open(face, &self.image, purpose)?;
        let other = self.other(face)?;
        for action in &actions {
            let from = other.as_ref().map_or(&*node.image, |node| &*node.image);
            act(&*node.image, from, &self.bitmap, action, granularity).map_err(|error| {
                error.context(format!("Operation {} on bitmap {} failed", action.word(), self.bitmap))
            })?;
        }
        node.close()?;
        Ok(DONE)
    }
}

impl Bitmap {
    /// In the order given, or else in one that makes sense of several.
    fn actions(&self) -> Vec<Action> {
        if !self.ordered.is_empty() {
            return self.ordered.clone();
        }
        let flags = [
            (self.remove, Action::Remove),
            (self.add, Action::Add),
            (self.clear, Action::Clear),
            (self.enable, Action::Enable),
            (self.disable, Action::Disable),
        ];
        let mut list: Vec<_> = flags.into_iter().filter(|(given, _)| *given).map(|(_, a)| a).collect();
        list.extend(self.merge.iter().cloned().map(Action::Merge));
        list
    }

    fn other(&self, face: &Face) -> Result<Option<Node>, Failure> {
        let Some(name) = &self.source_file else { return Ok(None) };
        let spec = ImageSpec::from_name(name, self.source_format.as_deref())?;
        let source = Source { image_opts: false, ..self.source.clone() };
        // Its bitmaps are wanted, not its content. What it stands on may be the image that is
        // being written.
        let settings = Settings {
            follow_backing: false,
            ..source.settings(Purpose::new(OpenMode::Read))?
        };
        let node = disksmith_open::open(&spec, &settings)?;
        let _ = face;
        Ok(Some(node))
    }
}

fn act(
    image: &dyn Image,
    from: &dyn Image,
    name: &str,
    action: &Action,
    granularity: Option<u64>,
) -> Result<(), Error> {
    let is_there = |image: &dyn Image, name: &str| -> Result<bool, Error> {
        Ok(image.bitmaps()?.iter().any(|bitmap| bitmap.name == name))
    };
    let known = |image: &dyn Image, name: &str| match is_there(image, name)? {
        true => Ok(()),
        false => Err(Error::new(Kind::NotFound, format!("Dirty bitmap '{name}' not found"))),
    };
    if *action != Action::Add {
        known(image, name)?;
    }
    match action {
        Action::Add => {
            if granularity.is_some_and(|g| g < 512 || !g.is_power_of_two()) {
                return Err(Error::new(
                    Kind::InvalidInput,
                    "Granularity must be power of 2 and at least 512",
                ));
            }
            if is_there(image, name)? {
                return Err(Error::new(Kind::AlreadyExists, format!("Bitmap already exists: {name}")));
            }
            image.add_bitmap(name, granularity, true)
        }
        Action::Remove => image.remove_bitmap(name),
        Action::Clear => image.clear_bitmap(name),
        Action::Enable => image.enable_bitmap(name, true),
        Action::Disable => image.enable_bitmap(name, false),
        Action::Merge(source) => {
            known(from, source)?;
            image.merge_bitmap(name, &from.dirty_ranges(source)?)
        }
    }
}
