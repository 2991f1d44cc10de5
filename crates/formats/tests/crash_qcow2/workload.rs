//! The operations, done to an image on recording storage and to the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use disksmith_codec::{Compressor, Options as CodecOptions};
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Options, Preallocation, ResizeRequest, Snapshot,
    driver,
};
use disksmith_testkit::{Operation, Recorder, SectorModel, tagged};

use crate::kinds::Kind;

macro_rules! ops {
    ($($variant:ident $name:literal,)*) => {
        /// What a step does.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Op { $($variant),* }

        /// All operations.
        pub(crate) const OPS: &[Op] = &[$(Op::$variant),*];

        impl Op {
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub(crate) fn named(name: &str) -> Option<Self> {
                OPS.iter().copied().find(|op| op.name() == name)
            }
        }
    };
}

ops! {
    Aligned "aligned",
    SubCluster "sub-cluster",
    Crossing "crossing",
    Overwrite "overwrite",
    Zero "zero",
    ZeroUnmap "zero-unmap",
    Discard "discard",
    Compressed "compressed",
    Flush "flush",
    SnapshotCreate "snapshot-create",
    SnapshotDelete "snapshot-delete",
    SnapshotApply "snapshot-apply",
    Grow "grow",
    Shrink "shrink",
}

/// The name of the snapshot that every image with snapshots has from the start.
pub(crate) const FIRST_SNAPSHOT: &str = "first";

/// What the guest may see at some time.
#[derive(Clone)]
pub(crate) struct Expected {
    pub(crate) model: SectorModel,
    /// The sizes that the disk may have.
    pub(crate) sizes: Vec<u64>,
    /// Snapshots by name: what they may hold, and whether they must be there.
    pub(crate) snapshots: BTreeMap<String, (SectorModel, bool)>,
}

impl Expected {
    fn size(&self) -> u64 {
        self.sizes.last().copied().unwrap_or(0)
    }

    /// The effect of step `number` on what may be seen.
    pub(crate) fn step(&mut self, kind: &Kind, op: Op, number: u64) {
        let tag = number as u32 + 2;
        let size = self.size();
        match op.range(kind, size) {
            Some((offset, length)) => match op {
                Op::Zero | Op::ZeroUnmap => self.model.write(0, offset, length),
                Op::Discard => self.model.discard(offset, length),
                _ => self.model.write(tag, offset, length),
            },
            None => match op {
                Op::SnapshotCreate => {
                    // Which of the unflushed writes it holds is open until it is durable.
                    self.snapshots.insert(format!("s{number}"), (self.model.clone(), false));
                }
                Op::SnapshotDelete => {
                    if let Some((_, must)) = self.snapshots.get_mut(FIRST_SNAPSHOT) {
                        *must = false;
                    }
                }
                Op::SnapshotApply => {
                    if let Some((then, _)) = self.snapshots.get(FIRST_SNAPSHOT) {
                        self.model.become_like(then);
                        self.sizes.push(kind.size());
                    }
                }
                Op::Grow => {
                    self.model.grow(size, size + 5 * kind.cluster);
                    self.sizes.push(size + 5 * kind.cluster);
                }
                Op::Shrink => {
                    // What is to be cut off may be gone before the size says so.
                    self.model.discard(size - 2 * kind.cluster, 2 * kind.cluster);
                    self.sizes.push(size - 2 * kind.cluster);
                }
                _ => {}
            },
        }
    }

    /// The same for a step that failed: each sector, the size and snapshots may be as before.
    pub(crate) fn failed_step(&mut self, kind: &Kind, op: Op, number: u64) {
        let mut then = self.clone();
        then.step(kind, op, number);
        self.model.or_like(&then.model);
        self.sizes.extend(then.sizes);
        self.snapshots = then.snapshots;
    }

