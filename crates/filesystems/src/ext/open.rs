//! Opening: superblock, journal replay, orphans.

use std::sync::Arc;

use disksmith_disk::{Context as _, Disk, Error, Kind, Result};

use super::core::{Core, JOURNAL_INODE, TRANSACTION_MAX, corrupt, read_superblock};
use super::features::{Compat, FeatureSet, Incompat, RoCompat};
use super::journal::{Journal, JournalSuper, Overlay, Replay, scan};
use super::layout::superblock::{STATE_VALID, SUPERBLOCK_SIZE};
use super::layout::{Superblock, put};
use super::shape::Shape;

/// The journal's superblock and where its blocks lie.
pub(crate) type JournalPlace = (JournalSuper, Vec<(u32, u64, u32)>);

impl Core {
    /// Opens without writing anything: what the journal holds is seen through an overlay.
    pub(crate) fn open_read_only(disk: Arc<dyn Disk>) -> Result<Self> {
        let core = Self::load(disk.clone(), Overlay::default(), true)?;
        if !core.sb.has_incompat(Incompat::RECOVER) {
            return Ok(core);
        }
        let Some(replay) = core.read_journal()?.map(|(replay, _)| replay) else { return Ok(core) };
        if replay.overlay.is_empty() {
            read_superblock(&*disk, &Overlay::default(), true)?;
            return Ok(core);
        }
        Self::load(disk, replay.overlay, true)
    }

    /// Opens for changes: the journal is replayed onto the disk first, orphans are dealt with.
    pub(crate) fn open_writable(disk: Arc<dyn Disk>) -> Result<Self> {
        let sb = read_superblock(&*disk, &Overlay::default(), false)?;
        let shape = Shape::new(&sb, disk.size())?;
        shape.features.check_writable()?;
        if disk.read_only() {
            return Err(crate::errors::read_only());
        }
        recover(&disk)?;
        let mut core = Self::load(disk, Overlay::default(), false)?;
        if core.sb.has_incompat(Incompat::MMP) {
            core.check_mmp()?;
        }
        core.start_journal()?;
        core.process_orphans()?;
        Ok(core)
    }

    /// Refuses a filesystem that another host may have mounted.
    fn check_mmp(&self) -> Result<()> {
        const CLEAN: u32 = 0xFF4D_4D50;
        let number = self.sb.s_mmp_block();
        if !self.shape.valid_range(number, 1) {
            return Err(corrupt("the multiple mount protection block lies outside"));
        }
        let sequence = super::layout::le32(&self.block(number)?, 4);
        if sequence == CLEAN {
            return Ok(());
        }
        Err(Error::new(
            Kind::InUse,
            "The filesystem is mounted elsewhere (multiple mount protection)",
        ))
    }

    /// The journal's place; `None` without a journal.
    pub(crate) fn journal_place(&self) -> Result<Option<JournalPlace>> {
        if !self.sb.has_compat(Compat::HAS_JOURNAL) {
            return Ok(None);
        }
        let number = match self.sb.s_journal_inum() {
            0 if self.sb.s_journal_dev() != 0 => {
                return Err(Error::new(
                    Kind::Unsupported,
                    "The filesystem keeps its journal on another device",
                ));
            }
            0 => JOURNAL_INODE,
            number => number,
        };
        let mut inode = self.inode(number).context("Could not read the journal's inode")?;
        if !inode.is_regular() || inode.i_links_count() == 0 {
            // The superblock keeps a copy for this case.
            inode = self.sb.journal_backup(inode);
        }
        if !inode.is_regular() || inode.i_links_count() == 0 {
            return Err(corrupt("the journal's inode is no file"));
        }
        let blocks = inode.size() >> self.shape.block_bits;
        let mut runs = Vec::new();
        for run in self.mapped_runs(&inode, blocks.min(u32::MAX.into()))? {
            if let Some(place) = run.data() {
                runs.push((run.start as u32, place, run.length as u32));
            }
        }
        let mut raw = vec![0; self.shape.block_size];
        let first = Journal::place(&runs, 0)?;
        self.disk.read_at(&mut raw, first << self.shape.block_bits)?;
        let sb = JournalSuper::parse(&raw, self.shape.block_size, blocks)?;
        Ok(Some((sb, runs)))
    }

