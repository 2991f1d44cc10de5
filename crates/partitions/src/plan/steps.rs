//! The order of writes that survives a crash at any of them.
//!
//! GPT: one copy is written and flushed before the other is touched, first the one that is not
//! the only valid one. Sector 0 comes last: it decides which sort of table the disk has.
//! MBR: boot records in sectors that no chain leads to yet, then those in the chain, each a
//! single sector, then sector 0. An extended partition that becomes longer does so before them,
//! so that nothing in it ever reaches beyond its end.

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::{MoveStep, Options, Step};
use crate::edit::moving;
use crate::gpt::read::{Copy, Survey};
use crate::gpt::write::Image;
use crate::mbr::layout::Record;
use crate::{Label, Partition, Role, Table, gpt, mbr, probe};

pub(super) fn steps(
    disk: &dyn Disk,
    before: &Table,
    after: &Table,
    options: Options,
) -> Result<Vec<Step>> {
    let survey = Survey::new(disk, before.sector_size, before.disk_sectors)
        .context("Could not read the partition table")?;
    let mut writer = Writer { disk, unit: u64::from(after.sector_size), steps: Vec::new() };
    let journal = match options.moved {
        Some(number) => writer.move_data(before, after, number)?,
        None => None,
    };
    match after.label {
        Label::Gpt => writer.gpt(before, after, &survey)?,
        Label::Mbr => writer.mbr(before, after, &survey, options)?,
        Label::None => {}
    }
    if before.label == Label::None {
        writer.erase_content(after)?;
    }
    if let Some(journal) = journal {
        writer.flush();
        writer.force_zero(journal.offset, "the record of the move, cleared");
        writer.flush();
    }
    let size = after.disk_sectors.saturating_mul(u64::from(after.sector_size));
    if after.disk_sectors != before.disk_sectors && size != disk.size() {
        writer.flush();
        writer.steps.push(Step::SetSize(size));
        writer.steps.push(Step::Flush);
    }
    Ok(writer.steps)
}

struct Writer<'d> {
    disk: &'d dyn Disk,
    unit: u64,
    steps: Vec<Step>,
}