    /// Everything up to here is durable.
    fn settle(&mut self, deleted: bool) {
        self.model.flush();
        let last = self.size();
        self.sizes = vec![last];
        for (model, must) in self.snapshots.values_mut() {
            model.flush();
            *must = true;
        }
        if deleted {
            self.snapshots.remove(FIRST_SNAPSHOT);
        }
    }
}

impl Op {
    /// The guest range of an operation on data.
    fn range(self, kind: &Kind, size: u64) -> Option<(u64, u64)> {
        let c = kind.cluster;
        let range = match self {
            Self::Aligned => (4 * c, c),
            // Below the smallest cluster there is only the sector.
            Self::SubCluster if c == 512 => (6 * c, 512),
            Self::SubCluster => (6 * c + c / 4, c / 4),
            Self::Crossing if c == 512 => (2 * c, 3 * c),
            Self::Crossing => (2 * c + c / 2, 2 * c),
            Self::Overwrite => (0, 2 * c),
            Self::Zero => (c, 2 * c),
            Self::ZeroUnmap => (0, 3 * c),
            Self::Discard => (c, 3 * c),
            Self::Compressed => (5 * c, c),
            _ => return None,
        };
        debug_assert!(range.0 + range.1 <= size, "ranges lie below any shrinking");
        Some(range)
    }
}

/// A recorded workload.
pub(crate) struct Run {
    pub(crate) kind: &'static Kind,
    pub(crate) ops: Vec<Op>,
    /// The files before the first step: image, and data file if there is one.
    pub(crate) initial: Vec<MemoryDisk>,
    pub(crate) log: Vec<Operation>,
    /// What may be seen when the steps before the n-th are durable and nothing after began.
    pub(crate) durable: Vec<Option<Expected>>,
}

/// Does the operations to a fresh image with some content, and records.
pub(crate) fn record(kind: &'static Kind, ops: &[Op]) -> Run {
    let (initial, mut expected) = prepare(kind, ops);
    let recorder = Recorder::new();
    let files: Vec<_> = initial
        .iter()
        .enumerate()
        .map(|(number, content)| recorder.disk(number, content.clone()) as Arc<dyn Disk>)
        .collect();
    let image = open(&files, OpenMode::Write);
    let mut durable = vec![Some(expected.clone())];
    let mut deleted = false;
    for (number, op) in ops.iter().enumerate() {
        recorder.begin(number as u64);
        let done = perform(kind, &*image, *op, number as u64, expected.size());
        let missing = matches!(op, Op::SnapshotDelete | Op::SnapshotApply) && deleted;
        assert_eq!(done.is_ok(), !missing, "{}: {op:?} of {ops:?}: {done:?}", kind.name);
        if !missing {
            expected.step(kind, *op, number as u64);
        }
        deleted |= *op == Op::SnapshotDelete;
        if *op == Op::Flush {
            recorder.durable(number as u64 + 1);
            expected.settle(deleted);
            durable.push(Some(expected.clone()));
        } else {
            durable.push(None);
        }
    }
    recorder.begin(ops.len() as u64);
    image.close().expect("closing");
    recorder.durable(ops.len() as u64);
    expected.settle(deleted);
    durable[ops.len()] = Some(expected);
    Run { kind, ops: ops.to_vec(), initial, log: recorder.log(), durable }
}

