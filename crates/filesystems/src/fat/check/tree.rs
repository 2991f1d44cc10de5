//! The walk through all directories: names, chains, sizes, `.` and `..`.

use std::collections::HashSet;

use disksmith_disk::{Kind, Result};

use super::super::chain::FILE_MAX;
use super::super::directory::SLOTS_MAX;
use super::super::layout::{DirEntry, ENTRY, FREE, attribute};
use super::super::name::{self, Assembler, fold, short_text};
use super::{Checker, DEPTH_MAX, Folder, Walked};
use crate::raw::put;

impl Checker {
    pub(super) fn tree(&mut self) -> Result<()> {
        let root = self.core.shape.root_cluster;
        if root != 0 {
            let walked = self.walk(root, u32::MAX)?;
            self.ledger.starts.insert(root);
            if let Some(fault) = walked.fault {
                self.ledger
                    .found(format!("The root directory's chain {fault}"), walked.last.is_some());
                if let Some(last) = walked.last {
                    self.end_chain(last)?;
                }
            }
        }
        let mut todo = vec![Folder { start: root, parent: 0, path: String::new(), depth: 0 }];
        while let Some(folder) = todo.pop() {
            self.folder(&folder, &mut todo)?;
        }
        Ok(())
    }

    /// Follows a chain, claims its clusters, stops at the first fault or after `most`.
    pub(super) fn walk(&mut self, start: u32, most: u32) -> Result<Walked> {
        let mut walked = Walked { clusters: 0, last: None, fault: None };
        let mut cluster = start;
        while walked.clusters < most {
            if !self.core.shape.is_cluster(cluster) {
                walked.fault = Some(format!("leads to cluster {cluster}, which is not there"));
                return Ok(walked);
            }
            if self.ledger.is_claimed(cluster) {
                walked.fault = Some(format!("comes to cluster {cluster}, which is in use already"));
                return Ok(walked);
            }
            let next = self.core.table.get(&*self.core.disk, &self.core.shape, cluster)?;
            let bad = self.core.shape.kind.bad();
            if next == 0 || next == 1 || next == bad {
                let what = if next == bad { "a bad" } else { "a free" };
                walked.fault = Some(format!("comes to cluster {cluster}, {what} one"));
                return Ok(walked);
            }
            self.ledger.claim(cluster);
            walked.clusters += 1;
            walked.last = Some(cluster);
            if next > bad {
                return Ok(walked);
            }
            cluster = next;
        }
        walked.fault = Some("is longer than the file".to_string());
        Ok(walked)
    }

    fn folder(&mut self, folder: &Folder, todo: &mut Vec<Folder>) -> Result<()> {
        let chunks = match self.core.directory_chunks(folder.start) {
            Ok(chunks) => chunks,
            // Without a repair, a root directory with a broken chain is not followed further.
            Err(error) if error.kind() == Kind::Corrupt => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names: HashSet<Vec<u16>> = HashSet::new();
        let mut assembler = Assembler::default();
        // Long entries that wait for their short one.
        let mut waiting: Vec<u64> = Vec::new();
        let mut slot = 0;
        'all: for at in chunks {
            let chunk = self.core.chunks.get(&*self.core.disk, &self.core.shape, at)?;
            for index in 0..chunk.bytes.len() / ENTRY {
                let Some(entry) = chunk.entry(index) else { break };
                let place = at + (index * ENTRY) as u64;
                slot += 1;
                if entry.is_end() || slot > SLOTS_MAX {
                    break 'all;
                }
                if entry.is_free() {
                    self.orphans(folder, &mut waiting)?;
                    assembler.clear();
                } else if entry.is_long_part() {
                    if entry.raw[0] & super::super::layout::LAST_LONG_ENTRY != 0 {
                        self.orphans(folder, &mut waiting)?;
                    }
                    waiting.push(place);
                    assembler.add(&entry.raw, slot);
                } else {
                    let long = assembler.take(&entry.name()).map(|long| long.0);
                    if long.is_none() {
                        self.orphans(folder, &mut waiting)?;
                    }
                    let kept = self.entry(folder, entry, place, long, &mut names, todo)?;
                    for place in waiting.drain(..).filter(|_| !kept) {
                        self.store(place, &[FREE])?;
                    }
                }
            }
        }
        self.orphans(folder, &mut waiting)
    }

    /// Parts of long names without the entry that they belong to.
    fn orphans(&mut self, folder: &Folder, waiting: &mut Vec<u64>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        self.ledger
            .found(format!("{}/: parts of a long name belong to no file", folder.path), true);
        for place in waiting.drain(..) {
            self.store(place, &[FREE])?;
        }
        Ok(())
    }

