//! An open volume: what is known of it, its marks, and when changes are committed.
//!
//! exFAT has no journal. The [stages](Stage) of a commit see to it that a cut between any two
//! writes leaves clusters that belong to nothing, chains that are longer than their file, or a file
//! that moves under both names; never two owners of a cluster otherwise, or a name without its
//! file.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::super::chain::{Chains, Run};
use super::super::identity::Identities;
use super::super::name;
use super::super::shared::check_writable;
use super::corrupt;
use super::directory::Directories;
use super::layout::{
    ACTIVE_FAT, CLEAR_TO_ZERO, DIRECTORY_MAX, FLAGS_AT, Geometry, PERCENT_AT, VOLUME_DIRTY,
    entry_type,
};
use super::pages::{Pages, Stage};
use super::set::{FileSet, Stream};
use super::upcase::{self, Upcase};
use crate::Time;
use crate::raw::{byte, le16, le32, le64};

/// An open volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) pages: Pages,
    pub(crate) geometry: Geometry,
    pub(crate) read_only: bool,
    /// Instead of the host's clock.
    pub(crate) clock: Option<Time>,
    pub(crate) label: Vec<u8>,
    /// Where the bitmap lies.
    pub(crate) bitmap: Vec<Run>,
    pub(crate) upcase: Upcase,
    pub(crate) chains: Mutex<Chains>,
    pub(crate) directories: Mutex<Directories>,
    pub(crate) identities: Mutex<Identities<FileSet>>,
    /// Sets that do not lie in one piece, or whose first two entries are in two sectors, by the
    /// place of the first one: the directory's number and the slot.
    pub(crate) scattered: Mutex<HashMap<u64, (u64, u32)>>,
    /// Clusters that become free at the next commit: first and count.
    pub(crate) frees: Vec<(u32, u32)>,
    /// Clusters that become the last ones of their chain at the next commit.
    pub(crate) cuts: HashSet<u32>,
    /// Directory and slot that become free at the next commit.
    pub(crate) dead: HashSet<(u32, u32)>,
    /// Directory and hash of the names that go at the next commit.
    pub(crate) dead_names: HashSet<(u32, u64)>,
    /// Free clusters, without those that the next commit frees.
    pub(crate) free: Mutex<Option<u32>>,
    /// Where to look for free clusters.
    pub(crate) next: u32,
    /// It was marked as in use when it was opened: somebody did not finish.
    was_dirty: bool,
    /// We marked it as in use.
    marked: bool,
}

/// The structures that the root directory names.
#[derive(Debug, Default)]
pub(crate) struct RootEntries {
    pub(crate) label: Vec<u8>,
    pub(crate) bitmap: Option<Stream>,
    /// With the checksum.
    pub(crate) upcase: Option<(Stream, u32)>,
}

