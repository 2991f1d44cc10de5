//! One file or directory: its name, its clusters, its lengths.

use std::collections::HashSet;

use disksmith_disk::Result;

use super::super::super::name;
use super::super::layout::{DIRECTORY_MAX, name_hash};
use super::super::set::{FileSet, Stream};
use super::tree::Placed;
use super::{Checker, Folder, Walked};

impl Checker {
    pub(super) fn path(&self, folder: &Folder, set: &FileSet) -> String {
        format!("{}/{}", folder.path, String::from_utf8_lossy(&name::to_bytes(&set.name())))
    }

    /// Answers where a directory's entries are, if it is one.
    pub(super) fn file(
        &mut self,
        path: &str,
        placed: &mut Placed,
        names: &mut HashSet<Vec<u16>>,
    ) -> Result<Option<Stream>> {
        let before = placed.set.clone();
        let stream = before.stream();
        let starts = stream.size > 0 && self.volume.geometry.is_cluster(stream.start);
        if starts && !self.ledger.starts.insert(stream.start) {
            // Most likely a file that was being moved when the power failed.
            self.ledger.found(format!("{path} has the clusters of another name"), true);
            self.remove(&placed.raw)?;
            return Ok(None);
        }
        self.name(path, &mut placed.set, names);
        let keep = match before.is_directory() {
            true => self.directory(path, &mut placed.set)?,
            false => {
                self.content(path, &mut placed.set)?;
                true
            }
        };
        for extra in before.extra_streams() {
            let wanted = self.volume.clusters_for(extra.size).unwrap_or(u32::MAX);
            if self.walk(extra, wanted)?.fault.is_some() {
                self.ledger.found(format!("{path}: what others attached to it is damaged"), false);
            }
        }
        if !keep {
            self.remove(&placed.raw)?;
            return Ok(None);
        }
        if placed.set != before {
            self.rewrite(placed)?;
        }
        let set = &placed.set;
        Ok(set
            .is_directory()
            .then(|| Stream { size: set.size().min(DIRECTORY_MAX), ..set.stream() }))
    }

    fn name(&mut self, path: &str, set: &mut FileSet, names: &mut HashSet<Vec<u16>>) {
        let units = set.name();
        let folded = self.volume.upcase.fold(&units);
        let taken = !names.insert(folded.clone());
        // Names that end in dots or spaces are odd, but there.
        let odd = matches!(units.last(), Some(0x20 | 0x2E));
        let bad = name::fault(&units).is_some() && !(odd && units.iter().any(|u| *u != 0x2E));
        if taken || bad {
            let what = if taken { "is there twice" } else { "is no proper name" };
            self.ledger.found(format!("{path} {what}"), true);
            for number in 0..u32::MAX {
                // Never more entries than before: a name has at least one.
                let fresh: Vec<u16> = format!("FSCK{number:04}").encode_utf16().collect();
                if names.insert(self.volume.upcase.fold(&fresh)) {
                    set.rename(&fresh, &self.volume.upcase.fold(&fresh));
                    return;
                }
            }
        }
        if set.hash() != name_hash(&folded) {
            self.ledger.found(format!("{path}: the hash of its name is wrong"), true);
            set.rename(&units, &folded);
        }
    }

    /// A stream that does not reach as far as it says is cut to what is there.
    fn shortened(&mut self, path: &str, set: &mut FileSet, walked: &Walked, wanted: u32) {
        let stream = set.stream();
        let cluster = self.volume.geometry.cluster;
        let there = u64::from(walked.clusters) * cluster;
        if let Some(fault) = &walked.fault {
            self.ledger.found(format!("{path}: its chain {fault}"), true);
            self.cut(stream, walked.last);
        } else if walked.clusters < wanted {
            let size = stream.size;
            self.ledger
                .found(format!("{path} has {size} bytes, but clusters for {there} only"), true);
        } else {
            return;
        }
        let size = there.min(stream.size);
        let start = if size == 0 { 0 } else { stream.start };
        set.set_stream(Stream { start, size, ..stream }, set.valid().min(size));
    }

    /// Clusters, if the size is one that can be.
    fn wanted(&self, size: u64) -> u32 {
        let clusters = size.div_ceil(self.volume.geometry.cluster);
        u32::try_from(clusters).unwrap_or(u32::MAX)
    }

    fn content(&mut self, path: &str, set: &mut FileSet) -> Result<()> {
        let stream = set.stream();
        let wanted = self.wanted(stream.size);
        if set.stored_valid() > stream.size {
            self.ledger.found(format!("{path} has more valid bytes than bytes"), true);
            set.set_stream(stream, stream.size);
        }
        if wanted == 0 {
            if stream.start != 0 {
                self.ledger.found(format!("{path} is empty, but has clusters"), true);
                set.set_stream(Stream::default(), 0);
            }
            return Ok(());
        }
        let walked = self.walk(stream, wanted)?;
        if walked.longer {
            self.behind(path, stream, &walked)?;
        }
        self.shortened(path, set, &walked, wanted);
        Ok(())
    }

    /// What follows in a chain behind the last cluster that is needed belongs to nobody: it is
    /// found as lost.
    fn behind(&mut self, path: &str, stream: Stream, walked: &Walked) -> Result<()> {
        self.ledger
            .found(format!("{path} has more clusters than its {} bytes need", stream.size), true);
        self.cut(stream, walked.last);
        Ok(())
    }

    /// Answers whether the directory stays.
    fn directory(&mut self, path: &str, set: &mut FileSet) -> Result<bool> {
        let stream = set.stream();
        let cluster = self.volume.geometry.cluster;
        if stream.start == 0 && stream.size == 0 {
            return Ok(true);
        }
        let most = (DIRECTORY_MAX / cluster).max(1) as u32;
        let wanted = self.wanted(stream.size).max(1).min(most);
        let walked = self.walk(stream, wanted)?;
        if walked.clusters == 0 {
            let fault = walked.fault.unwrap_or_default();
            self.ledger.found(format!("{path}: its chain {fault}"), true);
            return Ok(false);
        }
        if walked.longer {
            self.behind(path, stream, &walked)?;
        }
        self.shortened(path, set, &walked, wanted);
        let size = u64::from(walked.clusters) * cluster;
        if set.size() != size || set.stored_valid() != size {
            if walked.fault.is_none() && walked.clusters == wanted {
                self.ledger
                    .found(format!("{path} is a directory, but not of whole clusters"), true);
            }
            set.set_stream(Stream { size, ..set.stream() }, size);
        }
        Ok(true)
    }
}
