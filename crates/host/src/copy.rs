//! Copying between files without the bytes passing through this process.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Copies up to `length` bytes between two files in the kernel, sharing blocks where the
/// filesystem can. Answers how many bytes were copied; 0 when the kernel cannot (the caller
/// then copies by reading and writing).
pub fn copy_in_kernel(
    from: (BorrowedFd<'_>, u64),
    to: (BorrowedFd<'_>, u64),
    length: u64,
) -> disksmith_disk::Result<u64> {
    let (mut source, mut target) = (from.1, to.1);
    let mut copied = 0u64;
    while copied < length {
        let step = usize::try_from(length - copied).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from.0, Some(&mut source), to.0, Some(&mut target), step)
        {
            Ok(0) => break,
            Ok(bytes) => copied += bytes as u64,
            Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::PERM
                | Errno::TXTBSY
                | Errno::BADF,
            ) => break,
            Err(error) => return Err(disksmith_disk::Error::from_errno(error.raw_os_error())),
        }
    }
    Ok(copied)
}

/// Whether two files lie on one filesystem where copying in the kernel costs less than reading
/// and writing, because blocks are shared or a server does the work.
pub fn shares_blocks(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    const BCACHEFS: u64 = 0xca45_1a4e;
    const BTRFS: u64 = 0x9123_683e;
    const NFS: u64 = 0x6969;
    const OCFS2: u64 = 0x7461_636f;
    const SMB2: u64 = 0xfe53_4d42;
    const XFS: u64 = 0x5846_5342;
    const ZFS: u64 = 0x2fc1_2fc1;
    let device = |file| rustix::fs::fstat(file).map(|status| status.st_dev).ok();
    let kind = rustix::fs::fstatfs(to).map(|status| status.f_type as u64).unwrap_or(0);
    [BCACHEFS, BTRFS, NFS, OCFS2, SMB2, XFS, ZFS].contains(&(kind & 0xffff_ffff))
        && device(from).is_some_and(|from| device(to) == Some(from))
}
