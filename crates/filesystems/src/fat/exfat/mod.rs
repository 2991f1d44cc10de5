//! exFAT, for reading. Unlike its ancestors it has a bitmap of clusters in use, files that lie in
//! one piece without entries in the FAT, checksums, and sizes of 64 bits.
//!
//! Reference: Microsoft's "exFAT file system specification" of 2019.

mod layout;
mod make;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Context, Disk, Result};

use self::layout::{ENTRY, FileSet, Geometry, VOLUME_DIRTY, entry_type};
use super::chain::{Run, append, at, length};
use super::layout::attribute;
use super::name;
use super::shape::corrupt;
use crate::raw::{byte, le16, le32, le64};
use crate::{Attributes, Device, Entry, FileKind, Filesystem, Statistics, errors};

pub use make::{ExfatOptions, make};

/// The root directory's number: a place in the boot sector.
const ROOT: u64 = 1;
/// Directories are read in steps of this many bytes, and are not longer than the limit of the
/// specification.
const STEP: u64 = 64 << 10;
const DIRECTORY_MAX: u64 = 256 << 20;
/// Files that are remembered by number.
const KNOWN_MAX: usize = 1 << 20;
/// Runs of chains that are remembered.
const RUNS_MAX: usize = 2 << 20;
/// An up-case table has at most so many bytes.
const UPCASE_MAX: u64 = 2 * 65_536;

/// An open exFAT volume. It is only read.
#[derive(Debug)]
pub struct Exfat {
    disk: Arc<dyn Disk>,
    geometry: Geometry,
    label: Vec<u8>,
    /// Start and length of the bitmap of clusters in use.
    bitmap: (u32, u64),
    /// What each UTF-16 unit is in upper case.
    upcase: Vec<u16>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, FileSet>,
    parents: HashMap<u64, u64>,
    chains: HashMap<u32, Arc<Vec<Run>>>,
    runs: usize,
}

/// Is told an entry's number in the directory, its place on the disk and what is in it; answers
/// whether to go on.
type Visit<'a> = dyn FnMut(u64, u64, &[u8]) -> Result<bool> + 'a;

/// Where a directory's or a file's bytes lie.
#[derive(Clone, Copy, Debug)]
struct Stream {
    start: u32,
    size: u64,
    contiguous: bool,
}

impl Exfat {
    /// Opens the volume on `disk`.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        let mut boot = [0; 512];
        if disk.size() < boot.len() as u64 {
            return Err(corrupt("its disk is too small"));
        }
        disk.read_at(&mut boot, 0).context("Could not read the boot sector")?;
        let geometry = Geometry::parse(&boot)?;
        let mut exfat = Self {
            disk,
            geometry,
            label: Vec::new(),
            bitmap: (0, 0),
            upcase: Vec::new(),
            state: Mutex::default(),
        };
        exfat.read_root_entries()?;
        Ok(exfat)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_root_entries(&mut self) -> Result<()> {
        let (mut label, mut bitmap, mut upcase) = (Vec::new(), (0, 0), None);
        self.entries(self.root_stream(), 0, &mut |_, _, raw| {
            match byte(raw, 0) {
                entry_type::LABEL => {
                    let units =
                        (0..usize::from(byte(raw, 1)).min(11)).map(|n| le16(raw, 2 + 2 * n));
                    label = name::to_bytes(&units.collect::<Vec<_>>());
                }
                // The second bitmap, of volumes with two FATs, has its lowest bit set.
                entry_type::BITMAP
                    if byte(raw, 1) & 1 == u8::from(self.geometry.flags & 1 != 0) =>
                {
                    bitmap = (le32(raw, 20), le64(raw, 24));
                }
                entry_type::UPCASE => upcase = Some((le32(raw, 20), le64(raw, 24))),
                _ => {}
            }
            Ok(true)
        })?;
        self.label = label;
        self.bitmap = bitmap;
        let (start, size) = upcase.ok_or_else(|| corrupt("there is no up-case table"))?;
        self.upcase = self.read_upcase(Stream { start, size, contiguous: false })?;
        Ok(())
    }

