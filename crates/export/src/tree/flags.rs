//! `chattr`, `lsattr` and project numbers: the requests `FS_IOC_*` of `linux/fs.h`.

use disksmith_disk::Error;
use disksmith_filesystems::{Changes, Filesystem as Tree, errors};

const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC_FSGETXATTR: u32 = 0x801C_581F;
const FS_IOC_FSSETXATTR: u32 = 0x401C_5820;

/// `struct fsxattr`: flags, extent size, extents, project, extent size for copies, padding.
const FSXATTR_SIZE: usize = 28;
const PROJECT_AT: usize = 12;

/// `FS_XFLAG_*` and the same as `FS_*_FL`.
const SAME: &[(u32, u32)] = &[
    (0x0008, 0x0000_0010), // immutable
    (0x0010, 0x0000_0020), // append only
    (0x0020, 0x0000_0008), // synchronous
    (0x0040, 0x0000_0080), // no access times
    (0x0080, 0x0000_0040), // not dumped
    (0x0200, 0x2000_0000), // project is inherited
];

/// Answers one of them; others are none of ours.
pub(super) fn answer(
    tree: &dyn Tree,
    inode: u64,
    command: u32,
    data: &[u8],
) -> Result<Vec<u8>, Error> {
    let found = tree.attributes(inode)?;
    let changes = match command {
        FS_IOC_GETFLAGS => return Ok(found.flags.to_le_bytes().to_vec()),
        FS_IOC_FSGETXATTR => {
            let mut value = vec![0; FSXATTR_SIZE];
            value[..4].copy_from_slice(&extended(found.flags).to_le_bytes());
            value[PROJECT_AT..PROJECT_AT + 4].copy_from_slice(&found.project.to_le_bytes());
            return Ok(value);
        }
        FS_IOC_SETFLAGS => Changes { flags: Some(word(data, 0)?), ..Changes::default() },
        FS_IOC_FSSETXATTR => {
            let project = Some(word(data, PROJECT_AT)?).filter(|new| *new != found.project);
            let flags = Some(plain(word(data, 0)?, found.flags));
            Changes { flags, project, ..Changes::default() }
        }
        _ => return Err(Error::from_errno(libc::ENOTTY)),
    };
    tree.set_attributes(inode, &changes)?;
    Ok(Vec::new())
}

fn word(data: &[u8], at: usize) -> Result<u32, Error> {
    match data.get(at..at + 4).map(<[u8; 4]>::try_from) {
        Some(Ok(bytes)) => Ok(u32::from_le_bytes(bytes)),
        _ => Err(errors::invalid()),
    }
}

fn extended(flags: u32) -> u32 {
    SAME.iter().filter(|(_, plain)| flags & plain != 0).fold(0, |all, (extended, _)| all | extended)
}

/// Flags that have no extended form stay as they are.
fn plain(extended: u32, before: u32) -> u32 {
    SAME.iter().fold(before, |all, (flag, plain)| match extended & flag {
        0 => all & !plain,
        _ => all | plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_there_and_back() {
        assert_eq!(extended(0x8_0000 | 0x10), 0x8);
        assert_eq!(plain(0x10, 0x8_0010), 0x8_0020);
        assert_eq!(plain(extended(0x2000_0038), 0), 0x2000_0038);
    }
}
