//! `cp`: copies between host and image, or image and image.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use disksmith_disk::{Context, Error, Kind, PageBuffer, names};
use disksmith_filesystems::{
    Attributes, Changes, Device, FileKind, Filesystem, NewFile, errno, errors,
};
use disksmith_open::Address;

use super::Verb;
use super::cat::cat;
use super::chown::parse_owner;
use crate::face::{DONE, FAILED, Face, Failure, Outcome, usage};
use crate::guest::copy::{Copier, Listener, Rules};
use crate::guest::host::HostTree;
use crate::guest::{Access, Guests, path_of, show, split};
use crate::signals;

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
    /// Keep owner, mode, times and attributes
    #[arg(short, long)]
    pub preserve: bool,
    /// Copy symlinks as such, also those that are named
    #[arg(short = 'P', long, visible_short_alias = 'd')]
    pub no_dereference: bool,
    /// What is there stays
    #[arg(short, long)]
    pub no_clobber: bool,
    /// Taken for the sake of habit: what is in the way is replaced anyhow
    #[arg(short, long, hide = true)]
    pub force: bool,
    /// Name each file that is copied
    #[arg(short, long)]
    pub verbose: bool,
    /// Who owns what is new in an image, by number; without it root
    #[arg(long, value_name = "UID:GID", conflicts_with_all = ["archive", "preserve"])]
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
        let path = names::to_path(text);
        match address.is_plain() || (path.exists() && !text.contains("://")) {
            true => Operand::Host(path.into_owned()),
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
            archive: self.archive || self.preserve,
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
        let mut made = HashSet::new();
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
                    let mut stdin = std::io::stdin().lock();
                    self.fill(&*guests.get(into).tree, address, &mut stdin, None)
                }
                (Operand::Host(path), _, Operand::Guest(address), Some(into))
                    if self.is_stream(path) =>
                {
                    self.fill_from(&*guests.get(into).tree, address, path)
                }
                (Operand::Guest(from_address), Some(from), Operand::Guest(to), Some(into)) => {
                    let (source, into_guest) = (guests.get(from), guests.get(into));
                    let path = path_of(from_address);
                    let found = source.find(path, self.follows())?;
                    let folder = found.kind == FileKind::Directory;
                    let target = guest_target(&*into_guest.tree, to, several, folder)?;
                    let trees = (&*source.tree, &*into_guest.tree, from == into);
                    let name = names::to_bytes(split(path).1);
                    let teller = Teller::new(self, face);
                    self.one(teller, trees, (&found, &name), &target, &mut made)
                }
                (Operand::Guest(address), Some(from), Operand::Host(to), _) => {
                    let source = guests.get(from);
                    let path = path_of(address);
                    let found = source.find(path, self.follows())?;
                    let name = names::to_bytes(split(path).1);
                    let folder = found.kind == FileKind::Directory;
                    let (tree, target) = host_target(to, several, folder, name.is_empty())?;
                    let folder = if target.name.is_some() { folder_of(to) } else { to };
                    let teller = Teller { folder: Some(folder), ..Teller::new(self, face) };
                    let mut made = HashSet::new();
                    let trees = (&*source.tree, &tree as &dyn Filesystem, false);
                    self.one(teller, trees, (&found, &name), &target, &mut made)
                }
                (Operand::Host(path), _, Operand::Guest(to), Some(into)) => {
                    let guest = guests.get(into);
                    let (tree, found, name) = self.host_source(path)?;
                    let folder = found.kind == FileKind::Directory;
                    let target = guest_target(&*guest.tree, to, several, folder)?;
                    let trees = (&tree as &dyn Filesystem, &*guest.tree, false);
                    let teller = Teller::new(self, face);
                    self.one(teller, trees, (&found, &name), &target, &mut made)
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
        mut teller: Teller<'_>,
        (from, to, same): (&dyn Filesystem, &dyn Filesystem, bool),
        (source, name): (&Attributes, &[u8]),
        target: &Target,
        made: &mut HashSet<u64>,
    ) -> Result<(), Failure> {
        let rules = self.rules(teller.folder.is_none())?;
        let mut copier = Copier::new(from, to, same, rules, made, &mut teller);
        match (&target.name, name) {
            (Some(name), _) => copier.copy(source, target.directory, name),
            // The root of a filesystem has no name: what is in it is copied.
            (None, b"") => copier.copy_content(source, target.directory),
            (None, name) => copier.copy(source, target.directory, name),
        }
        .with_context(|| format!("'{}'", show::name(name)))?;
        match teller.failed {
            true => Err(Failure::Status(FAILED)),
            false => Ok(()),
        }
    }

    /// A folder of the host, and the file in it that is meant.
    fn host_source(&self, path: &Path) -> Result<(HostTree, Attributes, Vec<u8>), Failure> {
        use std::os::unix::ffi::OsStrExt;
        let attempt = || format!("'{}'", path.display());
        let followed = match self.follows() {
            false => path.to_path_buf(),
            true => std::fs::canonicalize(path).with_context(attempt)?,
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

    /// Whether a symlink that is named means what it leads to.
    fn follows(&self) -> bool {
        !self.archive && !self.recursive && !self.no_dereference
    }

    /// Whether it is the content of a pipe or device that is meant, as of `<(command)`.
    fn is_stream(&self, path: &Path) -> bool {
        let plain = |kind: std::fs::FileType| kind.is_file() || kind.is_dir();
        self.follows() && std::fs::metadata(path).is_ok_and(|found| !plain(found.file_type()))
    }

    fn fill_from(&self, tree: &dyn Filesystem, to: &Address, path: &Path) -> Result<(), Failure> {
        use std::os::unix::ffi::OsStrExt;
        let attempt = || format!("Could not open '{}'", path.display());
        let mut input = File::open(path).with_context(attempt)?;
        self.fill(tree, to, &mut input, path.file_name().map(OsStrExt::as_bytes))
    }

    /// Writes what can only be read from front to end. `called`: its name in a directory.
    fn fill(
        &self,
        tree: &dyn Filesystem,
        to: &Address,
        input: &mut dyn Read,
        called: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let path = format!("'{to}'");
        let target = guest_target(tree, to, false, false)?;
        let Some(name) = target.name.or_else(|| called.map(<[u8]>::to_vec)) else {
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
        let mut at = 0;
        loop {
            let count = match input.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.with_context(|| format!("Could not read what is to be {path}"))?,
            };
            if count == 0 {
                return Ok(());
            }
            tree.write(inode, at, &buffer[..count]).with_context(|| path.clone())?;
            at += count as u64;
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Tells the user how a copying goes.
struct Teller<'a> {
    face: &'a Face,
    /// Where the copies go on the host: what is not whole when the program is stopped is removed.
    folder: Option<&'a Path>,
    verbose: bool,
    failed: bool,
}

impl<'a> Teller<'a> {
    fn new(verb: &Cp, face: &'a Face) -> Self {
        Self { face, folder: None, verbose: verb.verbose, failed: false }
    }
}

impl Teller<'_> {
    fn place(&self, path: &[u8]) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        Some(self.folder?.join(std::ffi::OsStr::from_bytes(path)))
    }
}

impl Listener for Teller<'_> {
    fn fills(&mut self, path: &[u8]) {
        if let Some(place) = self.place(path) {
            signals::unfinished(&place);
        }
    }

    fn whole(&mut self, path: &[u8]) {
        if let Some(place) = self.place(path) {
            signals::finished(&place);
        }
    }

    fn begins(&mut self, path: &[u8]) {
        if self.verbose && !path.is_empty() {
            self.face.print(&format!("{}\n", show::name(path)));
        }
    }

    fn fails(&mut self, path: &[u8], error: Error) {
        self.face.report(&error.context(format!("'{}'", show::name(path))));
        self.failed = true;
    }
}

