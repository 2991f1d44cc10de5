//! Who owns the files of a new filesystem.

use std::collections::HashMap;
use std::sync::Arc;

use disksmith_disk::{Context, Result};
use disksmith_filesystems::source::SourceFile;

use super::spec::{PartitionSpec, invalid, parse_mode, parse_owner};

/// A manifest has at most so many bytes.
const MANIFEST_MAX: u64 = 64 << 20;

/// Owners other than those that the source tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    all: Option<(u32, u32)>,
    files: HashMap<Vec<u8>, Entry>,
    /// For everything below a path.
    trees: Vec<(Vec<u8>, Entry)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    owner: (u32, u32),
    mode: Option<u16>,
}

impl Owners {
    /// As the partition's spec says.
    pub(super) fn of(part: &PartitionSpec) -> Result<Arc<Self>> {
        let mut owners =
            Self { all: part.owner.as_deref().map(parse_owner).transpose()?, ..Self::default() };
        if let Some(path) = &part.manifest {
            let attempt = || format!("Could not read the manifest '{path}'");
            let length = std::fs::metadata(path).with_context(attempt)?.len();
            if length > MANIFEST_MAX {
                return Err(invalid("it is too large").context(attempt()));
            }
            let text = std::fs::read_to_string(path).with_context(attempt)?;
            owners.read(&text).with_context(attempt)?;
        }
        Ok(Arc::new(owners))
    }

    /// Lines of `PATH UID:GID [MODE]`; `PATH/**` is everything below it. Later lines win.
    fn read(&mut self, text: &str) -> Result<()> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            self.read_line(line).with_context(|| format!("line {}", number + 1))?;
        }
        Ok(())
    }

    fn read_line(&mut self, line: &str) -> Result<()> {
        let mut words = line.rsplitn(3, char::is_whitespace);
        let (last, before, rest) = (words.next(), words.next(), words.next());
        // The path may hold blanks: it is what stands before the owner.
        let (path, owner, mode) = match (rest, before, last) {
            (Some(path), Some(owner), Some(mode)) if parse_owner(owner).is_ok() => {
                (path, owner, Some(parse_mode(mode)?))
            }
            (Some(first), Some(second), Some(owner)) => {
                return self.add(&line[..first.len() + 1 + second.len()], owner, None);
            }
            (None, Some(path), Some(owner)) => (path, owner, None),
            _ => return Err(invalid("a line is PATH UID:GID [MODE]")),
        };
        self.add(path, owner, mode)
    }

    fn add(&mut self, path: &str, owner: &str, mode: Option<u16>) -> Result<()> {
        let entry = Entry { owner: parse_owner(owner)?, mode };
        let path = path.trim().trim_start_matches(['.', '/']);
        match path.strip_suffix("**") {
            Some(folder) => self.trees.push((folder.as_bytes().to_vec(), entry)),
            None => {
                self.files.insert(path.trim_end_matches('/').as_bytes().to_vec(), entry);
            }
        }
        Ok(())
    }

    /// Gives a file its owner and mode.
    pub(super) fn apply(&self, file: &mut SourceFile) {
        if let Some(owner) = self.all {
            (file.uid, file.gid) = owner;
        }
        let tree = self.trees.iter().rev().find(|(folder, _)| file.path.starts_with(folder));
        let entry = self.files.get(&file.path).or(tree.map(|(_, entry)| entry));
        if let Some(entry) = entry {
            (file.uid, file.gid) = entry.owner;
            file.mode = entry.mode.unwrap_or(file.mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use disksmith_filesystems::Time;
    use disksmith_filesystems::source::Node;

    use super::*;

    #[test]
    fn the_most_particular_line_wins() {
        let mut owners = Owners { all: Some((5, 5)), ..Owners::default() };
        owners.read("# all\nhome/** 1000:100\n/home/a b 7:8 4755\netc 0:0 700\n").unwrap();
        let owner = |path: &str| {
            let mut file = SourceFile {
                path: path.as_bytes().to_vec(),
                node: Node::Directory,
                mode: 0o755,
                uid: 1,
                gid: 1,
                modified: Time::default(),
                xattrs: Vec::new(),
            };
            owners.apply(&mut file);
            (file.uid, file.gid, file.mode)
        };
        assert_eq!(owner("home/x"), (1000, 100, 0o755));
        assert_eq!(owner("home/a b"), (7, 8, 0o4755));
        assert_eq!(owner("etc"), (0, 0, 0o700));
        assert_eq!(owner("usr"), (5, 5, 0o755));
        assert!(owners.read("x y z w:q").is_err());
    }
}
