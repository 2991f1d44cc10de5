//! The walk through all directories: sets, and what belongs to none.

use std::collections::HashSet;

use disksmith_disk::Result;

use super::super::layout::{ENTRY, IN_USE, UNUSED, entry_type, set_checksum};
use super::super::pages::Stage;
use super::super::set::FileSet;
use super::{Checker, DEPTH_MAX, Folder, is_damage};
use crate::raw::{byte, le16};

/// Entries read at once; more than a set can have.
const BATCH: usize = 8192;

/// An entry: its slot, its place, what is in it.
type Raw = (u32, u64, [u8; ENTRY]);

/// A set as it lies in a directory.
pub(super) struct Placed {
    pub(super) set: FileSet,
    /// Where its entries lie, and what is in them.
    pub(super) raw: Vec<(u64, [u8; ENTRY])>,
}

impl Checker {
    pub(super) fn tree(&mut self) -> Result<()> {
        let stream = self.volume.root_stream();
        let mut todo = vec![Folder { stream, path: String::new(), depth: 0 }];
        while let Some(folder) = todo.pop() {
            match self.folder(&folder, &mut todo) {
                // Without a repair, a broken chain is not followed further.
                Err(error) if is_damage(&error) => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Folder, todo: &mut Vec<Folder>) -> Result<()> {
        let mut names = HashSet::new();
        let mut from = 0;
        loop {
            let mut batch: Vec<Raw> = Vec::new();
            self.volume.entries(folder.stream, from, &mut |slot, place, raw| {
                let mut entry = [0; ENTRY];
                entry.copy_from_slice(raw);
                batch.push((slot, place, entry));
                Ok(batch.len() < BATCH)
            })?;
            let full = batch.len() >= BATCH;
            let mut at = 0;
            while let Some((_, _, raw)) = batch.get(at) {
                // A set that is not all in the batch begins the next one.
                if full && at > 0 && at + set_length(raw) > batch.len() {
                    break;
                }
                at += self.entry(folder, batch.get(at..).unwrap_or(&[]), &mut names, todo)?;
            }
            if !full {
                return Ok(());
            }
            from = batch.get(at).map_or(batch.last().map_or(0, |last| last.0 + 1), |next| next.0);
        }
    }

    /// Looks at what begins here; answers how many entries that is.
    fn entry(
        &mut self,
        folder: &Folder,
        rest: &[Raw],
        names: &mut HashSet<Vec<u16>>,
        todo: &mut Vec<Folder>,
    ) -> Result<usize> {
        let Some((_, place, raw)) = rest.first() else { return Ok(1) };
        match byte(raw, 0) {
            kind if kind & IN_USE == 0 => {}
            entry_type::FILE => return self.set(folder, rest, names, todo),
            entry_type::BITMAP | entry_type::UPCASE | entry_type::LABEL if folder.depth == 0 => {}
            // Primary entries that need not be understood.
            kind if kind & 0x60 == 0x20 => {}
            kind => {
                self.ledger.found(
                    format!("{}/: an entry of type 0x{kind:02x} belongs to no file", folder.path),
                    true,
                );
                self.store(Stage::Remove, *place, &[kind & !IN_USE])?;
            }
        }
        Ok(1)
    }

    fn set(
        &mut self,
        folder: &Folder,
        rest: &[Raw],
        names: &mut HashSet<Vec<u16>>,
        todo: &mut Vec<Folder>,
    ) -> Result<usize> {
        let wanted = rest.first().map_or(1, |first| set_length(&first.2));
        let there = 1 + rest
            .iter()
            .skip(1)
            .take(wanted - 1)
            .take_while(|(_, _, raw)| byte(raw, 0) & 0xC0 == 0xC0)
            .count();
        let raw: Vec<_> = rest.iter().take(there).map(|(_, place, raw)| (*place, *raw)).collect();
        let bytes: Vec<u8> = raw.iter().flat_map(|(_, raw)| *raw).collect();
        let Some(set) = FileSet::parse_loosely(&bytes) else {
            self.ledger
                .found(format!("{}/: the entries of a file are not whole", folder.path), true);
            self.remove(&raw)?;
            return Ok(there);
        };
        let mut placed = Placed { set, raw };
        let path = self.path(folder, &placed.set);
        self.ledger.report.files += 1;
        if le16(&bytes, 2) != set_checksum(&bytes) {
            self.ledger.found(format!("{path}: the checksum of its entries is wrong"), true);
            self.rewrite(&placed)?;
        }
        if let Some(stream) = self.file(&path, &mut placed, names)? {
            if folder.depth < DEPTH_MAX {
                todo.push(Folder { stream, path, depth: folder.depth + 1 });
            } else {
                self.ledger.found(format!("{path} is nested too deeply to be looked into"), false);
            }
        }
        Ok(there)
    }

    /// Takes the entries of a set out of use.
    pub(super) fn remove(&mut self, raw: &[(u64, [u8; ENTRY])]) -> Result<()> {
        for (place, entry) in raw {
            let kind = byte(entry, 0) & !IN_USE;
            let kind = if kind == 0 { UNUSED } else { kind };
            self.store(Stage::Remove, *place, &[kind])?;
        }
        Ok(())
    }

    /// Writes a set where it lies; what it does not need any more goes out of use.
    pub(super) fn rewrite(&mut self, placed: &Placed) -> Result<()> {
        let bytes = placed.set.sealed();
        let mut entries = bytes.chunks_exact(ENTRY);
        for (place, _) in &placed.raw {
            match entries.next() {
                Some(entry) => self.store(Stage::Entry, *place, entry)?,
                None => self.store(Stage::Entry, *place, &[UNUSED])?,
            }
        }
        Ok(())
    }
}

/// How many entries a set says that it has.
fn set_length(first: &[u8]) -> usize {
    match byte(first, 0) {
        entry_type::FILE => usize::from(byte(first, 1)) + 1,
        _ => 1,
    }
}