    fn root_stream(&self) -> Stream {
        Stream { start: self.geometry.root, size: DIRECTORY_MAX, contiguous: false }
    }

    /// Runs of units that are their own upper case are stored as 0xFFFF and their number.
    fn read_upcase(&self, stream: Stream) -> Result<Vec<u16>> {
        let mut bytes = vec![0; stream.size.min(UPCASE_MAX) as usize];
        self.read_stream(stream, 0, &mut bytes)?;
        let mut table: Vec<u16> = Vec::with_capacity(1 << 16);
        let mut units = bytes.chunks_exact(2).map(|pair| le16(pair, 0));
        while table.len() < 1 << 16
            && let Some(unit) = units.next()
        {
            match unit {
                0xFFFF => {
                    let count = usize::from(units.next().unwrap_or(0)).min((1 << 16) - table.len());
                    let from = table.len();
                    table.extend((from..from + count).map(|unit| unit as u16));
                }
                unit => table.push(unit),
            }
        }
        let from = table.len();
        table.extend((from..1 << 16).map(|unit| unit as u16));
        Ok(table)
    }

    fn fold(&self, units: &[u16]) -> Vec<u16> {
        units
            .iter()
            .map(|unit| self.upcase.get(usize::from(*unit)).copied().unwrap_or(*unit))
            .collect()
    }

    // ---- clusters --------------------------------------------------------------------------

    /// The chain that begins at `start`, of at most `most` clusters.
    fn chain(&self, start: u32, most: u64) -> Result<Arc<Vec<Run>>> {
        if let Some(runs) = self.state().chains.get(&start) {
            return Ok(runs.clone());
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut cluster = start;
        let most = most.min(u64::from(self.geometry.clusters));
        let mut page: (u64, Vec<u8>) = (u64::MAX, Vec::new());
        let (mut marked, mut mark_at) = (start, 1_u64);
        for index in 0..most {
            if !self.geometry.is_cluster(cluster) {
                return Err(corrupt(format!(
                    "a chain leads to cluster {cluster}, which is not there"
                )));
            }
            append(&mut runs, &[Run { index: 0, cluster, count: 1 }]);
            let next = self.fat_entry(cluster, &mut page)?;
            if next == 0xFFFF_FFFF {
                break;
            }
            if next == marked {
                return Err(corrupt(format!("the chain from cluster {start} goes in a circle")));
            }
            cluster = next;
            if index + 1 == mark_at {
                (marked, mark_at) = (cluster, mark_at * 2);
            }
        }
        let runs = Arc::new(runs);
        let mut state = self.state();
        if state.runs + runs.len() > RUNS_MAX {
            state.chains.clear();
            state.runs = 0;
        }
        state.runs += runs.len();
        state.chains.insert(start, runs.clone());
        Ok(runs)
    }

    fn fat_entry(&self, cluster: u32, page: &mut (u64, Vec<u8>)) -> Result<u32> {
        let at = u64::from(cluster) * 4;
        let number = at / STEP;
        if page.0 != number {
            let length = u64::from(self.geometry.fat_length) * self.geometry.sector;
            let mut bytes = vec![0; STEP.min(length.saturating_sub(number * STEP)) as usize];
            self.disk.read_at(&mut bytes, self.geometry.fat() + number * STEP)?;
            *page = (number, bytes);
        }
        Ok(le32(&page.1, (at % STEP) as usize))
    }

    /// Where the byte `offset` lies, and how many follow it directly; `None` behind the end.
    fn locate(&self, stream: Stream, offset: u64) -> Result<Option<(u64, u64)>> {
        let size = self.geometry.cluster;
        let index = u32::try_from(offset / size).map_err(|_| errors::too_big())?;
        let within = offset % size;
        if !self.geometry.is_cluster(stream.start) {
            return Err(corrupt(format!("something begins at cluster {}", stream.start)));
        }
        if stream.contiguous {
            let count = stream.size.div_ceil(size);
            let cluster = u64::from(stream.start) + u64::from(index);
            let fits = u64::from(stream.start) - 2 + count <= u64::from(self.geometry.clusters);
            if !fits {
                return Err(corrupt("a file reaches beyond the volume"));
            }
            let left = count.saturating_sub(u64::from(index));
            return Ok((left > 0)
                .then(|| (self.geometry.place(cluster as u32) + within, left * size - within)));
        }
        let runs = self.chain(stream.start, stream.size.div_ceil(size))?;
        Ok(at(&runs, index).map(|(cluster, count)| {
            (self.geometry.place(cluster) + within, u64::from(count) * size - within)
        }))
    }

    /// Fills `buffer` with what there is.
    fn read_stream(&self, stream: Stream, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let Some((place, room)) = self.locate(stream, offset + done as u64)? else { break };
            let step = (buffer.len() - done).min(usize::try_from(room).unwrap_or(usize::MAX));
            self.disk.read_at(buffer.get_mut(done..done + step).unwrap_or(&mut []), place)?;
            done += step;
        }
        Ok(done)
    }

