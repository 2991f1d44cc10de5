//! Carrying a plan out.

use disksmith_disk::{Context, Disk, Error, Kind, Result, State, ZeroMode};

use super::{MoveStep, Plan, Step};

/// Data is moved through a buffer of this size.
const BUFFER: u64 = 4 << 20;
/// At most so much is moved between two records of the progress.
const WINDOW: u64 = 64 << 20;

/// How far a move is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Bytes moved so far.
    pub done: u64,
    /// Bytes to move.
    pub total: u64,
}

impl Plan {
    /// Carries the plan out. Without `force` it refuses when there are [`losses`](Plan::losses).
    pub fn apply(&self, disk: &dyn Disk, force: bool) -> Result<()> {
        self.apply_with(disk, force, &mut |_| Ok(()))
    }

    /// As [`apply`](Self::apply); `progress` is told of moved data and may stop the move with an
    /// error, after which it can be resumed.
    pub fn apply_with(
        &self,
        disk: &dyn Disk,
        force: bool,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<()> {
        self.permit(force)?;
        if self.steps.is_empty() {
            return Ok(());
        }
        if disk.read_only() {
            return Err(Error::new(Kind::Refused, "the disk is open for reading only"));
        }
        for step in &self.steps {
            match step {
                Step::Flush => {
                    disk.flush().context("Could not make the partition table durable")?
                }
                Step::Write { offset, data, what } => {
                    disk.write_at(data, *offset)
                        .with_context(|| format!("Could not write the {what}"))?;
                }
                Step::SetSize(bytes) => disk.set_size(*bytes).with_context(|| {
                    format!(
                        "The table is ready for {bytes} bytes; could not change the disk's size"
                    )
                })?,
                Step::Move(step) => move_data(disk, step, progress)
                    .context("Could not move the partition's data")
                    .map_err(|e| {
                        e.with_hint("Nothing is lost. Resume it with: partition IMAGE repair.")
                    })?,
            }
        }
        Ok(())
    }
}

/// Forwards when the data goes towards the start of the disk, backwards otherwise, so that what
/// is overwritten has been moved already.
fn move_data(
    disk: &dyn Disk,
    step: &MoveStep,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<()> {
    let distance = step.from.abs_diff(step.to);
    let window = distance.min(WINDOW);
    if window == 0 {
        return Ok(());
    }
    let mut done = step.done.min(step.length);
    if let Some(journal) = step.journal.as_ref().filter(|_| done == 0) {
        journal.record(disk, 0)?;
        disk.flush()?;
    }
    while done < step.length {
        progress(Progress { done, total: step.length })?;
        let length = window.min(step.length - done);
        copy_window(disk, step, done, length)?;
        disk.flush()?;
        done += length;
        if let Some(journal) = &step.journal {
            journal.record(disk, done)?;
            disk.flush()?;
        }
    }
    progress(Progress { done, total: step.length })
}

/// Copies the window of `length` bytes after the first `done`, counted from the side that the
/// move begins with.
fn copy_window(disk: &dyn Disk, step: &MoveStep, done: u64, length: u64) -> Result<()> {
    let first = if step.to < step.from { done } else { step.length - done - length };
    let mut at = 0;
    let mut buffer = Vec::new();
    while at < length {
        let (source, target) = (step.from + first + at, step.to + first + at);
        let extent = disk.map(source, BUFFER.min(length - at))?;
        let run = extent.length.clamp(1, BUFFER.min(length - at));
        if extent.state == State::Data {
            buffer.resize(usize::try_from(run).unwrap_or(0), 0);
            disk.read_at(&mut buffer, source)?;
            disk.write_at(&buffer, target)?;
        } else {
            disk.write_zeroes(target, run, ZeroMode::Unmap)?;
        }
        at += run;
    }
    Ok(())
}
