//! Kernel loop devices (root).

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use disksmith_disk::{Context, Error, Kind, Result};
use disksmith_host::used_by_kernel;

const LOOP_CLR_FD: libc::c_ulong = 0x4c01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4c04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;

const BLKPG: libc::c_ulong = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Free devices are raced for; so often another one is tried.
const ATTEMPTS: u32 = 16;

/// How often a device is looked at that is to go after its use.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How to set up a loop device.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopOptions {
    /// Where the device begins in the file, in bytes.
    pub offset: u64,
    /// Its size in bytes; 0 = to the end of the file.
    pub size_limit: u64,
    /// Nothing can be written.
    pub read_only: bool,
    /// Past the page cache.
    pub direct: bool,
    /// Bytes per sector; 0 = 512.
    pub sector: u32,
}

/// A loop device that is set up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoopDevice {
    /// `/dev/loop0`.
    pub device: PathBuf,
    /// The file behind it.
    pub file: PathBuf,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its size limit in bytes, 0 = none.
    pub size_limit: u64,
    /// Nothing can be written.
    pub read_only: bool,
}

/// `struct loop_info64` of the kernel's interface (include/uapi/linux/loop.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    lo_device: u64,
    lo_inode: u64,
    lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

/// `struct loop_config` of the kernel's interface.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// `struct blkpg_partition` of the kernel's interface (include/uapi/linux/blkpg.h).
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    pno: i32,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of the kernel's interface.
#[repr(C)]
struct BlkpgIoctlArg {
    op: i32,
    flags: i32,
    datalen: i32,
    data: *mut libc::c_void,
}

/// Makes a loop device of a file; the kernel reads its partition table.
pub fn attach(file: &Path, options: &LoopOptions) -> Result<LoopDevice> {
    let attempt = || format!("Could not make a loop device of '{}'", file.display());
    let backing =
        File::options().read(true).write(!options.read_only).open(file).with_context(attempt)?;
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .with_context(attempt)
        .map_err(|e| {
            e.with_hint("Loop devices need root; without it, use a FUSE folder: attach IMAGE DIR.")
        })?;
    let mut last = Error::new(Kind::InUse, "no loop device is free");
    for _ in 0..ATTEMPTS {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and answers a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(Error::from(std::io::Error::last_os_error()).context(attempt()));
        }
        let device = PathBuf::from(format!("/dev/loop{number}"));
        match configure(&device, &backing, options) {
            Ok(()) => {
                return Ok(LoopDevice {
                    device,
                    file: file.to_path_buf(),
                    offset: options.offset,
                    size_limit: options.size_limit,
                    read_only: options.read_only,
                });
            }
            Err(error) if error.errno() == Some(libc::EBUSY) => last = error,
            Err(error) => return Err(error.context(attempt())),
        }
    }
    Err(last.context(attempt()))
}

