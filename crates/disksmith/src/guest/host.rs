//! A folder of the host in the shape of a filesystem, so that copying is one piece of code.
//!
//! Every step goes through the descriptor of the directory that it is in and follows no symlink:
//! nothing outside of the folder is ever read or written, whatever lies in it or is done to it
//! meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Error, Result};
use disksmith_filesystems::{
    Attributes, Changes, Device, Entry, FileKind, Filesystem, NewFile, Rename, Seek, Statistics,
    Time, errors,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;

const ROOT: u64 = 1;
/// Directories kept open.
const MAX_OPEN: usize = 128;
/// Longest list of attribute names, and longest value: the kernel's bounds.
const MAX_XATTR: usize = 65_536;
/// `tv_nsec` that leaves a time as it is.
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// A folder of the host.
#[derive(Debug)]
pub(crate) struct HostTree {
    state: Mutex<State>,
    is_root: bool,
}

#[derive(Debug)]
struct State {
    root: Arc<OwnedFd>,
    /// Number n is at n - 2; the root has none.
    nodes: Vec<(u64, Vec<u8>)>,
    numbers: HashMap<(u64, Vec<u8>), u64>,
    /// Files with several names, by device and inode.
    shared: HashMap<(u64, u64), u64>,
    open: HashMap<u64, Arc<OwnedFd>>,
}

fn failed(errno: Errno) -> Error {
    Error::from_errno(errno.raw_os_error())
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" | b"." | b".." => Err(errors::invalid()),
        name if name.contains(&b'/') || name.contains(&0) => {
            Err(errors::invalid().context("the name has a slash or a zero byte in it"))
        }
        _ => Ok(()),
    }
}

impl State {
    fn number(&mut self, parent: u64, name: &[u8]) -> u64 {
        if let Some(known) = self.numbers.get(&(parent, name.to_vec())) {
            return *known;
        }
        self.nodes.push((parent, name.to_vec()));
        let number = self.nodes.len() as u64 + 1;
        self.numbers.insert((parent, name.to_vec()), number);
        number
    }

    fn node(&self, number: u64) -> Result<(u64, Vec<u8>)> {
        let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(2));
        at.and_then(|at| self.nodes.get(at)).cloned().ok_or_else(errors::stale)
    }

    /// The directory of that number, open.
    fn directory(&mut self, number: u64) -> Result<Arc<OwnedFd>> {
        let mut way = Vec::new();
        let mut at = number;
        let mut open = loop {
            if at == ROOT {
                break self.root.clone();
            }
            if let Some(open) = self.open.get(&at) {
                break open.clone();
            }
            let (parent, name) = self.node(at)?;
            way.push((at, name));
            at = parent;
        };
        while let Some((at, name)) = way.pop() {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            let next = rustix::fs::openat(&*open, name, flags, Mode::empty()).map_err(failed)?;
            open = Arc::new(next);
            if self.open.len() >= MAX_OPEN {
                self.open.clear();
            }
            self.open.insert(at, open.clone());
        }
        Ok(open)
    }

    /// The directory that a file lies in, and its name there.
    fn place(&mut self, number: u64) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        if number == ROOT {
            return Ok((self.root.clone(), b".".to_vec()));
        }
        let (parent, name) = self.node(number)?;
        Ok((self.directory(parent)?, name))
    }
}

