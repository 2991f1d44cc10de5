//! An export as a disk.

use std::sync::{Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Disk, Error, Extent, FailedFlush, Geometry, Kind, Result, State, ZeroMode};

use crate::wire::{self, Command, can};
use crate::{Address, Client, Export};

/// What tells of holes and zeroes.
const ALLOCATION: &str = "base:allocation";
/// Flags of that context.
const ZERO: u32 = 2;
/// What is asked about at once, in bytes; a multiple of any block size.
const STATUS_STEP: u64 = 1 << 30;

/// An export of an NBD server.
#[derive(Debug)]
pub struct NbdDisk {
    client: Mutex<Client>,
    export: Export,
    writable: bool,
    has_context: bool,
    failed_flush: FailedFlush,
}

impl NbdDisk {
    /// Connects. `context`: what [`context_status`](Self::context_status) shall tell of, besides
    /// holes and zeroes.
    ///
    /// # Errors
    /// Those of [`Client::connect`]; `PermissionDenied` for writing to an export that is read-only;
    /// `NotFound` for a context that is not there.
    pub fn connect(address: &Address, writable: bool, context: Option<&str>) -> Result<Self> {
        let contexts: Vec<&str> = [ALLOCATION].into_iter().chain(context).collect();
        let client = Client::connect(address, &contexts)?;
        let export = client.export().clone();
        if writable && export.flags & can::READ_ONLY != 0 {
            // In QEMU's words.
            return Err(Error::new(Kind::PermissionDenied, "Permission denied")
                .context("Could not open image"));
        }
        let has_context = export.contexts.get(1).is_some_and(Option::is_some);
        if let Some(name) = context.filter(|_| !has_context) {
            return Err(Error::new(
                Kind::NotFound,
                format!("requested x-dirty-bitmap {name} not found"),
            ));
        }
        Ok(Self {
            client: Mutex::new(client),
            export,
            writable,
            has_context,
            failed_flush: FailedFlush::default(),
        })
    }

    /// Whether a context was chosen.
    pub fn has_context(&self) -> bool {
        self.has_context
    }

    /// Length and flags of the run at `offset` in the context that was chosen.
    pub fn context_status(&self, offset: u64, length: u64) -> Result<(u64, u32)> {
        self.status(1, offset, length)
    }

    fn status(&self, context: usize, offset: u64, length: u64) -> Result<(u64, u32)> {
        let id = self.export.contexts.get(context).copied().flatten();
        let Some(id) = id else { return Ok((length, 0)) };
        let (start, end) = self.aligned(offset, length.min(STATUS_STEP));
        let (got, flags) = self.client().status(id, start, (end - start) as u32)?;
        let got = (start + u64::from(got)).saturating_sub(offset);
        match got {
            0 => Err(Error::new(Kind::Io, "the NBD server's extents do not fit its block size")),
            got => Ok((got.min(length), flags)),
        }
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The range in whole blocks of the server.
    fn aligned(&self, offset: u64, length: u64) -> (u64, u64) {
        let block = u64::from(self.export.minimum);
        let end = (offset + length).next_multiple_of(block).min(self.export.size);
        (offset - offset % block, end)
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.export.size => Ok(()),
            _ => Err(Error::new(
                Kind::InvalidInput,
                format!("request of {length} bytes at {offset} is outside of the export"),
            )),
        }
    }

    fn check_write(&self, offset: u64, length: u64) -> Result<()> {
        match self.writable {
            true => self.failed_flush.check().and_then(|()| self.check(offset, length)),
            false => Err(Error::new(Kind::Refused, "the export was opened for reading only")),
        }
    }

    /// Runs `request` on pieces of the range that the server takes at once.
    fn pieces(
        &self,
        offset: u64,
        length: u64,
        mut request: impl FnMut(&mut Client, u64, u32) -> Result<()>,
    ) -> Result<()> {
        let most = u64::from(self.export.maximum);
        let mut client = self.client();
        let mut at = offset;
        while at < offset + length {
            let step = most.min(offset + length - at);
            request(&mut client, at, step as u32)?;
            at += step;
        }
        Ok(())
    }

    fn read_blocks(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.pieces(offset, buffer.len() as u64, |client, at, length| {
            let start = (at - offset) as usize;
            client.read(&mut buffer[start..start + length as usize], at)
        })
    }

    fn write_blocks(&self, data: &[u8], offset: u64) -> Result<()> {
        self.pieces(offset, data.len() as u64, |client, at, length| {
            let start = (at - offset) as usize;
            client.write(&data[start..start + length as usize], at)
        })
    }
}

impl Disk for NbdDisk {
    fn size(&self) -> u64 {
        self.export.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check(offset, buffer.len() as u64)?;
        let (start, end) = self.aligned(offset, buffer.len() as u64);
        if (start, end - start) == (offset, buffer.len() as u64) {
            return self.read_blocks(buffer, offset);
        }
        let mut blocks = vec![0; (end - start) as usize];
        self.read_blocks(&mut blocks, start)?;
        let from = (offset - start) as usize;
        buffer.copy_from_slice(&blocks[from..from + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let (start, end) = self.aligned(offset, data.len() as u64);
        if (start, end - start) == (offset, data.len() as u64) {
            return self.write_blocks(data, offset);
        }
        let mut blocks = vec![0; (end - start) as usize];
        self.read_blocks(&mut blocks, start)?;
        let from = (offset - start) as usize;
        blocks[from..from + data.len()].copy_from_slice(data);
        self.write_blocks(&blocks, start)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        const STEP: u64 = 1 << 20;
        self.check_write(offset, length)?;
        let whole = self.aligned(offset, length) == (offset, offset + length);
        if whole && self.export.flags & can::WRITE_ZEROES != 0 {
            let flags = if mode == ZeroMode::Keep { wire::FLAG_NO_HOLE } else { 0 };
            return self.pieces(offset, length, |client, at, length| {
                client.command(Command::WriteZeroes, flags, at, length, &[])
            });
        }
        let zeroes = vec![0; STEP.min(length) as usize];
        let mut at = offset;
        while at < offset + length {
            let step = STEP.min(offset + length - at);
            self.write_at(&zeroes[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.check_write(offset, length)?;
        let block = u64::from(self.export.minimum);
        let start = offset.next_multiple_of(block);
        let end = (offset + length) / block * block;
        if self.export.flags & can::TRIM == 0 || start >= end {
            return Ok(());
        }
        self.pieces(start, end - start, |client, at, length| {
            client.command(Command::Trim, 0, at, length, &[])
        })
    }

    fn flush(&self) -> Result<()> {
        if !self.writable || self.export.flags & can::FLUSH == 0 {
            return Ok(());
        }
        self.failed_flush.check()?;
        self.failed_flush.note(self.client().command(Command::Flush, 0, 0, 0, &[]))
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let length = length.min(self.export.size.saturating_sub(offset));
        if length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the export"));
        }
        let (length, flags) = self.status(0, offset, length)?;
        let state = if flags & ZERO != 0 { State::Zero } else { State::Data };
        Ok(Extent { state, ..Extent::data(length, offset) })
    }

    fn set_size(&self, size: u64) -> Result<()> {
        match size <= self.export.size {
            true => Ok(()),
            false => Err(Error::new(Kind::Unsupported, "Cannot grow NBD nodes")),
        }
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn geometry(&self) -> Geometry {
        let sector = self.export.minimum.max(512);
        Geometry { sector, optimal: sector.max(4096) }
    }
}
