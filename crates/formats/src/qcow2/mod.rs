//! qcow2, versions 2 and 3.
//!
//! Guest bytes are found through two levels of tables, host clusters are counted by refcounts.
//! The header (cluster 0) names both. [`layout`] has the structures, `open.rs` checks an image,
//! `meta.rs` holds its state behind one lock. Guest data is read and written outside of that
//! lock:
//!
//! * A read looks its clusters up, and holds a token until it is done; clusters that are freed
//!   meanwhile are not used again before (`quarantine.rs`).
//! * A write allocates, writes, and only then changes the tables (`write.rs`). Two writes that
//!   allocate the same guest cluster wait for each other.
//! * Tables are written back by `Meta::write_back`, in an order with flushes between, so that
//!   at every instant each cluster's refcount in the file is at least the number of references
//!   to it, and data is there before what points to it.
//! * Operations that change the whole image (resize, snapshots, ...) take the gate exclusively:
//!   then nothing else is in flight.

mod allocate;
mod amend;
mod bitmaps;
mod cache;
mod check;
mod create;
mod editor;
mod encryption;
mod facts;
mod header;
pub mod layout;
mod map;
mod marks;
mod measure;
mod meta;
mod open;
mod packed;
mod places;
mod quarantine;
mod read;
mod refcounts;
mod resize;
mod roots;
mod snapshots;
mod unflushed;
mod util;
mod whole;
mod write;
mod zero;

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use disksmith_codec::Algorithm;
use disksmith_crypt::Secret;
use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

use self::bitmaps::Tracker;
use self::encryption::Encryption;
pub use self::measure::{Measure, Measured, bitmaps_size};
use self::meta::{Budgets, Meta, Stop};
use self::read::Unpacked;
use self::util::{exclusive, lock, shared};
use crate::{
    Backing, Bitmap, CheckFinding, CheckReport, Compression, Driver, Fact, Image, OpenMode,
    OpenRequest, Options, Repair, ResizeRequest, Snapshot,
};

/// The format's entry in the registry.
pub static DRIVER: Driver = Driver {
    name: "qcow2",
    probe,
    open: |storage, request| Ok(Arc::new(Qcow2::open(storage, &request)?)),
    create: Some(create::create),
    create_options: create::OPTIONS,
    runtime_options: open::RUNTIME_OPTIONS,
    amend_options: create::AMEND_OPTIONS,
    backing: true,
};

fn probe(start: &[u8]) -> u8 {
    use disksmith_disk::bytes::be32;
    match (be32(start, 0), be32(start, 4)) {
        (Some(layout::MAGIC), Some(2..)) => 100,
        _ => 0,
    }
}

/// An open qcow2 image.
#[derive(Debug)]
pub struct Qcow2 {
    storage: Arc<dyn Disk>,
    mode: OpenMode,
    cluster_size: u64,
    /// Guest data lies in another file.
    has_data_file: bool,
    meta: Mutex<Meta>,
    /// Told when a write that allocated has ended.
    landing: Condvar,
    /// Shared by requests, taken exclusively by operations on the whole image.
    gate: RwLock<()>,
    attached: RwLock<Attached>,
    cipher: Option<Arc<Encryption>>,
    unpacked: Unpacked,
    /// What opening had to mend.
    mended: Mutex<Vec<CheckFinding>>,
    /// For key slots.
    secret: Option<Secret>,
    /// What bitmaps have yet to store.
    tracker: Mutex<Tracker>,
}

#[derive(Debug, Default)]
struct Attached {
    backing: Option<Arc<dyn Disk>>,
    data_file: Option<Arc<dyn Disk>>,
}

impl Qcow2 {
    /// Opens the image on `storage`. References it names are attached afterwards.
    ///
    /// # Errors
    /// Of kind `Corrupt`, `Unsupported` or `LimitExceeded` if the image breaks the format's
    /// rules; `Refused` for writing an image that is marked corrupt.
    pub fn open(storage: Arc<dyn Disk>, request: &OpenRequest) -> Result<Self> {
        let budgets = Budgets::new(&request.options)?;
        let opened = open::open(&storage, request.mode)?;
        let header = &opened.header;
        open::check_encryption(header, request.options.text("encrypt.format"))?;
        let with_data = matches!(request.mode, OpenMode::Read | OpenMode::Write);
        let cipher = match with_data || request.secret.is_some() {
            true => Encryption::unlock(
                &*storage,
                header,
                opened.extensions.crypto_header,
                request.secret.as_ref(),
            )?
            .map(Arc::new),
            false => None,
        };
        let cluster_size = opened.shape.cluster_size();
        let algorithm = algorithm(header.compression_type);
        let image = Self {
            storage: Arc::clone(&storage),
            mode: request.mode,
            cluster_size,
            has_data_file: header.has(layout::INCOMPATIBLE_DATA_FILE),
            meta: Mutex::new(Meta::new(storage, request.mode, budgets, opened)),
            landing: Condvar::new(),
            gate: RwLock::default(),
            attached: RwLock::default(),
            cipher,
            unpacked: Unpacked::new(algorithm, cluster_size),
            secret: request.secret.clone(),
            mended: Mutex::default(),
            tracker: Mutex::default(),
        };
        if request.mode.writes() {
            image.prepare_for_writing()?;
        }
        Ok(image)
    }

