//! What the kernel has mounted from a block device.

use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use disksmith_disk::{Context, Error, Kind, Result};

use crate::FileDisk;

/// A mounted filesystem.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// The device it lies on, as `major:minor`.
    pub device: String,
    /// Nothing can be written through this mount.
    pub read_only: bool,
}

/// The filesystems that are mounted from a block device, from a partition of it, or from the disk
/// that it is a partition of. Regular files have none here.
pub fn mounts(disk: &FileDisk) -> Result<Vec<Mount>> {
    if !disk.is_block_device() {
        return Ok(Vec::new());
    }
    mounts_of(disk.file().metadata()?.rdev())
}

/// What changes whenever something was written to a block device, and with every start of the
/// machine. `None` where the kernel does not tell.
pub fn writes_so_far(disk: &FileDisk) -> Option<String> {
    /// Of the columns of `stat`: the sectors written.
    const WRITTEN: usize = 6;
    let sys = PathBuf::from("/sys/dev/block").join(number(disk.file().metadata().ok()?.rdev()));
    let statistics = std::fs::read_to_string(sys.join("stat")).ok()?;
    let written = statistics.split_whitespace().nth(WRITTEN)?.to_string();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("boot={} written={written}", boot.trim()))
}

fn mounts_of(device: u64) -> Result<Vec<Mount>> {
    let own = number(device);
    let mut family = vec![own.clone()];
    let sys = PathBuf::from("/sys/dev/block").join(&own);
    // Partitions are folders of their disk, with a file `dev` each.
    for entry in std::fs::read_dir(&sys).into_iter().flatten().flatten() {
        family.extend(device_of(&entry.path()));
    }
    if sys.join("partition").exists() {
        family.extend(std::fs::canonicalize(&sys).ok().and_then(|own| device_of(own.parent()?)));
    }
    let text =
        std::fs::read("/proc/self/mountinfo").context("Could not read the table of mounts")?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse).filter(|mount| family.contains(&mount.device)).collect())
}

/// Whether a block device, or a partition of it, is mounted, used for swap or under a device of
/// the device mapper or a RAID. The device is not opened.
pub fn used_by_kernel(device: &Path) -> Result<bool> {
    if !mounts_of(std::fs::metadata(device)?.rdev())?.is_empty() {
        return Ok(true);
    }
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = format!("/dev/{name}");
    let is_ours = |node: &str| {
        let rest = node.strip_prefix(&own).map(|rest| rest.trim_start_matches('p'));
        rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().filter_map(|line| line.split_whitespace().next()).any(is_ours) {
        return Ok(true);
    }
    let sys = Path::new("/sys/block").join(&name);
    let held = |folder: &Path| {
        std::fs::read_dir(folder.join("holders")).is_ok_and(|mut entries| entries.next().is_some())
    };
    let parts = std::fs::read_dir(&sys).into_iter().flatten().flatten();
    Ok(held(&sys) || parts.into_iter().any(|entry| held(&entry.path())))
}

/// Refuses a device of which something is mounted, or that the kernel uses in another way: for
/// swap, in a RAID, under LVM.
pub fn refuse_mounted(disk: &FileDisk) -> Result<()> {
    let name = disk.path().display();
    if let Some(mount) = mounts(disk)?.first() {
        let what = format!("'{name}' is in use: mounted on '{}'", mount.point.display());
        return Err(Error::new(Kind::InUse, what).with_hint("Unmount it first."));
    }
    if !disk.is_block_device() {
        return Ok(());
    }
    let exclusive = File::options().read(true).custom_flags(libc::O_EXCL).open(disk.path());
    match exclusive {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            Err(Error::new(Kind::InUse, format!("'{name}' is in use by the kernel")))
        }
        _ => Ok(()),
    }
}

fn device_of(folder: &std::path::Path) -> Option<String> {
    Some(std::fs::read_to_string(folder.join("dev")).ok()?.trim().to_string())
}

fn number(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

/// A line of mountinfo: ids, `major:minor`, root, mount point, options … (proc(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(words.nth(2)?.to_vec()).ok()?;
    let point = unescape(words.nth(1)?);
    let options = words.next()?;
    let read_only = options.split(|byte| *byte == b',').any(|option| option == b"ro");
    Some(Mount { point: std::ffi::OsString::from_vec(point).into(), device, read_only })
}

/// Blanks and the like are written as three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                plain.push(code);
                rest = &others[3..];
            }
            _ => {
                plain.push(*first);
                rest = others;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo_are_read() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402 ro,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "98:0");
        assert_eq!(mount.point, PathBuf::from("/mnt 2"));
        assert!(mount.read_only);
        assert_eq!(parse(b""), None);
    }
}
