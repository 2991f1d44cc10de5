//! The header (digest section 2).

use disksmith_disk::bytes::{be32, be64};
use thiserror::Error;

use super::{Shape, put};

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49fb;
/// Bytes of the header that this program writes for version 3.
pub const HEADER_LENGTH: u32 = 112;
const HEADER_LENGTH_V2: u32 = 72;
const HEADER_LENGTH_V3_LEAST: u32 = 104;

/// Refcounts may be stale.
pub const INCOMPATIBLE_DIRTY: u64 = 1 << 0;
/// Read-only except for repair.
pub const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
/// Guest data lies in another file.
pub const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
/// The compression type is not deflate.
pub const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
/// L2 entries have 16 bytes.
pub const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// All incompatible features that this program knows.
pub const INCOMPATIBLE_KNOWN: u64 = 0x1f;
/// Refcounts may be written late.
pub const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1 << 0;
/// The bitmaps are up to date.
pub const AUTOCLEAR_BITMAPS: u64 = 1 << 0;
/// The data file is a valid raw image.
pub const AUTOCLEAR_DATA_FILE_RAW: u64 = 1 << 1;
/// All autoclear features that this program keeps up.
pub const AUTOCLEAR_KNOWN: u64 = 3;

const CLUSTER_BITS_LEAST: u32 = 9;
const CLUSTER_BITS_MOST: u32 = 21;

/// The header's fields; those that the header is too short for are zero.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Where the backing name lies; 0 = none.
    pub backing_file_offset: u64,
    /// Bytes of the backing name.
    pub backing_file_size: u32,
    /// log2 of the cluster size.
    pub cluster_bits: u32,
    /// Guest-visible bytes.
    pub size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    /// Where the active L1 table lies.
    pub l1_table_offset: u64,
    /// Where the refcount table lies.
    pub refcount_table_offset: u64,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: u32,
    /// Internal snapshots.
    pub nb_snapshots: u32,
    /// Where the snapshot table lies.
    pub snapshots_offset: u64,
    /// Features a reader must know.
    pub incompatible_features: u64,
    /// Features that may be ignored.
    pub compatible_features: u64,
    /// Features whose bits a writer that does not know them clears.
    pub autoclear_features: u64,
    /// log2 of the refcount width.
    pub refcount_order: u32,
    /// Bytes of the header itself.
    pub header_length: u32,
    /// 0 deflate, 1 zstd.
    pub compression_type: u8,
    /// What follows byte 112 in a longer header; kept as it is.
    pub unknown_fields: Vec<u8>,
}

/// Why a header is refused, in qemu-img's words.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HeaderError {
    #[error("Could not read qcow2 header")]
    Short,
    #[error("Image is not in qcow2 format")]
    Magic,
    #[error("Unsupported qcow2 version {0}")]
    Version(u32),
    #[error("Unsupported cluster size: 2^{0}")]
    ClusterBits(u32),
    #[error("qcow2 header too short")]
    HeaderShort,
    #[error("qcow2 header exceeds cluster size")]
    HeaderLong,
}