impl Writer<'_> {
    /// Writes unless the bytes are there already.
    fn write(&mut self, offset: u64, data: Vec<u8>, what: impl Into<String>) -> Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end <= self.disk.size() {
            let mut there = vec![0; data.len()];
            self.disk.read_at(&mut there, offset)?;
            if there == data {
                return Ok(());
            }
        }
        self.steps.push(Step::Write { offset, data, what: what.into() });
        Ok(())
    }

    fn force_zero(&mut self, offset: u64, what: &str) {
        let data = vec![0; usize::try_from(self.unit).unwrap_or(512)];
        self.steps.push(Step::Write { offset, data, what: what.to_string() });
    }

    fn flush(&mut self) {
        if self.steps.last().is_some_and(|step| *step != Step::Flush) {
            self.steps.push(Step::Flush);
        }
    }

    fn sector(&self, lba: u64) -> u64 {
        lba.saturating_mul(self.unit)
    }

    fn copy(&mut self, image: Image, which: &str) -> Result<()> {
        let (entries, header) = (self.sector(image.entries_lba), self.sector(image.header_lba));
        self.write(entries, image.entries, format!("{which} GPT entries"))?;
        self.write(header, image.header, format!("{which} GPT header"))?;
        self.flush();
        Ok(())
    }

    fn gpt(&mut self, before: &Table, after: &Table, survey: &Survey) -> Result<()> {
        let (primary, backup) = gpt::write::encode(after)?;
        let backup_lba = backup.header_lba;
        if survey.backup_is_valid() && !survey.primary_is_valid() && backup_lba == survey.backup_lba
        {
            self.copy(primary, "primary")?;
            self.copy(backup, "backup")?;
        } else {
            self.copy(backup, "backup")?;
            self.copy(primary, "primary")?;
        }
        let (mut sector, old) = self.sector_zero(before)?;
        gpt::protective::encode(after, &old).encode_with_id(&mut sector);
        self.write(0, sector, "protective MBR in sector 0")?;
        self.flush();
        self.erase_old_backup(before, after, survey, backup_lba)
    }

    /// The header of a backup that is not where the new one is would only confuse.
    fn erase_old_backup(
        &mut self,
        before: &Table,
        after: &Table,
        survey: &Survey,
        new: u64,
    ) -> Result<()> {
        let lba = survey.backup_lba;
        let replaced = survey.backup.is_some() && lba != new && lba > 1;
        let tables_own =
            lba >= new.saturating_sub(gpt::write::entry_sectors(
                after.capacity,
                after.entries.size,
                after.sector_size,
            )) && lba <= new;
        if replaced && !tables_own && !covered(before, lba) && lba < after.disk_sectors {
            let zeroes = vec![0; usize::try_from(self.unit).unwrap_or(512)];
            self.write(self.sector(lba), zeroes, "the old backup GPT header, erased")?;
            self.flush();
        }
        Ok(())
    }

    /// Sector 0 as it is, and what it lists. Of a filesystem's boot sector nothing is kept.
    fn sector_zero(&self, before: &Table) -> Result<(Vec<u8>, Record)> {
        let mut sector = vec![0; mbr::layout::RECORD_LENGTH];
        self.disk.read_at(&mut sector, 0)?;
        let content = match before.label {
            Label::None => probe::probe(self.disk)?,
            _ => None,
        };
        if content.is_some() {
            sector.fill(0);
        }
        let record = Record::parse(&sector).unwrap_or_default();
        Ok((sector, record))
    }

    fn mbr(
        &mut self,
        before: &Table,
        after: &Table,
        survey: &Survey,
        options: Options,
    ) -> Result<()> {
        let records = mbr::write::encode(after)?;
        if before.label == Label::Gpt {
            refuse_covered_gpt(after, survey)?;
        }
        let old = chain(before);
        // A GPT that is only left over goes before the last partition does: beside an MBR that
        // lists nothing it would be taken for the table.
        let remains = options.erase_gpt || after.partitions.is_empty();
        if before.label != Label::Gpt && remains {
            self.erase_gpt(after, survey)?;
        }
        self.lengthen_extended(before, after)?;
        let (linked, fresh): (Vec<_>, Vec<_>) =
            records.chain.into_iter().partition(|(at, _)| old.contains(at));
        for group in [fresh, linked] {
            // From the end of the chain on, so that what a record links to is there before it.
            for (at, record) in group.into_iter().rev() {
                let mut sector = vec![0; mbr::layout::RECORD_LENGTH];
                if old.contains(&at) {
                    self.disk.read_at(&mut sector, self.sector(at))?;
                }
                record.encode_into(&mut sector);
                self.write(self.sector(at), sector, format!("boot record in sector {at}"))?;
            }
            self.flush();
        }
        let (mut sector, _) = self.sector_zero(before)?;
        records.main.encode_with_id(&mut sector);
        self.write(0, sector, "MBR in sector 0")?;
        self.flush();
        if before.label == Label::Gpt {
            self.erase_gpt(after, survey)?;
        }
        Ok(())
    }

    /// The old MBR with the extended partition as long as it is to be, where that is in nobody's way.
    fn lengthen_extended(&mut self, before: &Table, after: &Table) -> Result<()> {
        let (Some(old), Some(new)) = (before.extended(), after.extended()) else { return Ok(()) };
        let in_the_way = |other: &Partition| {
            !other.is_logical() && other.start >= old.after() && other.start < new.after()
        };
        let longer = old.start == new.start && new.after() > old.after();
        if !longer || before.partitions.iter().any(in_the_way) {
            return Ok(());
        }
        let mut between = before.clone();
        for partition in between.partitions.iter_mut().filter(|p| p.is_extended()) {
            partition.sectors = new.sectors;
        }
        // A table that was read with oddities may be one that is not written.
        let Ok(records) = mbr::write::encode(&between) else { return Ok(()) };
        let (mut sector, _) = self.sector_zero(before)?;
        records.main.encode_with_id(&mut sector);
        self.write(0, sector, "longer extended partition in the MBR")?;
        self.flush();
        Ok(())
    }

    /// The headers first: without them nobody looks at the entries, which go so that they are
    /// not taken for a boot loader later.
    fn erase_gpt(&mut self, after: &Table, survey: &Survey) -> Result<()> {
        let places = [(survey.primary.as_ref(), 1), (survey.backup.as_ref(), survey.backup_lba)];
        let found = |(copy, lba): (Option<&Copy>, u64)| copy.map(|copy| (copy.clone(), lba));
        let found: Vec<_> = places.into_iter().filter_map(found).collect();
        for (_, lba) in found.iter().filter(|(_, lba)| !covered(after, *lba)) {
            let zeroes = vec![0; usize::try_from(self.unit).unwrap_or(512)];
            self.write(self.sector(*lba), zeroes, "GPT header, erased")?;
        }
        self.flush();
        for (copy, _) in found.iter().filter(|(copy, _)| copy.is_valid()) {
            let first = copy.header.partition_entry_lba;
            let sectors = (copy.entries.len() as u64).div_ceil(self.unit.max(1));
            let free = (first..first.saturating_add(sectors)).all(|lba| !covered(after, lba));
            if free && sectors > 0 {
                let zeroes = vec![0; copy.entries.len()];
                self.write(self.sector(first), zeroes, "GPT entries, erased")?;
            }
        }
        self.flush();
        Ok(())
    }

    /// Takes the marks of what a disk without a table held, so that nobody takes it for that.
    fn erase_content(&mut self, after: &Table) -> Result<()> {
        for content in probe::probe_all(self.disk)? {
            for (offset, length) in content.marks {
                let sector = offset / self.unit.max(1);
                // Sector 0 and the GPT have just been planned; only what they leave is erased.
                let planned = self.steps.iter().any(|step| match step {
                    Step::Write { offset: at, data, .. } => {
                        offset < at.saturating_add(data.len() as u64)
                            && offset.saturating_add(length) > *at
                    }
                    _ => false,
                });
                if !planned && sector < after.disk_sectors {
                    let zeroes = vec![0; usize::try_from(length).unwrap_or(0)];
                    self.write(offset, zeroes, format!("the mark of {}, erased", content.kind))?;
                }
            }
        }
        self.flush();
        Ok(())
    }

    fn move_data(
        &mut self,
        before: &Table,
        after: &Table,
        number: u32,
    ) -> Result<Option<moving::Journal>> {
        let (old, new) = (before.require(number)?, after.require(number)?);
        let pending = moving::pending_move_in(self.disk, before)?;
        let (journal, done) = match pending {
            Some(pending) => (Some(pending.journal), pending.done),
            None => (moving::place_journal(self.disk, before, old, new)?, 0),
        };
        let length = old.sectors.saturating_mul(self.unit);
        if done < length {
            self.steps.push(Step::Move(MoveStep {
                from: self.sector(old.start),
                to: self.sector(new.start),
                length,
                done,
                journal: journal.clone(),
            }));
            self.flush();
        }
        Ok(journal)
    }
}

