//! What one worker does, and what it notes of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use disksmith_disk::{Disk, ZeroMode};
use disksmith_formats::{Image, Snapshot};
use disksmith_testkit::Rng;

use crate::serial::{Action, Event};

pub(crate) const SECTOR: usize = 512;
/// Sectors of a request at most.
const MOST: u64 = 40;
/// The same where most is zero, and zeroes are made beside small writes.
const SPARSE_MOST: u64 = 4;
const SNAPSHOTS_MOST: usize = 6;

/// What all workers share.
pub(crate) struct Field {
    pub(crate) image: Arc<dyn Image>,
    pub(crate) sectors: u64,
    pub(crate) clock: AtomicU64,
    pub(crate) snapshots: Mutex<Vec<Arc<Taken>>>,
    /// With a data file there are neither snapshots nor compressed clusters.
    pub(crate) internal: bool,
    /// Small requests, and more zeroes than data.
    pub(crate) sparse: bool,
}

/// A snapshot: all sectors at one instant while it was taken.
pub(crate) struct Taken {
    name: String,
    worker: usize,
    begin: u64,
    end: u64,
    /// Set by whoever reads it first; every other reader must see the same.
    content: Mutex<Option<Vec<u64>>>,
    /// Held shared by its users, exclusively by who deletes it.
    used: RwLock<()>,
}

/// What an operation did to sectors from one on.
pub(crate) struct Note {
    pub(crate) first: u64,
    pub(crate) worker: usize,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) actions: Vec<Action>,
}

impl Note {
    /// By sector.
    pub(crate) fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        let (worker, begin, end) = (self.worker, self.begin, self.end);
        (self.first..).zip(self.actions.iter().map(move |action| Event {
            worker,
            begin,
            end,
            action: *action,
        }))
    }
}

pub(crate) struct Worker<'a> {
    pub(crate) field: &'a Field,
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    pub(crate) notes: Vec<Note>,
    pub(crate) written: u64,
}

impl Worker<'_> {
    pub(crate) fn step(&mut self) {
        let first = self.rng.below(self.field.sectors);
        let most = if self.field.sparse { SPARSE_MOST } else { MOST };
        let count = (1 + self.rng.below(most)).min(self.field.sectors - first);
        let (at, length) = (first * SECTOR as u64, count * SECTOR as u64);
        let image = Arc::clone(&self.field.image);
        let kind = match self.rng.below(40) {
            16..23 if self.field.sparse => 23,
            kind => kind,
        };
        match kind {
            0..12 => self.read(first, count),
            12..23 => {
                let value = self.value();
                let data = filled(value, first, count);
                self.note(first, vec![Action::Write(value); count as usize], || {
                    image.write_at(&data, at).unwrap();
                });
            }
            23..27 => {
                let mode = if self.rng.one_in(2) { ZeroMode::Keep } else { ZeroMode::Unmap };
                self.note(first, vec![Action::Write(0); count as usize], || {
                    image.write_zeroes(at, length, mode).unwrap();
                });
            }
            27..31 => self.note(first, vec![Action::Discard; count as usize], || {
                image.discard(at, length).unwrap();
            }),
            31..33 if self.field.internal => self.pack(first),
            33 if self.field.internal => self.take_snapshot(),
            34 if self.field.internal => self.delete_snapshot(),
            35 if self.field.internal => self.apply_snapshot(),
            36 if self.field.internal => {
                if let Some(taken) = self.some_snapshot() {
                    let _used = taken.used.read().unwrap_or_else(PoisonError::into_inner);
                    self.field.look(&taken);
                }
            }
            37 => image.flush().unwrap(),
            _ => {
                image.map(at, length).unwrap();
            }
        }
    }

    /// Another value for each write of each worker.
    fn value(&mut self) -> u64 {
        self.written += 1;
        self.written << 8 | (self.number as u64 + 1)
    }

    /// Carries out what has these effects.
    fn note(&mut self, first: u64, actions: Vec<Action>, work: impl FnOnce()) {
        let begin = self.field.tick();
        work();
        let end = self.field.tick();
        self.notes.push(Note { first, worker: self.number, begin, end, actions });
    }

    fn read(&mut self, first: u64, count: u64) {
        let begin = self.field.tick();
        let values = self.field.values(&*self.field.image, first, count);
        let end = self.field.tick();
        let actions = values.into_iter().map(Action::Read).collect();
        self.notes.push(Note { first, worker: self.number, begin, end, actions });
    }

    fn pack(&mut self, near: u64) {
        let image = Arc::clone(&self.field.image);
        let (Some(how), value) = (image.compression(), self.value()) else { return };
        let per = how.cluster_size / SECTOR as u64;
        let first = near / per * per;
        let data = filled(value, first, per);
        let mut compressor = disksmith_codec::Compressor::new(how.algorithm, Default::default());
        let packed = compressor.compress(&data).expect("repetitions are compressible").to_vec();
        self.note(first, vec![Action::Write(value); per as usize], || {
            image.write_packed(first * SECTOR as u64, &packed).unwrap();
        });
    }

    fn take_snapshot(&mut self) {
        if self.field.listed().len() >= SNAPSHOTS_MOST {
            return;
        }
        let name = format!("s{}", self.value());
        let snapshot = Snapshot { name: name.clone(), ..Snapshot::default() };
        let begin = self.field.tick();
        self.field.image.create_snapshot(snapshot).unwrap();
        let end = self.field.tick();
        let (content, used, worker) = (Mutex::default(), RwLock::default(), self.number);
        self.field.listed().push(Arc::new(Taken { name, worker, begin, end, content, used }));
    }

    fn some_snapshot(&mut self) -> Option<Arc<Taken>> {
        let listed = self.field.listed();
        let index = self.rng.below(listed.len() as u64) as usize;
        listed.get(index).cloned()
    }

    fn delete_snapshot(&mut self) {
        let Some(taken) = self.some_snapshot() else { return };
        let before = self.field.listed().len();
        self.field.listed().retain(|other| !Arc::ptr_eq(other, &taken));
        if before == self.field.listed().len() {
            return;
        }
        let _used = taken.used.write().unwrap_or_else(PoisonError::into_inner);
        self.field.look(&taken);
        self.field.image.delete_snapshot(&taken.name).unwrap();
        self.notes.push(taken.note());
    }

    fn apply_snapshot(&mut self) {
        let Some(taken) = self.some_snapshot() else { return };
        let _used = taken.used.read().unwrap_or_else(PoisonError::into_inner);
        let Some(content) = self.field.look(&taken) else { return };
        let image = Arc::clone(&self.field.image);
        self.note(0, content.into_iter().map(Action::Write).collect(), || {
            image.apply_snapshot(&taken.name).unwrap();
        });
    }
}

