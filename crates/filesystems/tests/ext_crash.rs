//! Power cuts: after a cut at any write, with any reordering between flushes, what was synced is
//! there and the tree is one that was there between the last sync and the cut, for us and after
//! e2fsck's replay. File content that is overwritten in place is judged sector by sector.
//!
//! `DISKSMITH_CRASH_STATES` sets how many states to look at, `DISKSMITH_CRASH_SEED` where to begin,
//! `DISKSMITH_CRASH_KEEP` a file that holds the state shown to e2fsck last.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use common::*;
use disksmith_disk::{Disk, Extent, MemoryDisk, ZeroMode};
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::{Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename};
use disksmith_testkit::{CrashLimits, CrashState, Recorder, RecordingDisk, Rng, crash_states};

const SIZE: u64 = 8 << 20;
/// The file that is written over again and again.
const CELLS: &[u8] = b"/cells";
const SECTOR: usize = 512;
const CELLS_MAX: u64 = 96 * SECTOR as u64;

/// Kind and mode, links, size, content, attributes, and which file it is.
type Entry = (u32, u32, u64, u32, u32, (u64, u32));

/// What is compared: every path, and each sector of [`CELLS`], which holds one byte throughout.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Seen {
    tree: BTreeMap<Vec<u8>, Entry>,
    cells: Vec<u8>,
}

impl Seen {
    fn of(ours: &dyn Filesystem, what: &str) -> Self {
        let mut seen = Self::default();
        let mut todo = vec![(ours.root(), Vec::new())];
        while let Some((inode, path)) = todo.pop() {
            let at = ours.attributes(inode).unwrap_or_else(|e| panic!("{what}: {path:?}: {e}"));
            let mut content = 0;
            match at.kind {
                FileKind::Directory => ours
                    .read_directory(inode, 0, &mut |entry| {
                        if entry.name != b"." && entry.name != b".." {
                            todo.push((entry.inode, [&path[..], b"/", &entry.name].concat()));
                        }
                        true
                    })
                    .unwrap_or_else(|e| panic!("{what}: {path:?}: {e}")),
                FileKind::Regular => {
                    let mut bytes = vec![0; at.size as usize];
                    assert_eq!(ours.read(inode, 0, &mut bytes).unwrap(), bytes.len(), "{what}");
                    if path == CELLS {
                        seen.cells = cells(&bytes, what);
                    } else {
                        content = crc32c::crc32c(&bytes);
                    }
                }
                FileKind::Symlink => content = crc32c::crc32c(&ours.read_link(inode).unwrap()),
                _ => {}
            }
            let directory = at.kind == FileKind::Directory;
            let entry = (
                u32::from(at.mode | at.kind.mode_bits()),
                if directory { 0 } else { at.links },
                if directory { 0 } else { at.size },
                content,
                attributes(ours, inode),
                (inode, at.generation),
            );
            seen.tree.insert(path, entry);
        }
        seen
    }
}

fn cells(bytes: &[u8], what: &str) -> Vec<u8> {
    bytes
        .chunks(SECTOR)
        .enumerate()
        .map(|(number, sector)| {
            let same = sector.iter().all(|byte| *byte == sector[0]);
            assert!(same, "{what}: sector {number} of the cells is mixed: {sector:?}");
            sector[0]
        })
        .collect()
}

fn attributes(ours: &dyn Filesystem, inode: u64) -> u32 {
    let mut names = ours.xattrs(inode).unwrap();
    names.sort();
    names.iter().fold(0, |sum, name| {
        crc32c::crc32c_append(crc32c::crc32c_append(sum, name), &ours.xattr(inode, name).unwrap())
    })
}

fn file(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o700, uid: 0, gid: 0, device: Device::default() }
}

