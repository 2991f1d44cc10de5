//! Copying trees from one filesystem to another.

use std::collections::{HashMap, HashSet};

use disksmith_disk::{Context, Error, Kind, Result};
use disksmith_filesystems::{
    Attributes, Changes, Device, FileKind, Filesystem, NewFile, Seek, errno, errors,
};

use super::walk::{entries, join};

/// Read and written at once.
const STEP: usize = 1 << 20;
/// Deepest nesting that is copied.
const MAX_DEPTH: usize = 2048;
/// `ENOENT`, `ENXIO`.
const NO_ENTRY: i32 = 2;
const NO_ADDRESS: i32 = 6;

/// What copies are to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Directories too.
    pub(crate) recursive: bool,
    /// Owner, mode, times, attributes and hard links are kept.
    pub(crate) archive: bool,
    /// What is there stays.
    pub(crate) no_clobber: bool,
    /// Who owns what is new, where owners are not kept.
    pub(crate) owner: (u32, u32),
    /// Permissions that what is new does not get, where they are not kept.
    pub(crate) umask: u16,
}

/// Who hears of a copying, as it goes on.
pub(crate) trait Listener {
    /// A file, by its path, is about to be copied.
    fn begins(&mut self, path: &[u8]);
    /// A new file is made, and filled until it is [`whole`](Self::whole) or gone.
    fn fills(&mut self, path: &[u8]);
    /// The new file is whole, or gone.
    fn whole(&mut self, path: &[u8]);
    /// This could not be copied; the rest is.
    fn fails(&mut self, path: &[u8], error: Error);
}

/// One copying.
pub(crate) struct Copier<'a> {
    pub(crate) from: &'a dyn Filesystem,
    pub(crate) to: &'a dyn Filesystem,
    /// Both are one filesystem.
    pub(crate) same: bool,
    pub(crate) rules: Rules,
    /// Copies of files with several names.
    links: HashMap<u64, u64>,
    /// Files of the target that came from this command. One of them is never overwritten by the
    /// next: where `Case` and `case` are one name, that would silently lose a file.
    made: &'a mut HashSet<u64>,
    listener: &'a mut dyn Listener,
    buffer: Vec<u8>,
}

impl<'a> Copier<'a> {
    /// Nothing is copied yet.
    pub(crate) fn new(
        from: &'a dyn Filesystem,
        to: &'a dyn Filesystem,
        same: bool,
        rules: Rules,
        made: &'a mut HashSet<u64>,
        listener: &'a mut dyn Listener,
    ) -> Self {
        let (links, buffer) = (HashMap::new(), Vec::new());
        Self { from, to, same, rules, links, made, listener, buffer }
    }

    /// Copies `source` into `directory` under `name`.
    pub(crate) fn copy(&mut self, source: &Attributes, directory: u64, name: &[u8]) -> Result<()> {
        if self.same && source.kind == FileKind::Directory {
            self.refuse_inside(source.inode, directory)?;
        }
        self.any(source, directory, name, name, 0)
    }

    /// Copies what is in the directory `source` into `directory`, which is there.
    pub(crate) fn copy_content(&mut self, source: &Attributes, directory: u64) -> Result<()> {
        if self.same {
            self.refuse_inside(source.inode, directory)?;
        }
        self.children(source, directory, b"", 0)?;
        match self.rules.archive {
            true => self.keep(source, directory),
            false => Ok(()),
        }
    }

    fn refuse_inside(&self, source: u64, directory: u64) -> Result<()> {
        let mut at = directory;
        for _ in 0..MAX_DEPTH {
            if at == source {
                return Err(Error::new(
                    Kind::InvalidInput,
                    "a directory cannot be copied into itself",
                ));
            }
            if at == self.to.root() {
                return Ok(());
            }
            at = self.to.lookup(at, b"..")?.inode;
        }
        Err(errors::too_many_symlinks())
    }

