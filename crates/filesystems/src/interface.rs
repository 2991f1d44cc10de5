//! The filesystem interface: what every filesystem answers, whoever asks.

use std::fmt::Debug;

use disksmith_disk::{Error, Kind, Result};

/// A point in time: seconds since 1970 (may be negative) and nanoseconds below a second.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanoseconds: u32,
}

impl Time {
    /// The host's clock.
    pub fn now() -> Self {
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => {
                Self { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() }
            }
            Err(_) => Self::default(),
        }
    }

    /// Whole seconds.
    pub fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// What sort of file an inode is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// The type bits of `st_mode`.
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::Regular => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The kind that the type bits of `st_mode` name.
    pub fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// True for character and block devices.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }
}

/// A device number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The unit.
    pub minor: u32,
}

/// What an inode says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attributes {
    /// The inode number.
    pub inode: u64,
    /// What sort of file it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// Names of the file.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Storage in units of 512 bytes.
    pub blocks: u64,
    /// The device, of device files.
    pub device: Device,
    /// Last access.
    pub accessed: Time,
    /// Last change of the content.
    pub modified: Time,
    /// Last change of the inode.
    pub changed: Time,
    /// Birth, where the filesystem keeps it.
    pub created: Option<Time>,
    /// Flags as `chattr` and `FS_IOC_GETFLAGS` number them.
    pub flags: u32,
    /// Tells files apart that had the same inode number one after the other.
    pub generation: u32,
    /// Project number, where the filesystem keeps it.
    pub project: u32,
}

/// Attributes to set; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: shorter cuts, longer adds a hole.
    pub size: Option<u64>,
    /// Last access.
    pub accessed: Option<Time>,
    /// Last change of the content.
    pub modified: Option<Time>,
    /// Last change of the inode; set to now by every other change when absent.
    pub changed: Option<Time>,
    /// Birth.
    pub created: Option<Time>,
    /// `FS_IOC_SETFLAGS` flags; those that only the filesystem may set are kept.
    pub flags: Option<u32>,
    /// Project number.
    pub project: Option<u32>,
}

/// A file to be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NewFile {
    /// What sort of file.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group; the parent's when the parent has its setgid bit.
    pub gid: u32,
    /// The device, for device files.
    pub device: Device,
}

/// One name in a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The inode it names.
    pub inode: u64,
    /// What sort of file; `None` where the directory does not say.
    pub kind: Option<FileKind>,
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// Give this to [`Filesystem::read_directory`] to go on after this entry.
    pub cookie: u64,
}

/// What `rename` is to do about a name that is there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rename {
    /// Replace it.
    #[default]
    Replace,
    /// Fail with `EEXIST`.
    NoReplace,
    /// Let both change places.
    Exchange,
    /// Leave a whiteout (character device 0:0) under the old name.
    Whiteout,
}

/// What to look for in a sparse file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not.
    Hole,
}

/// What `fallocate` is to do with a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fallocate {
    /// Reserve storage; the file grows when `keep_size` is false.
    Allocate {
        /// Do not change the file's length.
        keep_size: bool,
    },
    /// Make it a hole.
    PunchHole,
    /// Make it read as zeroes, with storage kept.
    ZeroRange {
        /// Do not change the file's length.
        keep_size: bool,
    },
}

/// What `statfs` answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Statistics {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks for files and directories.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Blocks free to those who are not root.
    pub available: u64,
    /// Inodes.
    pub inodes: u64,
    /// Inodes free.
    pub free_inodes: u64,
    /// The longest name, in bytes.
    pub name_length: u32,
}

/// A tree of files on a disk.
///
/// Methods take inode numbers; the root is [`root`](Self::root). Permissions are not checked
/// here: that is the caller's matter (FUSE's `default_permissions`). Every error carries an error
/// number that [`errno`] tells. Methods that change something answer `EROFS` by default, so that
/// a reader need only implement the first half.
pub trait Filesystem: Send + Sync + Debug {
    /// The type as `mount -t` names it: `ext4`, `vfat` …
    fn type_name(&self) -> &'static str;