    // ---- directories -----------------------------------------------------------------------

    /// Calls `visit(index, place, entry)` for each entry from `from` on until it answers false.
    fn entries(&self, stream: Stream, from: u64, visit: &mut Visit<'_>) -> Result<()> {
        let size = stream.size.min(DIRECTORY_MAX);
        let mut offset = from * ENTRY as u64;
        let mut buffer = Vec::new();
        while offset < size {
            let Some((place, room)) = self.locate(stream, offset)? else { break };
            let step = room.min(STEP).min(size - offset);
            buffer.resize(step as usize, 0);
            self.disk.read_at(&mut buffer, place).context("Could not read a directory")?;
            for (number, raw) in buffer.chunks_exact(ENTRY).enumerate() {
                let within = (number * ENTRY) as u64;
                if byte(raw, 0) == entry_type::END {
                    return Ok(());
                }
                if !visit((offset + within) / ENTRY as u64, place + within, raw)? {
                    return Ok(());
                }
            }
            offset += step;
        }
        Ok(())
    }

    /// Calls `visit(index of the set's last entry, number, file)` for each file.
    fn files(
        &self,
        directory: u64,
        from: u64,
        visit: &mut dyn FnMut(u64, u64, &FileSet) -> bool,
    ) -> Result<()> {
        let stream = self.directory(directory)?;
        let (mut set, mut left, mut number) = (Vec::new(), 0, 0);
        self.entries(stream, from, &mut |index, place, raw| {
            if byte(raw, 0) == entry_type::FILE {
                (left, number) = (byte(raw, 1), place / ENTRY as u64);
                set.clear();
                set.extend(raw);
                return Ok(true);
            }
            if left == 0 || byte(raw, 0) & 0xC0 != 0xC0 {
                left = 0;
                return Ok(true);
            }
            set.extend(raw);
            left -= 1;
            match FileSet::parse(&set).filter(|_| left == 0) {
                Some(file) => {
                    self.remember(directory, number, &file);
                    Ok(visit(index, number, &file))
                }
                None => Ok(true),
            }
        })
    }

    fn remember(&self, directory: u64, number: u64, file: &FileSet) {
        let mut state = self.state();
        if state.files.len() >= KNOWN_MAX {
            state.files.clear();
        }
        if file.attributes & u16::from(attribute::DIRECTORY) != 0 {
            state.parents.insert(number, directory);
        }
        state.files.insert(number, file.clone());
    }

