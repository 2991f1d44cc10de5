//! What is done to any filesystem that opens.

use disksmith_filesystems::{
    Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek,
};
use disksmith_testkit::Rng;

/// Files looked at of one filesystem.
const FILES: usize = 60;
/// Entries read of one directory.
const ENTRIES: usize = 100;

/// Looks at everything, within limits.
pub(super) fn walk(filesystem: &dyn Filesystem) {
    drop((filesystem.statistics(), filesystem.label(), filesystem.uuid()));
    let mut todo = vec![filesystem.root()];
    let mut seen = 0;
    while let (Some(inode), true) = (todo.pop(), seen < FILES) {
        seen += 1;
        let Ok(attributes) = filesystem.attributes(inode) else { continue };
        match attributes.kind {
            FileKind::Directory => {
                let mut left = ENTRIES;
                let mut take = |entry: disksmith_filesystems::Entry| {
                    if !entry.name.starts_with(b".") {
                        todo.push(entry.inode);
                    }
                    left -= 1;
                    left > 0
                };
                drop(filesystem.read_directory(inode, 0, &mut take));
                drop(filesystem.lookup(inode, b"f"));
            }
            FileKind::Symlink => drop(filesystem.read_link(inode)),
            _ => {
                let mut buffer = vec![0; 8192];
                drop(filesystem.read(inode, 0, &mut buffer));
                drop(filesystem.read(inode, attributes.size.saturating_sub(100), &mut buffer));
                drop(filesystem.seek(inode, 0, Seek::Data));
                drop(filesystem.seek(inode, 1, Seek::Hole));
            }
        }
        for name in filesystem.xattrs(inode).into_iter().flatten().take(8) {
            drop(filesystem.xattr(inode, &name));
        }
    }
}

/// One random change.
pub(super) fn step(filesystem: &dyn Filesystem, rng: &mut Rng, number: u64) {
    let root = filesystem.root();
    let name = format!("f{}", rng.below(6)).into_bytes();
    let there = filesystem.lookup(root, &name).map(|found| found.inode);
    match (rng.below(9), there) {
        (0 | 1, _) => drop(filesystem.create(root, &name, &file(FileKind::Regular))),
        (2, _) => drop(filesystem.create(root, &name, &file(FileKind::Directory))),
        (3, Ok(inode)) => {
            drop(filesystem.write(inode, rng.below(40_000), &[number as u8; 5000]));
        }
        (4, Ok(inode)) => {
            let changes = Changes { size: Some(rng.below(100_000)), ..Changes::default() };
            drop(filesystem.set_attributes(inode, &changes));
        }
        (5, _) => {
            drop(filesystem.unlink(root, &name));
            drop(filesystem.remove_directory(root, &name));
        }
        (6, _) => drop(filesystem.rename(root, &name, root, b"f0", Rename::Replace)),
        (7, Ok(inode)) => drop(filesystem.set_xattr(inode, b"user.a", &[7; 300], None)),
        (8, Ok(inode)) => drop(filesystem.fallocate(
            inode,
            3000,
            20_000,
            Fallocate::Allocate { keep_size: false },
        )),
        _ => drop(filesystem.symlink(root, &name, &[b'x'; 100], 0, 0)),
    }
}

/// A file to be made.
pub(super) fn file(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o644, uid: 0, gid: 0, device: Device::default() }
}