    fn any(
        &mut self,
        source: &Attributes,
        directory: u64,
        name: &[u8],
        shown: &[u8],
        depth: usize,
    ) -> Result<()> {
        let there = match self.to.lookup(directory, name) {
            Ok(there) => Some(there),
            Err(error) if errno(&error) == NO_ENTRY => None,
            Err(error) => return Err(error),
        };
        if source.kind == FileKind::Directory {
            return self.directory(source, directory, (name, shown), there, depth);
        }
        if let Some(there) = there {
            if self.rules.no_clobber {
                return Ok(());
            }
            if self.same && there.inode == source.inode {
                return Err(Error::new(Kind::InvalidInput, "source and target are the same file"));
            }
            if there.kind == FileKind::Directory {
                return Err(errors::is_a_directory());
            }
            if self.made.contains(&there.inode) {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    "another file was just copied to this name, and would be overwritten",
                ));
            }
            self.special(source, depth)?;
            let in_place = there.kind == FileKind::Regular
                && source.kind == FileKind::Regular
                && !self.rules.archive;
            self.listener.begins(shown);
            if in_place {
                self.made.insert(there.inode);
                let empty = Changes { size: Some(0), ..Changes::default() };
                self.to.set_attributes(there.inode, &empty)?;
                return self.content(source, there.inode);
            }
            self.to.unlink(directory, name)?;
        } else {
            self.special(source, depth)?;
            self.listener.begins(shown);
        }
        if source.kind != FileKind::Regular {
            return self.file(source, directory, name);
        }
        self.listener.fills(shown);
        let made = self.file(source, directory, name);
        self.listener.whole(shown);
        made
    }

    /// What a device or pipe would give is nothing that an image can tell.
    fn special(&self, source: &Attributes, depth: usize) -> Result<()> {
        let plain = matches!(source.kind, FileKind::Regular | FileKind::Symlink);
        if plain || depth > 0 || self.rules.recursive {
            return Ok(());
        }
        let kind = super::show::kind(source.kind);
        Err(Error::new(
            Kind::InvalidInput,
            format!("it is a {kind}; copy it as such with -r or -a"),
        ))
    }

    fn directory(
        &mut self,
        source: &Attributes,
        directory: u64,
        (name, shown): (&[u8], &[u8]),
        there: Option<Attributes>,
        depth: usize,
    ) -> Result<()> {
        if !self.rules.recursive {
            return Err(Error::new(Kind::InvalidInput, "it is a directory; copy it with -r or -a"));
        }
        if depth >= MAX_DEPTH {
            return Err(Error::new(Kind::LimitExceeded, "directories are nested too deeply"));
        }
        self.listener.begins(shown);
        let (target, new) = match there {
            Some(there) if there.kind == FileKind::Directory => (there.inode, false),
            Some(_) => return Err(errors::exists()),
            None => {
                let made = self.to.create(directory, name, &self.new_file(source, 0o700));
                (made.context("Could not create it")?.inode, true)
            }
        };
        self.children(source, target, shown, depth)?;
        match (self.rules.archive, new) {
            (true, _) => self.keep(source, target),
            (false, true) => {
                let mode = Some(source.mode & 0o777 & !self.rules.umask);
                self.to.set_attributes(target, &Changes { mode, ..Changes::default() }).map(drop)
            }
            (false, false) => Ok(()),
        }
    }

    fn children(
        &mut self,
        source: &Attributes,
        target: u64,
        shown: &[u8],
        depth: usize,
    ) -> Result<()> {
        for entry in entries(self.from, source.inode).context("Could not read it")? {
            let shown = join(shown, &entry.name);
            let copied = self
                .from
                .attributes(entry.inode)
                .and_then(|child| self.any(&child, target, &entry.name, &shown, depth + 1));
            if let Err(error) = copied {
                // A full target stays full.
                if error.kind() == Kind::OutOfSpace {
                    return Err(error);
                }
                self.listener.fails(&shown, error);
            }
        }
        Ok(())
    }

    /// Anything but a directory, where nothing is.
    fn file(&mut self, source: &Attributes, directory: u64, name: &[u8]) -> Result<()> {
        let shared = self.rules.archive && source.links > 1 && self.to.posix();
        if let Some(copy) = self.links.get(&source.inode).filter(|_| shared) {
            return self.to.link(*copy, directory, name).map(drop);
        }
        let made = match source.kind {
            FileKind::Symlink => {
                let target = self.from.read_link(source.inode)?;
                let (uid, gid) = self.owner(source);
                self.to
                    .symlink(directory, name, &target, uid, gid)
                    .context("Could not create it")?
            }
            _ => {
                let mode = if self.rules.archive {
                    0o600
                } else {
                    source.mode & 0o777 & !self.rules.umask
                };
                let file = self.new_file(source, mode);
                self.to.create(directory, name, &file).context("Could not create it")?
            }
        };
        self.made.insert(made.inode);
        if shared {
            self.links.insert(source.inode, made.inode);
        }
        if source.kind == FileKind::Regular
            && let Err(error) = self.content(source, made.inode)
        {
            // Half a file is worse than none. That this fails too would be no news.
            let _ = self.to.unlink(directory, name);
            self.made.remove(&made.inode);
            self.links.remove(&source.inode);
            return Err(error);
        }
        match self.rules.archive {
            true => self.keep(source, made.inode),
            false => Ok(()),
        }
    }

    fn owner(&self, source: &Attributes) -> (u32, u32) {
        match self.rules.archive {
            true => (source.uid, source.gid),
            false => self.rules.owner,
        }
    }

    fn new_file(&self, source: &Attributes, mode: u16) -> NewFile {
        let (uid, gid) = self.owner(source);
        let device = if source.kind.is_device() { source.device } else { Device::default() };
        NewFile { kind: source.kind, mode, uid, gid, device }
    }

    /// Copies the data of a regular file into an empty one; holes stay holes.
    fn content(&mut self, source: &Attributes, target: u64) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(STEP, 0);
        let result = self.data(source, target, &mut buffer);
        self.buffer = buffer;
        let end = result?;
        if end < source.size {
            let size = Some(source.size);
            self.to.set_attributes(target, &Changes { size, ..Changes::default() })?;
        }
        Ok(())
    }

    /// Answers where what was written ends.
    fn data(&self, source: &Attributes, target: u64, buffer: &mut [u8]) -> Result<u64> {
        // FAT and exFAT have no holes: a file that had some holds zeroes there.
        let leave_zeroes = !self.from.posix() && self.to.posix();
        let (mut end, mut written) = (0, 0);
        while end < source.size {
            let data = match self.from.seek(source.inode, end, Seek::Data) {
                Ok(data) => data,
                Err(error) if errno(&error) == NO_ADDRESS => break,
                Err(error) => return Err(error),
            };
            let hole = self.from.seek(source.inode, data, Seek::Hole)?;
            let mut at = data;
            while at < hole {
                let want = buffer.len().min(usize::try_from(hole - at).unwrap_or(usize::MAX));
                let part = &mut buffer[..want];
                let count = self.from.read(source.inode, at, part).context("Could not read")?;
                if count == 0 {
                    return Ok(written);
                }
                if !leave_zeroes || part[..count].iter().any(|byte| *byte != 0) {
                    self.to.write(target, at, &part[..count]).context("Could not write")?;
                    written = at + count as u64;
                }
                at += count as u64;
            }
            if at <= end {
                break;
            }
            end = at;
        }
        Ok(written)
    }

    /// Gives the copy all that the original has besides content.
    fn keep(&mut self, source: &Attributes, target: u64) -> Result<()> {
        let times = Changes {
            accessed: Some(source.accessed),
            modified: Some(source.modified),
            ..Changes::default()
        };
        let posix = self.to.posix();
        let who = Changes {
            uid: posix.then_some(source.uid),
            gid: posix.then_some(source.gid),
            mode: (source.kind != FileKind::Symlink).then_some(source.mode),
            ..Changes::default()
        };
        self.to.set_attributes(target, &who).context("Could not set owner and mode")?;
        // After the owner, whose change would drop capabilities; before the times.
        let names = if posix { self.from.xattrs(source.inode)? } else { Vec::new() };
        for name in names {
            let value = self.from.xattr(source.inode, &name)?;
            self.to.set_xattr(target, &name, &value, None).map_err(|error| {
                let attempt = format!("Could not set attribute {}", super::show::name(&name));
                // One value that is too large for its inode does not mean a full filesystem.
                match error.kind() {
                    Kind::OutOfSpace => error.with_kind(Kind::LimitExceeded).context(attempt),
                    _ => error.context(attempt),
                }
            })?;
        }
        self.to.set_attributes(target, &times).context("Could not set times")?;
        Ok(())
    }
}