/// An image with data in its first clusters and, where the workload needs it, a snapshot and a
/// cluster written since.
pub(crate) fn prepare(kind: &Kind, ops: &[Op]) -> (Vec<MemoryDisk>, Expected) {
    let files: Vec<Arc<MemoryDisk>> =
        (0..=usize::from(kind.data_file)).map(|_| Arc::new(MemoryDisk::new(0))).collect();
    let disks: Vec<_> = files.iter().map(|file| file.clone() as Arc<dyn Disk>).collect();
    let mut options = Options::new();
    for (name, value) in kind.options {
        options.set(name, *value);
    }
    let request = CreateRequest {
        size: kind.size(),
        options,
        data_file: disks.get(1).map(|disk| ("data".to_string(), disk.clone())),
        ..CreateRequest::default()
    };
    let create = driver("qcow2").expect("registered").create.expect("can be made");
    create(&disks[0], &request).expect("creating");
    let image = open(&disks, OpenMode::Write);
    let mut expected = Expected {
        model: SectorModel::new(kind.size()),
        sizes: vec![kind.size()],
        snapshots: BTreeMap::new(),
    };
    image.write_at(&tagged(1, 0, 3 * kind.cluster), 0).expect("writing");
    expected.model.write(1, 0, 3 * kind.cluster);
    let snapshots = [Op::SnapshotApply, Op::SnapshotDelete].iter().any(|op| ops.contains(op));
    if snapshots {
        let snapshot = Snapshot { name: FIRST_SNAPSHOT.into(), ..Snapshot::default() };
        image.create_snapshot(snapshot).expect("snapshot");
        expected.model.flush();
        expected.snapshots.insert(FIRST_SNAPSHOT.into(), (expected.model.clone(), true));
        image
            .write_at(&tagged(1, 8 * kind.cluster, kind.cluster), 8 * kind.cluster)
            .expect("write");
        expected.model.write(1, 8 * kind.cluster, kind.cluster);
    }
    image.close().expect("closing");
    expected.model.flush();
    (files.iter().map(|file| (**file).clone()).collect(), expected)
}

/// Opens an image; its data file is the second disk.
pub(crate) fn open(files: &[Arc<dyn Disk>], mode: OpenMode) -> Arc<dyn Image> {
    try_open(files, mode).expect("opening")
}

pub(crate) fn try_open(
    files: &[Arc<dyn Disk>],
    mode: OpenMode,
) -> disksmith_disk::Result<Arc<dyn Image>> {
    let driver = driver("qcow2").expect("registered");
    let image = (driver.open)(files[0].clone(), OpenRequest { mode, ..OpenRequest::default() })?;
    if let Some(data) = files.get(1) {
        image.attach_data_file(data.clone())?;
    }
    Ok(image)
}

pub(crate) fn perform(
    kind: &Kind,
    image: &dyn Image,
    op: Op,
    number: u64,
    size: u64,
) -> disksmith_disk::Result<()> {
    let resize = |size| ResizeRequest { size, preallocation: Preallocation::Off };
    match (op, op.range(kind, size)) {
        (Op::Zero, Some((offset, length))) => image.write_zeroes(offset, length, ZeroMode::Keep),
        (Op::ZeroUnmap, Some((offset, length))) => {
            image.write_zeroes(offset, length, ZeroMode::Unmap)
        }
        (Op::Discard, Some((offset, length))) => image.discard(offset, length),
        (Op::Compressed, Some((offset, length))) => {
            write_compressed(image, &tagged(number as u32 + 2, offset, length), offset)
        }
        (_, Some((offset, length))) => {
            image.write_at(&tagged(number as u32 + 2, offset, length), offset)
        }
        (Op::Flush, _) => image.flush(),
        (Op::SnapshotCreate, _) => {
            image.create_snapshot(Snapshot { name: format!("s{number}"), ..Snapshot::default() })
        }
        (Op::SnapshotDelete, _) => image.delete_snapshot(FIRST_SNAPSHOT),
        (Op::SnapshotApply, _) => image.apply_snapshot(FIRST_SNAPSHOT),
        (Op::Grow, _) => image.resize(resize(size + 5 * kind.cluster)),
        (Op::Shrink, _) => image.resize(resize(size - 2 * kind.cluster)),
        _ => Ok(()),
    }
}

fn write_compressed(image: &dyn Image, data: &[u8], offset: u64) -> disksmith_disk::Result<()> {
    let how = image.compression().expect("can be compressed");
    let mut compressor = Compressor::new(how.algorithm, CodecOptions::default());
    match compressor.compress(data) {
        Some(packed) => image.write_packed(offset, packed),
        None => image.write_at(data, offset),
    }
}
