//! Header extensions and the backing name (digest section 3).

use disksmith_disk::bytes::{be32, be64};
use thiserror::Error;

use super::{Header, SECTOR, put};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const CRYPTO_HEADER: u32 = 0x0537_be77;
const FEATURE_NAMES: u32 = 0x6803_f857;
const BITMAPS: u32 = 0x2385_2875;

const BACKING_FORMAT_MOST: usize = 16;
const FEATURE_NAME_SIZE: usize = 48;
const BITMAPS_MOST: u32 = 65_535;
const BITMAP_DIRECTORY_MOST: u64 = 1024 * BITMAPS_MOST as u64;
/// Smaller clusters have no room to spare for the names of features.
const FEATURE_NAMES_CLUSTER_ABOVE: u64 = 4096;

/// Where the LUKS header lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CryptoHeader {
    /// Cluster-aligned.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Where the bitmaps are listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BitmapsExtension {
    /// At least 1.
    pub nb_bitmaps: u32,
    /// Bytes.
    pub directory_size: u64,
    /// Cluster-aligned.
    pub directory_offset: u64,
}

/// The name of a feature bit, as an image tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    /// The bit.
    pub bit: u8,
    /// Up to 46 bytes.
    pub name: String,
}

/// What the extensions say. Names are kept byte for byte.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Extensions {
    /// The backing image's format.
    pub backing_format: Option<Vec<u8>>,
    /// The external data file's name.
    pub data_file: Option<Vec<u8>>,
    /// The LUKS header.
    pub crypto_header: Option<CryptoHeader>,
    /// The bitmaps, if their autoclear bit vouches for them.
    pub bitmaps: Option<BitmapsExtension>,
    /// Bitmaps are listed, but the autoclear bit is off: they are void.
    pub void_bitmaps: bool,
    /// Types that this program does not know, in their order.
    pub unknown: Vec<(u32, Vec<u8>)>,
}

/// Why extensions are refused, in qemu-img's words.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ExtensionError {
    #[error("Header extension too large")]
    TooLarge,
    #[error("ERROR: ext_backing_format: len={0} too large (>=16)")]
    BackingFormat(usize),
    #[error("CRYPTO header extension only expected with LUKS encryption method")]
    CryptoUnexpected,
    #[error("CRYPTO header extension size {0}, but expected size 16")]
    CryptoSize(usize),
    #[error("Encryption header offset '{0}' is not a multiple of cluster size '{1}'")]
    CryptoOffset(u64, u64),
    #[error("bitmaps_ext: Invalid extension length")]
    BitmapsLength,
    #[error("bitmaps_ext: Reserved field is not zero")]
    BitmapsReserved,
    #[error(
        "bitmaps_ext: image has {0} bitmaps, exceeding the QEMU supported maximum of {BITMAPS_MOST}"
    )]
    BitmapsMany(u32),
    #[error("bitmaps_ext: found bitmaps extension with zero bitmaps")]
    BitmapsNone,
    #[error("bitmaps_ext: invalid bitmap directory offset")]
    BitmapsOffset,
    #[error(
        "bitmaps_ext: bitmap directory size ({0}) exceeds the maximum supported size ({BITMAP_DIRECTORY_MOST})"
    )]
    BitmapsSize(u64),
}

impl Extensions {
    /// Reads the extensions that follow `header` in `cluster`, the first cluster.
    pub fn parse(header: &Header, cluster: &[u8]) -> Result<Self, ExtensionError> {
        let mut result = Self::default();
        for item in Walk::new(header, cluster) {
            let (kind, data) = item?;
            result.take(header, kind, data)?;
        }
        Ok(result)
    }

    fn take(&mut self, header: &Header, kind: u32, data: &[u8]) -> Result<(), ExtensionError> {
        match kind {
            BACKING_FORMAT if data.len() >= BACKING_FORMAT_MOST => {
                return Err(ExtensionError::BackingFormat(data.len()));
            }
            BACKING_FORMAT => self.backing_format = Some(until_nul(data).to_vec()),
            DATA_FILE => self.data_file = Some(until_nul(data).to_vec()),
            CRYPTO_HEADER => self.crypto_header = Some(parse_crypto(header, data)?),
            // Written anew with what this program knows.
            FEATURE_NAMES => {}
            BITMAPS => match parse_bitmaps(header, data)? {
                Some(bitmaps) => self.bitmaps = Some(bitmaps),
                None => self.void_bitmaps = true,
            },
            _ => self.unknown.push((kind, data.to_vec())),
        }
        Ok(())
    }

