//! Bounded reads for the probes.

use std::borrow::Cow;

use disksmith_disk::bytes::{be16, be32, be64, le16, le32, le64};
use disksmith_disk::{Disk, Result};

/// Nearly all superblocks are within this: btrfs has its at 64 KiB.
const HEAD: u64 = 72 << 10;
/// No probe reads more than this at once.
const MAX_READ: u64 = 64 << 10;

pub(super) struct Window<'d> {
    disk: &'d dyn Disk,
    head: Vec<u8>,
}

impl<'d> Window<'d> {
    pub(super) fn new(disk: &'d dyn Disk) -> Result<Self> {
        let mut head = disksmith_disk::bytes::zeroed(disk.size().min(HEAD) as usize)?;
        disk.read_at(&mut head, 0)?;
        Ok(Self { disk, head })
    }

    pub(super) fn size(&self) -> u64 {
        self.disk.size()
    }

    /// A range within the first 72 KiB, which were read already.
    pub(super) fn start(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let end = usize::try_from(offset.checked_add(length)?).ok()?;
        self.head.get(usize::try_from(offset).ok()?..end)
    }

    /// A structure within them, if `magic` is `at` so many bytes into it.
    pub(super) fn superblock(
        &self,
        offset: u64,
        length: u64,
        at: usize,
        magic: &[u8],
    ) -> Option<Fields<'_>> {
        let bytes = self.start(offset, length)?;
        bytes.get(at..)?.starts_with(magic).then_some(Fields(Cow::Borrowed(bytes)))
    }

    /// `None` where the range is not on the disk, or is longer than any probe needs.
    pub(super) fn bytes(&self, offset: u64, length: u64) -> Result<Option<Cow<'_, [u8]>>> {
        let Some(end) = offset.checked_add(length) else { return Ok(None) };
        if end > self.disk.size() || length > MAX_READ {
            return Ok(None);
        }
        if let Some(bytes) = self.start(offset, length) {
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.disk.read_at(&mut bytes, offset)?;
        Ok(Some(Cow::Owned(bytes)))
    }

    /// A structure at `offset`, if it is on the disk and `magic` is `at` so many bytes into it.
    pub(super) fn structure(
        &self,
        offset: u64,
        length: u64,
        at: usize,
        magic: &[u8],
    ) -> Result<Option<Fields<'_>>> {
        let bytes = self.bytes(offset, length)?;
        Ok(bytes.filter(|b| b.get(at..).is_some_and(|rest| rest.starts_with(magic))).map(Fields))
    }
}

/// Fields of a structure; what is not there is zero.
pub(super) struct Fields<'b>(pub(super) Cow<'b, [u8]>);

impl Fields<'_> {
    pub(super) fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn le16(&self, at: usize) -> u16 {
        le16(&self.0, at).unwrap_or(0)
    }

    pub(super) fn le32(&self, at: usize) -> u32 {
        le32(&self.0, at).unwrap_or(0)
    }

    pub(super) fn le64(&self, at: usize) -> u64 {
        le64(&self.0, at).unwrap_or(0)
    }

    pub(super) fn be16(&self, at: usize) -> u16 {
        be16(&self.0, at).unwrap_or(0)
    }

    pub(super) fn be32(&self, at: usize) -> u32 {
        be32(&self.0, at).unwrap_or(0)
    }

    pub(super) fn be64(&self, at: usize) -> u64 {
        be64(&self.0, at).unwrap_or(0)
    }

    pub(super) fn slice(&self, at: usize, length: usize) -> &[u8] {
        at.checked_add(length).and_then(|end| self.0.get(at..end)).unwrap_or_default()
    }

    /// Text up to the first NUL, without spaces at its end.
    pub(super) fn text(&self, at: usize, length: usize) -> Option<String> {
        text(self.slice(at, length))
    }

    /// Sixteen bytes as a UUID in the order of the text; `None` when all are zero.
    pub(super) fn uuid(&self, at: usize) -> Option<String> {
        uuid_text(self.slice(at, 16))
    }
}

pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(bytes.get(..end)?);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_string())
}

pub(super) fn utf16(units: impl Iterator<Item = u16>) -> Option<String> {
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let text = String::from_utf16_lossy(&units);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_string())
}

pub(super) fn uuid_text(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    (bytes != [0; 16]).then(|| uuid::Uuid::from_bytes(bytes).to_string())
}

/// Volume serial numbers of DOS: `1A2B-3C4D`.
pub(super) fn serial(number: u32) -> Option<String> {
    (number != 0).then(|| format!("{:04X}-{:04X}", number >> 16, number & 0xffff))
}

/// `count * unit`, unless that is more than 64 bits.
pub(super) fn product(count: u64, unit: u64) -> Option<u64> {
    count.checked_mul(unit)
}
