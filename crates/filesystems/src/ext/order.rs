//! Without a journal: what must be durable before what, so that a cut costs no name.
//!
//! A commit goes out in [`Phase`]s, one durable before the next begins. Three things do not fit
//! into phases as they are:
//!
//! - A name that moves from one block of a directory to another must be there before it is gone:
//!   blocks that lose one follow those that get one. A block on both sides would have to follow
//!   itself; the change then waits until what came before it is committed ([`Core::note_move`]).
//! - An inode that lost its last name shares its block with new ones. The block goes out with the
//!   old inode first, and again when no directory names it any more ([`Core::note_unnamed`]).
//!   Nobody gets its number before that.
//! - A block of pointers that got some precedes the inode whose length covers them.

use std::collections::{HashMap, HashSet};

use disksmith_disk::Result;

use super::cache::Block;
use super::core::{Core, Obstacle};
use super::layout::Inode;
use crate::errors;

/// What a transaction knows of it.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Blocks that were new here.
    pub(crate) fresh: HashSet<u64>,
    /// Blocks of pointers that got some.
    pointing: HashSet<u64>,
    /// Blocks of directories that got names which others lose.
    arriving: HashSet<u64>,
    /// Those others.
    leaving: HashSet<u64>,
    /// Inodes that lost their last name.
    unnamed: HashSet<u32>,
    /// Where files got a further name.
    gained: HashMap<u32, u64>,
}

/// Something that a change noted, to be taken back with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    Pointing(u64),
    Arriving(u64),
    Leaving(u64),
    Unnamed(u32),
    /// And what was known before.
    Gained(u32, Option<u64>),
}

/// The parts of a commit.
#[derive(Clone, Copy)]
enum Phase {
    /// Blocks that nothing leads to yet.
    New,
    /// Pointers to them.
    Pointers,
    /// Inodes: new ones and changed ones, those without names as they were.
    Inodes,
    Directories,
    /// Directory blocks that lost a name to another block.
    Left,
    /// Inodes without names.
    Unnamed,
    /// Bitmaps and counts, which a check can rebuild.
    Summaries,
}

impl Phase {
    const COUNT: usize = 7;
}

/// The blocks of a commit, phase by phase.
pub(super) type Phases = Vec<Vec<(u64, Block)>>;

impl Order {
    /// True when a number must not be given to a new inode before the commit.
    pub(crate) fn is_unnamed(&self, number: u32) -> bool {
        self.unnamed.contains(&number)
    }

    pub(crate) fn has_unnamed(&self) -> bool {
        !self.unnamed.is_empty()
    }

    /// True when it was not known.
    fn add(&mut self, note: Note) -> bool {
        match note {
            Note::Pointing(block) => self.pointing.insert(block),
            Note::Arriving(block) => self.arriving.insert(block),
            Note::Leaving(block) => self.leaving.insert(block),
            Note::Unnamed(number) => self.unnamed.insert(number),
            Note::Gained(..) => true,
        }
    }

    pub(super) fn take_back(&mut self, note: Note) {
        match note {
            Note::Pointing(block) => drop(self.pointing.remove(&block)),
            Note::Arriving(block) => drop(self.arriving.remove(&block)),
            Note::Leaving(block) => drop(self.leaving.remove(&block)),
            Note::Unnamed(number) => drop(self.unnamed.remove(&number)),
            Note::Gained(number, Some(before)) => drop(self.gained.insert(number, before)),
            Note::Gained(number, None) => drop(self.gained.remove(&number)),
        }
    }
}

impl Core {
    fn note(&mut self, note: Note) {
        if !self.is_journaled()
            && self.transaction.order.add(note)
            && let Some(undo) = &mut self.undo
        {
            undo.notes.push(note);
        }
    }

    /// A block of pointers gets some.
    pub(crate) fn note_pointing(&mut self, block: u64) {
        self.note(Note::Pointing(block));
    }

    /// Names that are durable elsewhere were put into a new block.
    pub(crate) fn note_arrival(&mut self, block: u64) {
        self.note(Note::Arriving(block));
    }

    /// A name moves between blocks of directories. Refused while one of them is on the other side
    /// of an earlier move: the caller tries again after the commit.
    pub(crate) fn note_move(&mut self, from: u64, to: u64) -> Result<()> {
        let within_inodes = from == 0 || to == 0;
        if from == to || within_inodes || self.is_journaled() {
            return Ok(());
        }
        let order = &self.transaction.order;
        if order.leaving.contains(&to) || order.arriving.contains(&from) {
            self.obstacle = Some(Obstacle::Running);
            return Err(errors::busy());
        }
        self.note(Note::Arriving(to));
        self.note(Note::Leaving(from));
        Ok(())
    }

