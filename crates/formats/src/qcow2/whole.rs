//! Operations on the whole image: nothing else is in flight, everything is written back before,
//! and the state is read anew after.

use std::sync::Arc;

use disksmith_disk::{Error, Kind, Result};

use super::editor::Editor;
use super::layout::SnapshotEntry;
use super::meta::{Meta, Stop};
use super::util::{exclusive, lock};
use super::{Qcow2, check, layout, open};
use crate::{CheckFinding, CheckReport, OpenMode, Repair};

/// Findings of a repair on opening that are kept to be shown.
const FINDINGS_KEPT: usize = 4096;

impl Qcow2 {
    /// Runs `work` on the image's metadata as it lies in the storage.
    pub(super) fn edit<T>(&self, work: impl FnOnce(&mut Editor<'_>) -> Result<T>) -> Result<T> {
        self.edit_snapshots(|editor, _| work(editor))
    }

    /// The same for work that needs the snapshots: looked up before, they could be others' by now.
    pub(super) fn edit_snapshots<T>(
        &self,
        work: impl FnOnce(&mut Editor<'_>, &[SnapshotEntry]) -> Result<T>,
    ) -> Result<T> {
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        meta.check_writable()?;
        self.settle(&mut meta)?;
        let mut editor = Editor::load(&*self.storage)?;
        let done = work(&mut editor, &meta.snapshots);
        let half_done = editor.half_done;
        // Also after a failure: what is in memory is no longer what is in the file.
        let read = self.reload(&mut meta);
        if done.is_err() && half_done {
            // The mark must stay, and tell the next writer to mend the counts.
            meta.stopped = Some(Stop::HalfDone);
        }
        let done = done?;
        read?;
        Ok(done)
    }

    /// Does `work`, which changes the tables, for a caller that holds the gate exclusively. When
    /// it fails, all that it changed in memory is forgotten: what counts is the file, which is
    /// consistent at every instant.
    pub(super) fn whole_or_forgotten(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut meta = lock(&self.meta);
        if meta.is_dirty() {
            self.write_back(&mut meta)?;
        }
        drop(meta);
        let done = work();
        let mut meta = lock(&self.meta);
        if done.is_err() && meta.stopped.is_none() {
            // If that fails too, the image is not written any more; the first error says why.
            let _ = self.reload(&mut meta);
        }
        done
    }

    /// Checks, and mends what `repair` allows.
    pub(super) fn check_image(
        &self,
        repair: Repair,
        tell: &mut dyn FnMut(CheckFinding),
    ) -> Result<CheckReport> {
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        if self.mode.writes() {
            self.settle(&mut meta)?;
        } else if repair != Repair::None {
            return Err(Error::new(Kind::Refused, "Image is read-only"));
        }
        let report = check::check(&*self.storage, repair, tell);
        if repair != Repair::None {
            let read = self.reload(&mut meta);
            if report.is_ok() {
                read?;
            }
        }
        report
    }

    /// Before the first write to an image that was not closed cleanly, its refcounts are made
    /// right.
    pub(super) fn repair_dirty(&self, meta: &mut Meta) -> Result<()> {
        if !meta.header.has(layout::INCOMPATIBLE_DIRTY) {
            return Ok(());
        }
        let mut findings = Vec::new();
        let mut note = |finding: CheckFinding| {
            if findings.len() < FINDINGS_KEPT {
                findings.push(finding);
            }
        };
        let report = check::check(&*self.storage, Repair::All, &mut note)
            .map_err(|error| error.context("Could not repair dirty image"))?;
        if report.corruptions > 0 || report.check_errors > 0 {
            return Err(Error::new(
                Kind::Corrupt,
                "Could not repair dirty image: Input/output error",
            ));
        }
        *lock(&self.mended) = findings;
        self.reload(meta)
    }

    /// Writes back all that is in memory.
    pub(super) fn settle(&self, meta: &mut Meta) -> Result<()> {
        if meta.is_dirty() {
            self.write_back(meta)?;
        }
        self.storage.flush()
    }

    /// Reads the state anew.
    fn reload(&self, meta: &mut Meta) -> Result<()> {
        let opened = open::open(&self.storage, self.mode);
        match opened {
            Ok(opened) => {
                *meta = Meta::new(Arc::clone(&self.storage), self.mode, meta.budgets, opened);
                Ok(())
            }
            Err(error) => {
                meta.stopped = Some(Stop::HalfDone);
                Err(error)
            }
        }
    }
}

/// Callers close what they wrote to, and see to errors. An image that is dropped without is
/// closed here as well as can be: marks that stay would only make others repair it.
impl Drop for Qcow2 {
    fn drop(&mut self) {
        let marked = lock(&self.meta).header.has(layout::INCOMPATIBLE_DIRTY);
        if self.mode == OpenMode::Write && (marked || lock(&self.tracker).is_waiting()) {
            drop(self.close_image());
        }
    }
}