impl Header {
    /// Reads the header from the first bytes of an image (112 or more; fewer for version 2).
    /// [`unknown_fields`](Self::unknown_fields) stay empty: see
    /// [`take_unknown`](Self::take_unknown).
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        if be32(bytes, 0).ok_or(HeaderError::Short)? != MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut header = Self::parse_v2(bytes).ok_or(HeaderError::Short)?;
        if !(2..=3).contains(&header.version) {
            return Err(HeaderError::Version(header.version));
        }
        if !(CLUSTER_BITS_LEAST..=CLUSTER_BITS_MOST).contains(&header.cluster_bits) {
            return Err(HeaderError::ClusterBits(header.cluster_bits));
        }
        if header.version == 3 {
            header.parse_v3(bytes).ok_or(HeaderError::Short)?;
            if header.header_length < HEADER_LENGTH_V3_LEAST {
                return Err(HeaderError::HeaderShort);
            }
        }
        if u64::from(header.header_length) > 1 << header.cluster_bits {
            return Err(HeaderError::HeaderLong);
        }
        Ok(header)
    }

    fn parse_v2(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            version: be32(bytes, 4)?,
            backing_file_offset: be64(bytes, 8)?,
            backing_file_size: be32(bytes, 16)?,
            cluster_bits: be32(bytes, 20)?,
            size: be64(bytes, 24)?,
            crypt_method: be32(bytes, 32)?,
            l1_size: be32(bytes, 36)?,
            l1_table_offset: be64(bytes, 40)?,
            refcount_table_offset: be64(bytes, 48)?,
            refcount_table_clusters: be32(bytes, 56)?,
            nb_snapshots: be32(bytes, 60)?,
            snapshots_offset: be64(bytes, 64)?,
            incompatible_features: 0,
            compatible_features: 0,
            autoclear_features: 0,
            refcount_order: 4,
            header_length: HEADER_LENGTH_V2,
            compression_type: 0,
            unknown_fields: Vec::new(),
        })
    }

    fn parse_v3(&mut self, bytes: &[u8]) -> Option<()> {
        self.incompatible_features = be64(bytes, 72)?;
        self.compatible_features = be64(bytes, 80)?;
        self.autoclear_features = be64(bytes, 88)?;
        self.refcount_order = be32(bytes, 96)?;
        self.header_length = be32(bytes, 100)?;
        if self.header_length > HEADER_LENGTH_V3_LEAST {
            self.compression_type = *bytes.get(104)?;
        }
        Some(())
    }

    /// Keeps what a header longer than 112 bytes has there. `cluster` is the first cluster.
    pub fn take_unknown(&mut self, cluster: &[u8]) {
        let range = HEADER_LENGTH as usize..self.header_length as usize;
        self.unknown_fields = cluster.get(range).unwrap_or_default().to_vec();
    }

    /// The arithmetic that follows from the header.
    pub fn shape(&self) -> Shape {
        Shape {
            cluster_bits: self.cluster_bits,
            refcount_order: self.refcount_order,
            extended: self.has(INCOMPATIBLE_EXTENDED_L2),
            version: self.version,
        }
    }

    /// Whether an incompatible feature is on.
    pub fn has(&self, incompatible: u64) -> bool {
        self.incompatible_features & incompatible != 0
    }

    /// The header as bytes. Version 3 headers shorter than 112 bytes grow to that.
    pub fn encode(&self) -> Vec<u8> {
        let v3 = self.version >= 3;
        let length = if v3 { HEADER_LENGTH } else { HEADER_LENGTH_V2 } as usize;
        let mut bytes = vec![0; length];
        put(&mut bytes, 0, &MAGIC.to_be_bytes());
        put(&mut bytes, 4, &self.version.to_be_bytes());
        put(&mut bytes, 8, &self.backing_file_offset.to_be_bytes());
        put(&mut bytes, 16, &self.backing_file_size.to_be_bytes());
        put(&mut bytes, 20, &self.cluster_bits.to_be_bytes());
        put(&mut bytes, 24, &self.size.to_be_bytes());
        put(&mut bytes, 32, &self.crypt_method.to_be_bytes());
        put(&mut bytes, 36, &self.l1_size.to_be_bytes());
        put(&mut bytes, 40, &self.l1_table_offset.to_be_bytes());
        put(&mut bytes, 48, &self.refcount_table_offset.to_be_bytes());
        put(&mut bytes, 56, &self.refcount_table_clusters.to_be_bytes());
        put(&mut bytes, 60, &self.nb_snapshots.to_be_bytes());
        put(&mut bytes, 64, &self.snapshots_offset.to_be_bytes());
        if v3 {
            let length = length.saturating_add(self.unknown_fields.len()) as u32;
            put(&mut bytes, 72, &self.incompatible_features.to_be_bytes());
            put(&mut bytes, 80, &self.compatible_features.to_be_bytes());
            put(&mut bytes, 88, &self.autoclear_features.to_be_bytes());
            put(&mut bytes, 96, &self.refcount_order.to_be_bytes());
            put(&mut bytes, 100, &length.to_be_bytes());
            put(&mut bytes, 104, &[self.compression_type]);
            bytes.extend_from_slice(&self.unknown_fields);
        }
        bytes
    }
}
