//! What lies in the tour's folder, and what a command changed there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use disksmith_disk::human_size;

use super::bytes::Bytes;

/// Deepest folder that is looked into.
const DEPTH: usize = 4;

/// Names with what was seen of them.
#[derive(Debug, Default)]
pub(crate) struct Listing(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    size: u64,
    allocated: u64,
    changed: i64,
    /// Of raw disks with little data.
    bytes: Option<Bytes>,
}

impl Listing {
    /// Looks at all files below `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut listing = Self::default();
        listing.add(folder, "", 0);
        listing
    }

    fn add(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if metadata.is_dir() {
                if depth < DEPTH {
                    self.add(&entry.path(), &format!("{name}/"), depth + 1);
                }
                continue;
            }
            let changed = metadata.mtime_nsec() ^ (metadata.mtime() << 30);
            let path: PathBuf = entry.path();
            let raw = path.extension().is_some_and(|extension| extension == "raw");
            let seen = Seen {
                size: metadata.len(),
                allocated: metadata.blocks() * 512,
                changed,
                bytes: if raw { Bytes::read(&path) } else { None },
            };
            self.0.insert(name, seen);
        }
    }

    /// Nothing there.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line per file that is new or has changed: what `ls -lhs` would show of it.
    pub(crate) fn changes_since(&self, before: &Self) -> String {
        let mut text = String::new();
        for (name, seen) in &self.0 {
            let (size, now) = (human_size(seen.size), human_size(seen.allocated));
            let Some(old) = before.0.get(name) else {
                text += &format!("  new      {name}: {size} long, {now} of it on disk\n");
                continue;
            };
            if old.changed == seen.changed && old.allocated == seen.allocated {
                continue;
            }
            let was = human_size(old.allocated);
            text += &format!("  changed  {name}: {size} long, {now} on disk (was {was})\n");
            if let Some((new, old)) = seen.bytes.as_ref().zip(old.bytes.as_ref()) {
                let changes = new.changes_since(old);
                text += &changes.map_or_else(String::new, |c| format!("           {c}\n"));
            }
        }
        text
    }
}