fn configure(device: &Path, backing: &File, options: &LoopOptions) -> Result<()> {
    let open = File::options().read(true).write(!options.read_only).open(device)?;
    let mut flags = LO_FLAGS_PARTSCAN;
    for (on, flag) in
        [(options.read_only, LO_FLAGS_READ_ONLY), (options.direct, LO_FLAGS_DIRECT_IO)]
    {
        flags |= if on { flag } else { 0 };
    }
    let info = LoopInfo64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: options.offset,
        lo_sizelimit: options.size_limit,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: flags,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    };
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: options.sector,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one struct loop_config, which lives through the call.
    match unsafe { libc::ioctl(open.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Where the kernel made no node for a partition (not every kernel reads every table), makes
/// one. `start` and `length` in bytes.
pub fn add_partition(device: &LoopDevice, number: u32, start: u64, length: u64) -> Result<()> {
    let name = device.device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if Path::new(&format!("/sys/block/{name}/{name}p{number}")).exists() {
        return Ok(());
    }
    let attempt = || format!("Could not make a node for partition {number}");
    let open = File::open(&device.device).with_context(attempt)?;
    let mut partition = BlkpgPartition {
        start: start as i64,
        length: length as i64,
        pno: number as i32,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgIoctlArg {
        op: BLKPG_ADD_PARTITION,
        flags: 0,
        datalen: size_of::<BlkpgPartition>() as i32,
        data: (&raw mut partition).cast(),
    };
    // SAFETY: BLKPG reads one struct blkpg_ioctl_arg and the struct blkpg_partition that it
    // points to; both live through the call.
    match unsafe { libc::ioctl(open.as_raw_fd(), BLKPG, &raw const argument) } {
        0 => Ok(()),
        _ => Err(Error::from(std::io::Error::last_os_error()).context(attempt())),
    }
}

/// Returns when a loop device is gone: somebody detached it, or it was used by the kernel (mounted,
/// as swap, under another device) and its last user left.
///
/// Only when it is in use it is told to go with its last user: who set it up would be the last
/// one otherwise.
pub fn clear_after_use(device: &Path) -> Result<()> {
    let find = || list().into_iter().find(|known| known.device == device);
    let Some(known) = find() else { return Ok(()) };
    let mut told = false;
    while find().as_ref() == Some(&known) {
        if !told && used_by_kernel(device)? {
            set_auto_clear(device)?;
            told = true;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn set_auto_clear(device: &Path) -> Result<()> {
    let attempt = || format!("Could not have '{}' go with its last user", device.display());
    let open = File::open(device).with_context(attempt)?;
    let mut info = std::mem::MaybeUninit::<LoopInfo64>::zeroed();
    // SAFETY: LOOP_GET_STATUS64 fills one struct loop_info64, of which all bit patterns are
    // valid; LOOP_SET_STATUS64 reads it. It lives through both calls.
    let done = unsafe {
        let fd = open.as_raw_fd();
        libc::ioctl(fd, LOOP_GET_STATUS64, info.as_mut_ptr()) == 0 && {
            (*info.as_mut_ptr()).lo_flags |= LO_FLAGS_AUTOCLEAR;
            libc::ioctl(fd, LOOP_SET_STATUS64, info.as_ptr()) == 0
        }
    };
    match done {
        true => Ok(()),
        false => Err(Error::from(std::io::Error::last_os_error()).context(attempt())),
    }
}

/// Takes a loop device apart.
pub fn detach(device: &Path) -> Result<()> {
    let attempt = || format!("Could not detach '{}'", device.display());
    refuse_if_used(device).with_context(attempt)?;
    let open = File::open(device).with_context(attempt)?;
    // SAFETY: LOOP_CLR_FD takes no argument.
    match unsafe { libc::ioctl(open.as_raw_fd(), LOOP_CLR_FD) } {
        0 => Ok(()),
        _ => Err(Error::from(std::io::Error::last_os_error()).context(attempt())),
    }
}

/// The kernel would let go of the device later, when nobody watches any more.
fn refuse_if_used(device: &Path) -> Result<()> {
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut nodes = vec![device.to_path_buf()];
    if let Ok(entries) = fs::read_dir(format!("/sys/block/{name}")) {
        let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let parts = names.filter(|part| part.starts_with(&format!("{name}p")));
        nodes.extend(parts.map(|part| Path::new("/dev").join(part)));
    }
    for node in nodes {
        // An exclusive open fails when the node is mounted or a part of something.
        let open = File::options().read(true).custom_flags(libc::O_EXCL).open(&node);
        if open.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            return Err(Error::new(Kind::InUse, format!("{} is in use", node.display()))
                .with_hint("Unmount what is mounted from it."));
        }
    }
    Ok(())
}

/// The loop devices that are set up, by number.
pub fn list() -> Vec<LoopDevice> {
    let Ok(blocks) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found: Vec<(u32, LoopDevice)> = blocks
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("loop")?.parse().ok()?;
            let about = |what: &str| {
                let text = fs::read_to_string(entry.path().join("loop").join(what)).ok()?;
                Some(text.trim_end_matches('\n').to_string())
            };
            Some((
                number,
                LoopDevice {
                    device: PathBuf::from(format!("/dev/{name}")),
                    file: about("backing_file")?.into(),
                    offset: about("offset")?.parse().ok()?,
                    size_limit: about("sizelimit")?.parse().ok()?,
                    read_only: fs::read_to_string(entry.path().join("ro")).ok()?.trim() == "1",
                },
            ))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, device)| device).collect()
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);
