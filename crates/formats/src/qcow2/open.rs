//! From bytes to validated state. Every refusal is named, in qemu-img's words.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};
use thiserror::Error as ThisError;

use super::layout::{
    self, ExtensionError, Extensions, Header, HeaderError, Shape, SnapshotEntry, SnapshotParse,
};
use super::util::read_padded;
use crate::{OpenMode, OptionKind, OptionSpec};

/// Largest active or snapshot L1 table, in bytes.
pub(super) const L1_MOST: u64 = 32 << 20;
/// Largest refcount table, in bytes.
pub(super) const REFCOUNT_TABLE_MOST: u64 = 8 << 20;
/// Most snapshots.
pub(super) const SNAPSHOTS_MOST: u64 = 65_536;
/// Largest snapshot table, in bytes.
pub(super) const SNAPSHOT_TABLE_MOST: u64 = 64 << 20;
/// Longest backing name, in bytes.
pub(super) const BACKING_NAME_MOST: u64 = 1023;
/// Bytes of a snapshot entry without its variable parts.
const SNAPSHOT_FIXED: u64 = 40;
/// Largest extra data of a snapshot entry, in bytes.
const EXTRA_MOST: u32 = 1024;
/// The snapshot table is read in steps of this many bytes.
const SNAPSHOT_STEP: usize = 64 << 10;
const SECTOR: u64 = 512;
const CRYPT_MOST: u32 = 2;

/// What may be said on opening. `l2-cache-size` and `refcount-cache-size` can make our caches
/// smaller; the others about caches, discarding and overlap checks are QEMU's tuning, accepted
/// without changing anything here.
pub(super) const RUNTIME_OPTIONS: &[OptionSpec] = &[
    OptionSpec::named("encrypt.format", OptionKind::Text),
    OptionSpec::named("encrypt.key-secret", OptionKind::Text),
    OptionSpec::named("lazy-refcounts", OptionKind::Flag),
    OptionSpec::named("pass-discard-request", OptionKind::Flag),
    OptionSpec::named("pass-discard-snapshot", OptionKind::Flag),
    OptionSpec::named("pass-discard-other", OptionKind::Flag),
    OptionSpec::named("discard-no-unref", OptionKind::Flag),
    OptionSpec::named("overlap-check", OptionKind::Text),
    OptionSpec::named("overlap-check.template", OptionKind::Text),
    OptionSpec::named("overlap-check.main-header", OptionKind::Flag),
    OptionSpec::named("overlap-check.active-l1", OptionKind::Flag),
    OptionSpec::named("overlap-check.active-l2", OptionKind::Flag),
    OptionSpec::named("overlap-check.refcount-table", OptionKind::Flag),
    OptionSpec::named("overlap-check.refcount-block", OptionKind::Flag),
    OptionSpec::named("overlap-check.snapshot-table", OptionKind::Flag),
    OptionSpec::named("overlap-check.inactive-l1", OptionKind::Flag),
    OptionSpec::named("overlap-check.inactive-l2", OptionKind::Flag),
    OptionSpec::named("overlap-check.bitmap-directory", OptionKind::Flag),
    OptionSpec::named("cache-size", OptionKind::Size),
    OptionSpec::named("l2-cache-size", OptionKind::Size),
    OptionSpec::named("l2-cache-entry-size", OptionKind::Size),
    OptionSpec::named("refcount-cache-size", OptionKind::Size),
    OptionSpec::named("cache-clean-interval", OptionKind::Number),
];

/// What an image says of itself, checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub header: Header,
    pub shape: Shape,
    pub extensions: Extensions,
    /// The backing name as stored.
    pub backing: Option<Vec<u8>>,
    /// The active L1 table; empty when only looked at.
    pub l1: Vec<u64>,
    /// The refcount table; empty when only looked at.
    pub refcount_table: Vec<u64>,
    pub snapshots: Vec<SnapshotEntry>,
}

