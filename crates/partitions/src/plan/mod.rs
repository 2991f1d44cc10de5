//! From one table to another: what would be written, in which order, and what would be lost.

mod apply;
mod changes;
mod losses;
mod steps;

use disksmith_disk::{Disk, Error, Kind, Result, human_size};

use crate::{Label, OddityKind, Severity, Table, verify};

pub use apply::Progress;
pub use losses::Loss;

/// One step of a plan. Positions are bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Everything before is durable before anything after begins.
    Flush,
    /// The data of a partition goes elsewhere on the disk.
    Move(MoveStep),
    /// The disk gets this size.
    SetSize(u64),
    /// Bytes of the table are written.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// For people.
        what: String,
    },
}

/// How the data of a partition is moved so that a crash at any moment loses nothing: a window of
/// at most the distance is copied and made durable, then the progress is recorded in a free
/// sector and made durable. Bytes that are not yet recorded as moved are never overwritten.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MoveStep {
    /// Where the data is, in bytes.
    pub from: u64,
    /// Where it goes.
    pub to: u64,
    /// How much.
    pub length: u64,
    /// How much of it has been moved before, of a move that is resumed.
    pub done: u64,
    /// The record to keep and where; `None` where source and target do not touch and no sector
    /// is free for it: then a move that was interrupted is simply done again.
    pub(crate) journal: Option<crate::edit::moving::Journal>,
}

/// What an edit would do to a disk. Nothing is written before [`apply`](Self::apply).
#[derive(Clone, Debug)]
pub struct Plan {
    /// The table as it is.
    pub before: Table,
    /// The table as it will be.
    pub after: Table,
    /// What to do, in this order. Empty when the disk is already as wanted.
    pub steps: Vec<Step>,
    /// Recognised content that would be out of reach or overwritten. Applying needs force.
    pub losses: Vec<Loss>,
}

/// What sets one sort of edit apart when it is turned into steps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// A partition whose data goes with it: its old number.
    pub(crate) moved: Option<u32>,
    /// Erase the remains of a GPT from a disk that has an MBR.
    pub(crate) erase_gpt: bool,
    /// Damage of the old table is what is being repaired: no reason to refuse.
    pub(crate) repairing: bool,
}

impl Plan {
    /// The way from `before`, which was read from `disk`, to `after`.
    ///
    /// Refuses tables that would be wrong (overlaps, partitions outside of the disk …) where the
    /// old one was not.
    pub fn new(disk: &dyn Disk, before: &Table, after: &Table) -> Result<Self> {
        Self::with_options(disk, before, after, Options::default())
    }

    pub(crate) fn with_options(
        disk: &dyn Disk,
        before: &Table,
        after: &Table,
        options: Options,
    ) -> Result<Self> {
        refuse_unfinished(before, after, options)?;
        refuse_worse(before, after)?;
        let mut after = after.clone();
        after.oddities = verify(&after);
        let steps = steps::steps(disk, before, &after, options)?;
        let losses = losses::losses(disk, before, &after, options)?;
        let mut plan = Self { before: before.clone(), after, steps, losses };
        if plan.steps.is_empty() {
            plan.losses.clear();
        }
        Ok(plan)
    }

    /// True when the disk is already as wanted.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The differences between the tables, a line each.
    pub fn changes(&self) -> Vec<String> {
        changes::changes(&self.before, &self.after)
    }

    /// The steps, a line each, with the byte ranges written.
    pub fn describe(&self) -> Vec<String> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Flush => "flush".to_string(),
                Step::SetSize(bytes) => format!("set the size of the disk to {bytes} bytes"),
                Step::Write { offset, data, what } => format!(
                    "write bytes {offset} to {}: {what}",
                    offset.saturating_add(data.len() as u64).saturating_sub(1)
                ),
                Step::Move(step) => format!(
                    "move {} ({} bytes) from byte {} to byte {}{}",
                    human_size(step.length),
                    step.length,
                    step.from,
                    step.to,
                    if step.done > 0 {
                        format!(", {} bytes done before", step.done)
                    } else {
                        String::new()
                    }
                ),
            })
            .collect()
    }

    /// The byte ranges that the plan writes, as offset and length, in the order written.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.steps
            .iter()
            .filter_map(|step| match step {
                Step::Write { offset, data, .. } => Some((*offset, data.len() as u64)),
                Step::Move(step) => Some((step.to, step.length)),
                Step::Flush | Step::SetSize(_) => None,
            })
            .collect()
    }

    /// Refuses, unless `force`, when recognised content would be lost.
    pub fn permit(&self, force: bool) -> Result<()> {
        let Some(first) = self.losses.first().filter(|_| !force) else { return Ok(()) };
        let more = match self.losses.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Err(Error::new(Kind::Refused, format!("{first}{more}")).with_hint(
            "Nothing was changed. Use --force to do it nevertheless, --dry-run to see all of it.",
        ))
    }
}

fn refuse_unfinished(before: &Table, after: &Table, options: Options) -> Result<()> {
    let has = |kind| before.oddities.iter().find(|o| o.kind == kind);
    if let Some(odd) = has(OddityKind::MoveInterrupted).filter(|_| options.moved.is_none()) {
        return Err(Error::new(Kind::Refused, odd.detail.clone())
            .with_hint("Finish it first: partition IMAGE repair."));
    }
    if before.label == Label::Gpt && after.label == Label::Gpt && after.id.is_none() {
        return Err(Error::new(Kind::Corrupt, "neither copy of the GPT can be read")
            .with_hint("A new one can be made: partition IMAGE init gpt --force, then add with the old starts and sizes."));
    }
    Ok(())
}

/// Strict in what is written: no error that was not there before.
fn refuse_worse(before: &Table, after: &Table) -> Result<()> {
    let old = verify(before);
    let worse = verify(after).into_iter().find(|odd| {
        odd.severity() == Severity::Error
            && !old.iter().any(|o| o.kind == odd.kind && o.detail == odd.detail)
            && !old.iter().any(|o| o.kind == odd.kind && o.partition == odd.partition)
    });
    match worse {
        None => Ok(()),
        Some(odd) => Err(Error::new(Kind::InvalidInput, odd.detail)),
    }
}