    fn file(&self, number: u64) -> Result<FileSet> {
        if let Some(file) = self.state().files.get(&number) {
            return Ok(file.clone());
        }
        // Forgotten, or from a former session: its entries, if they lie in one piece.
        let at = number.checked_mul(ENTRY as u64).ok_or_else(errors::stale)?;
        let heap = self.geometry.place(2)..self.geometry.place(self.geometry.clusters + 2);
        if !heap.contains(&at) {
            return Err(errors::stale());
        }
        let mut raw = vec![0; ENTRY];
        self.disk.read_at(&mut raw, at)?;
        let length = (usize::from(byte(&raw, 1)) + 1) * ENTRY;
        raw.resize(length.min((heap.end - at) as usize), 0);
        self.disk.read_at(&mut raw, at)?;
        FileSet::parse(&raw).ok_or_else(errors::stale)
    }

    fn directory(&self, number: u64) -> Result<Stream> {
        if number == ROOT {
            return Ok(self.root_stream());
        }
        let file = self.file(number)?;
        match file.attributes & u16::from(attribute::DIRECTORY) {
            0 => Err(errors::not_a_directory()),
            _ => Ok(stream_of(&file)),
        }
    }

    fn attributes_of(&self, number: u64, file: &FileSet) -> Attributes {
        let is_directory = file.attributes & u16::from(attribute::DIRECTORY) != 0;
        let read_only = file.attributes & u16::from(attribute::READ_ONLY) != 0;
        let modified = file.modified.unwrap_or_default();
        Attributes {
            inode: number,
            kind: if is_directory { FileKind::Directory } else { FileKind::Regular },
            mode: if read_only && !is_directory { 0o555 } else { 0o755 },
            links: 1,
            uid: 0,
            gid: 0,
            size: file.size,
            blocks: file
                .size
                .div_ceil(self.geometry.cluster)
                .saturating_mul(self.geometry.cluster / 512),
            device: Device::default(),
            accessed: file.accessed.unwrap_or(modified),
            modified,
            changed: modified,
            created: file.created,
            flags: 0,
            generation: 0,
            project: 0,
        }
    }

    fn root_set(&self) -> Result<FileSet> {
        let clusters =
            length(&self.chain(self.geometry.root, DIRECTORY_MAX / self.geometry.cluster + 1)?);
        Ok(FileSet {
            attributes: attribute::DIRECTORY.into(),
            start: self.geometry.root,
            size: u64::from(clusters) * self.geometry.cluster,
            valid: 0,
            contiguous: false,
            created: None,
            modified: None,
            accessed: None,
            name: Vec::new(),
        })
    }

    /// Calls `visit` with each run of clusters in use: first and count.
    fn used_runs(&self, visit: &mut dyn FnMut(u32, u32)) -> Result<()> {
        let (start, size) = self.bitmap;
        let stream = Stream { start, size, contiguous: false };
        let mut buffer = vec![0; STEP as usize];
        let (mut run, mut cluster) = ((0, 0), 2_u32);
        let end = self.geometry.clusters + 2;
        let mut offset = 0;
        while cluster < end {
            if self.read_stream(stream, offset, &mut buffer)?
                < buffer.len().min(((end - cluster) as usize).div_ceil(8))
            {
                return Err(corrupt("the bitmap of clusters in use is too short"));
            }
            for word in &buffer {
                for bit in 0..8 {
                    if cluster >= end {
                        break;
                    }
                    if word >> bit & 1 != 0 {
                        if run.1 == 0 {
                            run = (cluster, 0);
                        }
                        run.1 += 1;
                    } else if run.1 > 0 {
                        visit(run.0, run.1);
                        run = (0, 0);
                    }
                    cluster += 1;
                }
            }
            offset += STEP;
        }
        if run.1 > 0 {
            visit(run.0, run.1);
        }
        Ok(())
    }
}

fn stream_of(file: &FileSet) -> Stream {
    Stream { start: file.start, size: file.size, contiguous: file.contiguous }
}

