//! Stacks in memory for the tests: raw images on memory disks, and layers with absent, zero,
//! plain and packed clusters.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test takes what it needs"
)]

pub mod failures;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use disksmith_codec::{Algorithm, Decompressor};
use disksmith_disk::{Disk, Error, Extent, Kind, MemoryDisk, Result, State, ZeroMode};
use disksmith_formats::raw::Raw;
use disksmith_formats::{Backing, Compression, Image, OpenMode, OpenRequest, ResizeRequest};
use disksmith_open::Node;
use disksmith_testkit::Rng;

/// A node that is no file.
pub fn node(image: Arc<dyn Image>, backing: Option<Arc<Node>>) -> Node {
    let below = backing.as_ref().map(|node| -> Arc<dyn Disk> { node.image.clone() });
    image.attach_backing(below).unwrap();
    Node {
        image,
        shown: "memory".to_string(),
        spec: disksmith_open::ImageSpec::from_path("", "memory", None),
        path: None,
        file: None,
        data_file: None,
        below: None,
        export: None,
        backing,
        probed: false,
        ambiguous: Vec::new(),
    }
}

/// A raw image that holds `bytes`.
pub fn raw(bytes: &[u8]) -> Node {
    raw_on(Arc::new(MemoryDisk::from_bytes(bytes)))
}

/// A raw image on any disk.
pub fn raw_on(disk: Arc<dyn Disk>) -> Node {
    let request = OpenRequest { mode: OpenMode::Write, ..Default::default() };
    node(Arc::new(Raw::open(disk, &request).unwrap()), None)
}

/// All bytes that a guest sees.
pub fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// `size` bytes: runs of noise, text and zeroes of random lengths.
pub fn patchwork(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        let longest = *rng.pick(&[600, 5000, 70_000, 300_000]);
        let length = (rng.below(longest) as usize + 1).min(size - bytes.len());
        match rng.below(3) {
            0 => bytes.resize(bytes.len() + length, 0),
            1 => bytes.extend(rng.bytes(length)),
            _ => bytes.extend((0..length).map(|at| b"the same words, "[at % 16])),
        }
    }
    bytes
}

#[derive(Clone)]
enum Cluster {
    Zero,
    Data { bytes: Vec<u8>, packed: bool },
}

/// What was done to a layer, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    Write(u64, usize),
    Packed(u64, usize),
    Zero(u64, u64),
    Flush,
    Empty,
    Rename,
}

/// A layer of a backing chain, with clusters.
pub struct Layer {
    cluster: usize,
    storage: Arc<dyn Disk>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    size: u64,
    clusters: BTreeMap<u64, Cluster>,
    below: Option<Arc<dyn Disk>>,
    named: Option<Backing>,
    events: Vec<Event>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Layer {
    pub fn new(size: u64, cluster: usize) -> Arc<Self> {
        let inner = Inner { size, ..Default::default() };
        let storage = Arc::new(MemoryDisk::new(0));
        Arc::new(Self { cluster, storage, inner: Mutex::new(inner) })
    }

    /// A layer with random clusters.
    pub fn random(rng: &mut Rng, size: u64, cluster: usize) -> Arc<Self> {
        let layer = Self::new(size, cluster);
        let mut at = 0;
        while at < size {
            let run = (rng.below(12) + 1) * cluster as u64 - rng.below(2) * 512 % cluster as u64;
            let run = run.min(size - at);
            match rng.below(4) {
                0 => layer.write_zeroes(at, run, ZeroMode::Unmap).unwrap(),
                1 => {
                    let bytes = patchwork(rng, run as usize);
                    layer.write_at(&bytes, at).unwrap();
                }
                _ => {}
            }
            at += run;
        }
        layer.take_events();
        layer
    }

    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.inner.lock().unwrap().events)
    }

    pub fn named(&self) -> Option<Backing> {
        self.inner.lock().unwrap().named.clone()
    }

    /// How many clusters this layer has, zero ones included.
    pub fn present(&self) -> usize {
        self.inner.lock().unwrap().clusters.len()
    }

    pub fn has(&self, offset: u64) -> bool {
        self.inner.lock().unwrap().clusters.contains_key(&(offset / self.cluster as u64))
    }

    fn old(&self, inner: &Inner, index: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.cluster];
        match (inner.clusters.get(&index), &inner.below) {
            (Some(Cluster::Data { bytes: data, .. }), _) => bytes.copy_from_slice(data),
            (Some(Cluster::Zero), _) | (None, None) => {}
            (None, Some(below)) => {
                let start = index * self.cluster as u64;
                let have = below.size().saturating_sub(start).min(self.cluster as u64) as usize;
                below.read_at(&mut bytes[..have], start.min(below.size())).unwrap();
            }
        }
        bytes
    }
}