    /// Header, extensions and backing name as they lie in the first cluster; the header's
    /// fields about the backing name and its length are set as they come out. `None`: they do
    /// not fit.
    pub fn encode(&self, header: &mut Header, backing: Option<&[u8]>) -> Option<Vec<u8>> {
        self.encode_with(header, backing, true)
    }

    /// As [`encode`](Self::encode), without the names of the features, which nothing depends on.
    pub fn encode_without_names(
        &self,
        header: &mut Header,
        backing: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        self.encode_with(header, backing, false)
    }

    /// Header and extensions in the first sector, and the backing name behind it at `place`;
    /// `None` if they do not fit there.
    pub fn encode_with_name_at(
        &self,
        header: &mut Header,
        name: &[u8],
        place: u64,
    ) -> Option<Vec<u8>> {
        let mut apart = header.clone();
        self.encode_with(&mut apart, None, false)?;
        apart.backing_file_offset = place;
        apart.backing_file_size = u32::try_from(name.len()).ok()?;
        let mut bytes = apart.encode();
        bytes.extend_from_slice(&self.tail(&apart, false));
        let fits = bytes.len() <= SECTOR && place >= SECTOR as u64;
        fits.then(|| {
            bytes.resize(SECTOR, 0);
            *header = apart;
            bytes
        })
    }

    fn encode_with(
        &self,
        header: &mut Header,
        backing: Option<&[u8]>,
        names: bool,
    ) -> Option<Vec<u8>> {
        let cluster_size = 1u64 << header.cluster_bits;
        let mut tail = self.tail(header, names);
        let length = header.encode().len();
        header.header_length = length as u32;
        header.backing_file_offset = 0;
        header.backing_file_size = 0;
        if let Some(name) = backing {
            header.backing_file_offset = length.checked_add(tail.len())? as u64;
            header.backing_file_size = u32::try_from(name.len()).ok()?;
            tail.extend_from_slice(name);
        }
        let mut bytes = header.encode();
        bytes.append(&mut tail);
        (bytes.len() as u64 <= cluster_size).then_some(bytes)
    }

    /// The extensions, up to and with the one that ends them.
    fn tail(&self, header: &Header, names: bool) -> Vec<u8> {
        let cluster_size = 1u64 << header.cluster_bits;
        let mut tail = Vec::new();
        if let Some(format) = &self.backing_format {
            append(&mut tail, BACKING_FORMAT, format);
        }
        if let Some(name) = &self.data_file {
            append(&mut tail, DATA_FILE, name);
        }
        if let Some(crypto) = &self.crypto_header {
            let mut data = [0; 16];
            put(&mut data, 0, &crypto.offset.to_be_bytes());
            put(&mut data, 8, &crypto.length.to_be_bytes());
            append(&mut tail, CRYPTO_HEADER, &data);
        }
        if names && header.version >= 3 && cluster_size > FEATURE_NAMES_CLUSTER_ABOVE {
            append(&mut tail, FEATURE_NAMES, &feature_names());
        }
        if let Some(bitmaps) = &self.bitmaps {
            let mut data = [0; 24];
            put(&mut data, 0, &bitmaps.nb_bitmaps.to_be_bytes());
            put(&mut data, 8, &bitmaps.directory_size.to_be_bytes());
            put(&mut data, 16, &bitmaps.directory_offset.to_be_bytes());
            append(&mut tail, BITMAPS, &data);
        }
        for (kind, data) in &self.unknown {
            append(&mut tail, *kind, data);
        }
        append(&mut tail, END, &[]);
        tail
    }
}