/// The ranges of `disk`, in bytes and in order, that hold the volume's structures or clusters in
/// use.
pub fn used_ranges(disk: Arc<dyn Disk>) -> Result<Vec<Range<u64>>> {
    let exfat = Exfat::open(disk)?;
    let geometry = &exfat.geometry;
    let mut ranges: Vec<_> = std::iter::once(0..geometry.place(2)).collect();
    exfat.used_runs(&mut |first, count| {
        let start = geometry.place(first);
        let range = start..start + u64::from(count) * geometry.cluster;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    })?;
    Ok(ranges)
}

impl Filesystem for Exfat {
    fn type_name(&self) -> &'static str {
        "exfat"
    }

    fn label(&self) -> Vec<u8> {
        self.label.clone()
    }

    fn uuid(&self) -> String {
        super::serial_text(self.geometry.serial)
    }

    fn root(&self) -> u64 {
        ROOT
    }

    fn posix(&self) -> bool {
        false
    }

    fn statistics(&self) -> Result<Statistics> {
        let mut used = 0_u64;
        self.used_runs(&mut |_, count| used += u64::from(count))?;
        let blocks = u64::from(self.geometry.clusters);
        let free = blocks.saturating_sub(used);
        Ok(Statistics {
            block_size: self.geometry.cluster as u32,
            blocks,
            free,
            available: free,
            inodes: 0,
            free_inodes: 0,
            name_length: name::UNITS_MAX as u32,
        })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        match name {
            b"." => return self.attributes(directory),
            b".." if directory == ROOT => return self.attributes(ROOT),
            b".." => {
                let parent = self.state().parents.get(&directory).copied();
                return self.attributes(parent.ok_or_else(errors::stale)?);
            }
            _ => {}
        }
        let units = name::to_units(name).ok_or_else(errors::not_found)?;
        let wanted = self.fold(&units);
        let mut found = None;
        self.files(directory, 0, &mut |_, number, file| {
            if file.name.len() == wanted.len() && self.fold(&file.name) == wanted {
                found = Some(self.attributes_of(number, file));
            }
            found.is_none()
        })?;
        found.ok_or_else(errors::not_found)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let file = if inode == ROOT { self.root_set()? } else { self.file(inode)? };
        Ok(self.attributes_of(inode, &file))
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let parent = self.state().parents.get(&directory).copied().unwrap_or(directory);
        for (number, (inode, name)) in [(directory, "."), (parent, "..")].into_iter().enumerate() {
            let next = number as u64 + 1;
            let kind = Some(FileKind::Directory);
            if cookie < next && !visit(Entry { inode, kind, name: name.into(), cookie: next }) {
                return Ok(());
            }
        }
        // The set that ends with entry i has the cookie i + 3: go on after it.
        self.files(directory, cookie.saturating_sub(2), &mut |index, number, file| {
            let kind = Some(self.attributes_of(number, file).kind);
            visit(Entry {
                inode: number,
                kind,
                name: name::to_bytes(&file.name),
                cookie: index + 3,
            })
        })
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = if inode == ROOT { self.root_set()? } else { self.file(inode)? };
        if file.attributes & u16::from(attribute::DIRECTORY) != 0 {
            return Err(errors::is_a_directory());
        }
        let want = (buffer.len() as u64).min(file.size.saturating_sub(offset)) as usize;
        let stored = (want as u64).min(file.valid.saturating_sub(offset)) as usize;
        let buffer = buffer.get_mut(..want).unwrap_or(&mut []);
        let (data, zeroes) = buffer.split_at_mut(stored);
        if self.read_stream(stream_of(&file), offset, data)? < stored {
            return Err(corrupt("a file's chain is shorter than the file"));
        }
        zeroes.fill(0);
        Ok(want)
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        self.attributes(inode)?;
        Err(errors::invalid())
    }

    fn xattr(&self, _: u64, _: &[u8]) -> Result<Vec<u8>> {
        Err(errors::not_supported().context("exFAT has no extended attributes"))
    }

    fn xattrs(&self, _: u64) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}

impl Exfat {
    /// True if the volume is marked as in use.
    pub fn is_dirty(&self) -> bool {
        self.geometry.flags & VOLUME_DIRTY != 0
    }
}