    /// The label; empty if there is none.
    fn label(&self) -> Vec<u8>;

    /// The UUID or serial number as text, empty if there is none.
    fn uuid(&self) -> String;

    /// The root directory's inode number.
    fn root(&self) -> u64;

    /// True when every change is refused.
    fn read_only(&self) -> bool {
        true
    }

    /// False for filesystems that keep neither owners nor permissions, links nor extended
    /// attributes: who copies there does not try to keep them.
    fn posix(&self) -> bool {
        true
    }

    /// Sizes and what is free.
    fn statistics(&self) -> Result<Statistics>;

    /// The inode that `name` names in `directory`: `ENOENT`, `ENOTDIR`.
    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes>;

    /// What the inode says of itself.
    fn attributes(&self, inode: u64) -> Result<Attributes>;

    /// Calls `visit` for each entry (with `.` and `..`) after `cookie` (0: from the start) until
    /// it answers false.
    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()>;

    /// Fills `buffer` from `offset` on; the answer is short only at the end of the file.
    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// The target of a symbolic link.
    fn read_link(&self, inode: u64) -> Result<Vec<u8>>;

    /// The value of an extended attribute, by its full name (`user.x`): `ENODATA`.
    fn xattr(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>>;

    /// The full names of all extended attributes.
    fn xattrs(&self, inode: u64) -> Result<Vec<Vec<u8>>>;

    /// The first offset at or after `offset` that is data or hole; the end counts as a hole.
    /// `ENXIO` past the end.
    fn seek(&self, inode: u64, offset: u64, what: Seek) -> Result<u64> {
        let size = self.attributes(inode)?.size;
        match what {
            _ if offset >= size => Err(errors::no_such_address()),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(size),
        }
    }

    /// Keeps the inode alive although its last name may go; once per
    /// [`release`](Self::release).
    fn hold(&self, inode: u64) {
        let _ = inode;
    }

    /// Ends `count` holds. An inode without names and holds is freed.
    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let _ = (inode, count);
        Ok(())
    }

    /// Writes all of `data` at `offset`; the file grows as needed.
    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        let _ = (inode, offset, data);
        Err(errors::read_only())
    }

    /// Makes an empty file of any kind but a symlink: `EEXIST`.
    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        let _ = (directory, name, file);
        Err(errors::read_only())
    }

    /// Makes a symbolic link.
    fn symlink(
        &self,
        directory: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Attributes> {
        let _ = (directory, name, target, uid, gid);
        Err(errors::read_only())
    }

    /// Gives the inode one more name.
    fn link(&self, inode: u64, directory: u64, name: &[u8]) -> Result<Attributes> {
        let _ = (inode, directory, name);
        Err(errors::read_only())
    }

    /// Removes a name of anything but a directory: `EISDIR`.
    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        let _ = (directory, name);
        Err(errors::read_only())
    }

    /// Removes an empty directory: `ENOTDIR`, `ENOTEMPTY`.
    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        let _ = (directory, name);
        Err(errors::read_only())
    }

    /// Moves a name.
    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        let _ = (from, old, to, new, how);
        Err(errors::read_only())
    }

    /// Sets attributes.
    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        let _ = (inode, changes);
        Err(errors::read_only())
    }

    /// Sets an extended attribute. `exists`: `Some(true)` only replaces (`ENODATA`),
    /// `Some(false)` only adds (`EEXIST`).
    fn set_xattr(&self, inode: u64, name: &[u8], value: &[u8], exists: Option<bool>) -> Result<()> {
        let _ = (inode, name, value, exists);
        Err(errors::read_only())
    }

    /// Removes an extended attribute: `ENODATA`.
    fn remove_xattr(&self, inode: u64, name: &[u8]) -> Result<()> {
        let _ = (inode, name);
        Err(errors::read_only())
    }

    /// Reserves, punches or zeroes a range.
    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        let _ = (inode, offset, length, how);
        Err(errors::read_only())
    }

    /// Makes the file's content and attributes durable.
    fn fsync(&self, inode: u64) -> Result<()> {
        let _ = inode;
        self.sync()
    }

    /// Sleeps until it is time to [`sync`](Self::sync), at most for `most`. Whoever calls this
    /// again and again spares those who change things from waiting for the disk.
    fn wait_until_due(&self, most: std::time::Duration) {
        std::thread::sleep(most);
    }

    /// Makes everything durable.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Ends the use: everything durable, the filesystem marked clean.
    fn close(&self) -> Result<()> {
        self.sync()
    }
}

