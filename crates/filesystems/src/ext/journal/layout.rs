//! jbd2's on-disk structures.

use disksmith_disk::{Error, Kind, Result};

use crate::ext::checksum::crc32c;
use crate::ext::layout::{be32, put, put_be32};

/// `h_magic`.
pub(super) const MAGIC: u32 = 0xC03B_3998;
pub(super) const DESCRIPTOR: u32 = 1;
pub(super) const COMMIT: u32 = 2;
const SUPER_V1: u32 = 3;
const SUPER_V2: u32 = 4;
pub(super) const REVOKE: u32 = 5;

/// `s_feature_compat`: commit blocks have a CRC-32 over the transaction.
pub(super) const COMPAT_CHECKSUM: u32 = 1;
pub(super) const INCOMPAT_REVOKE: u32 = 1;
pub(super) const INCOMPAT_64BIT: u32 = 2;
const INCOMPAT_ASYNC_COMMIT: u32 = 4;
pub(super) const INCOMPAT_CSUM_V2: u32 = 8;
pub(super) const INCOMPAT_CSUM_V3: u32 = 0x10;
pub(super) const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = 0x3f;

pub(super) const TAG_ESCAPE: u32 = 1;
pub(super) const TAG_SAME_UUID: u32 = 2;
pub(super) const TAG_DELETED: u32 = 4;
pub(super) const TAG_LAST: u32 = 8;

/// Blocks of the fast-commit area when the superblock says 0.
const FAST_COMMIT_DEFAULT: u32 = 256;
/// `s_checksum_type`: CRC-32C.
const CRC32C: u8 = 4;

/// The journal superblock, checked.
#[derive(Clone, Debug)]
pub(crate) struct JournalSuper {
    pub(crate) raw: Vec<u8>,
}

impl JournalSuper {
    /// Takes the first 1024 bytes of the journal.
    pub(crate) fn parse(block: &[u8], block_size: usize, blocks: u64) -> Result<Self> {
        let raw = block.get(..1024).unwrap_or(&[]).to_vec();
        let this = Self { raw };
        let corrupt = |what: &str| {
            Error::new(Kind::Corrupt, format!("The journal's superblock is corrupt: {what}"))
        };
        if be32(&this.raw, 0) != MAGIC || !matches!(be32(&this.raw, 4), SUPER_V1 | SUPER_V2) {
            return Err(corrupt("bad magic number"));
        }
        if this.block_size() as usize != block_size {
            return Err(corrupt("its block size is not the filesystem's"));
        }
        if this.incompat() & !INCOMPAT_KNOWN != 0 {
            return Err(Error::new(
                Kind::Unsupported,
                format!("The journal has unknown features {:#x}", this.incompat()),
            ));
        }
        if this.has_checksums() {
            if this.incompat() & INCOMPAT_CSUM_V2 != 0 && this.incompat() & INCOMPAT_CSUM_V3 != 0 {
                return Err(corrupt("two checksum versions at once"));
            }
            if this.raw.get(0x50) != Some(&CRC32C) {
                return Err(corrupt("unknown checksum type"));
            }
            if this.sum() != be32(&this.raw, 0xFC) {
                return Err(corrupt("wrong checksum"));
            }
        }
        let end = u64::from(this.length());
        let (first, start) = (this.first(), this.start());
        if end > blocks || first == 0 || u64::from(first) >= u64::from(this.log_end()) {
            return Err(corrupt("its length does not fit"));
        }
        if start != 0 && !(first..this.log_end()).contains(&start) {
            return Err(corrupt("its start lies outside of it"));
        }
        Ok(this)
    }

    /// True for fields that the superblock's version has not, or several users of the journal.
    pub(crate) fn has_odd_fields(&self) -> bool {
        let users = be32(&self.raw, 0x40);
        let features = [0x24, 0x28, 0x2C].iter().any(|at| be32(&self.raw, *at) != 0);
        users > 1 || be32(&self.raw, 4) == SUPER_V1 && (features || users > 0)
    }

    /// The error that a writer of the journal met, or 0.
    pub(crate) fn error(&self) -> u32 {
        be32(&self.raw, 0x20)
    }

    fn sum(&self) -> u32 {
        let mut copy = self.raw.clone();
        put_be32(&mut copy, 0xFC, 0);
        crc32c(!0, &copy)
    }

    /// Brings the checksum up to date.
    pub(crate) fn seal(&mut self) {
        if self.has_checksums() {
            if let Some(kind) = self.raw.get_mut(0x50) {
                *kind = CRC32C;
            }
            let sum = self.sum();
            put_be32(&mut self.raw, 0xFC, sum);
        }
    }

