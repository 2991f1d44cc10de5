//! `cp`: copies between host and image, or image and image.

use std::io::Read;
use std::path::{Path, PathBuf};

use disksmith_disk::{Context, Error, Kind, PageBuffer};
use disksmith_filesystems::{
    Attributes, Changes, Device, FileKind, Filesystem, NewFile, errno, errors,
};
use disksmith_open::Address;

use super::Verb;
use super::cat::cat;
use super::chown::parse_owner;
use crate::face::{DONE, FAILED, Face, Failure, Outcome, usage};
use crate::guest::copy::{Copier, Rules};
use crate::guest::host::HostTree;
use crate::guest::{Access, Guests, path_of, show, split};

/// `ENOENT`.
const NO_ENTRY: i32 = 2;

/// The arguments of `cp`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Cp {
    #[command(flatten)]
    pub access: Access,
    /// Keep everything: owner, mode, times, attributes, links, holes, devices; with directories
    #[arg(short, long)]
    pub archive: bool,
    /// Directories with all that is in them
    #[arg(short, long, visible_short_alias = 'R')]
    pub recursive: bool,
    /// What is there stays
    #[arg(short, long)]
    pub no_clobber: bool,
    /// Who owns what is new in an image, by number; without it root
    #[arg(long, value_name = "UID:GID", conflicts_with = "archive")]
    pub owner: Option<String>,
    /// Sources, then the target: IMAGE:PART:PATH, a path of this machine, or - for stdin, stdout
    #[arg(value_name = "PATH|ADDRESS", required = true, num_args = 2..)]
    pub operands: Vec<String>,
}

/// What an operand names.
#[derive(Clone, Debug)]
enum Operand {
    Guest(Address),
    Host(PathBuf),
    Stream,
}

/// Where copies go: a directory, and the name there if it is given.
struct Target {
    directory: u64,
    name: Option<Vec<u8>>,
}

impl Verb for Cp {
    const NAME: &'static str = "cp";
    const ABOUT: &'static str = "Copy files into, out of and between images";

    fn run(self, face: &Face) -> Outcome {
        let operands: Vec<_> = self.operands.iter().map(|text| self.operand(text)).collect();
        let Some((target, sources)) = operands.split_last().filter(|(_, s)| !s.is_empty()) else {
            return usage("say cp SOURCE … TARGET");
        };
        let writable: Vec<&Address> = match target {
            Operand::Guest(address) => vec![address],
            _ => Vec::new(),
        };
        let mut guests = Guests::new(&self.access, &writable);
        let result = self.all(face, &mut guests, sources, target);
        let closed = guests.close();
        let status = result?;
        closed?;
        Ok(status)
    }
}

impl Cp {
    /// With a colon (or an `@`) behind the name of an image it is an address, else a path.
    fn operand(&self, text: &str) -> Operand {
        if text == "-" {
            return Operand::Stream;
        }
        let address = self.access.address(text);
        match address.is_plain() || (Path::new(text).exists() && !text.contains("://")) {
            true => Operand::Host(text.into()),
            false => Operand::Guest(address),
        }
    }

    fn rules(&self, to_image: bool) -> Result<Rules, Failure> {
        let (uid, gid) = match &self.owner {
            Some(text) => parse_owner(text)?,
            None => (None, None),
        };
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        Ok(Rules {
            recursive: self.recursive || self.archive,
            archive: self.archive,
            no_clobber: self.no_clobber,
            owner: (uid.unwrap_or(0), gid.unwrap_or(0)),
            // The host's habits are no business of a guest's files.
            umask: if to_image { 0 } else { umask.as_raw_mode() as u16 & 0o777 },
        })
    }

    fn all(
        &self,
        face: &Face,
        guests: &mut Guests<'_>,
        sources: &[Operand],
        target: &Operand,
    ) -> Outcome {
        let several = sources.len() > 1;
        let into = match target {
            Operand::Guest(address) => Some(guests.open(address)?),
            Operand::Host(_) | Operand::Stream => None,
        };
        let mut status = DONE;
        for source in sources {
            let from = match source {
                Operand::Guest(address) => Some(guests.open(address)?),
                _ => None,
            };
            let done = match (source, from, target, into) {
                (Operand::Guest(address), Some(from), Operand::Stream, _) => {
                    cat(guests.get(from), path_of(address), &mut std::io::stdout())
                        .map_err(Failure::from)
                }
                (Operand::Stream, _, Operand::Guest(address), Some(into)) => {
                    self.fill_from_stdin(&*guests.get(into).tree, path_of(address))
                }
                (Operand::Guest(from_address), Some(from), Operand::Guest(to), Some(into)) => {
                    let (source, into_guest) = (guests.get(from), guests.get(into));
                    let path = path_of(from_address);
                    let found = source.find(path, !self.archive && !self.recursive)?;
                    let target = guest_target(&*into_guest.tree, path_of(to), several)?;
                    let trees = (&*source.tree, &*into_guest.tree, from == into);
                    self.one(face, trees, (&found, split(path).1.as_bytes()), &target, true)
                }
                (Operand::Guest(address), Some(from), Operand::Host(to), _) => {
                    let source = guests.get(from);
                    let path = path_of(address);
                    let found = source.find(path, !self.archive && !self.recursive)?;
                    let name = split(path).1.as_bytes();
                    let (tree, target) = host_target(to, several, name.is_empty())?;
                    self.one(face, (&*source.tree, &tree, false), (&found, name), &target, false)
                }
                (Operand::Host(path), _, Operand::Guest(to), Some(into)) => {
                    let guest = guests.get(into);
                    let (tree, found, name) = self.host_source(path)?;
                    let target = guest_target(&*guest.tree, path_of(to), several)?;
                    self.one(face, (&tree, &*guest.tree, false), (&found, &name), &target, true)
                }
                _ => usage("one of source and target must lie in an image (IMAGE:PART:PATH)"),
            };
            match done {
                Ok(()) => {}
                Err(Failure::Status(worse)) => status = worse,
                Err(Failure::Error(error)) => {
                    face.report(&error);
                    status = FAILED;
                }
                Err(other) => return Err(other),
            }
        }
        Ok(status)
    }