impl Disk for Layer {
    fn size(&self) -> u64 {
        self.inner.lock().unwrap().size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let inner = self.inner.lock().unwrap();
        if offset + buffer.len() as u64 > inner.size {
            return Err(Error::new(Kind::InvalidInput, "past the end"));
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset as usize + done;
            let within = at % self.cluster;
            let step = (self.cluster - within).min(buffer.len() - done);
            let bytes = self.old(&inner, (at / self.cluster) as u64);
            buffer[done..done + step].copy_from_slice(&bytes[within..within + step]);
            done += step;
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        assert!(offset + data.len() as u64 <= inner.size, "write past the end");
        inner.events.push(Event::Write(offset, data.len()));
        let mut done = 0;
        while done < data.len() {
            let at = offset as usize + done;
            let within = at % self.cluster;
            let step = (self.cluster - within).min(data.len() - done);
            let index = (at / self.cluster) as u64;
            let mut bytes = self.old(&inner, index);
            bytes[within..within + step].copy_from_slice(&data[done..done + step]);
            inner.clusters.insert(index, Cluster::Data { bytes, packed: false });
            done += step;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _mode: ZeroMode) -> Result<()> {
        let size = {
            let mut inner = self.inner.lock().unwrap();
            inner.events.push(Event::Zero(offset, length));
            inner.size
        };
        let cluster = self.cluster as u64;
        let mut at = offset;
        while at < offset + length {
            let end = ((at / cluster + 1) * cluster).min(offset + length);
            let whole = at.is_multiple_of(cluster) && (end.is_multiple_of(cluster) || end == size);
            let mut inner = self.inner.lock().unwrap();
            if whole {
                inner.clusters.insert(at / cluster, Cluster::Zero);
            } else {
                let mut bytes = self.old(&inner, at / cluster);
                let from = (at % cluster) as usize;
                bytes[from..from + (end - at) as usize].fill(0);
                inner.clusters.insert(at / cluster, Cluster::Data { bytes, packed: false });
            }
            at = end;
        }
        Ok(())
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.inner.lock().unwrap().events.push(Event::Flush);
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let inner = self.inner.lock().unwrap();
        let length = length.min(inner.size - offset);
        let kind = |index: u64| match inner.clusters.get(&index) {
            None => (State::Absent, false),
            Some(Cluster::Zero) => (State::Zero, false),
            Some(Cluster::Data { packed, .. }) => (State::Data, *packed),
        };
        let first = offset / self.cluster as u64;
        let mut index = first;
        while index * (self.cluster as u64) < offset + length && kind(index) == kind(first) {
            index += 1;
        }
        let end = (index * self.cluster as u64).min(offset + length);
        let (state, compressed) = kind(first);
        Ok(Extent { length: end - offset, state, place: None, compressed })
    }
}

impl Image for Layer {
    fn format(&self) -> &'static str {
        "layer"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn storage(&self) -> &Arc<dyn Disk> {
        &self.storage
    }

    fn cluster_size(&self) -> Option<u64> {
        Some(self.cluster as u64)
    }

    fn attach_backing(&self, backing: Option<Arc<dyn Disk>>) -> Result<()> {
        self.inner.lock().unwrap().below = backing;
        Ok(())
    }

    fn change_backing(&self, backing: Option<Backing>) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        inner.events.push(Event::Rename);
        inner.named = backing;
        Ok(())
    }

    fn resize(&self, request: ResizeRequest) -> Result<()> {
        self.inner.lock().unwrap().size = request.size;
        Ok(())
    }

    fn compression(&self) -> Option<Compression> {
        Some(Compression { algorithm: Algorithm::Deflate, cluster_size: self.cluster as u64 })
    }

    fn write_packed(&self, offset: u64, packed: &[u8]) -> Result<()> {
        assert_eq!(offset % self.cluster as u64, 0);
        let mut bytes = vec![0; self.cluster];
        Decompressor::new(Algorithm::Deflate).decompress(packed, &mut bytes)?;
        let mut inner = self.inner.lock().unwrap();
        inner.events.push(Event::Packed(offset, packed.len()));
        let data = Cluster::Data { bytes, packed: true };
        inner.clusters.insert(offset / self.cluster as u64, data);
        Ok(())
    }

    fn make_empty(&self) -> Result<()> {
        let mut inner = self.inner.lock().unwrap();
        inner.events.push(Event::Empty);
        inner.clusters.clear();
        Ok(())
    }
}

/// A chain of random layers on a raw image, sizes differing.
pub fn random_chain(rng: &mut Rng, layers: usize, size: u64, cluster: usize) -> Node {
    let base = sized(rng, size);
    let mut top = raw(&patchwork(rng, base as usize));
    for left in (0..layers).rev() {
        let size = if left == 0 { size } else { sized(rng, size) };
        top = node(Layer::random(rng, size, cluster), Some(Arc::new(top)));
    }
    top
}

fn sized(rng: &mut Rng, size: u64) -> u64 {
    match rng.below(3) {
        0 => size,
        1 => rng.below(size / 512) * 512 + 512,
        _ => size + rng.below(100) * 512,
    }
}

/// A disk whose sectors listed cannot be read.
#[derive(Debug)]
pub struct BadSectors {
    pub disk: MemoryDisk,
    pub bad: Vec<u64>,
}

impl Disk for BadSectors {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buffer.len() as u64;
        if self.bad.iter().any(|sector| sector * 512 < end && (sector + 1) * 512 > offset) {
            return Err(Error::from_errno(5));
        }
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.disk.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.disk.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.disk.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.disk.map(offset, length)
    }
}

/// Keeps what an operation said.
#[derive(Debug, Default)]
pub struct Heard {
    pub warnings: Mutex<Vec<String>>,
    pub progress: Mutex<Vec<(u64, u64)>>,
    pub cancel_after: Option<usize>,
}

impl disksmith_operations::Observer for Heard {
    fn progress(&self, done: u64, total: u64) {
        self.progress.lock().unwrap().push((done, total));
    }

    fn warning(&self, text: &str) {
        self.warnings.lock().unwrap().push(text.to_string());
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|most| self.progress.lock().unwrap().len() > most)
    }
}