    /// Answers whether the long name stays.
    fn entry(
        &mut self,
        folder: &Folder,
        mut entry: DirEntry,
        place: u64,
        long: Option<Vec<u16>>,
        names: &mut HashSet<Vec<u16>>,
        todo: &mut Vec<Folder>,
    ) -> Result<bool> {
        if entry.is_volume_id() && !entry.is_directory() {
            let blank = entry.name() == [b' '; 11];
            if folder.depth == 0 && self.label.is_none() && !blank {
                self.label = Some(entry.name());
            } else {
                self.ledger.found(
                    format!("{}/: a label that is empty or where none belongs", folder.path),
                    true,
                );
                self.store(place, &[FREE])?;
            }
            return Ok(true);
        }
        if entry.is_dot() && folder.depth > 0 {
            let first = self.core.shape.place(folder.start);
            let own = if &entry.name() == b".          " { first } else { first + ENTRY as u64 };
            if place != own {
                self.ledger
                    .found(format!("{}/: . or .. where they do not belong", folder.path), true);
                self.store(place, &[FREE])?;
                return Ok(false);
            }
            self.dots(folder, entry, place)?;
            return Ok(true);
        }
        let before = entry;
        let units = long.unwrap_or_else(|| short_text(&entry.name(), entry.case()));
        let path = format!("{}/{}", folder.path, String::from_utf8_lossy(&name::to_bytes(&units)));
        self.ledger.report.files += 1;
        self.check_name(&path, &mut entry, &units, names)?;
        let start = entry.start(self.core.is_fat32());
        if start != 0 && !self.ledger.starts.insert(start) && self.core.shape.is_cluster(start) {
            // Most likely a file that was being moved when the power failed.
            self.ledger.found(format!("{path} has the clusters of another name"), true);
            self.store(place, &[FREE])?;
            return Ok(false);
        }
        if entry.is_directory() {
            self.check_folder(folder, &path, &mut entry, place, start, todo)?;
        } else {
            self.check_file(&path, &mut entry, start)?;
        }
        if entry != before && !entry.is_free() {
            self.store(place, &entry.raw)?;
        }
        // Long parts belong to the short name that they were made for.
        Ok(!entry.is_free() && entry.name() == before.name())
    }

    fn check_name(
        &mut self,
        path: &str,
        entry: &mut DirEntry,
        units: &[u16],
        names: &mut HashSet<Vec<u16>>,
    ) -> Result<()> {
        let short = entry.name();
        let bad = short[0] == b' '
            || short.iter().any(|byte| {
                *byte < 0x20 && *byte != super::super::layout::KANJI_E5
                    || byte.is_ascii_lowercase()
                    || b"\"*+,./:;<=>?[\\]|".contains(byte)
            });
        let taken = !names.insert(fold(units));
        let short_units = fold(&short_text(&short, 0));
        let short_taken = fold(units) != short_units && !names.insert(short_units);
        if !bad && !taken && !short_taken && (units.is_empty() || name::fault(units).is_none()) {
            return Ok(());
        }
        let what = if taken || short_taken { "is there twice" } else { "is no proper name" };
        self.ledger.found(format!("{path} {what}"), true);
        for number in 0..u32::MAX {
            let mut fresh = *b"FSCK0000   ";
            put(&mut fresh, 4, format!("{:04}", number % 10_000).as_bytes());
            put(&mut fresh, 8, format!("{:03}", number / 10_000 % 1000).as_bytes());
            if names.insert(fold(&short_text(&fresh, 0))) {
                entry.set_name(&fresh, 0);
                break;
            }
        }
        Ok(())
    }

    fn check_file(&mut self, path: &str, entry: &mut DirEntry, start: u32) -> Result<()> {
        let size = u64::from(entry.size());
        let cluster = self.core.shape.cluster_size();
        if entry.attributes() & attribute::VOLUME_ID != 0 {
            return Ok(());
        }
        if start == 0 {
            if size > 0 {
                self.ledger.found(format!("{path} has {size} bytes, but no clusters"), true);
                entry.set_size(0);
            }
            return Ok(());
        }
        let wanted = size.div_ceil(cluster).min(FILE_MAX / cluster + 1) as u32;
        let walked = self.walk(start, wanted)?;
        if walked.clusters == wanted && walked.fault.is_some() {
            // What is behind belongs to nobody: it is found as lost.
            self.ledger.found(format!("{path} has more clusters than its {size} bytes need"), true);
            match walked.last {
                Some(last) => self.end_chain(last)?,
                None => entry.set_start(0),
            }
            return Ok(());
        }
        if let Some(fault) = walked.fault {
            self.ledger.found(format!("{path}: its chain {fault}"), true);
            match walked.last {
                Some(last) => self.end_chain(last)?,
                None => entry.set_start(0),
            }
            entry.set_size((u64::from(walked.clusters) * cluster).min(size) as u32);
        } else if walked.clusters < wanted {
            let there = u64::from(walked.clusters) * cluster;
            self.ledger
                .found(format!("{path} has {size} bytes, but clusters for {there} only"), true);
            entry.set_size(there as u32);
        }
        Ok(())
    }