    /// What must happen before the first write: unknown autoclear bits go, a dirty image is
    /// repaired.
    fn prepare_for_writing(&self) -> Result<()> {
        let mut meta = lock(&self.meta);
        let (l1, entries) = (meta.header.l1_table_offset, meta.header.l1_size);
        if self.mode == OpenMode::Write && entries > 0 && l1 >= self.storage.size() {
            return Err(Error::new(Kind::Corrupt, "L1 table lies beyond the end of the image"));
        }
        if meta.header.autoclear_features & !layout::AUTOCLEAR_KNOWN != 0 {
            meta.header.autoclear_features &= layout::AUTOCLEAR_KNOWN;
            meta.write_features()?;
        }
        match self.mode {
            OpenMode::Write => self.repair_dirty(&mut meta),
            _ => Ok(()),
        }
    }

    /// A read-only image of another state of the same storage.
    fn view(&self, budgets: Budgets, opened: open::Opened) -> Self {
        let header = &opened.header;
        let algorithm = algorithm(header.compression_type);
        let meta = Meta::new(Arc::clone(&self.storage), OpenMode::Read, budgets, opened);
        Self {
            storage: Arc::clone(&self.storage),
            mode: OpenMode::Read,
            cluster_size: self.cluster_size,
            has_data_file: self.has_data_file,
            meta: Mutex::new(meta),
            landing: Condvar::new(),
            gate: RwLock::default(),
            attached: RwLock::default(),
            cipher: self.cipher.clone(),
            unpacked: Unpacked::new(algorithm, self.cluster_size),
            secret: None,
            mended: Mutex::default(),
            tracker: Mutex::default(),
        }
    }

    /// What every change of guest data does first.
    fn note_write(&self, meta: &mut Meta, offset: u64, length: u64) -> Result<()> {
        self.record(meta, offset, length)?;
        meta.note_change()
    }

    fn backing_disk(&self) -> Option<Arc<dyn Disk>> {
        shared(&self.attached).backing.clone()
    }

    /// Where guest data lies: the storage, or the external data file.
    fn data_disk(&self) -> Result<Arc<dyn Disk>> {
        if !self.has_data_file {
            return Ok(Arc::clone(&self.storage));
        }
        self.attached_data_file()
    }

    /// The external data file, which must have been attached.
    fn attached_data_file(&self) -> Result<Arc<dyn Disk>> {
        shared(&self.attached)
            .data_file
            .clone()
            .ok_or_else(|| Error::new(Kind::Refused, "'data-file' is required for this image"))
    }

    fn check_request(&self, offset: u64, length: u64) -> Result<()> {
        if self.mode == OpenMode::Inspect {
            return Err(Error::new(Kind::Refused, "the image was opened for inspection only"));
        }
        let size = self.size();
        match offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::new(
                Kind::InvalidInput,
                format!(
                    "request of {length} bytes at {offset} is outside of the image of {size} bytes"
                ),
            )),
        }
    }
}

fn refuse_by_name<T>(text: &str) -> Result<T> {
    Err(Error::new(Kind::InvalidInput, text))
}

fn algorithm(compression_type: u8) -> Algorithm {
    match compression_type {
        1 => Algorithm::Zstd,
        _ => Algorithm::Deflate,
    }
}

impl Disk for Qcow2 {
    fn size(&self) -> u64 {
        lock(&self.meta).header.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check_request(offset, buffer.len() as u64)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let _gate = shared(&self.gate);
        self.read_guest(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write_in_turn(data, offset, &mut || {})
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.check_request(offset, length)?;
        match length {
            0 => Ok(()),
            _ => self.zero_guest(offset, length, mode),
        }
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.check_request(offset, length)?;
        match length {
            0 => Ok(()),
            _ => self.discard_guest(offset, length),
        }
    }

    fn flush(&self) -> Result<()> {
        if !self.mode.writes() {
            return Ok(());
        }
        if lock(&self.meta).stopped == Some(Stop::HalfDone) {
            return lock(&self.meta).check_writable();
        }
        // Guest data is made durable without the lock, so that readers go on meanwhile. What
        // is written in between is covered by the flushes of the tables.
        if let Some(data) = shared(&self.attached).data_file.clone() {
            data.flush()?;
        }
        self.storage.flush()?;
        let mut meta = lock(&self.meta);
        match meta.is_dirty() {
            true => self.write_back(&mut meta),
            false => Ok(()),
        }
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let size = self.size();
        if offset >= size || length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the image"));
        }
        self.check_request(offset, 0)?;
        let mut meta = lock(&self.meta);
        let run = meta.run(offset, length.min(size - offset))?;
        Ok(map::extent(run, self.cipher.is_some() || meta.header.crypt_method != 0))
    }

    fn read_only(&self) -> bool {
        !self.mode.writes()
    }

    fn geometry(&self) -> Geometry {
        Geometry { sector: 512, optimal: self.cluster_size as u32 }
    }
}