    fn one(
        &self,
        face: &Face,
        (from, to, same): (&dyn Filesystem, &dyn Filesystem, bool),
        (source, name): (&Attributes, &[u8]),
        target: &Target,
        to_image: bool,
    ) -> Result<(), Failure> {
        let mut failed = false;
        let mut fail = |path: &[u8], error: Error| {
            face.report(&error.context(show::name(path)));
            failed = true;
        };
        let mut copier = Copier::new(from, to, same, self.rules(to_image)?, &mut fail);
        match (&target.name, name) {
            (Some(name), _) => copier.copy(source, target.directory, name),
            // The root of a filesystem has no name: what is in it is copied.
            (None, b"") => copier.copy_content(source, target.directory),
            (None, name) => copier.copy(source, target.directory, name),
        }
        .with_context(|| show::name(name))?;
        match failed {
            true => Err(Failure::Status(FAILED)),
            false => Ok(()),
        }
    }

    /// A folder of the host, and the file in it that is meant.
    fn host_source(&self, path: &Path) -> Result<(HostTree, Attributes, Vec<u8>), Failure> {
        use std::os::unix::ffi::OsStrExt;
        let attempt = || format!("'{}'", path.display());
        let followed = match self.archive || self.recursive {
            true => path.to_path_buf(),
            false => std::fs::canonicalize(path).with_context(attempt)?,
        };
        // `dir/.` and `..` have no name of their own: what is in them is meant.
        let text = followed.as_os_str().as_bytes();
        let nameless = text.ends_with(b"/.") || followed.file_name().is_none();
        if nameless {
            let tree = HostTree::open(&followed).with_context(attempt)?;
            let found = tree.attributes(tree.root()).with_context(attempt)?;
            return Ok((tree, found, Vec::new()));
        }
        let name = followed.file_name().unwrap_or_default().as_bytes().to_vec();
        let tree = HostTree::open(folder_of(&followed)).with_context(attempt)?;
        let found = tree.lookup(tree.root(), &name).with_context(attempt)?;
        let name = path.file_name().map_or(name, |name| name.as_bytes().to_vec());
        Ok((tree, found, name))
    }

    fn fill_from_stdin(&self, tree: &dyn Filesystem, path: &str) -> Result<(), Failure> {
        let target = guest_target(tree, path, false)?;
        let Some(name) = target.name else {
            return Err(errors::is_a_directory().context(path).into());
        };
        let rules = self.rules(true)?;
        let file = NewFile {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: rules.owner.0,
            gid: rules.owner.1,
            device: Device::default(),
        };
        let inode = match tree.lookup(target.directory, &name) {
            Ok(there) if there.kind == FileKind::Regular => {
                let size = Some(0);
                tree.set_attributes(there.inode, &Changes { size, ..Changes::default() })?.inode
            }
            Ok(_) => return Err(errors::exists().context(path).into()),
            Err(error) if errno(&error) == NO_ENTRY => {
                tree.create(target.directory, &name, &file)?.inode
            }
            Err(error) => return Err(error.into()),
        };
        let mut buffer = PageBuffer::zeroed(1 << 20);
        let (mut input, mut at) = (std::io::stdin().lock(), 0);
        loop {
            let count = input.read(&mut buffer).context("Could not read stdin")?;
            if count == 0 {
                return Ok(());
            }
            tree.write(inode, at, &buffer[..count]).with_context(|| path.to_string())?;
            at += count as u64;
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An existing directory is copied into; else the name is new.
fn guest_target(tree: &dyn Filesystem, path: &str, several: bool) -> Result<Target, Failure> {
    let resolve = |path: &str| disksmith_filesystems::resolve(tree, path.as_bytes(), true);
    match resolve(path) {
        Ok(there) if there.kind == FileKind::Directory => {
            return Ok(Target { directory: there.inode, name: None });
        }
        Ok(_) if several || path.ends_with('/') => {
            return Err(errors::not_a_directory().context(path).into());
        }
        Err(error) if several || errno(&error) != NO_ENTRY => return Err(error.context(path).into()),
        _ => {}
    }
    let (folder, name) = split(path);
    let parent = resolve(folder).with_context(|| folder.to_string())?;
    if parent.kind != FileKind::Directory {
        return Err(errors::not_a_directory().context(folder).into());
    }
    Ok(Target { directory: parent.inode, name: Some(name.as_bytes().to_vec()) })
}

/// The same on the host. `content`: what has no name is copied, so the directory is made.
fn host_target(path: &Path, several: bool, content: bool) -> Result<(HostTree, Target), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let attempt = || format!("'{}'", path.display());
    if content && !path.exists() {
        std::fs::create_dir(path).with_context(attempt)?;
    }
    if path.is_dir() {
        let tree = HostTree::open(path).with_context(attempt)?;
        let directory = tree.root();
        return Ok((tree, Target { directory, name: None }));
    }
    let Some(name) = path.file_name().filter(|_| !several) else {
        return Err(Error::new(Kind::InvalidInput, "it is no directory").context(attempt()).into());
    };
    let tree = HostTree::open(folder_of(path)).with_context(attempt)?;
    let directory = tree.root();
    Ok((tree, Target { directory, name: Some(name.as_bytes().to_vec()) }))
}
