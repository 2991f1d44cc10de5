//! Changes whose states after a power cut are looked at.

use std::collections::BTreeMap;

use disksmith_disk::MemoryDisk;
use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename};
use disksmith_testkit::{CrashLimits, Operation, Rng, crash_states};

use super::changes::new;
use super::long;

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
        (0..=2, Some(at)) => ours.write(at.inode, at.size + 3000 * rng.below(3), &data),
        (3 | 4, Some(at)) => {
            let size = *rng.pick(&[at.size / 2, at.size + 2500]);
            let changes = Changes { size: Some(size), ..Changes::default() };
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

/// What every test run looks at samples of.
const FEW: CrashLimits = CrashLimits { full_up_to: 6, random_subsets: 12, torn: 4, seed: 3 };

/// False where `DISKSMITH_CRASH_SCRIPT` names another script.
pub(crate) fn is_wanted(script: &str) -> bool {
    std::env::var("DISKSMITH_CRASH_SCRIPT").map_or(true, |name| name == script)
}

/// True where all scripts that there are come into question.
pub(crate) fn any_script() -> bool {
    long() || std::env::var_os("DISKSMITH_CRASH_SCRIPT").is_some()
}

/// Calls `look(state, its number, its name)` with about `few` states that a cut can leave, and the
/// last one; with all of them, at the simulator's full limits, where `DISKSMITH_LONG` is set, and
/// with both sorts where `DISKSMITH_CRASH_SCRIPT` is. Answers how many there were.
pub(crate) fn each_cut(
    script: &str,
    initial: &MemoryDisk,
    log: &[Operation],
    few: u64,
    look: &mut dyn FnMut(&MemoryDisk, u64, &str),
) -> u64 {
    let named = std::env::var_os("DISKSMITH_CRASH_SCRIPT").is_some();
    let (initial, log) = ([initial.clone()], &apart(log));
    let mut looked = 0;
    let mut walk = |limits: CrashLimits, stride: u64, last: u64| {
        let mut number = 0_u64;
        crash_states(&initial, log, limits, &mut |state| {
            number += 1;
            if number == last || number.is_multiple_of(stride) {
                looked += 1;
                look(&state.files[0], looked, &format!("'{script}', state {}", state.name));
            }
            true
        })
    };
    if named || long() {
        walk(CrashLimits::default(), 1, 0);
    }
    if named || !long() {
        let all = walk(FEW, u64::MAX, 0);
        walk(FEW, if named { 1 } else { (all / few).max(1) }, all);
    }
    looked
}

/// The log with each sector of short writes on its own: which of them arrive is open.
fn apart(log: &[Operation]) -> Vec<Operation> {
    const SECTOR: usize = 512;
    const SECTORS_MAX: usize = 4;
    let mut all = Vec::new();
    for operation in log {
        match operation {
            Operation::Write { file, offset, data } if data.len() <= SECTORS_MAX * SECTOR => {
                all.extend(data.chunks(SECTOR).enumerate().map(|(number, data)| {
                    let offset = offset + (number * SECTOR) as u64;
                    Operation::Write { file: *file, offset, data: data.into() }
                }));
            }
            other => all.push(other.clone()),
        }
    }
    all
}

/// Paths and content of what can be read, of a filesystem that may be damaged.
pub(crate) fn readable(ours: &dyn Filesystem) -> Tree {
    const DEPTH_MAX: usize = 8;
    const SIZE_MAX: u64 = 8 << 20;
    let mut tree = Tree::new();
    let mut todo = vec![(ours.root(), Vec::new(), 0)];
    while let Some((folder, path, depth)) = todo.pop() {
        // What comes before damage in a directory is there.
        let _ = ours.read_directory(folder, 0, &mut |entry| {
            let dots = entry.name == b"." || entry.name == b"..";
            let Some(at) = ours.attributes(entry.inode).ok().filter(|_| !dots) else { return true };
            let path = [&path[..], b"/", &entry.name].concat();
            if at.kind == FileKind::Directory {
                if depth < DEPTH_MAX {
                    todo.push((entry.inode, path, depth + 1));
                }
                return true;
            }
            let mut bytes = vec![0; at.size.min(SIZE_MAX) as usize];
            if ours.read(entry.inode, 0, &mut bytes).is_ok() {
                tree.insert(path, bytes);
            }
            true
        });
    }
    tree
}