/// The sectors of a table's boot records that a reader comes by.
fn chain(table: &Table) -> Vec<u64> {
    match table.label {
        Label::Mbr => crate::space::records(table),
        _ => Vec::new(),
    }
}

/// A GPT that lies in a partition cannot be erased, and would be taken for the table again.
fn refuse_covered_gpt(after: &Table, survey: &Survey) -> Result<()> {
    let headers = [(survey.primary.is_some(), 1), (survey.backup.is_some(), survey.backup_lba)];
    for (_, lba) in headers.into_iter().filter(|(there, _)| *there) {
        let over = |p: &&Partition| p.role != Role::Extended && (p.start..p.after()).contains(&lba);
        if let Some(partition) = after.partitions.iter().find(over) {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "partition {} (sectors {} to {}) lies over the header of the GPT in sector {lba}",
                    partition.number,
                    partition.start,
                    partition.end()
                ),
            )
            .with_hint("Repair the GPT, or move or shrink the partition first."));
        }
    }
    Ok(())
}

fn covered(table: &Table, lba: u64) -> bool {
    let holds = |p: &Partition| p.role != Role::Extended && (p.start..p.after()).contains(&lba);
    table.label != Label::None
        && (table.partitions.iter().any(holds) || chain(table).contains(&lba))
}
