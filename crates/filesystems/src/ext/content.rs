//! File content: reading, writing, cutting, holes.

use disksmith_disk::{Error, Kind, Result};

use super::core::{Core, corrupt};
use super::features::{Incompat, RoCompat};
use super::layout::Inode;
use super::layout::inode::flags;
use super::mapping::Run;
use super::xattr::INLINE_DATA;
use crate::{Fallocate, FileKind, Seek, errors};

/// A zeroed buffer for the edges of blocks.
static ZEROES: [u8; 65536] = [0; 65536];

impl Core {
    // ---- reading ---------------------------------------------------------------------------

    /// Refuses content that cannot be read.
    fn check_readable(&self, inode: &Inode) -> Result<()> {
        if inode.has_flag(flags::ENCRYPT) {
            return Err(Error::from_errno(126)
                .with_kind(Kind::Unsupported)
                .context(format!("Inode {} is encrypted", inode.number)));
        }
        if inode.has_flag(flags::COMPRESSED) && self.shape.has_incompat(Incompat::COMPRESSION) {
            return Err(Error::new(Kind::Unsupported, "Compressed files are not supported"));
        }
        Ok(())
    }

    /// Fills `buffer`; the answer is short at the end of the file.
    pub(crate) fn read_content(
        &self,
        inode: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        self.check_readable(inode)?;
        let left = inode.size().saturating_sub(offset);
        let length = (buffer.len() as u64).min(left) as usize;
        let buffer = &mut buffer[..length];
        if inode.has_flag(flags::INLINE_DATA) {
            let content = self.inline_content(inode)?;
            buffer.fill(0);
            let from = content.get((offset as usize).min(content.len())..).unwrap_or(&[]);
            let count = from.len().min(length);
            buffer[..count].copy_from_slice(&from[..count]);
            return Ok(length);
        }
        let bits = self.shape.block_bits;
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let within = at & ((1 << bits) - 1);
            let want = (within + (length - done) as u64).div_ceil(1 << bits);
            let run = self.map(inode, at >> bits, want)?;
            let bytes = ((run.length << bits) - within).min((length - done) as u64) as usize;
            let part = &mut buffer[done..done + bytes];
            match run.data() {
                Some(place) => self.read_bytes((place << bits) + within, part)?,
                None => part.fill(0),
            }
            done += bytes;
        }
        Ok(length)
    }

    /// Reads file content from its place, through the journal's newer versions.
    fn read_bytes(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        if self.overlay.is_empty() && self.content.is_empty() {
            return self.disk.read_at(buffer, at);
        }
        let size = self.shape.block_size as u64;
        let mut done = 0;
        while done < buffer.len() {
            let place = at + done as u64;
            let (number, within) = (place / size, (place % size) as usize);
            let bytes = (size as usize - within).min(buffer.len() - done);
            let part = &mut buffer[done..done + bytes];
            if self.overlay.contains(number) || self.is_content(number) {
                let block = self.block(number)?;
                part.copy_from_slice(block.get(within..within + bytes).unwrap_or(&[]));
            } else {
                self.disk.read_at(part, place)?;
            }
            done += bytes;
        }
        Ok(())
    }

    /// The bytes of an inline file or directory.
    pub(crate) fn inline_content(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut content = inode.block_area().to_vec();
        for attribute in self.attributes_of(inode)? {
            if (attribute.index, attribute.name.as_slice()) == INLINE_DATA {
                content.extend(attribute.value);
            }
        }
        content.truncate(inode.size().min(content.len() as u64) as usize);
        Ok(content)
    }

    /// The target of a symlink: in the inode when it is short.
    pub(crate) fn link_target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.kind() != Some(FileKind::Symlink) {
            return Err(errors::invalid());
        }
        self.check_readable(inode)?;
        let size = inode.size();
        if size > self.shape.block_size as u64 {
            return Err(corrupt(format!("symlink {} is too long", inode.number)));
        }
        if self.is_fast_link(inode) {
            return Ok(inode.block_area().get(..size as usize).unwrap_or(&[]).to_vec());
        }
        let mut target = vec![0; size as usize];
        self.read_content(inode, 0, &mut target)?;
        Ok(target)
    }

    /// True for a symlink whose target lies in `i_block`.
    pub(crate) fn is_fast_link(&self, inode: &Inode) -> bool {
        inode.kind() == Some(FileKind::Symlink)
            && !inode.has_flag(flags::EXTENTS | flags::INLINE_DATA)
            && inode.size() < 60
    }

    /// The next data or hole.
    pub(crate) fn seek_content(&self, inode: &Inode, offset: u64, what: Seek) -> Result<u64> {
        let size = inode.size();
        if offset >= size {
            return Err(errors::no_such_address());
        }
        if inode.has_flag(flags::INLINE_DATA) {
            return Ok(if what == Seek::Data { offset } else { size });
        }
        let bits = self.shape.block_bits;
        let mut at = offset;
        while at < size {
            // All the rest: a length that is nonsense must not cost steps.
            let run = self.map(inode, at >> bits, (size >> bits) - (at >> bits) + 1)?;
            if run.data().is_some() == (what == Seek::Data) {
                return Ok(at);
            }
            at = ((at >> bits) + run.length).saturating_mul(1 << bits);
        }
        if what == Seek::Data { Err(errors::no_such_address()) } else { Ok(size) }
    }

    // ---- writing ---------------------------------------------------------------------------

    /// The largest file.
    pub(crate) fn size_max(&self, inode: &Inode) -> u64 {
        if inode.has_flag(flags::EXTENTS) {
            return u64::from(u32::MAX) << self.shape.block_bits;
        }
        let pointers = (self.shape.block_size / 4) as u64;
        let blocks = 12 + pointers + pointers * pointers + pointers * pointers * pointers;
        blocks.min(u64::from(u32::MAX)) << self.shape.block_bits
    }

    /// Writes `data`; the inode is changed (size, mapping) but not stored.
    pub(crate) fn write_content(
        &mut self,
        inode: &mut Inode,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        self.check_readable(inode)?;
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.size_max(inode));
        let end = end.ok_or_else(errors::too_big)?;
        if inode.has_flag(flags::INLINE_DATA) {
            self.inline_to_blocks(inode)?;
        }
        self.zero_gap(inode, offset)?;
        let bits = self.shape.block_bits;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at & ((1 << bits) - 1)) as usize;
            let want = (within as u64 + (data.len() - done) as u64).div_ceil(1 << bits);
            let logical = at >> bits;
            let old = self.map(inode, logical, want)?;
            let run = match old.place {
                Some(_) => old,
                None => {
                    let fresh = self.allocate_mapped(inode, logical, old.length, false)?;
                    Run { unwritten: true, ..fresh }
                }
            };
            let bytes = (((run.length << bits) as usize) - within).min(data.len() - done);
            let Some(place) = run.place else { return Err(errors::no_space()) };
            self.write_run(place, within, &data[done..done + bytes], run.unwritten)?;
            if old.place.is_some() && run.unwritten && inode.has_flag(flags::EXTENTS) {
                let blocks = (within + bytes).div_ceil(1 << bits) as u64;
                self.mark_written(inode, logical, logical + blocks)?;
            }
            done += bytes;
        }
        if end > inode.size() {
            self.set_file_size(inode, end);
        }
        Ok(())
    }

    fn set_file_size(&mut self, inode: &mut Inode, size: u64) {
        inode.set_size(size);
        if size > 0x7fff_ffff && inode.is_regular() && !self.sb.has_ro(RoCompat::LARGE_FILE) {
            self.super_mut().set_ro(RoCompat::LARGE_FILE, true);
        }
    }

    /// Writes bytes from `within` of block `place` on. In blocks that are new the rest of the
    /// first and the last block is zeroed.
    fn write_run(&mut self, place: u64, within: usize, data: &[u8], new: bool) -> Result<()> {
        let size = self.shape.block_size;
        let start = place * size as u64;
        self.note_overwritten(place, (within + data.len()).div_ceil(size) as u64)?;
        if !self.content.is_empty() {
            return self.write_run_with_content(place, within, data, new);
        }
        let tail = (within + data.len()).next_multiple_of(size) - (within + data.len());
        if new && (within > 0 || tail > 0) {
            let mut whole = Vec::with_capacity(within + data.len() + tail);
            whole.extend_from_slice(&ZEROES[..within]);
            whole.extend_from_slice(data);
            whole.extend_from_slice(&ZEROES[..tail]);
            return self.disk.write_at(&whole, start);
        }
        self.disk.write_at(data, start + within as u64)
    }

    /// The same while some blocks of content wait for the commit: those are changed in memory.
    fn write_run_with_content(
        &mut self,
        place: u64,
        within: usize,
        data: &[u8],
        new: bool,
    ) -> Result<()> {
        let size = self.shape.block_size;
        let mut done = 0;
        let mut at = within;
        while done < data.len() {
            let number = place + (at / size) as u64;
            let from = at % size;
            let bytes = (size - from).min(data.len() - done);
            let part = &data[done..done + bytes];
            if self.is_content(number) && !new {
                let block = self.modify_content(number)?;
                if let Some(target) = block.get_mut(from..from + bytes) {
                    target.copy_from_slice(part);
                }
            } else if new && bytes < size {
                let mut whole = vec![0; size];
                whole[from..from + bytes].copy_from_slice(part);
                self.disk.write_at(&whole, number * size as u64)?;
            } else {
                self.disk.write_at(part, number * size as u64 + from as u64)?;
            }
            done += bytes;
            at += bytes;
        }
        Ok(())
    }

    /// Zeroes what lies behind the old end of the file in its last block, before the file grows
    /// past it. Other writers may have left anything there.
    fn zero_gap(&mut self, inode: &Inode, offset: u64) -> Result<()> {
        let size = inode.size();
        let block = self.shape.block_size as u64;
        let within = size % block;
        if offset <= size || within == 0 {
            return Ok(());
        }
        self.zero_within(inode, size, (size - within + block).min(offset))
    }

    /// Zeroes a part of one block of a file, with the transaction.
    fn zero_within(&mut self, inode: &Inode, from: u64, to: u64) -> Result<()> {
        let bits = self.shape.block_bits;
        let run = self.map(inode, from >> bits, 1)?;
        let Some(place) = run.data() else { return Ok(()) };
        let start = (from & ((1 << bits) - 1)) as usize;
        let end = start + (to - from) as usize;
        let mut old = vec![0; end - start];
        self.read_bytes((place << bits) + start as u64, &mut old)?;
        if disksmith_disk::is_zero(&old) {
            return Ok(());
        }
        let block = self.modify_content(place)?;
        if let Some(part) = block.get_mut(start..end) {
            part.fill(0);
        }
        Ok(())
    }

    /// Cuts or extends the file.
    pub(crate) fn resize_content(&mut self, inode: &mut Inode, size: u64) -> Result<()> {
        self.check_readable(inode)?;
        if size > self.size_max(inode) {
            return Err(errors::too_big());
        }
        if inode.has_flag(flags::INLINE_DATA) {
            if size == inode.size() {
                return Ok(());
            }
            self.inline_to_blocks(inode)?;
        }
        let block = self.shape.block_size as u64;
        if size < inode.size() {
            if !size.is_multiple_of(block) {
                self.zero_within(inode, size, size - size % block + block)?;
                self.note_truncated(inode.number);
            }
            let from = size.div_ceil(block);
            self.unmap(inode, from, self.mapped_end(inode)?)?;
            inode.set_size(size);
        } else {
            self.zero_gap(inode, size)?;
            self.set_file_size(inode, size);
        }
        Ok(())
    }

    /// The block after the last one that can be mapped.
    pub(crate) fn mapped_end(&self, inode: &Inode) -> Result<u64> {
        if inode.has_flag(flags::EXTENTS) {
            return Ok(1 << 32);
        }
        let pointers = (self.shape.block_size / 4) as u64;
        Ok(12 + pointers + pointers * pointers + pointers * pointers * pointers)
    }

    /// `fallocate`.
    pub(crate) fn allocate_content(
        &mut self,
        inode: &mut Inode,
        offset: u64,
        length: u64,
        how: Fallocate,
    ) -> Result<()> {
        if !inode.is_regular() || length == 0 {
            return Err(errors::invalid());
        }
        self.check_readable(inode)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.size_max(inode));
        let end = end.ok_or_else(errors::too_big)?;
        if inode.has_flag(flags::INLINE_DATA) {
            self.inline_to_blocks(inode)?;
        }
        let bits = self.shape.block_bits;
        let block = 1_u64 << bits;
        match how {
            Fallocate::Allocate { keep_size } => {
                let stop = self.reservable(inode, end, keep_size);
                self.reserve(inode, offset >> bits, stop.div_ceil(block))?;
                self.grow_after(inode, end, keep_size)
            }
            Fallocate::PunchHole => {
                let stop = end.min(inode.size().next_multiple_of(block));
                self.zero_edges(inode, offset, stop)?;
                self.unmap(inode, offset.div_ceil(block), stop >> bits)
            }
            Fallocate::ZeroRange { keep_size } => {
                self.zero_edges(inode, offset, end)?;
                let (from, to) = (offset.div_ceil(block), end >> bits);
                if inode.has_flag(flags::EXTENTS) {
                    if from < to {
                        self.mark_unwritten(inode, from, to)?;
                    }
                    self.reserve(inode, offset >> bits, end.div_ceil(block))?;
                } else {
                    self.unmap(inode, from, to)?;
                }
                self.grow_after(inode, end, keep_size)
            }
        }
    }

    /// Without extents nothing can be reserved behind the end of a file.
    fn reservable(&self, inode: &Inode, end: u64, keep_size: bool) -> u64 {
        if keep_size && !inode.has_flag(flags::EXTENTS) { end.min(inode.size()) } else { end }
    }

    fn grow_after(&mut self, inode: &mut Inode, end: u64, keep_size: bool) -> Result<()> {
        if !keep_size && end > inode.size() {
            self.zero_gap(inode, end)?;
            self.set_file_size(inode, end);
        }
        Ok(())
    }

    /// Zeroes the parts of blocks at both ends of a range.
    fn zero_edges(&mut self, inode: &Inode, from: u64, to: u64) -> Result<()> {
        let block = self.shape.block_size as u64;
        if from >= to {
            return Ok(());
        }
        if from / block == to / block {
            return self.zero_within(inode, from, to);
        }
        if !from.is_multiple_of(block) {
            self.zero_within(inode, from, from.next_multiple_of(block))?;
        }
        if !to.is_multiple_of(block) {
            self.zero_within(inode, to - to % block, to)?;
        }
        Ok(())
    }

    /// Fills the holes of a range with unwritten blocks (or zeroes, without extents).
    fn reserve(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let extents = inode.has_flag(flags::EXTENTS);
        let mut at = from;
        while at < to {
            let run = self.map(inode, at, to - at)?;
            if run.place.is_some() {
                at += run.length;
                continue;
            }
            let fresh = self.allocate_mapped(inode, at, run.length, extents)?;
            if let Some(place) = fresh.place.filter(|_| !extents) {
                let bits = self.shape.block_bits;
                let mode = disksmith_disk::ZeroMode::Keep;
                self.disk.write_zeroes(place << bits, fresh.length << bits, mode)?;
            }
            at += fresh.length;
        }
        Ok(())
    }

    // ---- inline data -----------------------------------------------------------------------

    /// Takes inline data away: an empty mapping in its place.
    pub(crate) fn drop_inline(&mut self, inode: &mut Inode) -> Result<()> {
        self.set_attribute(inode, INLINE_DATA.0, INLINE_DATA.1, None)?;
        inode.set_flag(flags::INLINE_DATA, false);
        if self.shape.has_incompat(Incompat::EXTENTS) {
            inode.set_flag(flags::EXTENTS, true);
            inode.set_block_area(&super::extents::empty_root());
        } else {
            inode.set_block_area(&[]);
        }
        Ok(())
    }

    /// Moves inline content to blocks.
    fn inline_to_blocks(&mut self, inode: &mut Inode) -> Result<()> {
        let content = self.inline_content(inode)?;
        let size = inode.size();
        self.drop_inline(inode)?;
        inode.set_size(0);
        self.write_content(inode, 0, &content)?;
        inode.set_size(size);
        Ok(())
    }
}
