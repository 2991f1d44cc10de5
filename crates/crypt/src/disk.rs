//! An encrypted range of a disk as a disk of plain bytes.

use std::sync::{PoisonError, RwLock};

use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

use crate::{SECTOR, SectorCipher};

/// Bytes encrypted and written at once.
const PIECE: usize = 1 << 20;

/// The plain bytes of an encrypted disk: what lies from `offset` of the disk below on, decrypted.
/// The payload of an unlocked LUKS file is one.
///
/// Everything below counts as data: a hole decrypts to noise, so zeroes are written encrypted,
/// and discarding does nothing.
#[derive(Debug)]
pub struct CryptDisk<D> {
    inner: D,
    offset: u64,
    cipher: SectorCipher,
    first_sector: u64,
    /// Held alone while a sector is read, changed in part and written back.
    partial: RwLock<()>,
}

impl<D: Disk> CryptDisk<D> {
    /// Everything of `inner` from byte `offset` on, sectors numbered from there. A part of a
    /// sector at the end is left out.
    pub fn new(inner: D, offset: u64, cipher: SectorCipher) -> Self {
        Self { inner, offset, cipher, first_sector: 0, partial: RwLock::new(()) }
    }

    /// The same with sectors numbered from `first` on, in units of 512 bytes (LUKS2's `iv_tweak`).
    #[must_use]
    pub fn numbered_from(mut self, first: u64) -> Self {
        self.first_sector = first;
        self
    }

    /// The disk below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn sector(&self) -> u64 {
        self.cipher.sector_bytes() as u64
    }

    /// The number of the sector at byte `at` of the plain disk.
    fn number(&self, at: u64) -> u64 {
        self.first_sector.wrapping_add(at / SECTOR)
    }

    /// Where byte `at` of the plain disk lies below.
    fn below(&self, at: u64) -> Result<u64> {
        self.offset.checked_add(at).ok_or_else(out_of_range)
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(()),
            _ => Err(out_of_range()),
        }
    }

    /// Reads whole sectors.
    fn read_sectors(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_at(buffer, self.below(offset)?)?;
        self.cipher.decrypt(self.number(offset), buffer);
        Ok(())
    }

    /// Writes whole sectors, leaving them encrypted in `buffer`.
    fn write_sectors(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.cipher.encrypt(self.number(offset), buffer);
        self.inner.write_at(buffer, self.below(offset)?)
    }

    /// Cuts a request into whole sectors and parts of one: `(offset, length)`.
    fn runs(&self, offset: u64, length: usize) -> impl Iterator<Item = (u64, usize)> + use<D> {
        let sector = self.sector();
        let end = offset.saturating_add(length as u64);
        let mut at = offset;
        std::iter::from_fn(move || {
            let left = end.saturating_sub(at);
            if left == 0 {
                return None;
            }
            let within = at % sector;
            let run = if within != 0 || left < sector {
                left.min(sector - within)
            } else {
                left - left % sector
            };
            let item = (at, run as usize);
            at = at.saturating_add(run);
            Some(item)
        })
    }

    fn is_whole(&self, offset: u64, length: usize) -> bool {
        offset.is_multiple_of(self.sector()) && (length as u64).is_multiple_of(self.sector())
    }

    /// Changes a part of one sector.
    fn write_part(&self, data: &[u8], offset: u64) -> Result<()> {
        let _alone = self.partial.write().unwrap_or_else(PoisonError::into_inner);
        let within = (offset % self.sector()) as usize;
        let start = offset - within as u64;
        let mut sector = vec![0; self.cipher.sector_bytes()];
        self.read_sectors(&mut sector, start)?;
        sector[within..within + data.len()].copy_from_slice(data);
        self.write_sectors(&mut sector, start)
    }

    /// Writes whole sectors that `fill(offset within the run, buffer)` makes.
    fn write_run(
        &self,
        offset: u64,
        length: u64,
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> Result<()> {
        let _shared = self.partial.read().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; length.min(PIECE as u64) as usize];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(PIECE as u64) as usize;
            let buffer = &mut buffer[..step];
            fill(done, buffer);
            self.write_sectors(buffer, offset + done)?;
            done += step as u64;
        }
        Ok(())
    }
}

