//! The snapshot table: reading what there is, and mending what makes an image unusable.

use disksmith_disk::{Error, Kind, Result};

use super::super::editor::Editor;
use super::super::layout::{SnapshotEntry, SnapshotParse};
use super::super::open::{SNAPSHOT_TABLE_MOST, SNAPSHOTS_MOST};
use super::super::util::read_padded;
use super::Checker;

/// The fixed part of an entry.
const FIXED: u64 = 40;
/// The largest extra data of an entry.
const EXTRA_MOST: u32 = 1024;
/// Extra data that version 3 demands: state size and disk size.
const EXTRA_V3: u32 = 16;
/// The table is read in steps of this many bytes.
const STEP: u64 = 64 << 10;

impl Checker<'_> {
    /// Reads the snapshot table and answers how many corruptions it has (or had, in what is to
    /// be mended by writing it anew).
    pub(super) fn read_snapshots(&mut self) -> Result<u64> {
        let mut corruptions = 0;
        let mut count = u64::from(self.roots.header.nb_snapshots);
        if count > SNAPSHOTS_MOST && self.mends_errors() {
            let over = count - SNAPSHOTS_MOST;
            self.say(format!("Discarding {over} overhanging snapshots"));
            self.report.corruptions_fixed += over;
            count = SNAPSHOTS_MOST;
        }
        let offset = self.roots.header.snapshots_offset;
        if count > SNAPSHOTS_MOST {
            self.say("qemu-img: ERROR snapshot table too large");
            self.say(format!(
                "You can force-remove all {} overhanging snapshots with qemu-img check -r all",
                count - SNAPSHOTS_MOST
            ));
            return Err(Error::new(Kind::LimitExceeded, "File too large"));
        }
        let end = offset.checked_add(count * FIXED).filter(|end| i64::try_from(*end).is_ok());
        if end.is_none() || !self.roots.shape.aligned(offset) {
            self.say("qemu-img: ERROR snapshot table offset invalid");
            return Err(Error::new(Kind::Corrupt, "Invalid argument"));
        }
        corruptions += self.read_entries(offset, count)?;
        self.drop_overhang()?;
        if self.roots.header.version >= 3 {
            corruptions += self.incomplete_entries();
        }
        Ok(corruptions)
    }

    fn read_entries(&mut self, offset: u64, count: u64) -> Result<u64> {
        let mut corruptions = 0;
        let mut at = offset;
        // What the table takes, without the extra data that is dropped.
        let mut kept = 0u64;
        let mut buffer = Vec::new();
        let mut taken_at = 0;
        while (self.snapshots.len() as u64) < count {
            let index = self.snapshots.len();
            let rest: &[u8] = buffer.get(taken_at..).unwrap_or_default();
            let (entry, taken, claimed) = match SnapshotEntry::parse(rest) {
                SnapshotParse::Entry(entry, taken) => (entry, taken, None),
                SnapshotParse::ExtraTooLarge(entry, taken, claimed) => {
                    (entry, taken, Some(claimed))
                }
                SnapshotParse::More(needed) if (needed as u64) <= rest.len() as u64 => {
                    return Err(Error::new(Kind::Corrupt, "Invalid argument"));
                }
                SnapshotParse::More(needed) if needed as u64 > SNAPSHOT_TABLE_MOST => {
                    let claimed = disksmith_disk::bytes::be32(rest, 36).unwrap_or(0);
                    corruptions += self.overlong_extra(index, claimed)?;
                    self.overhanging(count - index as u64)?;
                    break;
                }
                SnapshotParse::More(needed) => {
                    buffer = disksmith_disk::bytes::zeroed((needed as u64).max(STEP) as usize)?;
                    taken_at = 0;
                    read_padded(self.storage, &mut buffer, at)?;
                    continue;
                }
            };
            if let Some(claimed) = claimed {
                corruptions += self.overlong_extra(index, claimed)?;
            }
            let dropped = claimed.map_or(0, |claimed| claimed - EXTRA_MOST);
            kept += taken as u64 - u64::from(dropped) / 8 * 8;
            if kept > SNAPSHOT_TABLE_MOST {
                self.overhanging(count - index as u64)?;
                break;
            }
            let extra = claimed.unwrap_or(entry.extra_data_size);
            let bytes = FIXED + u64::from(extra) + (entry.id.len() + entry.name.len()) as u64;
            // The padding of the last entry is not part of the table.
            self.snapshots_bytes = at - offset + bytes;
            at += taken as u64;
            taken_at += taken;
            disksmith_disk::bytes::push(&mut self.snapshots, *entry)?;
        }
        Ok(corruptions)
    }

    /// Entries at the end of the table go by telling a smaller number of them.
    fn drop_overhang(&mut self) -> Result<()> {
        let kept = self.snapshots.len() as u32;
        if !self.mends_errors() || kept == self.roots.header.nb_snapshots {
            return Ok(());
        }
        self.roots.header.nb_snapshots = kept;
        self.storage.write_at(&kept.to_be_bytes(), 60)?;
        self.storage.flush()
    }

    fn overlong_extra(&mut self, index: usize, claimed: u32) -> Result<u64> {
        if self.mends_errors() {
            self.say(format!(
                "Discarding too much extra metadata in snapshot table entry {index} ({claimed} > {EXTRA_MOST})"
            ));
            return Ok(1);
        }
        self.say(format!(
            "qemu-img: ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry {index}"
        ));
        self.say("You can force-remove this extra metadata with qemu-img check -r all");
        Err(Error::new(Kind::LimitExceeded, "File too large"))
    }

    fn overhanging(&mut self, over: u64) -> Result<()> {
        if self.mends_errors() {
            self.report.corruptions_fixed += over;
            self.say(format!(
                "Discarding {over} overhanging snapshots (snapshot table is too big)"
            ));
            return Ok(());
        }
        self.say("qemu-img: ERROR failed to read the snapshot table: Snapshot table is too big");
        self.say(format!(
            "You can force-remove all {over} overhanging snapshots with qemu-img check -r all"
        ));
        Err(Error::new(Kind::LimitExceeded, "File too large"))
    }

    fn incomplete_entries(&mut self) -> u64 {
        let verdict = if self.mends_errors() { "Repairing" } else { "ERROR" };
        let incomplete: Vec<usize> = self
            .snapshots
            .iter()
            .enumerate()
            .filter_map(|(index, s)| (s.extra_data_size < EXTRA_V3).then_some(index))
            .collect();
        for index in &incomplete {
            self.say(format!("{verdict} snapshot table entry {index} is incomplete"));
        }
        incomplete.len() as u64
    }

    /// Writes the table anew where that mends it, and adds its corruptions to the report.
    pub(super) fn mend_snapshots(&mut self, corruptions: u64) -> Result<()> {
        if corruptions == 0 || !self.mends_errors() {
            self.report.corruptions += corruptions;
            return Ok(());
        }
        let old = (self.roots.header.snapshots_offset, self.snapshots_bytes);
        let mut editor = Editor::load(self.storage)?;
        if let Err(error) = editor.write_snapshots(&self.snapshots, old) {
            self.report.corruptions += corruptions;
            let text = format!("ERROR failed to update snapshot table: {}", error.message());
            return self.give_up(text, error);
        }
        self.roots = editor.roots;
        self.report.corruptions_fixed += corruptions;
        // Giving the old table back may have left something that shared its clusters the only
        // user of them, and what it claimed may not have been counted as used.
        super::check(self.storage, self.repair, &mut |_| {})?;
        Ok(())
    }
}
