//! Random changes to a filesystem without case, and to a model of it.

use std::collections::BTreeMap;

use disksmith_filesystems::{Changes, Device, FileKind, Filesystem, NewFile, Rename};
use disksmith_testkit::Rng;

/// A file to be made.
pub(crate) fn new(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o755, uid: 0, gid: 0, device: Device::default() }
}

/// Paths (directories end in a slash) and content.
pub(crate) fn walk(ours: &dyn Filesystem) -> BTreeMap<String, Vec<u8>> {
    let mut tree = BTreeMap::new();
    let mut todo = vec![(ours.root(), String::new())];
    while let Some((inode, path)) = todo.pop() {
        ours.read_directory(inode, 0, &mut |entry| {
            let name = String::from_utf8(entry.name.clone()).unwrap();
            if name == "." || name == ".." {
                return true;
            }
            let at = ours.lookup(inode, &entry.name).unwrap();
            assert_eq!(at.inode, entry.inode, "{name}");
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            if at.kind == FileKind::Directory {
                tree.insert(format!("{path}/"), Vec::new());
                todo.push((entry.inode, path));
            } else {
                let mut bytes = vec![0; at.size as usize];
                assert_eq!(ours.read(entry.inode, 0, &mut bytes).unwrap(), bytes.len());
                tree.insert(path, bytes);
            }
            true
        })
        .unwrap();
    }
    tree
}

/// Random changes, to the volume and to a model of it.
pub(crate) struct Work<'a> {
    pub ours: &'a dyn Filesystem,
    pub rng: Rng,
    /// Paths (directories end in a slash) and content, by the folded path.
    pub model: BTreeMap<String, (String, Vec<u8>)>,
}

