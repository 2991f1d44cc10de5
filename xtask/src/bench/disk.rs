//! The test disk: an ext4 filesystem filled from this machine's own /usr.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes the disk in `dir`, or takes the one that an earlier run left there. It is a raw image
/// with at least `bytes` of file data.
pub(super) fn make(dir: &Path, bytes: u64) -> Result<PathBuf, String> {
    let disk = dir.join(format!("disksmith-bench-{bytes}.raw"));
    if disk.exists() {
        return Ok(disk);
    }
    // Beside /usr on one filesystem, so that links take no room.
    let tree = tempfile_beside_usr()?;
    let result = fill(&tree, bytes).and_then(|()| make_filesystem(&disk, &tree, bytes));
    let _ = fs::remove_dir_all(&tree);
    result.map(|()| disk)
}

fn tempfile_beside_usr() -> Result<PathBuf, String> {
    let tree = PathBuf::from(format!("/var/tmp/disksmith-bench-{}", std::process::id()));
    fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
    Ok(tree)
}

/// Every n-th file of /usr, so that all kinds are there, until `bytes` are reached.
fn fill(tree: &Path, bytes: u64) -> Result<(), String> {
    let mut files = Vec::new();
    collect(Path::new("/usr"), &mut files);
    files.sort();
    let total: u64 = files.iter().map(|(_, size)| size).sum();
    if total < bytes {
        return Err(format!("/usr holds only {total} bytes; ask for less with --size"));
    }
    let (mut seen, mut taken) = (0u128, 0u128);
    for (path, size) in files {
        seen += u128::from(size);
        if taken * u128::from(total) > seen * u128::from(bytes) {
            continue;
        }
        let place = tree.join(path.strip_prefix("/").unwrap_or(&path));
        let parent = place.parent().unwrap_or(tree);
        fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        let linked = fs::hard_link(&path, &place).or_else(|_| fs::copy(&path, &place).map(drop));
        match linked {
            Ok(()) => taken += u128::from(size),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, u64)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            collect(&entry.path(), files);
        } else if metadata.is_file() && metadata.size() > 0 {
            files.push((entry.path(), metadata.len()));
        }
    }
}

fn make_filesystem(disk: &Path, tree: &Path, bytes: u64) -> Result<(), String> {
    let partial = disk.with_extension("partial");
    let size = bytes / 4 * 5;
    let file = fs::File::create(&partial).map_err(|error| error.to_string())?;
    file.set_len(size).map_err(|error| error.to_string())?;
    crate::succeed(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-m", "0", "-d"])
            .arg(tree)
            .arg(&partial)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"),
    )
    .map_err(|why| format!("{why} (Debian package e2fsprogs)"))?;
    fs::rename(&partial, disk).map_err(|error| error.to_string())
}
