//! What the root directory says of the volume: bitmap, up-case table, and the root itself.

use std::collections::HashSet;
use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use super::super::layout::{CHAIN_END, DIRECTORY_MAX, ENTRY, entry_type, table_checksum};
use super::super::make::upcase_table;
use super::super::pages::Stage;
use super::super::set::Stream;
use super::super::upcase::Upcase;
use super::super::volume::Volume;
use super::{Checker, is_damage};
use crate::raw::{byte, le32, le64, put32, put64};

/// Cuts the chain of a root directory that cannot be followed, without which nothing can be read.
/// Answers whether it did.
pub(super) fn mend_root(disk: &Arc<dyn Disk>) -> Result<bool> {
    let mut volume = Volume::open_bare(disk.clone(), false)?;
    if !volume.runs(volume.root_stream()).is_err_and(|error| is_damage(&error)) {
        return Ok(false);
    }
    let (mut cluster, mut seen) = (volume.geometry.root, HashSet::new());
    let most = (DIRECTORY_MAX / volume.geometry.cluster).max(1) as usize;
    while seen.insert(cluster) && seen.len() <= most {
        let next = volume.fat_entry(cluster)?;
        if !volume.geometry.is_cluster(next) || seen.contains(&next) {
            break;
        }
        cluster = next;
    }
    volume.begin()?;
    volume.set_fat(Stage::Entry, cluster, CHAIN_END)?;
    volume.pages.commit()?;
    Ok(true)
}

impl Checker {
    pub(super) fn system(&mut self) -> Result<()> {
        let root = self.volume.root_stream();
        let most = (DIRECTORY_MAX / self.volume.geometry.cluster).max(1) as u32;
        let walked = self.walk(root, most)?;
        self.ledger.starts.insert(root.start);
        if let Some(fault) = &walked.fault {
            self.ledger.found(format!("The root directory's chain {fault}"), walked.last.is_some());
            self.cut(root, walked.last);
        }
        let mut entries = Vec::new();
        self.volume.entries(root, 0, &mut |_, place, raw| {
            if matches!(byte(raw, 0), entry_type::BITMAP | entry_type::UPCASE) {
                entries.push((place, raw.to_vec()));
            }
            Ok(entries.len() < 16)
        })?;
        for (place, raw) in entries {
            match byte(&raw, 0) {
                entry_type::BITMAP => self.bitmap(place, raw)?,
                _ => self.upcase(place, raw)?,
            }
        }
        Ok(())
    }

    fn bitmap(&mut self, place: u64, mut raw: Vec<u8>) -> Result<()> {
        let stream = Stream { start: le32(&raw, 20), size: le64(&raw, 24), contiguous: false };
        let bytes = u64::from(self.volume.geometry.clusters).div_ceil(8);
        if stream.size != bytes && !self.is_cut_short() {
            let size = stream.size;
            self.ledger.found(format!("The bitmap has {size} bytes, not {bytes}"), true);
            put64(&mut raw, 24, bytes);
            self.store(Stage::Entry, place, &raw)?;
        }
        self.system_chain("The bitmap", Stream { size: bytes, ..stream })
    }

    fn upcase(&mut self, place: u64, mut raw: Vec<u8>) -> Result<()> {
        let stream = Stream { start: le32(&raw, 20), size: le64(&raw, 24), contiguous: false };
        self.system_chain("The up-case table", stream)?;
        let bytes = self.volume.upcase_bytes(stream).unwrap_or_default();
        if table_checksum(&bytes) == le32(&raw, 4) && bytes.len() as u64 == stream.size {
            return Ok(());
        }
        self.ledger.found("The checksum of the up-case table is wrong", true);
        if !self.ledger.mends_all() {
            return Ok(());
        }
        // Ours, if it fits where the damaged one lies.
        let ours = upcase_table();
        let room = stream.size.next_multiple_of(self.volume.geometry.cluster);
        let table = if ours.len() as u64 <= room { ours } else { bytes };
        let runs = self.volume.runs(stream)?;
        let mut done = 0;
        while let Some(rest) = table.get(done..).filter(|rest| !rest.is_empty()) {
            let Some((at, room)) = self.volume.locate(&runs, done as u64) else { break };
            let step = rest.len().min(room as usize);
            self.store(Stage::Allocate, at, rest.get(..step).unwrap_or(&[]))?;
            done += step;
        }
        put32(&mut raw, 4, table_checksum(&table));
        put64(&mut raw, 24, table.len() as u64);
        self.volume.upcase = Upcase::parse(&table);
        self.store(Stage::Entry, place, raw.get(..ENTRY).unwrap_or(&[]))
    }

    fn system_chain(&mut self, what: &str, stream: Stream) -> Result<()> {
        let wanted = self.volume.clusters_for(stream.size)?;
        self.ledger.starts.insert(stream.start);
        let walked = self.walk(stream, wanted)?;
        if let Some(fault) = walked.fault {
            self.ledger.found(format!("{what}: its chain {fault}"), false);
        } else if walked.clusters < wanted {
            self.ledger.found(format!("{what}: its chain is too short"), false);
        } else if walked.longer {
            self.ledger.found(format!("{what} has more clusters than it needs"), true);
            self.cut(stream, walked.last);
        }
        Ok(())
    }
}
