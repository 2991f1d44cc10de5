//! Walking through a tree.

use disksmith_disk::{Error, Kind, Result};
use disksmith_filesystems::{Attributes, Entry, FileKind, Filesystem};

/// Deepest nesting that is followed: a path of this many names is longer than any program uses.
const MAX_DEPTH: usize = 2048;
/// Most names taken from one directory.
const MAX_ENTRIES: usize = 50_000_000;

/// The entries of a directory in the order of their bytes, without `.` and `..`.
pub(crate) fn entries(tree: &dyn Filesystem, directory: u64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut cookie = 0;
    loop {
        let (before, mut last) = (entries.len(), cookie);
        tree.read_directory(directory, cookie, &mut |entry| {
            last = entry.cookie;
            if entry.name != b"." && entry.name != b".." {
                entries.push(entry);
            }
            entries.len() < MAX_ENTRIES
        })?;
        if entries.len() >= MAX_ENTRIES {
            return Err(Error::new(Kind::LimitExceeded, "the directory has too many entries"));
        }
        if last == cookie || entries.len() == before {
            break;
        }
        cookie = last;
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// A file met on a walk.
pub(crate) struct Met<'a> {
    /// Below where the walk began: names with `/` between; empty for the beginning.
    pub(crate) path: &'a [u8],
    pub(crate) depth: usize,
    pub(crate) found: Attributes,
}

/// Tells of everything from `start` on, directories before what is in them. `visit` answers
/// whether to go into a directory. What cannot be read is told to `fail`, and the walk goes on.
pub(crate) fn walk(
    tree: &dyn Filesystem,
    start: Attributes,
    visit: &mut dyn FnMut(&Met<'_>) -> Result<bool>,
    fail: &mut dyn FnMut(&[u8], Error),
) -> Result<()> {
    // Directories on the way here: one that leads into itself is damage, and not followed.
    let mut above: Vec<u64> = Vec::new();
    let mut todo: Vec<(Vec<u8>, usize, Attributes)> = vec![(Vec::new(), 0, start)];
    while let Some((path, depth, found)) = todo.pop() {
        above.truncate(depth);
        let enter = visit(&Met { path: &path, depth, found })?;
        if !enter || found.kind != FileKind::Directory {
            continue;
        }
        if above.contains(&found.inode) || depth >= MAX_DEPTH {
            fail(&path, Error::new(Kind::Corrupt, "the directory leads into itself"));
            continue;
        }
        above.push(found.inode);
        let entries = match entries(tree, found.inode) {
            Ok(entries) => entries,
            Err(error) => {
                fail(&path, error);
                continue;
            }
        };
        for entry in entries.into_iter().rev() {
            let child = join(&path, &entry.name);
            match tree.attributes(entry.inode) {
                Ok(found) => todo.push((child, depth + 1, found)),
                Err(error) => fail(&child, error),
            }
        }
    }
    Ok(())
}

/// A path one name longer.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        [] => name.to_vec(),
        [.., b'/'] => [path, name].concat(),
        _ => [path, b"/", name].concat(),
    }
}
