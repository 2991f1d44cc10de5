//! What only block devices and raw system calls can tell.

use std::os::fd::{AsRawFd, BorrowedFd};

use disksmith_disk::{Error, Geometry, Result};

const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKZEROOUT: libc::c_ulong = 0x127f;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;
const BLKIOOPT: libc::c_ulong = 0x1279;

/// The size of a block device in bytes.
pub(crate) fn size(device: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which is valid for the call.
    let failed = unsafe { libc::ioctl(device.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) };
    match failed {
        0 => Ok(bytes),
        _ => Err(last_error()),
    }
}

/// Sector and preferred request size of a block device.
pub(crate) fn geometry(device: BorrowedFd<'_>) -> Geometry {
    let sector = rustix::fs::ioctl_blksszget(device).unwrap_or(512);
    let mut optimal = 0u32;
    // SAFETY: BLKIOOPT writes one 32-bit integer through the pointer, valid for the call.
    let failed = unsafe { libc::ioctl(device.as_raw_fd(), BLKIOOPT, &raw mut optimal) };
    let physical = rustix::fs::ioctl_blkpbszget(device).unwrap_or(4096);
    let optimal = if failed == 0 && optimal != 0 { optimal } else { physical };
    Geometry { sector, optimal: optimal.max(sector) }
}

/// Zeroes a range of a block device. `false`: the kernel cannot.
pub(crate) fn zero_out(device: BorrowedFd<'_>, offset: u64, length: u64) -> Result<bool> {
    match range_call(device, BLKZEROOUT, offset, length) {
        0 => Ok(true),
        libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL => Ok(false),
        errno => Err(Error::from_errno(errno)),
    }
}

/// Discards a range of a block device, where it can.
pub(crate) fn discard(device: BorrowedFd<'_>, offset: u64, length: u64) {
    // Advice only: a device that cannot discard keeps the bytes.
    let _ = range_call(device, BLKDISCARD, offset, length);
}

fn range_call(device: BorrowedFd<'_>, call: libc::c_ulong, offset: u64, length: u64) -> i32 {
    let range = [offset, length];
    // SAFETY: both calls read two u64 through the pointer, which is valid for the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), call, range.as_ptr()) } {
        0 => 0,
        _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
    }
}

/// Starts writing a range to stable storage without waiting.
pub(crate) fn start_writeback(file: BorrowedFd<'_>, offset: u64, length: u64) {
    // SAFETY: sync_file_range takes plain integers; a failure is of no consequence, the flush
    // that follows in time reports errors.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset as i64,
            length as i64,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

pub(crate) fn last_error() -> Error {
    std::io::Error::last_os_error().into()
}
