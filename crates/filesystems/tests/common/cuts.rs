//! Changes whose states after a power cut are looked at.

use std::collections::BTreeMap;

use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename};
use disksmith_testkit::Rng;

use super::changes::new;

pub(crate) type Tree = BTreeMap<Vec<u8>, Vec<u8>>;

/// Paths and content.
pub(crate) fn tree(ours: &dyn Filesystem, what: &str) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(ours.root(), Vec::new())];
    while let Some((inode, path)) = todo.pop() {
        ours.read_directory(inode, 0, &mut |entry| {
            if entry.name == b"." || entry.name == b".." {
                return true;
            }
            let at = ours.attributes(entry.inode).unwrap_or_else(|e| panic!("{what}: {e}"));
            let path = [&path[..], b"/", &entry.name].concat();
            let mut bytes =
                vec![0; if at.kind == FileKind::Directory { 0 } else { at.size as usize }];
            if at.kind == FileKind::Directory {
                todo.push((entry.inode, path.clone()));
            } else {
                ours.read(entry.inode, 0, &mut bytes)
                    .unwrap_or_else(|e| panic!("{what}: {path:?}: {e}"));
            }
            tree.insert(path, bytes);
            true
        })
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    tree
}

/// One change; answers the paths that it touches.
pub(crate) fn step(ours: &dyn Filesystem, rng: &mut Rng, number: u64) -> Vec<Vec<u8>> {
    let name = |rng: &mut Rng| {
        let number = rng.below(14);
        format!("Name {number} {}", "n".repeat((number * 5) as usize))
    };
    let (a, b) = (name(rng), name(rng));
    let root = ours.root();
    let folder = |name: &str| ours.lookup(root, name.as_bytes()).map_or(root, |at| at.inode);
    let (from, to) = match rng.below(4) {
        0 => ("", "folder"),
        1 => ("folder", ""),
        2 => ("folder", "folder"),
        _ => ("", ""),
    };
    let (parent, target) = (folder(from), folder(to));
    let path = |folder: &str, name: &str| match folder {
        "" => format!("/{name}").into_bytes(),
        folder => format!("/{folder}/{name}").into_bytes(),
    };
    let (here, there) = (path(from, &a), path(to, &b));
    let found = ours.lookup(parent, a.as_bytes()).ok();
    let data = vec![number as u8 + 1; 1 + rng.below(9000) as usize];
    // What cannot be done then and there is not done.
    let _ = match (rng.below(9), found) {
        (0..=2, None) => ours
            .create(parent, a.as_bytes(), &new(FileKind::Regular))
            .and_then(|made| ours.write(made.inode, 0, &data)),
        (3, None) => ours.create(parent, a.as_bytes(), &new(FileKind::Directory)).map(drop),
        (0..=2, Some(at)) => ours.write(at.inode, at.size, &data),
        (3 | 4, Some(at)) => {
            let changes = Changes { size: Some(at.size / 2), ..Changes::default() };
            ours.set_attributes(at.inode, &changes).map(drop)
        }
        (5, Some(at)) if at.kind == FileKind::Directory => {
            ours.remove_directory(parent, a.as_bytes())
        }
        (5, Some(_)) => ours.unlink(parent, a.as_bytes()),
        (6..=8, Some(_)) => {
            ours.rename(parent, a.as_bytes(), target, b.as_bytes(), Rename::Replace)
        }
        _ => Ok(()),
    };
    vec![here, there]
}

/// Moves of one file with content of its own, from and to two directories, also over others;
/// answers its content.
pub(crate) fn make_movable(ours: &dyn Filesystem) -> Vec<u8> {
    let content = b"what must not be lost ".repeat(150);
    let root = ours.root();
    for folder in ["a", "b"] {
        ours.create(root, folder.as_bytes(), &new(FileKind::Directory)).unwrap();
    }
    let folder = ours.lookup(root, b"a").unwrap().inode;
    let made = ours.create(folder, b"file", &new(FileKind::Regular)).unwrap();
    ours.write(made.inode, 0, &content).unwrap();
    for name in ["one", "two with a name that is longer", "three"] {
        for folder in ["a", "b"] {
            let folder = ours.lookup(root, folder.as_bytes()).unwrap().inode;
            let made = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)).unwrap();
            ours.write(made.inode, 0, &[7; 700]).unwrap();
        }
    }
    content
}

/// Moves the file that has `content`; the names of its folder and of itself are in `at`.
pub(crate) fn move_on(ours: &dyn Filesystem, rng: &mut Rng, at: &mut (String, String)) {
    let to = rng.pick(&["a", "b"]).to_string();
    let names = ["one", "two with a name that is longer", "three", "file", "another new name"];
    let name = rng.pick(&names).to_string();
    let folder = |name: &str| ours.lookup(ours.root(), name.as_bytes()).unwrap().inode;
    ours.rename(folder(&at.0), at.1.as_bytes(), folder(&to), name.as_bytes(), Rename::Replace)
        .unwrap();
    *at = (to, name);
}
