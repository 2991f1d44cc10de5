//! Between the tree's terms and FUSE's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disksmith_filesystems::{Attributes, Device, FileKind, Time};
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// What `stat` shows of a file.
pub(crate) fn attributes(found: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(found.inode),
        size: found.size,
        blocks: found.blocks,
        atime: system_time(found.accessed),
        mtime: system_time(found.modified),
        ctime: system_time(found.changed),
        crtime: found.created.map_or(UNIX_EPOCH, system_time),
        kind: file_type(found.kind),
        perm: found.mode,
        nlink: found.links,
        uid: found.uid,
        gid: found.gid,
        rdev: device_node(found.device),
        blksize: 4096,
        flags: 0,
    }
}

/// Of a file of which nothing but the number is known.
pub(crate) fn new_attributes(number: INodeNo) -> FileAttr {
    FileAttr {
        ino: number,
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Times that the host cannot express become 1970.
fn system_time(time: Time) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds));
    let whole = match u64::try_from(time.seconds) {
        Ok(after) => UNIX_EPOCH.checked_add(Duration::from_secs(after)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(time.seconds.unsigned_abs())),
    };
    whole.and_then(|whole| whole.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

/// `fuser` 0.18 reads a time before 1970 as minus the seconds minus the nanoseconds; the
/// protocol means minus the seconds plus the nanoseconds.
pub(crate) fn from_system_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            Time { seconds: -seconds, nanoseconds: before.subsec_nanos() }
        }
    }
}

pub(crate) fn from_time_or_now(time: TimeOrNow) -> Time {
    match time {
        TimeOrNow::SpecificTime(time) => from_system_time(time),
        TimeOrNow::Now => Time::now(),
    }
}

/// The kernel's 32-bit form of a device number: 12 bits major between 20 bits minor.
fn device_node(device: Device) -> u32 {
    (device.minor & 0xff) | (device.major & 0xfff) << 8 | (device.minor & 0xf_ff00) << 12
}

pub(crate) fn node_device(node: u32) -> Device {
    Device { major: node >> 8 & 0xfff, minor: node & 0xff | node >> 12 & 0xf_ff00 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(8, 1), (0, 0), (4095, 0xf_ffff), (1, 70_000)] {
            let device = Device { major, minor };
            assert_eq!(node_device(device_node(device)), device);
        }
    }

    #[test]
    fn times_before_1970_are_told_right() {
        let told = system_time(Time { seconds: -2, nanoseconds: 800_000_000 });
        let before = UNIX_EPOCH.duration_since(told).unwrap();
        assert_eq!(before, Duration::from_millis(1200));
        // As fuser gives -2 s + 0.8 s.
        let read = from_system_time(UNIX_EPOCH - Duration::new(2, 800_000_000));
        assert_eq!(read, Time { seconds: -2, nanoseconds: 800_000_000 });
    }
}
