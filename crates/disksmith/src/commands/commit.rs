//! `commit`: put what an image holds into the image it stands on.

use disksmith_disk::{Error, Kind};
use disksmith_formats::OpenMode;
use disksmith_host::LockSet;
use disksmith_open::{ImageSpec, Node, resolve};
use disksmith_operations::{CommitRequest, commit};
use serde_json::json;

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome, refuse};
use crate::progress::{Telling, Watch};
use crate::render::json::pretty;

/// The arguments of `commit`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Commit {
    #[command(flatten)]
    pub source: Source,
    /// The image in the chain that takes the data, if it is not the next one
    #[arg(short, long, value_name = "FILE")]
    pub base: Option<String>,
    /// Do not empty the image afterwards
    #[arg(short, long)]
    pub drop: bool,
    /// Cache mode
    #[arg(short = 't', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// At most so many bytes per second
    #[arg(short, long, value_name = "BYTES")]
    pub rate: Option<String>,
    #[command(flatten)]
    pub telling: Telling,
    #[command(flatten)]
    pub form: Form,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Commit {
    const NAME: &'static str = "commit";
    const ABOUT: &'static str = "Put what an image holds into the image it stands on";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let rate = self.rate.as_deref();
        let rate = rate.map(|text| crate::numbers::size(face, "rate limit", text)).transpose()?;
        let purpose = Purpose::new(OpenMode::Write).cached(self.cache.as_deref())?;
        let top = self.source.open(face, &self.image, purpose)?;
        let (depth, base) = self.base(face, &top)?;
        // The chain holds the base for reading; nobody else may get in between.
        let base = self.open_base(base, purpose)?;
        let watch = Watch::new(face, self.telling.progress(face));
        let result = commit(
            &CommitRequest {
                top: &top,
                base: &*base.image,
                base_depth: depth,
                keep_overlay: self.drop || self.base.is_some(),
                rate,
            },
            &watch,
        );
        watch.finish();
        result?;
        base.close()?;
        top.close()?;
        if json {
            let emptied = !(self.drop || self.base.is_some());
            face.print(&pretty(&json!({
                "filename": self.image,
                "base": base.filename(),
                "emptied": emptied,
            })));
        } else if !self.telling.quiet {
            face.print("Image committed.\n");
        }
        Ok(DONE)
    }
}

impl Commit {
    /// How far below the top the base lies, and the base.
    fn base<'a>(&self, face: &Face, top: &'a Node) -> Result<(usize, &'a Node), Failure> {
        let Some(wanted) = &self.base else {
            return match top.chain().nth(1) {
                Some(base) => Ok((1, base)),
                None => refuse("Image does not have a backing file"),
            };
        };
        match find_in_chain(face, top, wanted) {
            Some(found) => Ok(found),
            None => Err(Error::new(
                Kind::NotFound,
                format!("Did not find '{wanted}' in the backing chain of '{}'", top.filename()),
            )
            .into()),
        }
    }

    fn open_base(&self, base: &Node, purpose: Purpose) -> Result<Node, Failure> {
        let Some(path) = &base.path else { return refuse("the base is no file") };
        if let Some(file) = &base.file {
            file.lock(LockSet::NONE)?;
        }
        if let Some((_, data)) = &base.data_file {
            data.lock(LockSet::NONE)?;
        }
        let shown = path.to_string_lossy().into_owned();
        let mut spec = ImageSpec::from_path(path, &shown, Some(base.image.format()));
        spec.options = base.spec.options.clone();
        spec.backing = base.spec.backing.clone();
        spec.data_file = base.spec.data_file.clone();
        Ok(disksmith_open::open(&spec, &self.source.settings(purpose)?)?)
    }
}

/// The image below `top` that `name` means: by the name its overlay gives it, by its path
/// as resolved, or by being the same file. Relative names are meant from the overlay, as images
/// mean them; the native face looks from the working directory too.
pub(crate) fn find_in_chain<'a>(
    face: &Face,
    top: &'a Node,
    name: &str,
) -> Option<(usize, &'a Node)> {
    let from_here = !face.drop_in || name.starts_with('/');
    let same = |path: &std::path::Path| std::fs::canonicalize(path).ok();
    let mut above = top;
    for (depth, node) in top.chain().enumerate().skip(1) {
        let named = above.image.backing().map(|backing| backing.name);
        let resolved = above.path.as_deref().map(|path| resolve(path, name));
        let path = node.path.as_deref();
        if named.as_deref() == Some(name)
            || from_here && path.is_some_and(|path| path == std::path::Path::new(name))
            || path.is_some() && path == resolved.as_deref()
            || path.and_then(same).is_some_and(|path| {
                Some(&path) == resolved.as_deref().and_then(same).as_ref()
                    || from_here && Some(&path) == same(std::path::Path::new(name)).as_ref()
            })
        {
            return Some((depth, node));
        }
        above = node;
    }
    None
}