/// The workload: random changes of names, lengths, content and attributes.
struct Work<'a> {
    ours: &'a Ext,
    rng: Rng,
    /// Unlinked, but held.
    held: Vec<u64>,
    /// Commits come at any time (beside the workload, or without a journal): a step makes one change,
    /// or the tree would be one between steps.
    one_by_one: bool,
    /// Without a journal two names cannot be exchanged safely: one file would have none for a moment.
    exchanges: bool,
}

impl Work<'_> {
    fn name(&mut self) -> Vec<u8> {
        let number = self.rng.below(8);
        format!("file-{number}-{}", "z".repeat((number * 9) as usize)).into_bytes()
    }

    fn step(&mut self, number: u64) {
        // What cannot be done then and there is not done; the trees say what was.
        let _ = match self.rng.below(4) {
            0 => self.cells(number),
            1 => self.crowd(number),
            _ => self.names(number),
        };
    }

    /// A directory large enough for an index, entries coming and going.
    fn crowd(&mut self, number: u64) -> disksmith_disk::Result<()> {
        let ours = self.ours;
        let crowd = match ours.lookup(ours.root(), b"crowd") {
            Ok(found) => found.inode,
            Err(_) => {
                let made = ours.create(ours.root(), b"crowd", &file(FileKind::Directory))?;
                if self.one_by_one {
                    return Ok(());
                }
                made.inode
            }
        };
        if self.rng.one_in(16) {
            let there = self.ours.lookup(ours.root(), b"moved").is_ok();
            if there && !self.exchanges {
                return Ok(());
            }
            let how = if there { Rename::Exchange } else { Rename::Replace };
            return ours.rename(ours.root(), b"crowd", ours.root(), b"moved", how);
        }
        let most = if self.one_by_one { 1 } else { 12 };
        for _ in 0..1 + self.rng.below(most) {
            let which = self.rng.below(160);
            let name = format!("{which}-{}", "n".repeat(20 + (which % 60) as usize));
            let name = name.as_bytes();
            match ours.lookup(crowd, name) {
                Err(_) => ours.create(crowd, name, &file(FileKind::Regular)).map(|_| ())?,
                Ok(_) if number.is_multiple_of(2) => ours.unlink(crowd, name)?,
                Ok(_) => ours.rename(crowd, name, ours.root(), b"out", Rename::Replace)?,
            }
        }
        Ok(())
    }

    /// Overwrites, punches, zeroes, cuts and extends one file.
    fn cells(&mut self, number: u64) -> disksmith_disk::Result<()> {
        let (ours, root) = (self.ours, self.ours.root());
        let inode = match ours.lookup(root, &CELLS[1..]) {
            Ok(found) => found.inode,
            Err(_) => {
                let made = ours.create(root, &CELLS[1..], &file(FileKind::Regular))?;
                if self.one_by_one {
                    return Ok(());
                }
                made.inode
            }
        };
        let sector = SECTOR as u64;
        let from = self.rng.below(CELLS_MAX / sector) * sector;
        let length = (1 + self.rng.below(12)) * sector;
        let length = length.min(CELLS_MAX - from);
        let keep_size = self.rng.one_in(2);
        match self.rng.below(8) {
            0 => ours.fallocate(inode, from, length, Fallocate::PunchHole),
            1 => ours.fallocate(inode, from, length, Fallocate::ZeroRange { keep_size }),
            2 => ours.fallocate(inode, from, length, Fallocate::Allocate { keep_size }),
            3 => {
                let changes = Changes { size: Some(from), ..Changes::default() };
                ours.set_attributes(inode, &changes).map(|_| ())
            }
            _ => ours.write(inode, from, &vec![number as u8 + 1; length as usize]),
        }
    }

    fn names(&mut self, number: u64) -> disksmith_disk::Result<()> {
        let (ours, root) = (self.ours, self.ours.root());
        let (pick, other) = (self.name(), self.name());
        let data = vec![number as u8 + 1; 1 + self.rng.below(9000) as usize];
        let found = ours.lookup(root, &pick);
        match (self.rng.below(14), found) {
            (0..=2, Err(_)) => ours.create(root, &pick, &file(FileKind::Regular)).map(|_| ()),
            (3 | 11, Err(_)) => ours.create(root, &pick, &file(FileKind::Directory)).map(|_| ()),
            (4, Err(_)) => ours.symlink(root, &pick, &[b's'; 90], 1, 2).map(|_| ()),
            (0..=2, Ok(at)) if at.kind == FileKind::Regular => ours.write(at.inode, at.size, &data),
            (3, Ok(at)) if at.kind == FileKind::Regular => {
                let size = at.size / (1 + self.rng.below(3));
                let changes = Changes { size: Some(size), ..Changes::default() };
                ours.set_attributes(at.inode, &changes).map(|_| ())
            }
            (4, Ok(at)) if at.kind == FileKind::Directory => {
                ours.create(at.inode, &other, &file(FileKind::Fifo)).map(|_| ())
            }
            (5, Ok(_)) => ours.rename(root, &pick, root, &other, Rename::Replace),
            (6, Ok(at)) => ours.link(at.inode, root, &other).map(|_| ()),
            (7, Ok(at)) => {
                let value = vec![number as u8; 1 + self.rng.below(600) as usize];
                let name = format!("user.{}", number % 5);
                ours.set_xattr(at.inode, name.as_bytes(), &value, None)
            }
            (8, Ok(at)) if at.kind == FileKind::Regular => {
                let how = Fallocate::Allocate { keep_size: true };
                ours.fallocate(at.inode, at.size, 20_000, how)
            }
            // Of devices and pipes without a name e2fsck 1.47 leaks the block of attributes.
            (9, Ok(at)) if matches!(at.kind, FileKind::Regular | FileKind::Symlink) => {
                ours.hold(at.inode);
                self.held.push(at.inode);
                ours.unlink(root, &pick)
            }
            (10, _) => match self.held.pop() {
                Some(inode) => ours.release(inode, 1),
                None => Ok(()),
            },
            // Into another directory, and back.
            (11, Ok(at)) if at.kind == FileKind::Directory => {
                ours.rename(root, &other, at.inode, &other, Rename::Replace)
            }
            (12, Ok(at)) if at.kind == FileKind::Directory => {
                ours.rename(at.inode, &other, root, &other, Rename::Replace)
            }
            (12, Ok(_)) => ours.rename(root, &pick, root, &other, Rename::Whiteout),
            (13, Ok(_)) if self.exchanges => {
                ours.rename(root, &pick, root, &other, Rename::Exchange)
            }
            (_, Ok(at)) if at.kind == FileKind::Directory => ours.remove_directory(root, &pick),
            (_, Ok(_)) => ours.unlink(root, &pick),
            _ => Ok(()),
        }
    }
}