impl Work<'_> {
    fn name(&mut self) -> String {
        let number = self.rng.below(40);
        match number % 5 {
            0 => format!("F{number}"),
            1 => format!("file{number}.txt"),
            2 => format!("A longer name, {number}.text"),
            3 => format!("{}{number}", "ü-long-".repeat(1 + (number as usize * 7) % 36)),
            _ => format!("Mixed{number}.Case"),
        }
    }

    /// A directory of the model, with a slash at its end; empty for the root.
    fn folder(&mut self) -> String {
        let folders: Vec<String> =
            self.model.values().map(|v| v.0.clone()).filter(|path| path.ends_with('/')).collect();
        match self.rng.below(3) {
            0 => String::new(),
            _ if folders.is_empty() => String::new(),
            _ => self.rng.pick(&folders).clone(),
        }
    }

    fn inode(&self, path: &str) -> u64 {
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(self.ours.root(), |at, part| self.ours.lookup(at, part.as_bytes()).unwrap().inode)
    }

    fn fold(path: &str) -> String {
        path.to_uppercase()
    }

    pub(crate) fn step(&mut self) {
        let (folder, name) = (self.folder(), self.name());
        let path = format!("{folder}{name}");
        let there = self.model.get(&Self::fold(&path)).cloned();
        let directory = self.model.contains_key(&Self::fold(&format!("{path}/")));
        let parent = self.inode(&folder);
        match self.rng.below(12) {
            0..=3 if there.is_none() && !directory => {
                let made =
                    self.ours.create(parent, name.as_bytes(), &new(FileKind::Regular)).unwrap();
                let length = self.rng.below(9000) as usize;
                let data = self.rng.bytes(length);
                self.ours.write(made.inode, 0, &data).unwrap();
                self.model.insert(Self::fold(&path), (path, data));
            }
            4 if there.is_none() && !directory => {
                self.ours.create(parent, name.as_bytes(), &new(FileKind::Directory)).unwrap();
                let path = format!("{path}/");
                self.model.insert(Self::fold(&path), (path, Vec::new()));
            }
            5 | 6 if there.is_some() => {
                let (_, mut data) = there.unwrap();
                let inode = self.inode(&path);
                let at = self.rng.below(data.len() as u64 + 3000) as usize;
                let length = 1 + self.rng.below(5000) as usize;
                let more = self.rng.bytes(length);
                self.ours.write(inode, at as u64, &more).unwrap();
                data.resize(data.len().max(at + more.len()), 0);
                data[at..at + more.len()].copy_from_slice(&more);
                self.model.get_mut(&Self::fold(&path)).unwrap().1 = data;
            }
            7 if there.is_some() => {
                let size = self.rng.below(12_000);
                let changes = Changes { size: Some(size), ..Changes::default() };
                self.ours.set_attributes(self.inode(&path), &changes).unwrap();
                self.model.get_mut(&Self::fold(&path)).unwrap().1.resize(size as usize, 0);
            }
            8 if there.is_some() => {
                self.ours.unlink(parent, name.as_bytes()).unwrap();
                self.model.remove(&Self::fold(&path));
            }
            9 if directory => self.remove_folder(parent, &name, &path),
            10 | 11 if there.is_some() || directory => self.rename(&folder, &name, directory),
            _ if self.rng.one_in(4) => self.ours.sync().unwrap(),
            _ => {}
        }
    }

    fn remove_folder(&mut self, parent: u64, name: &str, path: &str) {
        let prefix = Self::fold(&format!("{path}/"));
        let inside = self.model.keys().any(|key| key.starts_with(&prefix) && *key != prefix);
        let done = self.ours.remove_directory(parent, name.as_bytes());
        assert_eq!(done.is_ok(), !inside, "{path}: {done:?}");
        if !inside {
            self.model.remove(&prefix);
        }
    }

    fn rename(&mut self, folder: &str, name: &str, directory: bool) {
        let (to, new) = (self.folder(), self.name());
        let (old_path, new_path) = (format!("{folder}{name}"), format!("{to}{new}"));
        let slash = if directory { "/" } else { "" };
        let old_key = Self::fold(&format!("{old_path}{slash}"));
        let new_key = Self::fold(&format!("{new_path}{slash}"));
        let other = Self::fold(&format!("{new_path}{}", if directory { "" } else { "/" }));
        let into_itself = directory && Self::fold(&to).starts_with(&old_key);
        let full = directory
            && new_key != old_key
            && self.model.keys().any(|key| key.starts_with(&new_key) && *key != new_key);
        let possible = !into_itself && !full && !self.model.contains_key(&other);
        let (from, target) = (self.inode(folder), self.inode(&to));
        let done = self.ours.rename(from, name.as_bytes(), target, new.as_bytes(), Rename::Replace);
        assert_eq!(done.is_ok(), possible, "{old_path} -> {new_path}: {done:?}");
        if !possible {
            return;
        }
        // The name that is replaced stays as it is spelled.
        let replaced = self.model.get(&new_key).filter(|_| new_key != old_key);
        let new_path = match replaced {
            Some((path, _)) => path.clone(),
            None => format!("{new_path}{slash}"),
        };
        let moved: Vec<String> = match directory {
            true => self.model.keys().filter(|key| key.starts_with(&old_key)).cloned().collect(),
            false => vec![old_key],
        };
        let old_length = old_path.len() + slash.len();
        for key in moved {
            let (path, data) = self.model.remove(&key).unwrap();
            let path = format!("{new_path}{}", &path[old_length..]);
            self.model.insert(Self::fold(&path), (path, data));
        }
    }

    pub(crate) fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        self.model.values().cloned().collect()
    }
}

/// Fills a volume to about `share` of its clusters, leaving gaps.
pub(crate) fn fill(ours: &dyn Filesystem, seed: u64, share: u64) {
    let mut rng = Rng::new(seed);
    let numbers = ours.statistics().unwrap();
    let wanted = numbers.blocks * share / 100;
    let mut folders = vec![ours.root()];
    let mut number = 0;
    while numbers.blocks - ours.statistics().unwrap().free < wanted {
        number += 1;
        let folder = *rng.pick(&folders);
        if rng.one_in(12) {
            let name = format!("Folder number {number}");
            if let Ok(made) = ours.create(folder, name.as_bytes(), &new(FileKind::Directory)) {
                folders.push(made.inode);
            }
            continue;
        }
        let name = format!("file {number}.data");
        let Ok(made) = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)) else {
            continue;
        };
        let most = numbers.blocks * u64::from(numbers.block_size) / 40;
        let length = rng.below(most) as usize;
        let data = vec![number as u8; length];
        // In two parts, so that chains are not all in one piece.
        ours.write(made.inode, 0, &data[..length / 2]).unwrap();
        if rng.one_in(3) {
            let other = format!("gone {number}");
            if let Ok(gone) = ours.create(folder, other.as_bytes(), &new(FileKind::Regular)) {
                ours.write(gone.inode, 0, &vec![0xAA; 3000]).unwrap();
                ours.write(made.inode, (length / 2) as u64, &data[length / 2..]).unwrap();
                ours.unlink(folder, other.as_bytes()).unwrap();
                continue;
            }
        }
        ours.write(made.inode, (length / 2) as u64, &data[length / 2..]).unwrap();
    }
}
