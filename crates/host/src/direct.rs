//! Requests past the page cache: aligned in memory and in the file, whatever callers ask for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use disksmith_disk::PageBuffer;

/// Where the kernel does not say, this suits all but exotic devices.
const USUAL_ALIGNMENT: usize = 4096;
/// No filesystem or device asks for more; what claims to is not believed.
const LARGEST_ALIGNMENT: usize = 1 << 20;
/// Unaligned requests go through memory of ours in steps of this size.
const STEP: usize = 1 << 20;

/// How to reach one file directly.
#[derive(Debug)]
pub(crate) struct Direct {
    alignment: usize,
    /// Taken exclusively by requests that write a part of a block: between reading and writing
    /// it, nobody may change the rest. The others share it.
    blocks: RwLock<()>,
    spare: Mutex<Vec<Bounce>>,
}

/// Aligned memory.
#[derive(Debug)]
struct Bounce {
    memory: PageBuffer,
    start: usize,
}

impl Bounce {
    fn new(alignment: usize) -> Self {
        let memory = PageBuffer::zeroed(STEP.max(alignment) + alignment);
        let start = memory.as_ptr().align_offset(alignment).min(alignment);
        Self { memory, start }
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + length]
    }
}

impl Direct {
    /// For a file that was opened with `O_DIRECT`; `sector` if it is a device with such.
    pub(crate) fn new(file: &File, sector: Option<u32>) -> Self {
        let alignment = sector.map(|sector| sector as usize).or_else(|| told(file));
        let alignment = alignment.unwrap_or(USUAL_ALIGNMENT);
        let usable = alignment.is_power_of_two() && (512..=LARGEST_ALIGNMENT).contains(&alignment);
        Self {
            alignment: if usable { alignment } else { USUAL_ALIGNMENT },
            blocks: RwLock::default(),
            spare: Mutex::default(),
        }
    }

    /// Fills `buffer`, or fails with [`io::ErrorKind::UnexpectedEof`].
    pub(crate) fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.aligned(buffer, offset) {
            return file.read_exact_at(buffer, offset);
        }
        let mut bounce = self.take();
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (start, skipped) = self.round_down(at);
            let wanted = (buffer.len() - done).min(STEP - skipped);
            let blocks = bounce.bytes((skipped + wanted).next_multiple_of(self.alignment));
            if read_up_to(file, blocks, start)? < skipped + wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer[done..done + wanted].copy_from_slice(&blocks[skipped..skipped + wanted]);
            done += wanted;
        }
        self.give_back(bounce);
        Ok(())
    }

    /// Writes all of `data`.
    pub(crate) fn write(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        let whole = offset.is_multiple_of(self.alignment as u64)
            && data.len().is_multiple_of(self.alignment);
        if whole {
            let _others = self.shared();
            return match self.aligned(data, offset) {
                true => file.write_all_at(data, offset),
                false => self.write_through_bounce(file, data, offset),
            };
        }
        let _alone = self.alone();
        let end = offset + data.len() as u64;
        let length = file.metadata()?.len().max(end);
        self.write_through_bounce(file, data, offset)?;
        // The last block may have made the file longer than it is to be.
        match end.next_multiple_of(self.alignment as u64) > length && file.metadata()?.is_file() {
            true => file.set_len(length),
            false => Ok(()),
        }
    }

    /// Keeps writers of parts of blocks out; for what changes the size of the file.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_through_bounce(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        let mut bounce = self.take();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (start, skipped) = self.round_down(at);
            let now = (data.len() - done).min(STEP - skipped);
            let blocks = bounce.bytes((skipped + now).next_multiple_of(self.alignment));
            self.read_edges(file, blocks, start, (skipped, skipped + now))?;
            blocks[skipped..skipped + now].copy_from_slice(&data[done..done + now]);
            file.write_all_at(blocks, start)?;
            done += now;
        }
        self.give_back(bounce);
        Ok(())
    }

    /// Reads the first and the last of `blocks` where only a part of them is to be written.
    fn read_edges(
        &self,
        file: &File,
        blocks: &mut [u8],
        start: u64,
        (from, to): (usize, usize),
    ) -> io::Result<()> {
        let last = blocks.len() - self.alignment;
        let places = [(0, from > 0), (last, to < blocks.len())];
        for (place, partial) in places {
            if partial {
                let block = &mut blocks[place..place + self.alignment];
                let have = read_up_to(file, block, start + place as u64)?;
                block[have..].fill(0);
            }
        }
        Ok(())
    }

    fn aligned(&self, bytes: &[u8], offset: u64) -> bool {
        offset.is_multiple_of(self.alignment as u64)
            && bytes.len().is_multiple_of(self.alignment)
            && bytes.as_ptr().align_offset(self.alignment) == 0
    }

    /// The start of the block that `offset` lies in, and how far behind that it lies.
    fn round_down(&self, offset: u64) -> (u64, usize) {
        let within = offset % self.alignment as u64;
        (offset - within, within as usize)
    }

    fn take(&self) -> Bounce {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Bounce::new(self.alignment))
    }

    fn give_back(&self, bounce: Bounce) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bounce);
    }
}