/// Errors by their POSIX names.
pub mod errors {
    use super::{Error, Kind};

    macro_rules! errors {
        ($($(#[$doc:meta])* $name:ident = $number:expr, $kind:ident;)*) => {$(
            $(#[$doc])*
            pub fn $name() -> Error { Error::from_errno($number).with_kind(Kind::$kind) }
        )*};
    }
    errors! {
        /// `EPERM`
        not_permitted = 1, PermissionDenied;
        /// `ENOENT`
        not_found = 2, NotFound;
        /// `ENXIO`
        no_such_address = 6, InvalidInput;
        /// `EBUSY`
        busy = 16, InUse;
        /// `EEXIST`
        exists = 17, AlreadyExists;
        /// `ENOTDIR`
        not_a_directory = 20, InvalidInput;
        /// `EISDIR`
        is_a_directory = 21, InvalidInput;
        /// `EINVAL`
        invalid = 22, InvalidInput;
        /// `EFBIG`
        too_big = 27, InvalidInput;
        /// `ENOSPC`
        no_space = 28, OutOfSpace;
        /// `EROFS`
        read_only = 30, Refused;
        /// `EMLINK`
        too_many_links = 31, LimitExceeded;
        /// `ERANGE`
        out_of_range = 34, InvalidInput;
        /// `ENAMETOOLONG`
        name_too_long = 36, InvalidInput;
        /// `ENOTEMPTY`
        not_empty = 39, Refused;
        /// `ELOOP`
        too_many_symlinks = 40, LimitExceeded;
        /// `ENODATA`
        no_data = 61, NotFound;
        /// `EOPNOTSUPP`
        not_supported = 95, Unsupported;
        /// `ESTALE`
        stale = 116, NotFound;
    }
}

/// The error number of an error: the system's own where there is one, else by its kind.
pub fn errno(error: &Error) -> i32 {
    error.errno().unwrap_or(match error.kind() {
        Kind::AlreadyExists => 17,
        Kind::Cancelled => 4,
        Kind::Corrupt => 117,
        Kind::InUse => 16,
        Kind::InvalidInput => 22,
        Kind::LimitExceeded => 34,
        Kind::NotFound => 2,
        Kind::OutOfSpace => 28,
        Kind::PermissionDenied => 13,
        Kind::Refused => 30,
        Kind::Unsupported => 95,
        _ => 5,
    })
}

/// Symlinks followed on one path before giving up, as the kernel does.
const SYMLINKS_MAX: usize = 40;

/// Follows a path from the root inside the filesystem only: symlinks, absolute ones too, never
/// lead out of it. The last component's symlink is followed only if `follow`.
pub fn resolve(filesystem: &dyn Filesystem, path: &[u8], follow: bool) -> Result<Attributes> {
    let root = filesystem.attributes(filesystem.root())?;
    let mut stack = vec![root];
    let mut todo: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let here = stack.last().copied().unwrap_or(root);
        if here.kind != FileKind::Directory {
            return Err(errors::not_a_directory());
        }
        if name == b".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        let found = filesystem.lookup(here.inode, &name)?;
        if found.kind == FileKind::Symlink && (follow || !todo.is_empty()) {
            links += 1;
            if links > SYMLINKS_MAX {
                return Err(errors::too_many_symlinks());
            }
            let target = filesystem.read_link(found.inode)?;
            if target.first() == Some(&b'/') {
                stack.truncate(1);
            }
            todo.extend(components(&target));
        } else {
            stack.push(found);
        }
    }
    Ok(stack.last().copied().unwrap_or(root))
}

/// The components of a path, last first, without empty ones and `.`.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/')
        .rev()
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}
