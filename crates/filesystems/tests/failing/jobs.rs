//! What is done on storage that fails.

use disksmith_disk::Result;
use disksmith_filesystems::{
    Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek, resolve,
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

/// One change, on a filesystem that was opened for it.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// Only where there are links, attributes and holes.
    posix: bool,
    make: fn(&dyn Filesystem) -> Result<()>,
}

impl Step {
    const fn any(name: &'static str, make: fn(&dyn Filesystem) -> Result<()>) -> Self {
        Self { name, posix: false, make }
    }

    const fn posix(name: &'static str, make: fn(&dyn Filesystem) -> Result<()>) -> Self {
        Self { name, posix: true, make }
    }

    /// Makes the change, and closes the filesystem.
    pub(crate) fn run(&self, ours: &dyn Filesystem) -> Result<()> {
        if !self.posix || ours.posix() {
            (self.make)(ours)?;
        }
        ours.close()
    }
}

/// Some of every change there is, in order.
pub(crate) const STEPS: &[Step] = &[
    Step::any("a folder", |ours| {
        ours.create(ours.root(), b"folder", &new(FileKind::Directory)).map(drop)
    }),
    Step::any("a file", |ours| {
        let file = ours.create(at(ours, "folder")?, b"file", &new(FileKind::Regular))?.inode;
        ours.write(file, 0, &[3; 20_000])?;
        ours.write(file, 90_000, &[4; 3000])?;
        ours.sync()
    }),
    Step::any("over what was there", |ours| ours.write(at(ours, "folder/file")?, 700, &[5; 9000])),
    Step::any("a file cut", |ours| resized(ours, "shorter", 700)),
    Step::any("a move", |ours| {
        let (root, folder) = (ours.root(), at(ours, "folder")?);
        ours.rename(root, b"old", folder, b"new name, longer than before", Rename::Replace)
    }),
    Step::any("a file gone", |ours| ours.unlink(ours.root(), b"gone")),
    Step::any("a folder gone", |ours| ours.remove_directory(ours.root(), b"empty")),
    Step::any("many names", |ours| {
        let folder = at(ours, "folder")?;
        for number in 0..30 {
            let name = format!("another name that is long {number}");
            ours.create(folder, name.as_bytes(), &new(FileKind::Regular))?;
        }
        Ok(())
    }),
    Step::any("one more name", |ours| {
        ours.create(at(ours, "many")?, b"one more name", &new(FileKind::Regular)).map(drop)
    }),
    Step::any("names gone", |ours| {
        let folder = at(ours, "folder")?;
        (5..25).try_for_each(|number| {
            ours.unlink(folder, format!("another name that is long {number}").as_bytes())
        })
    }),
    Step::any("a file in the place of another", |ours| {
        let (folder, many) = (at(ours, "folder")?, at(ours, "many")?);
        ours.rename(folder, b"file", many, b"one more name", Rename::Replace)
    }),
    Step::any("a folder moves", |ours| {
        ours.rename(ours.root(), b"folder", at(ours, "many")?, b"inner", Rename::Replace)
    }),
    Step::any("a longer file", |ours| resized(ours, "shorter", 70_000)),
    Step::posix("links", |ours| {
        let (root, file) = (ours.root(), at(ours, "many/one more name")?);
        ours.symlink(root, b"short link", b"target", 0, 0)?;
        ours.symlink(root, b"long link", &[b't'; 100], 0, 0)?;
        ours.link(file, root, b"second name").map(drop)
    }),
    Step::posix("a link gone", |ours| ours.unlink(ours.root(), b"link")),
    Step::posix("a file of many pieces", |ours| {
        let wide = ours.create(ours.root(), b"wide", &new(FileKind::Regular))?.inode;
        // Pointers: direct, simple, double and triple; extents: more than an inode has room for.
        [0, 40_000, 300_000, 90_000_000, 150_000, 20_000, 60_000]
            .into_iter()
            .try_for_each(|offset| ours.write(wide, offset, &[8; 1500]))
    }),
    Step::posix("one piece more", |ours| {
        let wide = at(ours, "wide")?;
        ours.write(wide, 80_000, &[8; 1500])?;
        ours.fsync(wide)
    }),
    Step::posix("room", |ours| {
        let wide = at(ours, "wide")?;
        ours.fallocate(wide, 500_000, 5000, Fallocate::Allocate { keep_size: false })
    }),
    Step::posix("zeroes", |ours| {
        let zero = Fallocate::ZeroRange { keep_size: true };
        ours.fallocate(at(ours, "wide")?, 39_000, 9000, zero)
    }),
    Step::posix("a hole", |ours| {
        ours.fallocate(at(ours, "wide")?, 1000, 100_000, Fallocate::PunchHole)
    }),
    Step::posix("pieces cut", |ours| resized(ours, "wide", 290_000)),
    Step::posix("an attribute", |ours| {
        ours.set_xattr(at(ours, "wide")?, b"user.a", &[1; 10], None)
    }),
    Step::posix("attributes", |ours| {
        let wide = at(ours, "wide")?;
        [(b"user.b", 200), (b"user.c", 400), (b"user.a", 90)]
            .into_iter()
            .try_for_each(|(name, length)| ours.set_xattr(wide, name, &vec![2; length], None))
    }),
    Step::posix("an attribute gone", |ours| ours.remove_xattr(at(ours, "wide")?, b"user.b")),
    Step::posix("an owner", |ours| {
        let changes =
            Changes { mode: Some(0o600), uid: Some(70_000), gid: Some(8), ..Changes::default() };
        ours.set_attributes(at(ours, "wide")?, &changes).map(drop)
    }),
    Step::posix("special files", |ours| {
        let from = ours.create(ours.root(), b"left", &new(FileKind::Directory))?.inode;
        ours.create(from, b"pipe", &new(FileKind::Fifo))?;
        ours.create(from, b"moves", &new(FileKind::Directory))?;
        ours.create(ours.root(), b"right", &new(FileKind::Directory)).map(drop)
    }),
    Step::posix("an exchange", |ours| {
        let (root, left) = (ours.root(), at(ours, "left")?);
        ours.rename(left, b"moves", at(ours, "right")?, b"moved", Rename::NoReplace)?;
        ours.rename(left, b"pipe", root, b"wide", Rename::Exchange)
    }),
    Step::posix("a file without a name", |ours| {
        let (root, open) = (ours.root(), at(ours, "second name")?);
        ours.hold(open);
        ours.unlink(root, b"second name")?;
        ours.unlink(at(ours, "many")?, b"one more name")?;
        ours.write(open, 50_000, &[9; 2000])?;
        ours.release(open, 1)
    }),
];

fn at(ours: &dyn Filesystem, path: &str) -> Result<u64> {
    resolve(ours, path.as_bytes(), false).map(|found| found.inode)
}

fn resized(ours: &dyn Filesystem, path: &str, size: u64) -> Result<()> {
    let changes = Changes { size: Some(size), ..Changes::default() };
    ours.set_attributes(at(ours, path)?, &changes).map(drop)
}