/// An existing directory is copied into; else the name is new. `folder`: what is copied is one, so
/// that a slash behind the new name is fine.
fn guest_target(
    tree: &dyn Filesystem,
    to: &Address,
    several: bool,
    folder: bool,
) -> Result<Target, Failure> {
    let path = path_of(to);
    let resolve =
        |path: &str| disksmith_filesystems::resolve(tree, &names::to_bytes(path), true);
    match resolve(path) {
        Ok(there) if there.kind == FileKind::Directory => {
            return Ok(Target { directory: there.inode, name: None });
        }
        Ok(_) if several || path.ends_with('/') => {
            return Err(errors::not_a_directory().context(format!("'{to}'")).into());
        }
        Err(error) if several || errno(&error) != NO_ENTRY || (path.ends_with('/') && !folder) => {
            return Err(error.context(format!("'{to}'")).into());
        }
        _ => {}
    }
    let (above, name) = split(path);
    let parent = resolve(above).with_context(|| format!("'{to}'"))?;
    if parent.kind != FileKind::Directory {
        return Err(errors::not_a_directory().context(format!("'{to}'")).into());
    }
    Ok(Target { directory: parent.inode, name: Some(names::to_bytes(name).into_owned()) })
}

/// The same on the host. `content`: what has no name is copied, so the directory is made.
fn host_target(
    path: &Path,
    several: bool,
    folder: bool,
    content: bool,
) -> Result<(HostTree, Target), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let attempt = || format!("'{}'", path.display());
    if !folder && path.as_os_str().as_bytes().ends_with(b"/") && !path.is_dir() {
        let error = if path.exists() { errors::not_a_directory() } else { errors::not_found() };
        return Err(error.context(attempt()).into());
    }
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