/// Why an image is refused, in qemu-img's words.
#[derive(Debug, Eq, PartialEq, ThisError)]
pub(super) enum OpenError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    #[error("Invalid backing file offset")]
    BackingOffset,
    #[error("Unsupported qcow2 feature(s): {0}")]
    Features(String),
    #[error("qcow2: Image is corrupt; cannot be opened read/write")]
    MarkedCorrupt,
    #[error("qcow2: unknown compression type: {0}")]
    CompressionType(u8),
    #[error("qcow2: Compression type incompatible feature bit must not be set")]
    CompressionBitSet,
    #[error("qcow2: Compression type incompatible feature bit must be set")]
    CompressionBitUnset,
    #[error("Unsupported subcluster size: {0}")]
    SubclusterSize(u64),
    #[error("Reference count entry width too large; may not exceed 64 bits")]
    RefcountWidth,
    #[error("Unsupported encryption method {0}")]
    CryptMethod(u32),
    #[error("Image does not contain a reference count table")]
    NoRefcountTable,
    #[error("{0} too large")]
    TableLarge(&'static str),
    #[error("{0} offset invalid")]
    TableOffset(&'static str),
    #[error("Image is too big")]
    ImageBig,
    #[error("L1 table is too small")]
    L1Small,
    #[error("Backing file name too long")]
    BackingName,
    #[error("Missing CRYPTO header for crypt method 2")]
    NoCryptoHeader,
    #[error("data-file-raw requires a data file")]
    RawWithoutDataFile,
    #[error("Too much extra metadata in snapshot table entry {0}")]
    SnapshotExtra(usize),
    #[error("Snapshot table is too big")]
    SnapshotTableBig,
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        use OpenError as E;
        let kind = match &error {
            E::Header(HeaderError::Version(_) | HeaderError::ClusterBits(_))
            | E::Features(_)
            | E::CompressionType(_)
            | E::CryptMethod(_)
            | E::RefcountWidth
            | E::SubclusterSize(_) => Kind::Unsupported,
            E::MarkedCorrupt => Kind::Refused,
            E::TableLarge(_) | E::ImageBig | E::SnapshotTableBig | E::SnapshotExtra(_) => {
                Kind::LimitExceeded
            }
            _ => Kind::Corrupt,
        };
        Error::with_source(kind, error)
    }
}

/// Reads and checks everything that must be known before the image can be used.
pub(super) fn open(storage: &Arc<dyn Disk>, mode: OpenMode) -> Result<Opened> {
    let mut start = vec![0; layout::HEADER_LENGTH as usize];
    let have = storage.size().min(start.len() as u64) as usize;
    start.truncate(have);
    storage.read_at(&mut start, 0)?;
    // Version 2 files may end right behind their header.
    start.resize(layout::HEADER_LENGTH as usize, 0);
    let mut header = Header::parse(&start).map_err(OpenError::from)?;
    let cluster_size = 1u64 << header.cluster_bits;
    if header.backing_file_offset > cluster_size {
        return Err(OpenError::BackingOffset.into());
    }
    let mut cluster = disksmith_disk::bytes::zeroed(cluster_size as usize)?;
    read_padded(&**storage, &mut cluster, 0)?;
    header.take_unknown(&cluster);
    check_features(&header, &cluster)?;
    check_header(&header, mode)?;
    let shape = header.shape();
    let checking = matches!(mode, OpenMode::Check | OpenMode::Repair);
    let extensions = Extensions::parse(&header, &cluster).map_err(OpenError::from)?;
    check_extensions(&header, &extensions, mode)?;
    let backing = backing_name(&header, &cluster)?;
    // The guest sees whole sectors.
    header.size -= header.size % SECTOR;
    let (l1, refcount_table) = match mode {
        OpenMode::Inspect => (Vec::new(), Vec::new()),
        _ => (
            read_table(&**storage, header.l1_table_offset, header.l1_size.into())?,
            read_table(
                &**storage,
                header.refcount_table_offset,
                refcount_table_bytes(&header) / 8,
            )?,
        ),
    };
    let snapshots = if checking { Vec::new() } else { read_snapshots(&**storage, &header)? };
    Ok(Opened { header, shape, extensions, backing, l1, refcount_table, snapshots })
}

