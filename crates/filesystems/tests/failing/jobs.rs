//! What is done on storage that fails.

use disksmith_disk::Result;
use disksmith_filesystems::{
    Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek,
};

/// What nobody touches.
pub(crate) const KEPT: &[u8] = b"kept";

pub(crate) fn kept() -> Vec<u8> {
    b"what must not be lost ".repeat(1500)
}

fn new(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o755, uid: 0, gid: 0, device: Device::default() }
}

/// The tree before.
pub(crate) fn prepare(ours: &dyn Filesystem) -> Result<()> {
    let root = ours.root();
    let kept_file = ours.create(root, KEPT, &new(FileKind::Regular))?.inode;
    ours.write(kept_file, 0, &kept())?;
    for name in ["old", "gone", "shorter"] {
        let made = ours.create(root, name.as_bytes(), &new(FileKind::Regular))?;
        ours.write(made.inode, 0, &[7; 30_000])?;
    }
    let many = ours.create(root, b"many", &new(FileKind::Directory))?.inode;
    for number in 0..40 {
        let name = format!("a name that is long enough for two entries {number}");
        ours.create(many, name.as_bytes(), &new(FileKind::Regular))?;
    }
    ours.create(root, b"empty", &new(FileKind::Directory))?;
    if ours.posix() {
        ours.symlink(root, b"link", &[b'l'; 90], 0, 0)?;
        ours.set_xattr(kept_file, b"user.note", &[5; 200], None)?;
    }
    ours.close()
}

/// Reads everything.
pub(crate) fn walk(ours: &dyn Filesystem) -> Result<()> {
    ours.statistics()?;
    let mut todo = vec![ours.root()];
    while let Some(directory) = todo.pop() {
        let mut entries = Vec::new();
        ours.read_directory(directory, 0, &mut |entry| {
            entries.push(entry);
            true
        })?;
        for entry in entries.iter().filter(|entry| entry.name != b"." && entry.name != b"..") {
            let found = ours.lookup(directory, &entry.name)?;
            match found.kind {
                FileKind::Directory => todo.push(found.inode),
                FileKind::Symlink => drop(ours.read_link(found.inode)?),
                _ => {
                    let mut content = vec![0; found.size as usize];
                    ours.read(found.inode, 0, &mut content)?;
                    if found.size > 0 {
                        ours.seek(found.inode, 0, Seek::Hole)?;
                    }
                }
            }
            if ours.posix() {
                for name in ours.xattrs(found.inode)? {
                    ours.xattr(found.inode, &name)?;
                }
            }
        }
    }
    Ok(())
}

/// Some of every change there is.
pub(crate) fn change(ours: &dyn Filesystem) -> Result<()> {
    let root = ours.root();
    let folder = ours.create(root, b"folder", &new(FileKind::Directory))?.inode;
    let file = ours.create(folder, b"file", &new(FileKind::Regular))?.inode;
    ours.write(file, 0, &[3; 20_000])?;
    ours.write(file, 90_000, &[4; 3000])?;
    ours.sync()?;
    let shorter = ours.lookup(root, b"shorter")?.inode;
    ours.set_attributes(shorter, &Changes { size: Some(700), ..Changes::default() })?;
    ours.rename(root, b"old", folder, b"new name, longer than before", Rename::Replace)?;
    ours.unlink(root, b"gone")?;
    ours.remove_directory(root, b"empty")?;
    for number in 0..30 {
        let name = format!("another name that is long {number}");
        ours.create(folder, name.as_bytes(), &new(FileKind::Regular))?;
    }
    if ours.posix() {
        ours.symlink(folder, b"link", &[b't'; 100], 0, 0)?;
        ours.link(file, root, b"second name")?;
        ours.set_xattr(file, b"user.long", &[6; 700], None)?;
        ours.fallocate(file, 4096, 8192, Fallocate::PunchHole)?;
        ours.fallocate(file, 0, 4096, Fallocate::ZeroRange { keep_size: true })?;
        ours.unlink(root, b"link")?;
        shapes(ours)?;
    }
    ours.close()
}

/// What only filesystems of Unix have: files far apart, attributes of all lengths, directories that
/// move, files without a name that are open.
fn shapes(ours: &dyn Filesystem) -> Result<()> {
    let root = ours.root();
    let wide = ours.create(root, b"far apart", &new(FileKind::Regular))?.inode;
    // Pointers: direct, simple, double and triple; extents: more than an inode has room for.
    for offset in [0, 40_000, 300_000, 90_000_000, 150_000, 20_000, 60_000] {
        ours.write(wide, offset, &[8; 1500])?;
    }
    ours.fallocate(wide, 500_000, 5000, Fallocate::Allocate { keep_size: false })?;
    ours.fsync(wide)?;
    ours.fallocate(wide, 1000, 200_000, Fallocate::PunchHole)?;
    ours.set_attributes(wide, &Changes { size: Some(290_000), ..Changes::default() })?;
    for (name, length) in [("user.a", 10), ("user.b", 200), ("user.c", 400), ("user.a", 90)] {
        ours.set_xattr(wide, name.as_bytes(), &vec![1; length], None)?;
    }
    ours.remove_xattr(wide, b"user.b")?;
    ours.set_attributes(
        wide,
        &Changes { mode: Some(0o600), uid: Some(70_000), gid: Some(8), ..Changes::default() },
    )?;
    let (left, right) = (b"left".as_slice(), b"right".as_slice());
    let from = ours.create(root, left, &new(FileKind::Directory))?.inode;
    let to = ours.create(root, right, &new(FileKind::Directory))?.inode;
    ours.create(from, b"pipe", &new(FileKind::Fifo))?;
    ours.create(from, b"moves", &new(FileKind::Directory))?;
    ours.create(to, b"small", &new(FileKind::Regular))?;
    ours.rename(from, b"moves", to, b"moved", Rename::NoReplace)?;
    ours.rename(from, b"pipe", to, b"small", Rename::Exchange)?;
    ours.rename(root, left, root, right, Rename::Replace).err();
    let open = ours.lookup(root, b"second name")?.inode;
    ours.hold(open);
    ours.unlink(root, b"second name")?;
    ours.unlink(ours.lookup(root, b"folder")?.inode, b"file")?;
    ours.write(open, 50_000, &[9; 2000])?;
    ours.release(open, 1)
}
