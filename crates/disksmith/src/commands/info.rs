//! `info`: what an image is, without opening anything that it names.

use disksmith_disk::{Error, Kind};
use disksmith_formats::OpenMode;
use disksmith_open::{Address, ImageSpec, Locking, Node, open_disk};

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::render::info::{self, ImageInfo};

/// The arguments of `info`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Info {
    #[command(flatten)]
    pub source: Source,
    /// Go on with the backing file, its backing file, and so on
    #[arg(short, long)]
    pub backing_chain: bool,
    /// Look even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image, or a part of it
    #[arg(value_name = "IMAGE[:PART]")]
    pub image: String,
}

impl Verb for Info {
    const NAME: &'static str = "info";
    const ABOUT: &'static str = "Tell what an image is: format, sizes, backing file, snapshots";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let address = Address::parse(&self.image).with_format(self.source.format.as_deref());
        if !face.drop_in && !self.source.image_opts && !address.is_plain() {
            face.print(&self.part(&address, json)?);
            return Ok(DONE);
        }
        let mut images = Vec::new();
        self.walk(face, &mut |node| {
            let mut image = ImageInfo::of(node)?;
            if !face.drop_in {
                image.add_native(node);
            }
            images.push(image);
            Ok(())
        })?;
        match (json, self.backing_chain) {
            (true, true) => face.print(&info::json_list(&images)),
            (true, false) => face.print(&images.first().map(info::json).unwrap_or_default()),
            (false, _) => info::text(&images, face.drop_in, &mut face.page()),
        }
        Ok(DONE)
    }
}

impl Info {
    /// What a part of an image, or a snapshot of it, is. To read it, all of the chain is opened.
    fn part(&self, address: &Address, json: bool) -> Result<String, Failure> {
        if address.path.is_some() {
            return usage("files are looked at with stat; info takes IMAGE[@SNAPSHOT][:PART]");
        }
        let locking = if self.force_share { Locking::Off } else { Locking::Inspect };
        let purpose = Purpose { locking, ..Purpose::new(OpenMode::Read) };
        let opened = open_disk(address, &self.source.settings(purpose)?)?;
        Ok(info::part(&opened, json))
    }

    fn walk(
        &self,
        face: &Face,
        tell: &mut dyn FnMut(&Node) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let purpose = Purpose {
            mode: OpenMode::Inspect,
            follow_backing: false,
            locking: if self.force_share { Locking::Off } else { Locking::Inspect },
            ..Purpose::default()
        };
        let settings = self.source.settings(purpose)?;
        let mut spec = self.source.read_spec(face, &self.image)?;
        let mut seen = Vec::new();
        loop {
            let node = match disksmith_open::open(&spec, &settings) {
                Ok(node) => node,
                Err(error) if error.kind() == Kind::InUse && !face.drop_in => {
                    return Err(error.with_hint("Look at it all the same with -U.").into());
                }
                Err(error) => return Err(error.into()),
            };
            let id = node.file.as_ref().map(|file| file.id()).transpose()?;
            if id.is_some() && seen.contains(&id) {
                let name = spec.shown;
                return Err(Error::new(
                    Kind::Corrupt,
                    format!("Backing file '{name}' creates an infinite loop."),
                )
                .into());
            }
            seen.push(id);
            if seen.len() > disksmith_open::MAX_CHAIN {
                return Err(Error::new(Kind::LimitExceeded, "the backing chain is too long").into());
            }
            tell(&node)?;
            match self.next(&node)? {
                Some(next) => spec = next,
                None => return Ok(()),
            }
        }
    }

    /// The image under `node`, if it is to be shown too.
    fn next(&self, node: &Node) -> Result<Option<ImageSpec>, Failure> {
        let Some(backing) = node.image.backing().filter(|_| self.backing_chain) else {
            return Ok(None);
        };
        if self.source.untrusted {
            return Err(Error::new(
                Kind::Refused,
                format!("the image refers to the backing file '{}', which an untrusted image may not", backing.name),
            )
            .into());
        }
        Ok(Some(node.backing_spec()?))
    }
}