/// What a workload left: the disk before it, what was done to it, and what was seen after each
/// step.
struct Recorded {
    initial: MemoryDisk,
    recorder: Arc<Recorder>,
    seen: Vec<Seen>,
}

/// A disk whose flushes take time, so that others get on meanwhile.
#[derive(Debug)]
struct Slow(Arc<RecordingDisk>);

impl Disk for Slow {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> disksmith_disk::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> disksmith_disk::Result<()> {
        self.0.write_at(data, offset)
    }
    fn write_zeroes(&self, at: u64, length: u64, mode: ZeroMode) -> disksmith_disk::Result<()> {
        self.0.write_zeroes(at, length, mode)
    }
    fn discard(&self, offset: u64, length: u64) -> disksmith_disk::Result<()> {
        self.0.discard(offset, length)
    }
    fn flush(&self) -> disksmith_disk::Result<()> {
        // What is written from now on is not a part of it.
        self.0.flush()?;
        std::thread::sleep(Duration::from_micros(300));
        Ok(())
    }
    fn map(&self, offset: u64, length: u64) -> disksmith_disk::Result<Extent> {
        self.0.map(offset, length)
    }
    fn set_size(&self, size: u64) -> disksmith_disk::Result<()> {
        self.0.set_size(size)
    }
}

