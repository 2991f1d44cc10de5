//! Files inside images: opening them by address, and what all file verbs share.

use std::path::PathBuf;
use std::sync::Arc;

use disksmith_disk::{Context, Error, Kind, Result, names};
use disksmith_filesystems::{Attributes, FileKind, Filesystem, errors, resolve};
use disksmith_formats::OpenMode;
use disksmith_open::{
    Address, Locking, Node, OpenedDisk, Settings, open_disk, open_filesystem, part_of,
};

use crate::commands::common::{Keys, Purpose, Source};
use crate::face::{DONE, FAILED, Face, Failure, Outcome};

pub(crate) mod copy;
pub(crate) mod host;
pub(crate) mod look;
pub(crate) mod mode;
pub(crate) mod show;
pub(crate) mod tar;
pub(crate) mod walk;

/// How the images of file verbs are to be opened.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Access {
    /// Format of the images; told from their content when not given
    #[arg(long, value_name = "FMT")]
    pub format: Option<String>,
    #[command(flatten)]
    pub keys: Keys,
    /// Refuse images that refer to other files (backing file, data file)
    #[arg(long)]
    pub untrusted: bool,
    /// Read even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
}

impl Access {
    /// The address that `text` is.
    pub(crate) fn address(&self, text: &str) -> Address {
        Address::parse(text).with_format(self.format.as_deref())
    }

    pub(crate) fn settings(&self, write: bool) -> Result<Settings, Failure> {
        let source = Source {
            format: self.format.clone(),
            image_opts: false,
            keys: self.keys.clone(),
            untrusted: self.untrusted,
        };
        source.settings(match write {
            true => Purpose { locking: Locking::Serve, ..Purpose::new(OpenMode::Write) },
            false => Purpose::new(OpenMode::Read).shared(self.force_share),
        })
    }

    fn image(&self, address: &Address, write: bool, shared: bool) -> Result<OpenedDisk, Failure> {
        let force_share = self.force_share || shared;
        let access = Self { force_share, ..self.clone() };
        Ok(open_disk(address, &access.settings(write)?)?)
    }
}

/// An open filesystem of an image.
pub(crate) struct Guest {
    /// Which one, as the user named it.
    pub(crate) name: String,
    /// The same under other names.
    also: Vec<String>,
    pub(crate) tree: Arc<dyn Filesystem>,
    opened: OpenedDisk,
    /// The image; see [`image_of`].
    image: (PathBuf, Option<String>),
    write: bool,
}

impl Guest {
    /// The file that `path` names; symlinks are followed inside the filesystem, the last one
    /// only if `follow`.
    pub(crate) fn find(&self, path: &str, follow: bool) -> Result<Attributes> {
        resolve(&*self.tree, &names::to_bytes(path), follow)
            .with_context(|| format!("'{}:{path}'", self.name))
    }

    /// The directory in which `path` lies, and its last name.
    pub(crate) fn parent(&self, path: &str) -> Result<(u64, Vec<u8>)> {
        let (folder, name) = split(path);
        let attempt = || format!("'{}:{path}'", self.name);
        if name.is_empty() || name == ".." || name == "." {
            return Err(Error::new(Kind::InvalidInput, "this name cannot be made or removed")
                .context(attempt()));
        }
        let found = self.find(folder, true)?;
        match found.kind {
            FileKind::Directory => Ok((found.inode, names::to_bytes(name).into_owned())),
            _ => Err(errors::not_a_directory().context(attempt())),
        }
    }
}

/// A path's folder and last name; slashes at its end do not count.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    match path.rsplit_once('/') {
        Some((folder, name)) => (if folder.is_empty() { "/" } else { folder }, name),
        None => ("/", path),
    }
}

/// Filesystems that one command works on; each is opened once, and each image.
pub(crate) struct Guests<'a> {
    access: &'a Access,
    /// Those that are to be changed.
    writable: Vec<Address>,
    open: Vec<Guest>,
}

impl<'a> Guests<'a> {
    /// None is open yet. `writable`: the addresses that will be written to.
    pub(crate) fn new(access: &'a Access, writable: &[&Address]) -> Self {
        let writable = writable.iter().map(|address| filesystem_of(address)).collect();
        Self { access, writable, open: Vec::new() }
    }

    /// The number of the filesystem that an address means.
    pub(crate) fn open(&mut self, address: &Address) -> Result<usize, Failure> {
        let address = filesystem_of(address);
        let name = address.disk_name();
        let known = |guest: &Guest| guest.name == name || guest.also.contains(&name);
        if let Some(at) = self.open.iter().position(known) {
            return Ok(at);
        }
        let opened = self.disk(&address)?;
        let same = |guest: &Guest| {
            Arc::ptr_eq(&guest.opened.node, &opened.node) && guest.opened.start == opened.start
        };
        if let Some(at) = self.open.iter().position(same) {
            self.open[at].also.push(name);
            return Ok(at);
        }
        let write = self.writable_on(&address).any(|other| {
            *other == address
                || part_of(opened.node.clone(), other).is_ok_and(|part| part.start == opened.start)
        });
        let tree = open_filesystem(&opened.disk, &opened.shown, !write)?;
        let (also, image) = (Vec::new(), image_of(&address));
        self.open.push(Guest { name, also, tree, opened, image, write });
        Ok(self.open.len() - 1)
    }