impl HostTree {
    /// The folder at `path`, which may be reached through symlinks: it is the user's word.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let state = State {
            root: Arc::new(root),
            nodes: Vec::new(),
            numbers: HashMap::new(),
            shared: HashMap::new(),
            open: HashMap::new(),
        };
        Ok(Self { state: Mutex::new(state), is_root: rustix::process::geteuid().is_root() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, number: u64) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        self.state().place(number)
    }

    fn child(&self, directory: u64, name: &[u8]) -> Result<Arc<OwnedFd>> {
        check_name(name)?;
        self.state().directory(directory)
    }

    fn file(&self, number: u64, flags: OFlags) -> Result<File> {
        let (folder, name) = self.place(number)?;
        // A pipe must not be waited for.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = rustix::fs::openat(&*folder, name, flags, Mode::empty()).map_err(failed)?;
        Ok(File::from(open))
    }

    /// A path by which calls that know no descriptors reach the file itself; its last name is
    /// not followed.
    fn proc_path(&self, number: u64) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        let (folder, name) = self.place(number)?;
        let mut path = format!("/proc/self/fd/{}/", folder.as_raw_fd()).into_bytes();
        path.extend(name);
        Ok((folder, path))
    }

    fn looked_up(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let number = self.state().number(directory, name);
        self.attributes(number)
    }

    fn set_owner(&self, number: u64, changes: &Changes) -> Result<bool> {
        if changes.uid.is_none() && changes.gid.is_none() {
            return Ok(true);
        }
        let (folder, name) = self.place(number)?;
        let uid = changes.uid.map(rustix::fs::Uid::from_raw);
        let gid = changes.gid.map(rustix::fs::Gid::from_raw);
        match rustix::fs::chownat(&*folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            // Who is not root cannot give files away, and does not expect it.
            Err(Errno::PERM | Errno::INVAL) if !self.is_root => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn set_mode(&self, number: u64, mode: u16) -> Result<()> {
        let (folder, name) = self.place(number)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&*folder, name, flags, Mode::empty()).map_err(failed)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&open).map_err(failed)?.st_mode).is_symlink() {
            return Ok(());
        }
        let path = format!("/proc/self/fd/{}", open.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(mode.into())).map_err(failed)
    }

    fn set_times(&self, number: u64, changes: &Changes) -> Result<()> {
        if changes.accessed.is_none() && changes.modified.is_none() {
            return Ok(());
        }
        let (folder, name) = self.place(number)?;
        let spec = |time: Option<Time>| match time {
            Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        let times = Timestamps {
            last_access: spec(changes.accessed),
            last_modification: spec(changes.modified),
        };
        rustix::fs::utimensat(&*folder, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }
}

fn kind_of(kind: FileType) -> Option<FileKind> {
    FileKind::from_mode((kind.as_raw_mode() & 0o170_000) as u16)
}

impl Filesystem for HostTree {
    fn type_name(&self) -> &'static str {
        "host"
    }

    fn label(&self) -> Vec<u8> {
        Vec::new()
    }

    fn uuid(&self) -> String {
        String::new()
    }

    fn root(&self) -> u64 {
        ROOT
    }

    fn read_only(&self) -> bool {
        false
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(Statistics::default())
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        check_name(name)?;
        self.looked_up(directory, name)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let (folder, name) = self.place(inode)?;
        let found =
            rustix::fs::statat(&*folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileKind::from_mode((found.st_mode & 0o170_000) as u16);
        let kind = kind.ok_or_else(errors::invalid)?;
        let mut number = inode;
        if kind != FileKind::Directory && found.st_nlink > 1 {
            number = *self.state().shared.entry((found.st_dev, found.st_ino)).or_insert(inode);
        }
        let time = |seconds: i64, nanoseconds: u64| Time {
            seconds,
            nanoseconds: nanoseconds.min(999_999_999) as u32,
        };
        Ok(Attributes {
            inode: number,
            kind,
            mode: (found.st_mode & 0o7777) as u16,
            links: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
            uid: found.st_uid,
            gid: found.st_gid,
            size: u64::try_from(found.st_size).unwrap_or(0),
            blocks: u64::try_from(found.st_blocks).unwrap_or(0),
            device: Device {
                major: rustix::fs::major(found.st_rdev),
                minor: rustix::fs::minor(found.st_rdev),
            },
            accessed: time(found.st_atime as i64, found.st_atime_nsec as u64),
            modified: time(found.st_mtime as i64, found.st_mtime_nsec as u64),
            changed: time(found.st_ctime as i64, found.st_ctime_nsec as u64),
            created: None,
            flags: 0,
            generation: 0,
            project: 0,
        })
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        if cookie > 0 {
            // Everything was told at once.
            return Ok(());
        }
        let open = self.state().directory(directory)?;
        for (index, entry) in Dir::read_from(&*open).map_err(failed)?.enumerate() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            let inode = match name {
                b"." | b".." => directory,
                name => self.state().number(directory, name),
            };
            let entry = Entry {
                inode,
                kind: kind_of(entry.file_type()),
                name: name.to_vec(),
                cookie: index as u64 + 1,
            };
            if !visit(entry) {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file(inode, OFlags::RDONLY)?;
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        let (folder, name) = self.place(inode)?;
        let target = rustix::fs::readlinkat(&*folder, name, Vec::new()).map_err(failed)?;
        Ok(target.into_bytes())
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
        let (_folder, path) = self.proc_path(inode)?;
        let mut value = vec![0; MAX_XATTR];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).map_err(failed)?;
        value.truncate(length);
        Ok(value)
    }

    fn xattrs(&self, inode: u64) -> Result<Vec<Vec<u8>>> {
        let (_folder, path) = self.proc_path(inode)?;
        let mut list = vec![0; MAX_XATTR];
        let length = match rustix::fs::llistxattr(path, &mut list[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(failed(error)),
        };
        let names = list.get(..length).unwrap_or_default().split(|byte| *byte == 0);
        Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn seek(&self, inode: u64, offset: u64, what: Seek) -> Result<u64> {
        let file = self.file(inode, OFlags::RDONLY)?;
        let to = match what {
            Seek::Data => SeekFrom::Data(offset),
            Seek::Hole => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(&file, to).map_err(failed)
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        Ok(self.file(inode, OFlags::WRONLY)?.write_all_at(data, offset)?)
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        let folder = self.child(directory, name)?;
        let mode = Mode::from_raw_mode(file.mode.into());
        match file.kind {
            FileKind::Directory => rustix::fs::mkdirat(&*folder, name, mode).map_err(failed)?,
            FileKind::Regular => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                rustix::fs::openat(&*folder, name, flags, mode).map_err(failed).map(drop)?;
            }
            FileKind::Symlink => return Err(errors::invalid()),
            kind => {
                let device = rustix::fs::makedev(file.device.major, file.device.minor);
                let kind = FileType::from_raw_mode(kind.mode_bits().into());
                rustix::fs::mknodat(&*folder, name, kind, mode, device).map_err(failed)?;
            }
        }
        self.looked_up(directory, name)
    }

    fn symlink(
        &self,
        directory: u64,
        name: &[u8],
        target: &[u8],
        _uid: u32,
        _gid: u32,
    ) -> Result<Attributes> {
        let folder = self.child(directory, name)?;
        rustix::fs::symlinkat(target, &*folder, name).map_err(failed)?;
        self.looked_up(directory, name)
    }

    fn link(&self, inode: u64, directory: u64, name: &[u8]) -> Result<Attributes> {
        let (from, old) = self.place(inode)?;
        let folder = self.child(directory, name)?;
        rustix::fs::linkat(&*from, old, &*folder, name, AtFlags::empty()).map_err(failed)?;
        self.looked_up(directory, name)
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        let folder = self.child(directory, name)?;
        rustix::fs::unlinkat(&*folder, name, AtFlags::empty()).map_err(failed)
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        let folder = self.child(directory, name)?;
        let number = self.state().number(directory, name);
        self.state().open.remove(&number);
        rustix::fs::unlinkat(&*folder, name, AtFlags::REMOVEDIR).map_err(failed)
    }

    fn rename(&self, _: u64, _: &[u8], _: u64, _: &[u8], _: Rename) -> Result<()> {
        Err(errors::not_supported())
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        if let Some(size) = changes.size {
            self.file(inode, OFlags::WRONLY)?.set_len(size)?;
        }
        let owned = self.set_owner(inode, changes)?;
        if let Some(mode) = changes.mode {
            // Another's set-id program must not become one of ours.
            self.set_mode(inode, if owned { mode } else { mode & 0o1777 })?;
        }
        self.set_times(inode, changes)?;
        self.attributes(inode)
    }

    fn set_xattr(
        &self,
        inode: u64,
        name: &[u8],
        value: &[u8],
        _exists: Option<bool>,
    ) -> Result<()> {
        let (_folder, path) = self.proc_path(inode)?;
        let flags = rustix::fs::XattrFlags::empty();
        match rustix::fs::lsetxattr(path, name, value, flags) {
            Ok(()) => Ok(()),
            // Attributes that only root may set, or that the host's filesystem does not have.
            Err(Errno::PERM | Errno::OPNOTSUPP) if !self.is_root => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&*self.state().root).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_in_the_folder_are_not_followed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), folder.path().join("way")).unwrap();
        std::fs::write(outside.path().join("file"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), folder.path().join("leaf"))
            .unwrap();
        let tree = HostTree::open(folder.path()).unwrap();
        let way = tree.lookup(ROOT, b"way").unwrap();
        assert_eq!(way.kind, FileKind::Symlink);
        let file = NewFile {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            device: Device::default(),
        };
        assert!(tree.create(way.inode, b"new", &file).is_err());
        assert!(tree.lookup(way.inode, b"file").is_err());
        let leaf = tree.lookup(ROOT, b"leaf").unwrap();
        assert!(tree.read(leaf.inode, 0, &mut [0; 6]).is_err());
        assert!(tree.write(leaf.inode, 0, b"x").is_err());
        let changes = Changes { mode: Some(0o777), size: Some(0), ..Changes::default() };
        assert!(tree.set_attributes(leaf.inode, &changes).is_err());
        for name in [&b".."[..], b"a/b", b"", b"a\0"] {
            assert!(tree.create(ROOT, name, &file).is_err());
        }
        assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