/// Reads as far as the file goes.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        // The kernel answers short only at the end of the file.
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What the filesystem says that it needs (statx(2), `STATX_DIOALIGN`), in memory and on disk.
fn told(file: &File) -> Option<usize> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    const DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000);
    let status = statx(file, "", AtFlags::EMPTY_PATH, DIOALIGN).ok()?;
    if status.stx_mask & DIOALIGN.bits() == 0 || status.stx_dio_offset_align == 0 {
        return None;
    }
    usize::try_from(status.stx_dio_offset_align.max(status.stx_dio_mem_align).max(512)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests at odd places give what a plain file would, and the file ends where it should.
    /// The blocks are larger than needed, so that this holds on any filesystem.
    #[test]
    fn odd_requests_do_as_plain_ones() {
        let file = tempfile::tempfile().unwrap();
        let mut model = Vec::new();
        let direct = Direct { alignment: 4096, blocks: RwLock::default(), spare: Mutex::default() };
        let places = [(0, 4096), (10, 100), (4090, 10), (8191, 2), (3, 3 << 20), (5 << 20, 4096)];
        for (number, (at, length)) in (1u8..).zip(places) {
            let data = vec![number; length];
            model.resize(model.len().max(at + length), 0);
            model[at..at + length].copy_from_slice(&data);
            direct.write(&file, &data, at as u64).unwrap();
            assert_eq!(file.metadata().unwrap().len(), model.len() as u64);
        }
        for (at, length) in [(0, model.len()), (1, 1), (4095, 4098), (model.len() - 7, 7)] {
            let mut read = vec![0; length];
            direct.read(&file, &mut read, at as u64).unwrap();
            assert!(read == model[at..at + length], "{length} bytes at {at}");
        }
        let past = direct.read(&file, &mut [0; 8], model.len() as u64 - 7);
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Writers of neighbouring bytes of one block do not undo each other's work.
    #[test]
    fn parts_of_a_block_are_written_one_at_a_time() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let direct = Direct { alignment: 4096, blocks: RwLock::default(), spare: Mutex::default() };
        std::thread::scope(|scope| {
            for byte in 1..=8u8 {
                let (direct, file) = (&direct, &file);
                scope.spawn(move || {
                    for round in 0..64u64 {
                        let at = round * 64 + u64::from(byte - 1) * 8;
                        direct.write(file, &[byte; 8], at).unwrap();
                    }
                });
            }
        });
        let mut bytes = [0; 4096];
        direct.read(&file, &mut bytes, 0).unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(usize::from(*byte), at % 64 / 8 + 1, "at {at}");
        }
    }
}