    /// The part of an image that an address means; an image that is open is not opened again.
    fn disk(&self, address: &Address) -> Result<OpenedDisk, Failure> {
        let image = image_of(address);
        match self.open.iter().find(|guest| guest.image == image) {
            Some(guest) => Ok(part_of(guest.opened.node.clone(), address)?),
            None => {
                let write = self.writable_on(address).next().is_some();
                self.access.image(address, write, self.is_snapshot_of_written(address))
            }
        }
    }

    /// Whether it is a snapshot of an image that this command changes. What a snapshot holds is not
    /// changed by that, and the lock that is in the way would be our own.
    fn is_snapshot_of_written(&self, address: &Address) -> bool {
        let image = image_of(address).0;
        address.snapshot.is_some() && self.writable.iter().any(|other| image_of(other).0 == image)
    }

    /// What is to be changed on the same image.
    fn writable_on(&self, address: &Address) -> impl Iterator<Item = &Address> {
        let image = image_of(address);
        self.writable.iter().filter(move |other| image_of(other) == image)
    }

    /// That one.
    pub(crate) fn get(&self, number: usize) -> &Guest {
        &self.open[number]
    }

    /// Makes everything durable and closes all; the first error is answered.
    pub(crate) fn close(self) -> Result<()> {
        let mut result = Ok(());
        let written = || self.open.iter().filter(|guest| guest.write);
        for guest in written() {
            let attempt = || format!("Could not close '{}'", guest.name);
            result = result.and(guest.tree.close().with_context(attempt));
        }
        let mut closed: Vec<&Arc<Node>> = Vec::new();
        for guest in written() {
            let node = &guest.opened.node;
            if !closed.iter().any(|other| Arc::ptr_eq(other, node)) {
                result = result.and(guest.opened.close());
                closed.push(node);
            }
        }
        result
    }
}

/// Changes the files that the addresses mean, one after the other. What fails is told, the rest
/// is done; the images are closed in any case.
pub(crate) fn change(
    face: &Face,
    access: &Access,
    texts: &[String],
    each: &mut dyn FnMut(&Guest, &str) -> Result<()>,
) -> Outcome {
    let addresses: Vec<_> = texts.iter().map(|text| access.address(text)).collect();
    let mut guests = Guests::new(access, &addresses.iter().collect::<Vec<_>>());
    let mut status = DONE;
    for address in &addresses {
        let guest = match guests.open(address) {
            Ok(guest) => guest,
            Err(failure) => {
                guests.close()?;
                return Err(failure);
            }
        };
        if let Err(error) = each(guests.get(guest), path_of(address)) {
            face.report(&error);
            status = FAILED;
        }
    }
    guests.close()?;
    Ok(status)
}

/// As [`change`], for everything that is met from a file on. `follow`: a symlink that is named
/// means what it leads to. `each` answers whether to go into a directory.
pub(crate) fn change_met(
    face: &Face,
    access: &Access,
    texts: &[String],
    follow: bool,
    each: &mut dyn FnMut(&Guest, &walk::Met<'_>) -> Result<bool>,
) -> Outcome {
    let mut failed = false;
    let status = change(face, access, texts, &mut |guest, path| {
        let start = guest.find(path, follow)?;
        let mut visit = |met: &walk::Met<'_>| match met.path {
            b"" => each(guest, met),
            below => each(guest, met).with_context(|| show::name(below)),
        };
        walk::walk(&*guest.tree, start, &mut visit, &mut |path, error| {
            face.report(&error.context(show::name(path)));
            failed = true;
        })
        .with_context(|| format!("'{}:{path}'", guest.name))
    })?;
    Ok(if failed { FAILED } else { status })
}

/// The filesystem that an address lies in.
fn filesystem_of(address: &Address) -> Address {
    let mut address = Address { path: None, ..address.clone() };
    address.part.get_or_insert_default();
    address
}

/// What tells images apart, by whatever way they are named.
fn image_of(address: &Address) -> (PathBuf, Option<String>) {
    let path = names::to_path(&address.image);
    let place = address.is_path.then(|| std::fs::canonicalize(&path).ok()).flatten();
    (place.unwrap_or_else(|| path.into_owned()), address.snapshot.clone())
}

/// The path of an address; the root when it has none.
pub(crate) fn path_of(address: &Address) -> &str {
    match address.path.as_deref() {
        None | Some("") => "/",
        Some(path) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_their_last_name() {
        assert_eq!(split("/a/b/"), ("/a", "b"));
        assert_eq!(split("/a"), ("/", "a"));
        assert_eq!(split("a"), ("/", "a"));
        assert_eq!(split("/"), ("/", ""));
    }
}