/// The feature names that an image tells; nothing if the extensions cannot be read.
pub fn parse_feature_names(header: &Header, cluster: &[u8]) -> Vec<FeatureName> {
    let table = Walk::new(header, cluster)
        .map_while(Result::ok)
        .filter_map(|(kind, data)| (kind == FEATURE_NAMES).then_some(data))
        // Of several tables the last one counts.
        .last()
        .unwrap_or_default();
    let names = table.chunks(FEATURE_NAME_SIZE).filter_map(|entry| {
        let (kind, rest) = entry.split_first()?;
        let (bit, name) = rest.split_first()?;
        let name = String::from_utf8_lossy(until_nul(name)).into_owned();
        Some(FeatureName { kind: *kind, bit: *bit, name })
    });
    names.collect()
}

/// Steps through the extensions.
struct Walk<'a> {
    area: &'a [u8],
    failed: bool,
}

impl<'a> Walk<'a> {
    fn new(header: &Header, cluster: &'a [u8]) -> Self {
        let end = match header.backing_file_offset {
            0 => cluster.len(),
            offset => usize::try_from(offset).unwrap_or(usize::MAX).min(cluster.len()),
        };
        let area = cluster.get(header.header_length as usize..end);
        Self { area: area.unwrap_or_default(), failed: false }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u32, &'a [u8]), ExtensionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let kind = be32(self.area, 0)?;
        let length = be32(self.area, 4);
        let end = length.and_then(|length| (length as usize).checked_add(8));
        let data = end.and_then(|end| self.area.get(8..end));
        // The one that ends the list has a length too, which must be right; its last four
        // bytes may be cut off.
        if kind == END && (data.is_some() || length.is_none()) {
            return None;
        }
        let rest = end.and_then(|end| self.area.get(end.next_multiple_of(8)..));
        self.area = rest.unwrap_or_default();
        self.failed = data.is_none();
        Some(data.map(|data| (kind, data)).ok_or(ExtensionError::TooLarge))
    }
}

fn parse_crypto(header: &Header, data: &[u8]) -> Result<CryptoHeader, ExtensionError> {
    if header.crypt_method != 2 {
        return Err(ExtensionError::CryptoUnexpected);
    }
    let (16, Some(offset), Some(length)) = (data.len(), be64(data, 0), be64(data, 8)) else {
        return Err(ExtensionError::CryptoSize(data.len()));
    };
    let cluster_size = 1 << header.cluster_bits;
    if offset % cluster_size != 0 {
        return Err(ExtensionError::CryptoOffset(offset, cluster_size));
    }
    Ok(CryptoHeader { offset, length })
}

fn parse_bitmaps(header: &Header, data: &[u8]) -> Result<Option<BitmapsExtension>, ExtensionError> {
    use ExtensionError as E;
    let fields = (be32(data, 0), be32(data, 4), be64(data, 8), be64(data, 16));
    let (Some(nb_bitmaps), Some(reserved), Some(directory_size), Some(directory_offset)) = fields
    else {
        return Err(E::BitmapsLength);
    };
    if data.len() != 24 {
        return Err(E::BitmapsLength);
    }
    if header.autoclear_features & super::AUTOCLEAR_BITMAPS == 0 {
        return Ok(None);
    }
    let aligned = directory_offset % (1 << header.cluster_bits) == 0;
    match () {
        () if reserved != 0 => Err(E::BitmapsReserved),
        () if nb_bitmaps > BITMAPS_MOST => Err(E::BitmapsMany(nb_bitmaps)),
        () if nb_bitmaps == 0 => Err(E::BitmapsNone),
        () if !aligned => Err(E::BitmapsOffset),
        () if directory_size > BITMAP_DIRECTORY_MOST => Err(E::BitmapsSize(directory_size)),
        () => Ok(Some(BitmapsExtension { nb_bitmaps, directory_size, directory_offset })),
    }
}

fn append(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn feature_names() -> Vec<u8> {
    const NAMES: [(u8, u8, &str); 8] = [
        (0, 0, "dirty bit"),
        (0, 1, "corrupt bit"),
        (0, 2, "external data file"),
        (0, 3, "compression type"),
        (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"),
        (2, 0, "bitmaps"),
        (2, 1, "raw external data"),
    ];
    let mut bytes = vec![0; NAMES.len() * FEATURE_NAME_SIZE];
    for (entry, (kind, bit, name)) in bytes.chunks_exact_mut(FEATURE_NAME_SIZE).zip(NAMES) {
        put(entry, 0, &[kind, bit]);
        put(entry, 2, name.as_bytes());
    }
    bytes
}