fn record(options: &MakeOptions, seed: u64, steps: u64) -> Recorded {
    let exchanges = has_journal(options);
    let fresh = Arc::new(MemoryDisk::new(SIZE));
    ext::make(fresh.clone(), options).unwrap();
    let initial = (*fresh).clone();
    let recorder = Recorder::new();
    if seed % 2 == 1 {
        let recorded = Recorded { initial, recorder, seen: Vec::new() };
        return record_beside(recorded, seed, steps, exchanges);
    }
    let ours = Ext::open(recorder.disk(0, initial.clone()), false).unwrap();
    let mut seen = vec![Seen::of(&ours, "at first")];
    let rng = Rng::new(seed);
    let mut work = Work { ours: &ours, rng, held: Vec::new(), one_by_one: !exchanges, exchanges };
    for number in 0..steps {
        recorder.begin(number + 1);
        work.step(number);
        seen.push(Seen::of(&ours, "in the workload"));
        if work.rng.one_in(4) {
            ours.sync().unwrap();
            recorder.durable(number + 1);
        }
    }
    ours.close().unwrap();
    Recorded { initial, recorder, seen }
}

/// The same with commits in another thread, beside the workload.
fn record_beside(recorded: Recorded, seed: u64, steps: u64, exchanges: bool) -> Recorded {
    let Recorded { initial, recorder, mut seen } = recorded;
    let disk = Arc::new(Slow(recorder.disk(0, initial.clone())));
    let ours = Ext::open(disk, false).unwrap();
    seen.push(Seen::of(&ours, "at first"));
    let rng = Rng::new(seed);
    let mut work = Work { ours: &ours, rng, held: Vec::new(), one_by_one: true, exchanges };
    std::thread::scope(|scope| {
        let mut under_way: Option<(ScopedJoinHandle<'_, ()>, u64)> = None;
        for number in 0..steps {
            recorder.begin(number + 1);
            work.step(number);
            seen.push(Seen::of(&ours, "in the workload"));
            let done = under_way.take_if(|(sync, _)| sync.is_finished() || number % 16 == 0);
            if let Some((sync, covered)) = done {
                sync.join().unwrap();
                recorder.durable(covered);
            }
            if under_way.is_none() && work.rng.one_in(3) {
                let ours = &ours;
                under_way = Some((scope.spawn(|| ours.sync().unwrap()), number + 1));
            }
        }
    });
    ours.close().unwrap();
    Recorded { initial, recorder, seen }
}

/// Counts of states looked at and of those that e2fsck confirmed.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    states: u64,
    confirmed: u64,
}

/// How many of the states to look at.
#[derive(Clone, Copy)]
struct Sampling {
    steps: u64,
    /// One state in so many.
    stride: u64,
    /// Of those, one in so many is shown to e2fsck.
    confirm: u64,
}

struct Judge<'a> {
    recorded: &'a Recorded,
    what: String,
    folder: &'a tempfile::TempDir,
}

