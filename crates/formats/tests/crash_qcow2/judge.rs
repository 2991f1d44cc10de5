//! Whether what a cut left is allowed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{CheckReport, Image, OpenMode, Repair};
use disksmith_testkit::{CrashState, SectorModel, Verdict, oracle};

use crate::workload::{Expected, Run, try_open};

pub(crate) struct Judge<'a> {
    run: &'a Run,
    /// What may be seen, by (durable, begun).
    expected: RefCell<HashMap<(u64, u64), Expected>>,
    /// What the views of a state held before and after repair: memory kept for the next state.
    contents: RefCell<[Vec<Vec<u8>>; 2]>,
}

type Answer<T> = Result<T, String>;

impl<'a> Judge<'a> {
    pub(crate) fn new(run: &'a Run) -> Self {
        Self { run, expected: RefCell::default(), contents: RefCell::default() }
    }

    /// Opens, reads, checks, repairs, reads again; with `oracle`, qemu-img looks too.
    pub(crate) fn judge(&self, state: &CrashState, oracle: bool) -> Answer<Verdict> {
        let expected = self.expected(state.durable, state.begun);
        self.judge_files(&state.files, &expected, oracle)
    }

    /// The same for files that were come by in another way.
    pub(crate) fn judge_files(
        &self,
        files: &[MemoryDisk],
        expected: &Expected,
        oracle: bool,
    ) -> Answer<Verdict> {
        let [before, after] = &mut *self.contents.borrow_mut();
        let copies = || -> Vec<Arc<dyn Disk>> {
            files.iter().map(|f| Arc::new(f.clone()) as Arc<dyn Disk>).collect()
        };
        let image = try_open(&copies(), OpenMode::Read).map_err(|e| format!("opening: {e}"))?;
        seen(&*image, expected, before)?;
        if self.run.kind.raw {
            plain(&files[1], &expected.model)?;
        }
        let dirty = image.dirty() == Some(true);
        let report = check(&*image)?;
        if report.corruptions > 0 && !dirty && !self.run.kind.v2 {
            return Err(format!("check finds {} corruptions", report.corruptions));
        }
        if oracle {
            self.ask_qemu(files, dirty)?;
        }
        drop(image);
        let repaired = self.repair(&copies(), report.corruptions > 0)?;
        seen(&*repaired, expected, after)?;
        if before != after {
            return Err("the content changed with repair".into());
        }
        Ok(match (report.corruptions, report.leaks) {
            (0, 0) => Verdict::Clean,
            (0, _) => Verdict::Leaks,
            _ if dirty => Verdict::Marked,
            _ => Verdict::Corrupt,
        })
    }

    /// Opening for writing mends what a cut left; afterwards a check is clean.
    fn repair(&self, files: &[Arc<dyn Disk>], damaged: bool) -> Result<Arc<dyn Image>, String> {
        if damaged && self.run.kind.v2 {
            // Version 2 has no dirty bit that would make opening repair by itself.
            let image = try_open(files, OpenMode::Repair).map_err(|e| format!("repair: {e}"))?;
            image.check(Repair::All, &mut |_| {}).map_err(|e| format!("repair: {e}"))?;
            image.close().map_err(|e| format!("repair: {e}"))?;
        }
        let image =
            try_open(files, OpenMode::Write).map_err(|e| format!("opening for writing: {e}"))?;
        image.close().map_err(|e| format!("closing: {e}"))?;
        drop(image);
        let image = try_open(files, OpenMode::Read).map_err(|e| format!("opening again: {e}"))?;
        match check(&*image)?.corruptions {
            0 => Ok(image),
            n => Err(format!("{n} corruptions after opening for writing")),
        }
    }

    /// What may be seen when the steps before `durable` are, and step `begun` may have begun.
    fn expected(&self, durable: u64, begun: u64) -> Expected {
        if let Some(known) = self.expected.borrow().get(&(durable, begun)) {
            return known.clone();
        }
        let start = self.run.durable.get(durable as usize).cloned().flatten();
        let mut expected = start.expect("the guest was told so only after a flush");
        for step in durable..=begun {
            if let Some(op) = self.run.ops.get(step as usize) {
                expected.step(self.run.kind, *op, step);
            }
        }
        self.expected.borrow_mut().insert((durable, begun), expected.clone());
        expected
    }

    fn ask_qemu(&self, files: &[MemoryDisk], dirty: bool) -> Answer<()> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = folder.path().join("image.qcow2");
        write_out(&files[0], &path)?;
        if let Some(data) = files.get(1) {
            write_out(data, &folder.path().join("data"))?;
        }
        let (status, text) = oracle::qemu_check("qcow2", &path);
        let allowed = status == 0 || status == 3 || (status == 2 && (dirty || self.run.kind.v2));
        match allowed {
            true => Ok(()),
            false => Err(format!("qemu-img check ends with {status}: {text}")),
        }
    }
}

fn write_out(disk: &MemoryDisk, path: &std::path::Path) -> Answer<()> {
    std::fs::write(path, disk.to_bytes()).map_err(|e| e.to_string())
}

fn check(image: &dyn Image) -> Result<CheckReport, String> {
    let report = image.check(Repair::None, &mut |_| {}).map_err(|e| format!("check: {e}"))?;
    report.ok_or_else(|| "there is no check".into())
}

/// Reads everything into `contents` and holds it against what is allowed.
fn seen(image: &dyn Image, expected: &Expected, contents: &mut Vec<Vec<u8>>) -> Answer<()> {
    if !expected.sizes.contains(&image.size()) {
        return Err(format!("the size is {}, allowed {:?}", image.size(), expected.sizes));
    }
    let listed: Vec<_> = image.snapshots().into_iter().map(|s| s.name).collect();
    contents.resize_with(1 + listed.len(), Vec::new);
    content(image, &expected.model, "the disk", &mut contents[0])?;
    for (name, (_, must)) in &expected.snapshots {
        if *must && !listed.contains(name) {
            return Err(format!("snapshot {name} is lost"));
        }
    }
    for (name, bytes) in listed.iter().zip(&mut contents[1..]) {
        let Some((model, _)) = expected.snapshots.get(name) else {
            return Err(format!("snapshot {name} should not be there"));
        };
        let view = image.open_snapshot(name).map_err(|e| format!("snapshot {name}: {e}"))?;
        content(&*view, model, name, bytes)?;
    }
    Ok(())
}

/// The data file is read without the image: it holds nothing but what is allowed.
fn plain(data: &MemoryDisk, model: &SectorModel) -> Answer<()> {
    let mut bytes = data.to_bytes();
    bytes.truncate(model.size() as usize);
    held(model, "the data file", &bytes)
}

fn content(disk: &dyn Image, model: &SectorModel, what: &str, bytes: &mut Vec<u8>) -> Answer<()> {
    bytes.resize(disk.size() as usize, 0);
    disk.read_at(bytes, 0).map_err(|e| format!("reading {what}: {e}"))?;
    held(model, what, bytes)
}

fn held(model: &SectorModel, what: &str, bytes: &[u8]) -> Answer<()> {
    match model.check(bytes) {
        None => Ok(()),
        Some(v) => {
            Err(format!("{what}: sector {} holds {}, allowed {:?}", v.sector, v.found, v.allowed))
        }
    }
}