    fn check_folder(
        &mut self,
        folder: &Folder,
        path: &str,
        entry: &mut DirEntry,
        place: u64,
        start: u32,
        todo: &mut Vec<Folder>,
    ) -> Result<()> {
        if entry.size() != 0 {
            self.ledger.found(format!("{path} is a directory, but has a length"), true);
            entry.set_size(0);
        }
        if start == 0 {
            self.ledger.found(format!("{path} is a directory without clusters"), true);
            entry.raw[0] = FREE;
            return self.store(place, &[FREE]);
        }
        let most = (u64::from(SLOTS_MAX) * ENTRY as u64).div_ceil(self.core.shape.cluster_size());
        let walked = self.walk(start, most.max(1) as u32)?;
        if let Some(fault) = walked.fault {
            self.ledger.found(format!("{path}: its chain {fault}"), true);
            match walked.last {
                Some(last) => self.end_chain(last)?,
                None => {
                    entry.raw[0] = FREE;
                    return self.store(place, &[FREE]);
                }
            }
        }
        if folder.depth >= DEPTH_MAX {
            self.ledger.found(format!("{path} is nested too deeply to be looked into"), false);
            return Ok(());
        }
        self.check_dots_are_there(path, start, folder.start)?;
        todo.push(Folder {
            start,
            parent: folder.start,
            path: path.to_string(),
            depth: folder.depth + 1,
        });
        Ok(())
    }

    /// The first two entries of a directory are `.` and `..`.
    fn check_dots_are_there(&mut self, path: &str, start: u32, parent: u32) -> Result<()> {
        let place = self.core.shape.place(start);
        let expected = [(b".          ", start), (b"..         ", self.core.dotdot(parent))];
        for (index, (name, to)) in expected.into_iter().enumerate() {
            let chunk = self.core.chunks.get(&*self.core.disk, &self.core.shape, place)?;
            let Some(there) = chunk.entry(index) else { break };
            if there.name() == *name && there.is_directory() {
                continue;
            }
            let in_the_way = !there.is_free() && !there.is_dot();
            let room = !in_the_way || self.put_elsewhere(start, &there)?;
            self.ledger.found(format!("{path} does not begin with . and .."), room);
            if room {
                let mut entry = DirEntry::new(name, attribute::DIRECTORY);
                entry.set_start(to);
                self.store(place + (index * ENTRY) as u64, &entry.raw)?;
            }
        }
        Ok(())
    }

    /// Puts an entry into a free slot of its directory, on the disk too: what is written over its
    /// old one may be there before anything else. Answers whether there was room.
    fn put_elsewhere(&mut self, start: u32, entry: &DirEntry) -> Result<bool> {
        if !self.ledger.mends_all() {
            return Ok(false);
        }
        let hash = self.core.name_hash(&short_text(&entry.name(), 0));
        match self.core.add_entries(start, &[entry.raw], &[hash]) {
            Err(error) if error.kind() == Kind::OutOfSpace => return Ok(false),
            done => done?,
        };
        // The directory may have one cluster more.
        for run in self.core.chain(start)?.iter() {
            for cluster in run.cluster..run.cluster + run.count {
                if !self.ledger.is_claimed(cluster) {
                    self.ledger.claim(cluster);
                }
            }
        }
        self.core.commit()?;
        Ok(true)
    }

    /// `.` leads to the directory itself, `..` to its parent.
    fn dots(&mut self, folder: &Folder, mut entry: DirEntry, place: u64) -> Result<()> {
        let up = &entry.name() == b"..         ";
        let right = if up { self.core.dotdot(folder.parent) } else { folder.start };
        let fault = if !entry.is_directory() {
            "is no directory"
        } else if entry.start(self.core.is_fat32()) != right {
            "leads elsewhere"
        } else if entry.size() != 0 {
            "has a length"
        } else {
            return Ok(());
        };
        let name = if up { ".." } else { "." };
        self.ledger.found(format!("{}/{name} {fault}", folder.path), true);
        entry.set_attributes(entry.attributes() | attribute::DIRECTORY);
        entry.set_start(right);
        entry.set_size(0);
        self.store(place, &entry.raw)
    }
}