    pub(crate) fn block_size(&self) -> u32 {
        be32(&self.raw, 0xC)
    }

    /// Blocks in all.
    pub(crate) fn length(&self) -> u32 {
        be32(&self.raw, 0x10)
    }

    /// The first block of the log.
    pub(crate) fn first(&self) -> u32 {
        be32(&self.raw, 0x14)
    }

    /// The sequence number of the first transaction in the log.
    pub(crate) fn sequence(&self) -> u32 {
        be32(&self.raw, 0x18)
    }

    /// Where the log starts; 0: it is empty.
    pub(crate) fn start(&self) -> u32 {
        be32(&self.raw, 0x1C)
    }

    pub(super) fn compat(&self) -> u32 {
        be32(&self.raw, 0x24)
    }

    pub(super) fn incompat(&self) -> u32 {
        be32(&self.raw, 0x28)
    }

    /// Blocks at the end that hold fast commits.
    pub(crate) fn fast_commit_blocks(&self) -> u32 {
        if self.incompat() & INCOMPAT_FAST_COMMIT == 0 {
            return 0;
        }
        match be32(&self.raw, 0x54) {
            0 => FAST_COMMIT_DEFAULT,
            count => count,
        }
    }

    /// The block after the last one of the log.
    pub(crate) fn log_end(&self) -> u32 {
        self.length().saturating_sub(self.fast_commit_blocks())
    }

    pub(super) fn has_checksums(&self) -> bool {
        self.incompat() & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    pub(super) fn v3(&self) -> bool {
        self.incompat() & INCOMPAT_CSUM_V3 != 0
    }

    pub(super) fn wide(&self) -> bool {
        self.incompat() & INCOMPAT_64BIT != 0
    }

    pub(super) fn async_commit(&self) -> bool {
        self.incompat() & INCOMPAT_ASYNC_COMMIT != 0
    }

    /// Start value of checksums in the log.
    pub(super) fn seed(&self) -> u32 {
        crc32c(!0, self.raw.get(0x30..0x40).unwrap_or(&[]))
    }

    /// Bytes of a tag in a descriptor block.
    pub(super) fn tag_size(&self) -> usize {
        if self.v3() {
            return 16;
        }
        let version2 = if self.incompat() & INCOMPAT_CSUM_V2 != 0 { 2 } else { 0 };
        8 + version2 + if self.wide() { 4 } else { 0 }
    }

    /// Sets where the log starts and with which transaction.
    pub(crate) fn set_log(&mut self, start: u32, sequence: u32) {
        put_be32(&mut self.raw, 0x1C, start);
        put_be32(&mut self.raw, 0x18, sequence);
        self.seal();
    }

    /// Clears the error number that a failed journal leaves.
    pub(crate) fn clear_error(&mut self) {
        put_be32(&mut self.raw, 0x20, 0);
    }

    /// Sets the features that our transactions need; the log must be empty.
    pub(crate) fn set_features(&mut self, checksums: bool, wide: bool) {
        put_be32(&mut self.raw, 4, SUPER_V2);
        let mut incompat = self.incompat() | INCOMPAT_REVOKE;
        let mut compat = self.compat();
        if checksums {
            incompat = incompat & !INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3;
            compat &= !COMPAT_CHECKSUM;
        }
        if wide {
            incompat |= INCOMPAT_64BIT;
        }
        put_be32(&mut self.raw, 0x24, compat);
        put_be32(&mut self.raw, 0x28, incompat & !INCOMPAT_ASYNC_COMMIT);
        self.seal();
    }

    /// The common start of log blocks.
    pub(super) fn header(kind: u32, sequence: u32) -> [u8; 12] {
        let mut bytes = [0; 12];
        put_be32(&mut bytes, 0, MAGIC);
        put_be32(&mut bytes, 4, kind);
        put_be32(&mut bytes, 8, sequence);
        bytes
    }
}

/// The superblock of a new, empty journal of `length` blocks.
pub(crate) fn encode_superblock(
    block_size: usize,
    length: u32,
    fast_commit: u32,
    uuid: &[u8; 16],
) -> Vec<u8> {
    let mut raw = vec![0; block_size];
    put(&mut raw, 0, &JournalSuper::header(SUPER_V2, 0));
    put_be32(&mut raw, 0xC, block_size as u32);
    put_be32(&mut raw, 0x10, length);
    put_be32(&mut raw, 0x14, 1);
    put_be32(&mut raw, 0x18, 1);
    put_be32(&mut raw, 0x54, fast_commit);
    let _ = uuid;
    put_be32(&mut raw, 0x40, 1);
    raw
}