    /// A file got one more name.
    pub(crate) fn note_gain(&mut self, file: &Inode, directory: &Inode, name: &[u8]) -> Result<()> {
        if self.is_journaled() {
            return Ok(());
        }
        if let Some(place) = self.find(directory, name)? {
            let before = self.transaction.order.gained.insert(file.number, place.block);
            self.note(Note::Gained(file.number, before));
        }
        Ok(())
    }

    /// A file loses one of its names, in this block.
    pub(crate) fn note_loss(&mut self, number: u32, block: u64) -> Result<()> {
        match self.transaction.order.gained.get(&number) {
            Some(gained) => self.note_move(block, *gained),
            None => Ok(()),
        }
    }

    /// An inode lost its last name.
    pub(crate) fn note_unnamed(&mut self, number: u32) {
        self.note(Note::Unnamed(number));
    }

    /// The blocks of a commit without a journal.
    pub(super) fn in_order(&self, blocks: &[(u64, Block)], order: &Order) -> Result<Phases> {
        let places = Places::of(self);
        let mut phases: Phases = vec![Vec::new(); Phase::COUNT];
        let mut put = |phase: Phase, number: u64, data: Block| {
            if let Some(phase) = phases.get_mut(phase as usize) {
                phase.push((number, data));
            }
        };
        let unnamed = self.unnamed_by_block(order)?;
        for (number, data) in blocks {
            let (number, data) = (*number, data.clone());
            let phase = match () {
                () if places.is_summary(number) => Phase::Summaries,
                () if places.is_table(number) => {
                    if let Some(inodes) = unnamed.get(&number)
                        && let Some(before) = self.as_named(number, &data, inodes)?
                    {
                        put(Phase::Inodes, number, before);
                        Phase::Unnamed
                    } else {
                        Phase::Inodes
                    }
                }
                () if order.fresh.contains(&number) => Phase::New,
                () if order.pointing.contains(&number) => Phase::Pointers,
                () if order.leaving.contains(&number) => Phase::Left,
                () => Phase::Directories,
            };
            put(phase, number, data);
        }
        Ok(phases)
    }

    /// Inodes without names, by the block of their table. New blocks hold no older ones.
    fn unnamed_by_block(&self, order: &Order) -> Result<HashMap<u64, Vec<u32>>> {
        let mut found: HashMap<u64, Vec<u32>> = HashMap::new();
        for number in &order.unnamed {
            let (block, _) = self.inode_place(*number)?;
            if !order.fresh.contains(&block) {
                found.entry(block).or_default().push(*number);
            }
        }
        Ok(found)
    }

    /// A block of an inode table with these inodes as they are on the disk; `None` when they have
    /// no names there either.
    fn as_named(&self, number: u64, data: &Block, inodes: &[u32]) -> Result<Option<Block>> {
        let mut durable = vec![0; self.shape.block_size];
        self.disk.read_at(&mut durable, number << self.shape.block_bits)?;
        let mut patched = None;
        for inode in inodes {
            let (_, at) = self.inode_place(*inode)?;
            let range = at..at + self.shape.inode_size;
            let raw = durable.get(range.clone()).unwrap_or(&[]).to_vec();
            if (Inode { number: *inode, raw }).i_links_count() > 0 {
                let patched = patched.get_or_insert_with(|| data.to_vec());
                if let (Some(to), Some(from)) = (patched.get_mut(range.clone()), durable.get(range))
                {
                    to.copy_from_slice(from);
                }
            }
        }
        Ok(patched.map(Block::new))
    }
}

/// Where inodes and summaries lie.
struct Places {
    /// Start and end of each table of inodes, ascending.
    tables: Vec<(u64, u64)>,
    summaries: HashSet<u64>,
}

impl Places {
    fn of(core: &Core) -> Self {
        let mut tables = Vec::new();
        let mut summaries = HashSet::new();
        for group in &core.groups {
            tables.push((group.inode_table(), group.inode_table() + core.shape.table_blocks()));
            summaries.insert(group.block_bitmap());
            summaries.insert(group.inode_bitmap());
        }
        tables.sort_unstable();
        summaries
            .extend((0..core.shape.descriptor_blocks()).map(|i| core.shape.descriptor_block(i)));
        summaries.insert(core.shape.super_block());
        Self { tables, summaries }
    }

    fn is_summary(&self, number: u64) -> bool {
        self.summaries.contains(&number)
    }

    fn is_table(&self, number: u64) -> bool {
        let after = self.tables.partition_point(|(start, _)| *start <= number);
        let table = after.checked_sub(1).and_then(|index| self.tables.get(index));
        table.is_some_and(|(_, end)| number < *end)
    }
}