impl<D: Disk> Disk for CryptDisk<D> {
    fn size(&self) -> u64 {
        let size = self.inner.size().saturating_sub(self.offset);
        size - size % self.sector()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check(offset, buffer.len() as u64)?;
        let mut rest = buffer;
        for (at, length) in self.runs(offset, rest.len()) {
            let (target, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            if self.is_whole(at, length) {
                self.read_sectors(target, at)?;
            } else {
                let within = (at % self.sector()) as usize;
                let mut sector = vec![0; self.cipher.sector_bytes()];
                self.read_sectors(&mut sector, at - within as u64)?;
                target.copy_from_slice(&sector[within..within + length]);
            }
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        let mut rest = data;
        for (at, length) in self.runs(offset, data.len()) {
            let (source, tail) = rest.split_at(length);
            rest = tail;
            if self.is_whole(at, length) {
                self.write_run(at, length as u64, |done, buffer| {
                    let start = done as usize;
                    buffer.copy_from_slice(&source[start..start + buffer.len()]);
                })?;
            } else {
                self.write_part(source, at)?;
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _mode: ZeroMode) -> Result<()> {
        self.check(offset, length)?;
        let sector = self.sector();
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(sector), end - end % sector);
        if first >= last {
            return self.write_at(&vec![0; length as usize], offset);
        }
        self.write_at(&vec![0; (first - offset) as usize], offset)?;
        self.write_run(first, last - first, |_, buffer| buffer.fill(0))?;
        self.write_at(&vec![0; (end - last) as usize], last)
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let length = length.min(self.size().saturating_sub(offset));
        if length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the disk"));
        }
        Ok(Extent::opaque(length, false))
    }

    /// Bytes added decrypt to noise where they are zero below, so they are written as zeroes.
    fn set_size(&self, size: u64) -> Result<()> {
        if !size.is_multiple_of(self.sector()) {
            let text = "The size of an encrypted disk must be a multiple of its sector size";
            return Err(Error::new(Kind::InvalidInput, text));
        }
        let old = self.size();
        self.inner.set_size(self.below(size)?)?;
        if size > old { self.write_zeroes(old, size - old, ZeroMode::Keep) } else { Ok(()) }
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn geometry(&self) -> Geometry {
        let below = self.inner.geometry();
        let sector = self.cipher.sector_bytes() as u32;
        Geometry { sector: below.sector.max(sector), optimal: below.optimal.max(sector) }
    }
}

fn out_of_range() -> Error {
    Error::new(Kind::InvalidInput, "request is outside of the encrypted disk")
}

#[cfg(test)]
mod tests {
    use disksmith_disk::MemoryDisk;

    use super::*;
    use crate::CipherSpec;

    fn disk(sector_bytes: usize) -> CryptDisk<MemoryDisk> {
        let key: Vec<u8> = (0..64).collect();
        let cipher =
            SectorCipher::with_sector_bytes(&CipherSpec::default(), &key, sector_bytes).unwrap();
        let disk = CryptDisk::new(MemoryDisk::new(5000), 300, cipher);
        disk.set_size(3 << 20).unwrap();
        disk.write_zeroes(0, 8192, ZeroMode::Keep).unwrap();
        disk
    }

    #[test]
    fn any_alignment() {
        for sector_bytes in [512, 4096] {
            let disk = disk(sector_bytes);
            let mut model = vec![0u8; 3 << 20];
            let mut seed = 1u64;
            let mut random = |limit: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as usize % limit
            };
            for round in 0..60 {
                let start = random(model.len());
                let limit = if round % 10 == 0 { 2 << 20 } else { 6000 };
                let length = random(limit).min(model.len() - start);
                let range = start..start + length;
                if round % 3 == 0 {
                    disk.write_zeroes(start as u64, length as u64, ZeroMode::Unmap).unwrap();
                    model[range.clone()].fill(0);
                } else {
                    model[range.clone()].fill(round);
                    disk.write_at(&model[range.clone()], start as u64).unwrap();
                }
                let mut read = vec![1; length];
                disk.read_at(&mut read, start as u64).unwrap();
                assert!(read == model[range]);
            }
            let mut all = vec![1; model.len()];
            disk.read_at(&mut all, 0).unwrap();
            assert!(all == model);
            assert!(disk.read_at(&mut [0; 2], (3 << 20) - 1).is_err());
            assert!(disk.write_at(&[0; 2], (3 << 20) - 1).is_err());
        }
    }

    #[test]
    fn nothing_plain_below() {
        let disk = disk(512);
        disk.write_at(&[0x5a; 4096], 512).unwrap();
        let bytes = disk.inner().to_bytes();
        assert!(!bytes[300..].chunks(16).any(|c| c == [0x5a; 16] || c == [0; 16]));
    }
}