/// Refuses an image whose encryption is not of the format that the user expects.
pub(super) fn check_encryption(header: &Header, expected: Option<&str>) -> Result<()> {
    let Some(expected) = expected else { return Ok(()) };
    let text = match header.crypt_method {
        0 => format!("No encryption in image header, but options specified format '{expected}'"),
        1 if expected != "aes" => {
            format!("Header reported 'aes' encryption format but options specify '{expected}'")
        }
        2 if expected != "luks" => {
            format!("Header reported 'luks' encryption format but options specify '{expected}'")
        }
        _ => return Ok(()),
    };
    Err(Error::new(Kind::InvalidInput, text))
}

fn check_features(header: &Header, cluster: &[u8]) -> Result<(), OpenError> {
    let mut unknown = header.incompatible_features & !layout::INCOMPATIBLE_KNOWN;
    if unknown == 0 {
        return Ok(());
    }
    let mut names = Vec::new();
    for feature in layout::parse_feature_names(header, cluster) {
        let bit = 1u64.checked_shl(feature.bit.into()).unwrap_or(0);
        if feature.kind == 0 && unknown & bit != 0 {
            unknown &= !bit;
            names.push(feature.name);
        }
    }
    if unknown != 0 {
        names.push(format!("Unknown incompatible feature: {unknown:x}"));
    }
    Err(OpenError::Features(names.join(", ")))
}

fn check_header(header: &Header, mode: OpenMode) -> Result<(), OpenError> {
    use OpenError as E;
    let checking = matches!(mode, OpenMode::Check | OpenMode::Repair);
    if header.has(layout::INCOMPATIBLE_CORRUPT) && mode == OpenMode::Write {
        return Err(E::MarkedCorrupt);
    }
    check_compression(header)?;
    // Subclusters are at least a sector.
    if header.has(layout::INCOMPATIBLE_EXTENDED_L2) && header.cluster_bits < 14 {
        return Err(E::SubclusterSize(1 << (header.cluster_bits - 5)));
    }
    if header.refcount_order > 6 {
        return Err(E::RefcountWidth);
    }
    if header.crypt_method > CRYPT_MOST {
        return Err(E::CryptMethod(header.crypt_method));
    }
    if header.refcount_table_clusters == 0 && !checking {
        return Err(E::NoRefcountTable);
    }
    check_table(
        header,
        "Reference count table",
        (header.refcount_table_offset, refcount_table_bytes(header)),
        REFCOUNT_TABLE_MOST,
    )?;
    if !checking {
        let fixed = u64::from(header.nb_snapshots) * SNAPSHOT_FIXED;
        let most = SNAPSHOTS_MOST * SNAPSHOT_FIXED;
        check_table(header, "Snapshot table", (header.snapshots_offset, fixed), most)?;
    }
    let l1_bytes = u64::from(header.l1_size) * 8;
    check_table(header, "Active L1 table", (header.l1_table_offset, l1_bytes), L1_MOST)?;
    let needed = header.shape().l1_entries(header.size);
    match needed {
        _ if needed > i32::MAX as u64 => Err(E::ImageBig),
        _ if needed > header.l1_size.into() => Err(E::L1Small),
        _ => Ok(()),
    }
}

fn check_compression(header: &Header) -> Result<(), OpenError> {
    let bit = header.has(layout::INCOMPATIBLE_COMPRESSION);
    match (header.compression_type, bit) {
        (0, true) => Err(OpenError::CompressionBitSet),
        (1, false) => Err(OpenError::CompressionBitUnset),
        (0 | 1, _) => Ok(()),
        (other, _) => Err(OpenError::CompressionType(other)),
    }
}

fn check_table(
    header: &Header,
    name: &'static str,
    (offset, bytes): (u64, u64),
    most: u64,
) -> Result<(), OpenError> {
    if bytes > most {
        return Err(OpenError::TableLarge(name));
    }
    // Offsets are signed 64-bit numbers in QEMU.
    let end = offset.checked_add(bytes).filter(|end| i64::try_from(*end).is_ok());
    if end.is_none() || !header.shape().aligned(offset) {
        return Err(OpenError::TableOffset(name));
    }
    Ok(())
}

