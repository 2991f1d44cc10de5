//! What lies in the tour's folder, and what a command changed there.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use disksmith_disk::human_size;

/// Deepest folder that is looked into.
const DEPTH: usize = 4;

/// Names with sizes and allocated sizes in bytes.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Listing(BTreeMap<String, (u64, u64, i64)>);

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
            self.0.insert(name, (metadata.len(), metadata.blocks() * 512, changed));
        }
    }

    /// Nothing there.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line per file that is new or has changed: what `ls -lhs` would show of it.
    pub(crate) fn changes_since(&self, before: &Self) -> String {
        let mut text = String::new();
        for (name, (size, allocated, changed)) in &self.0 {
            let (size, now) = (human_size(*size), human_size(*allocated));
            match before.0.get(name) {
                None => text += &format!("  new      {name}: {size} long, {now} of it on disk\n"),
                Some((_, old, when)) if when != changed || old != allocated => {
                    text += &format!(
                        "  changed  {name}: {size} long, {now} on disk (was {})\n",
                        human_size(*old)
                    );
                }
                Some(_) => {}
            }
        }
        text
    }
}