    /// Reads the log.
    pub(crate) fn read_journal(&self) -> Result<Option<(Replay, JournalPlace)>> {
        let Some((sb, runs)) = self.journal_place()? else { return Ok(None) };
        let replay = scan(&*self.disk, self.shape.block_size, &sb, &|at| Journal::place(&runs, at))
            .context("Could not read the journal")?;
        if replay.fast_commits {
            return Err(Error::new(
                Kind::Unsupported,
                "The journal ends with fast commits, which are not supported",
            )
            .with_hint("mount the filesystem once with Linux, or run e2fsck"));
        }
        Ok(Some((replay, (sb, runs))))
    }

    /// Takes the journal over for our own transactions and marks the filesystem as in use.
    fn start_journal(&mut self) -> Result<()> {
        if let Some((mut sb, runs)) = self.journal_place()? {
            sb.set_features(self.shape.checksums, self.shape.wide());
            self.disk.write_at(&sb.raw, Journal::place(&runs, 0)? << self.shape.block_bits)?;
            let journal = Journal::new(sb, runs);
            self.transaction_max = journal.transaction_max().min(TRANSACTION_MAX);
            self.journal = Some(journal);
        }
        self.mark_in_use(true)
    }

    /// Writes, in place, whether the filesystem is in use.
    fn mark_in_use(&mut self, used: bool) -> Result<()> {
        if self.journal.is_some() {
            self.sb.set_incompat(Incompat::RECOVER, used);
        } else {
            let state = self.sb.s_state();
            self.sb.set_s_state(if used { state & !STATE_VALID } else { state | STATE_VALID });
        }
        write_superblock(&*self.disk, &mut self.sb)?;
        let (number, at) = (1024 >> self.shape.block_bits, 1024 % self.shape.block_size);
        let raw = self.sb.raw;
        if let Some(block) = self.cached(number) {
            // The cache's copy is clean here: refresh it without a transaction.
            let mut block = block;
            put(Arc::make_mut(&mut block).as_mut_slice(), at, &raw);
            self.replace_clean(number, block);
        }
        self.disk.flush()
    }

    /// Everything to its place, the filesystem marked clean.
    pub(crate) fn shut_down(&mut self) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        if !self.transaction.is_empty() {
            let now = self.now().seconds;
            let sb = self.super_mut();
            sb.set_s_wtime((now & 0xffff_ffff) as u32);
            sb.set_s_wtime_hi((now >> 32 & 0xff) as u8);
        }
        self.commit()?;
        self.checkpoint()?;
        self.mark_in_use(false)?;
        self.read_only = true;
        Ok(())
    }
}

/// Writes the primary superblock in place, with its checksum.
pub(crate) fn write_superblock(disk: &dyn Disk, sb: &mut Superblock) -> Result<()> {
    if sb.has_ro(RoCompat::METADATA_CSUM) {
        let value = super::checksum::crc32c(!0, &sb.raw[..SUPERBLOCK_SIZE - 4]);
        sb.set_s_checksum(value);
    }
    disk.write_at(&sb.raw, 1024)
}

/// Replays the journal onto the disk.
pub(crate) fn recover(disk: &Arc<dyn Disk>) -> Result<bool> {
    let core = Core::load(disk.clone(), Overlay::default(), true)?;
    let features = FeatureSet { incompat: core.sb.incompat(), ..FeatureSet::default() };
    if !features.incompat.contains(Incompat::RECOVER) {
        return Ok(false);
    }
    let size = core.shape.block_size;
    if let Some((replay, (mut journal, runs))) = core.read_journal()? {
        if replay.damaged > 0 {
            return Err(corrupt(format!(
                "{} blocks in the journal have wrong checksums",
                replay.damaged
            )));
        }
        let mut block = vec![0; size];
        for number in replay.overlay.numbers() {
            if number >= core.shape.blocks {
                return Err(corrupt(format!("the journal holds block {number}, past the end")));
            }
            replay.overlay.read(&**disk, &mut block, number, size)?;
            disk.write_at(&block, number * size as u64)?;
        }
        disk.flush()?;
        journal.clear_error();
        journal.set_log(0, replay.next_sequence);
        disk.write_at(&journal.raw, Journal::place(&runs, 0)? * size as u64)?;
    }
    let mut sb = read_superblock(&**disk, &Overlay::default(), true)?;
    sb.set_incompat(Incompat::RECOVER, false);
    write_superblock(&**disk, &mut sb)?;
    disk.flush()?;
    Ok(true)
}