impl Judge<'_> {
    /// The steps that may have been the last ones.
    fn possible(&self, state: &CrashState) -> &[Seen] {
        let last = (state.begun as usize).min(self.recorded.seen.len() - 1);
        &self.recorded.seen[state.durable as usize..=last]
    }

    fn look(&self, disk: Arc<dyn Disk>, read_only: bool) -> Seen {
        let opened = Ext::open(disk, read_only).unwrap_or_else(|e| panic!("{}: {e}", self.what));
        Seen::of(&opened, &self.what)
    }

    fn judge(&self, state: &CrashState) -> Seen {
        let content = state.files[0].clone();
        let found = self.look(Arc::new(content.clone()), true);
        let possible = self.possible(state);
        if !possible.iter().any(|seen| seen.tree == found.tree) {
            let last = &possible.last().unwrap().tree;
            let differing: Vec<_> =
                found.tree.iter().filter(|(k, v)| last.get(*k) != Some(v)).collect();
            let missing: Vec<_> = last.keys().filter(|k| !found.tree.contains_key(*k)).collect();
            panic!(
                "{}: the tree was never there (steps {}..={}): {differing:?}, without {missing:?}",
                self.what, state.durable, state.begun
            );
        }
        for (number, cell) in found.cells.iter().enumerate() {
            let known = |seen: &Seen| seen.cells.get(number).copied().unwrap_or(0) == *cell;
            assert!(
                possible.iter().any(known),
                "{}: sector {number} holds {cell} (steps {}..={})",
                self.what,
                state.durable,
                state.begun
            );
        }
        let written = Arc::new(content);
        assert_eq!(self.look(written, false), found, "{}: replayed onto the disk", self.what);
        found
    }

    fn image(&self, state: &CrashState) -> std::path::PathBuf {
        let image = self.folder.path().join("image");
        let bytes = state.files[0].to_bytes();
        if let Some(kept) = std::env::var_os("DISKSMITH_CRASH_KEEP") {
            std::fs::write(kept, &bytes).unwrap();
        }
        std::fs::write(&image, bytes).unwrap();
        image
    }

    /// e2fsck's replay gives the same, and leaves nothing to complain of.
    fn confirm(&self, state: &CrashState, found: &Seen) {
        let image = self.image(state);
        try_run("e2fsck", &["-E", "journal_only", "-y", text(&image)]);
        let recovered = self.look(FileDisk::open(&image), true);
        assert_eq!(&recovered, found, "{}: e2fsck's replay", self.what);
        run("e2fsck", &["-p", text(&image)]);
        assert_clean(&image, &self.what);
    }

    /// Without a journal: e2fsck repairs what the cut left; what was synced and not touched since
    /// is there, under a name that was given to others there is one of them, and no file that had
    /// a name all the time has none of its names.
    fn repair(&self, state: &CrashState) {
        let image = self.image(state);
        let output = try_run("e2fsck", &["-fy", text(&image)]);
        assert!(output.status.code().is_some_and(|code| code < 4), "{}: {output:?}", self.what);
        let found = self.look(FileDisk::open(&image), true);
        let possible = self.possible(state);
        self.named(possible, &found);
        for (path, entry) in &possible[0].tree {
            let untouched = possible.iter().all(|seen| seen.tree.get(path) == Some(entry));
            if untouched && path != CELLS && entry.0 & 0o170_000 == 0o100_000 {
                let name = String::from_utf8_lossy(path);
                // Names that moved to another block of a directory may be in both for a moment:
                // e2fsck then gives the second one a new name.
                let mut there = found.tree.get(path).copied();
                if let Some(there) = &mut there {
                    there.1 = there.1.min(entry.1);
                }
                assert_eq!(there, Some(*entry), "{}: {name}", self.what);
            }
        }
    }
}

impl Judge<'_> {
    fn named(&self, possible: &[Seen], found: &Seen) {
        let regular = |entry: &&Entry| entry.0 & 0o170_000 == 0o100_000;
        for (path, entry) in possible[0].tree.iter().filter(|(_, entry)| regular(entry)) {
            let at = |seen: &Seen| seen.tree.get(path).filter(regular).map(|entry| entry.5);
            let files: Option<Vec<_>> = possible.iter().map(at).collect();
            if let Some(files) = files {
                let there = found.tree.get(path).map(|entry| entry.5);
                let name = String::from_utf8_lossy(path);
                let known = there.is_some_and(|there| files.contains(&there));
                assert!(known, "{}: {name} is {there:?}, was one of {files:?}", self.what);
            }
            let names = |seen: &Seen| -> Vec<Vec<u8>> {
                let same = seen.tree.iter().filter(|(_, other)| other.5 == entry.5);
                same.map(|(name, _)| name.clone()).collect()
            };
            let known: Vec<_> = possible.iter().map(names).collect();
            if known.iter().all(|names| !names.is_empty()) {
                let there = names(found);
                let kept = there.iter().any(|name| known.iter().any(|names| names.contains(name)));
                assert!(kept, "{}: {entry:?} is {there:?}, was {known:?}", self.what);
            }
        }
    }
}