impl Qcow2 {
    /// Writes the tables back; the data they point to in a data file first.
    fn write_back(&self, meta: &mut Meta) -> Result<()> {
        if let Some(data) = shared(&self.attached).data_file.clone() {
            data.flush()?;
        }
        meta.write_back()
    }
}

impl Image for Qcow2 {
    fn format(&self) -> &'static str {
        "qcow2"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn storage(&self) -> &Arc<dyn Disk> {
        &self.storage
    }

    fn close(&self) -> Result<()> {
        self.close_image()
    }

    fn cluster_size(&self) -> Option<u64> {
        Some(self.cluster_size)
    }

    fn allocation_unit(&self) -> Option<u64> {
        Some(lock(&self.meta).shape.unit_size())
    }

    fn encrypted(&self) -> bool {
        lock(&self.meta).header.crypt_method != 0
    }

    fn dirty(&self) -> Option<bool> {
        Some(lock(&self.meta).header.has(layout::INCOMPATIBLE_DIRTY))
    }

    fn facts(&self) -> Result<Option<Vec<(&'static str, Fact)>>> {
        self.collect_facts().map(Some)
    }

    fn backing(&self) -> Option<Backing> {
        let meta = lock(&self.meta);
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let name = meta.backing.as_ref().map(text)?;
        Some(Backing { name, format: meta.extensions.backing_format.as_ref().map(text) })
    }

    fn data_file(&self) -> Option<String> {
        let meta = lock(&self.meta);
        if !meta.has_data_file() {
            return None;
        }
        let name = meta.extensions.data_file.as_ref()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn attach_backing(&self, backing: Option<Arc<dyn Disk>>) -> Result<()> {
        let _gate = exclusive(&self.gate);
        exclusive(&self.attached).backing = backing;
        Ok(())
    }

    fn attach_data_file(&self, data: Arc<dyn Disk>) -> Result<()> {
        if !lock(&self.meta).has_data_file() {
            return Err(Error::new(
                Kind::InvalidInput,
                "'data-file' can only be set for images with an external data file",
            ));
        }
        let _gate = exclusive(&self.gate);
        exclusive(&self.attached).data_file = Some(data);
        Ok(())
    }

    fn change_backing(&self, backing: Option<Backing>) -> Result<()> {
        self.name_backing(backing.as_ref())
    }

    fn resize(&self, request: ResizeRequest) -> Result<()> {
        self.resize_with_bitmaps(request)
    }

    fn compression(&self) -> Option<Compression> {
        let meta = lock(&self.meta);
        if meta.header.crypt_method != 0 {
            return None;
        }
        let algorithm = algorithm(meta.header.compression_type);
        Some(Compression { algorithm, cluster_size: self.cluster_size })
    }

    fn write_in_turn(&self, data: &[u8], offset: u64, placed: &mut dyn FnMut()) -> Result<()> {
        self.check_request(offset, data.len() as u64)?;
        match data.is_empty() {
            true => Ok(()),
            false => self.write_guest(data, offset, placed),
        }
    }

    fn write_packed(&self, offset: u64, packed: &[u8]) -> Result<()> {
        self.check_request(offset, 1)?;
        self.write_packed_cluster(offset, packed)
    }

    fn make_empty(&self) -> Result<()> {
        self.empty()
    }

    fn check(
        &self,
        repair: Repair,
        tell: &mut dyn FnMut(CheckFinding),
    ) -> Result<Option<CheckReport>> {
        self.check_image(repair, tell).map(Some)
    }

    fn mended_on_opening(&self) -> Vec<CheckFinding> {
        lock(&self.mended).clone()
    }

    fn amend(
        &self,
        options: &Options,
        force: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        self.amend_image(options, force, progress)
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        self.list_snapshots()
    }

    fn create_snapshot(&self, snapshot: Snapshot) -> Result<()> {
        self.take_snapshot(&snapshot)
    }

    fn apply_snapshot(&self, id_or_name: &str) -> Result<()> {
        self.go_to_snapshot(id_or_name)
    }

    fn delete_snapshot(&self, id_or_name: &str) -> Result<()> {
        self.remove_snapshot(id_or_name)
    }

    fn open_snapshot(&self, id_or_name: &str) -> Result<Arc<dyn Image>> {
        self.snapshot_image(id_or_name)
    }

    fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        self.list_bitmaps()
    }

    fn add_bitmap(&self, name: &str, granularity: Option<u64>, enabled: bool) -> Result<()> {
        self.new_bitmap(name, granularity, enabled)
    }

    fn remove_bitmap(&self, name: &str) -> Result<()> {
        self.drop_bitmap(name)
    }

    fn clear_bitmap(&self, name: &str) -> Result<()> {
        self.empty_bitmap(name)
    }

    fn enable_bitmap(&self, name: &str, enabled: bool) -> Result<()> {
        self.switch_bitmap(name, enabled)
    }

    fn merge_bitmap(&self, target: &str, ranges: &[(u64, u64)]) -> Result<()> {
        self.add_to_bitmap(target, ranges)
    }

    fn dirty_ranges(&self, name: &str) -> Result<Vec<(u64, u64)>> {
        self.bitmap_ranges(name)
    }
}