impl Field {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Taken>>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a snapshot holds, which never changes; `None` once it is deleted.
    pub(crate) fn look(&self, taken: &Taken) -> Option<Vec<u64>> {
        let view = self.image.open_snapshot(&taken.name).ok()?;
        let found = self.values(&*view, 0, self.sectors);
        let mut content = taken.content.lock().unwrap_or_else(PoisonError::into_inner);
        let known = content.get_or_insert_with(|| found.clone());
        assert!(*known == found, "snapshot {} changed", taken.name);
        Some(found)
    }

    /// The values of sectors.
    ///
    /// # Panics
    /// When a sector is not as one write left it.
    pub(crate) fn values(&self, disk: &dyn Image, first: u64, count: u64) -> Vec<u64> {
        let mut data = vec![0; count as usize * SECTOR];
        disk.read_at(&mut data, first * SECTOR as u64).unwrap();
        (first..)
            .zip(data.chunks(SECTOR))
            .map(|(number, sector)| value_of(number, sector))
            .collect()
    }
}

impl Taken {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// To take it is to read all at one instant.
    pub(crate) fn note(&self) -> Note {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let actions = content.iter().flatten().map(|value| Action::Read(*value)).collect();
        Note { first: 0, worker: self.worker, begin: self.begin, end: self.end, actions }
    }
}

/// Sectors of one value, each with its own number in it.
pub(crate) fn filled(value: u64, first: u64, count: u64) -> Vec<u8> {
    let sector =
        |number: u64| [value.to_le_bytes(), number.to_le_bytes()].concat().repeat(SECTOR / 16);
    (first..first + count).flat_map(sector).collect()
}

fn value_of(number: u64, sector: &[u8]) -> u64 {
    if sector.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let value = u64::from_le_bytes(sector[..8].try_into().unwrap());
    let whole = filled(value, number, 1) == *sector;
    assert!(whole, "sector {number} is a mixture: {:?}", &sector[..64]);
    value
}