fn crash(name: &str, options: &MakeOptions, seed: u64, sampling: Sampling) -> Count {
    let recorded = record(options, seed, sampling.steps);
    let limits = CrashLimits { full_up_to: 8, random_subsets: 24, torn: 4, seed };
    let folder = tempfile::tempdir().unwrap();
    let journal = has_journal(options);
    let (mut number, mut count) = (0, Count::default());
    crash_states(
        std::slice::from_ref(&recorded.initial),
        &recorded.recorder.log(),
        limits,
        &mut |state| {
            number += 1;
            // A directory block of which only one sector was written is more than a filesystem without
            // a journal can bear.
            let torn = state.name.contains('t');
            if number % sampling.stride != 0 || torn && !journal {
                return true;
            }
            count.states += 1;
            let what = format!("{name} seed {seed} state {}", state.name);
            let judge = Judge { recorded: &recorded, what, folder: &folder };
            if !journal {
                judge.repair(&state);
                count.confirmed += 1;
                return true;
            }
            let found = judge.judge(&state);
            // A torn superblock, which has two sectors, is more than e2fsck can bear.
            if count.states % sampling.confirm == 0 && !torn {
                judge.confirm(&state, &found);
                count.confirmed += 1;
            }
            true
        },
    );
    count
}

fn has_journal(options: &MakeOptions) -> bool {
    options.profile != Profile::Ext2
}

fn options(profile: Profile, journal: u32) -> MakeOptions {
    MakeOptions {
        profile,
        block_size: Some(1024),
        journal_blocks: (profile != Profile::Ext2).then_some(journal),
        inodes: Some(400),
        ..MakeOptions::default()
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn wanted() -> Option<u64> {
    number("DISKSMITH_CRASH_STATES")
}

fn first_seed() -> u64 {
    number("DISKSMITH_CRASH_SEED").unwrap_or(0)
}

#[test]
fn any_cut_leaves_a_tree_that_was_there() {
    let least = wanted().unwrap_or(1);
    let sampling = match wanted() {
        Some(_) => Sampling { steps: 240, stride: 1, confirm: 40 },
        None => Sampling { steps: 90, stride: 6, confirm: 40 },
    };
    let mut total = Count::default();
    for seed in first_seed().. {
        for (name, profile, journal) in [
            ("ext4", Profile::Ext4, 1024),
            ("ext3", Profile::Ext3, 1024),
            ("upstream", Profile::Ext4Upstream, 1400),
        ] {
            let count = crash(name, &options(profile, journal), seed, sampling);
            total.states += count.states;
            total.confirmed += count.confirmed;
        }
        if total.states >= least && seed > first_seed() {
            break;
        }
    }
    println!("{} states, {} confirmed by e2fsck", total.states, total.confirmed);
    assert!(total.states > 300 && total.confirmed > 5, "too few states: {total:?}");
}

#[test]
fn without_a_journal_a_cut_loses_nothing_that_was_synced() {
    let least = wanted().map_or(1, |states| states / 50);
    let stride = if wanted().is_some() { 10 } else { 60 };
    let sampling = Sampling { steps: 240, stride, confirm: 1 };
    let mut total = 0;
    for seed in first_seed().. {
        total += crash("ext2", &options(Profile::Ext2, 0), seed, sampling).states;
        if total >= least {
            break;
        }
    }
    println!("{total} states repaired by e2fsck");
}