fn check_extensions(
    header: &Header,
    extensions: &Extensions,
    mode: OpenMode,
) -> Result<(), OpenError> {
    if header.crypt_method == 2 && extensions.crypto_header.is_none() {
        return Err(OpenError::NoCryptoHeader);
    }
    let raw = header.autoclear_features & layout::AUTOCLEAR_DATA_FILE_RAW != 0;
    if raw && !header.has(layout::INCOMPATIBLE_DATA_FILE) && mode != OpenMode::Inspect {
        return Err(OpenError::RawWithoutDataFile);
    }
    Ok(())
}

fn backing_name(header: &Header, cluster: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
    if header.backing_file_offset == 0 {
        return Ok(None);
    }
    let start = header.backing_file_offset;
    let length = u64::from(header.backing_file_size);
    if length > BACKING_NAME_MOST.min((cluster.len() as u64).saturating_sub(start)) {
        return Err(OpenError::BackingName);
    }
    let name = cluster.get(start as usize..(start + length) as usize).unwrap_or_default();
    Ok((!name.is_empty()).then(|| name.to_vec()))
}

fn refcount_table_bytes(header: &Header) -> u64 {
    u64::from(header.refcount_table_clusters) << header.cluster_bits
}

/// Reads a table of 64-bit entries. What lies past the end of the file is zero, so that a
/// table which is only claimed costs no reading.
pub(super) fn read_table(storage: &dyn Disk, offset: u64, entries: u64) -> Result<Vec<u64>> {
    const STEP: u64 = 64 << 10;
    let mut table = disksmith_disk::bytes::zeroed(entries as usize)?;
    let stored = storage.size().saturating_sub(offset).min(entries.saturating_mul(8));
    let mut bytes = vec![0; STEP as usize];
    for (part, start) in table.chunks_mut(STEP as usize / 8).zip((0..stored).step_by(STEP as usize))
    {
        let piece = &mut bytes[..part.len() * 8];
        read_padded(storage, piece, offset + start)?;
        for (entry, raw) in part.iter_mut().zip(piece.chunks_exact(8)) {
            *entry = disksmith_disk::bytes::be64(raw, 0).unwrap_or(0);
        }
    }
    Ok(table)
}

fn extra_too_large(index: usize) -> Error {
    Error::from(OpenError::SnapshotExtra(index))
        .with_hint("You can force-remove this extra metadata with qemu-img check -r all")
}

/// Reads the snapshot table that `header` names.
pub(super) fn read_snapshots(storage: &dyn Disk, header: &Header) -> Result<Vec<SnapshotEntry>> {
    let mut result = Vec::new();
    let table_end = header.snapshots_offset.saturating_add(SNAPSHOT_TABLE_MOST);
    // `buffer` holds the bytes from `at` on; `used` of them are parsed.
    let (mut at, mut buffer, mut used) = (header.snapshots_offset, Vec::new(), 0usize);
    while result.len() < header.nb_snapshots as usize {
        match SnapshotEntry::parse(buffer.get(used..).unwrap_or_default()) {
            SnapshotParse::Entry(entry, taken) => {
                disksmith_disk::bytes::push(&mut result, *entry)?;
                used = used.saturating_add(taken);
            }
            SnapshotParse::ExtraTooLarge(..) => return Err(extra_too_large(result.len())),
            SnapshotParse::More(needed) => {
                at = at.saturating_add(used as u64);
                let rest = buffer.get(used..).unwrap_or_default();
                if disksmith_disk::bytes::be32(rest, 36).is_some_and(|extra| extra > EXTRA_MOST) {
                    return Err(extra_too_large(result.len()));
                }
                used = 0;
                if at.saturating_add(needed as u64) > table_end {
                    let over = header.nb_snapshots as usize - result.len();
                    return Err(Error::from(OpenError::SnapshotTableBig).with_hint(format!(
                        "You can force-remove all {over} overhanging snapshots with qemu-img check -r all"
                    )));
                }
                buffer = disksmith_disk::bytes::zeroed(needed.max(SNAPSHOT_STEP))?;
                read_padded(storage, &mut buffer, at)?;
            }
        }
    }
    Ok(result)
}