impl Volume {
    /// Opens the volume on `disk`. Nothing is written before something changes.
    pub(crate) fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let mut volume = Self::open_bare(disk, read_only)?;
        let entries = volume.root_entries()?;
        volume.label = entries.label;
        let bitmap = entries.bitmap.ok_or_else(|| corrupt("there is no allocation bitmap"))?;
        volume.bitmap = (*volume.runs(bitmap)?).clone();
        let (stream, _) = entries.upcase.ok_or_else(|| corrupt("there is no up-case table"))?;
        volume.upcase = Upcase::parse(&volume.upcase_bytes(stream)?);
        Ok(volume)
    }

    /// Opens a volume of which only the boot sector is known to be good.
    pub(crate) fn open_bare(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let mut boot = [0; 512];
        if disk.size() < boot.len() as u64 {
            return Err(corrupt("its disk is too small"));
        }
        disk.read_at(&mut boot, 0).context("Could not read the boot sector")?;
        let mut geometry = Geometry::parse(&boot)?;
        if !read_only {
            refuse_writing(&geometry, &*disk)?;
        }
        // Of a volume whose end is missing, what is there can be read.
        let room = disk.size().saturating_sub(geometry.place(2)) / geometry.cluster;
        geometry.clusters = geometry.clusters.min(u32::try_from(room).unwrap_or(u32::MAX));
        if !geometry.is_cluster(geometry.root) {
            return Err(corrupt("its disk ends before the root directory"));
        }
        let read_only = read_only || disk.read_only();
        Ok(Self {
            pages: Pages::new(disk, geometry.sector),
            read_only,
            clock: None,
            label: Vec::new(),
            bitmap: Vec::new(),
            upcase: Upcase::default(),
            chains: Mutex::default(),
            directories: Mutex::default(),
            identities: Mutex::default(),
            scattered: Mutex::default(),
            frees: Vec::new(),
            dead: HashSet::new(),
            cuts: HashSet::new(),
            dead_names: HashSet::new(),
            free: Mutex::new(None),
            next: 2,
            was_dirty: geometry.flags & VOLUME_DIRTY != 0,
            marked: false,
            geometry,
        })
    }

    /// What the root directory says of the volume.
    pub(crate) fn root_entries(&self) -> Result<RootEntries> {
        let mut found = RootEntries::default();
        // The second bitmap, of volumes with two FATs, has its lowest bit set.
        let active = u8::from(self.geometry.flags & ACTIVE_FAT != 0);
        self.entries(self.root_stream(), 0, &mut |_, _, raw| {
            let stream = Stream { start: le32(raw, 20), size: le64(raw, 24), contiguous: false };
            match byte(raw, 0) {
                entry_type::LABEL => {
                    let count = usize::from(byte(raw, 1)).min(11);
                    let units: Vec<u16> = (0..count).map(|n| le16(raw, 2 + 2 * n)).collect();
                    found.label = name::to_bytes(&units);
                }
                entry_type::BITMAP if byte(raw, 1) & 1 == active => found.bitmap = Some(stream),
                entry_type::UPCASE => found.upcase = Some((stream, le32(raw, 4))),
                _ => {}
            }
            Ok(true)
        })?;
        Ok(found)
    }

    pub(crate) fn root_stream(&self) -> Stream {
        Stream { start: self.geometry.root, size: DIRECTORY_MAX, contiguous: false }
    }

    /// The bytes of an up-case table.
    pub(crate) fn upcase_bytes(&self, stream: Stream) -> Result<Vec<u8>> {
        let mut bytes = vec![0; stream.size.min(upcase::BYTES_MAX) as usize];
        let runs = self.runs(Stream { size: bytes.len() as u64, ..stream })?;
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some((place, room)) = self.locate(&runs, done as u64) else { break };
            let step = rest.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            self.pages.disk().read_at(rest.get_mut(..step).unwrap_or(&mut []), place)?;
            done += step;
        }
        Ok(bytes)
    }

    /// The time that changes bear.
    pub(crate) fn now(&self) -> Time {
        self.clock.unwrap_or_else(Time::now)
    }

    pub(crate) fn identities(&self) -> MutexGuard<'_, Identities<FileSet>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- marks -----------------------------------------------------------------------------

    /// Refuses changes where none can be made.
    pub(crate) fn check_writable(&self) -> Result<()> {
        check_writable(self.read_only, self.pages.failed)
    }

    fn put_flags(&mut self, flags: u16) -> Result<()> {
        self.geometry.flags = flags;
        self.pages.store(Stage::Allocate, FLAGS_AT, &flags.to_le_bytes())?;
        self.pages.commit()
    }

    /// Before anything changes: the volume is in use.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.check_writable()?;
        if !self.marked {
            self.put_flags(self.geometry.flags & !CLEAR_TO_ZERO | VOLUME_DIRTY)?;
            self.marked = true;
        }
        Ok(())
    }

    /// Makes all changes durable.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.store_frees()?;
        self.pages.commit()?;
        let dead = std::mem::take(&mut self.dead);
        self.dead_names.clear();
        self.revive(&dead);
        Ok(())
    }

    /// Everything durable, the fill level right, and the volume marked as not in use any more
    /// (unless somebody before us left it marked: then it wants to be checked).
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.read_only || !self.marked {
            return Ok(());
        }
        self.commit()?;
        let used = u64::from(self.geometry.clusters.saturating_sub(self.count_free()?));
        let percent = used * 100 / u64::from(self.geometry.clusters);
        self.pages.store(Stage::Allocate, PERCENT_AT, &[percent as u8])?;
        let keep = if self.was_dirty { VOLUME_DIRTY } else { 0 };
        self.put_flags(self.geometry.flags & !VOLUME_DIRTY | keep)?;
        self.marked = false;
        Ok(())
    }

    /// That somebody left the volume marked as in use does not matter any more.
    pub(crate) fn forget_dirt(&mut self) {
        self.was_dirty = false;
    }
}

/// Volumes that can be read only.
fn refuse_writing(geometry: &Geometry, disk: &dyn Disk) -> Result<()> {
    if geometry.fats > 1 {
        return Err(Error::new(
            Kind::Unsupported,
            "It has two FATs (TexFAT): such volumes can be read, not written",
        ));
    }
    let size = geometry.volume_length.saturating_mul(geometry.sector);
    if size > disk.size() {
        return Err(Error::new(
            Kind::Corrupt,
            format!("The exFAT filesystem has {size} bytes, but its disk only {}", disk.size()),
        )
        .with_hint("It can be read, not written: the end is missing."));
    }
    Ok(())
}

/// The ranges of `disk`, in bytes and in order, that hold the volume's structures or clusters in
/// use.
pub fn used_ranges(disk: Arc<dyn Disk>) -> Result<Vec<Range<u64>>> {
    let volume = Volume::open(disk, true)?;
    let geometry = &volume.geometry;
    let mut ranges: Vec<_> = std::iter::once(0..geometry.place(2)).collect();
    volume.used_runs(&mut |first, count| {
        let start = geometry.place(first);
        let range = start..start + u64::from(count) * geometry.cluster;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    })?;
    Ok(ranges)
}
