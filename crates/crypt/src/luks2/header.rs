//! The two copies of a LUKS2 header, and which of them counts.

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use zerocopy::FromBytes;

use super::layout::{BINARY_BYTES, BinaryHeader, CSUM, PRIMARY, SECONDARY, SIZES, text};
use super::metadata::{Kdf, Keyslot, Metadata, Segment};
use super::segment::{self, CryptSegment};
use crate::HashAlgorithm;

/// The specification allows 32 key slots.
const MAX_SLOTS: usize = 32;

/// A LUKS2 header whose checksum is right.
#[derive(Clone, Debug)]
pub struct Header {
    raw: BinaryHeader,
    copies: Copies,
    pub(super) metadata: Metadata,
    segment: CryptSegment,
}

/// Which copies of the header are sound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Copies {
    /// Both, and equally new.
    Both,
    /// Only the first, or it is newer.
    Primary,
    /// Only the second, or it is newer.
    Secondary,
}

/// The facts of a LUKS2 header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Info {
    /// The UUID.
    pub uuid: String,
    /// The label; may be empty.
    pub label: String,
    /// The subsystem; may be empty.
    pub subsystem: String,
    /// Counts changes of the header.
    pub sequence: u64,
    /// Which copies are sound.
    pub copies: Copies,
    /// Cipher of the payload, in the words of the header: `aes-xts-plain64`.
    pub encryption: String,
    /// Bytes of the payload that are encrypted as one unit.
    pub sector_bytes: usize,
    /// Where the payload starts, in bytes.
    pub payload_offset: u64,
    /// Bytes of the payload; to the end of the disk if there is none.
    pub payload_size: Option<u64>,
    /// Number, key derivation (`argon2id`), key bytes of each slot with a password.
    pub slots: Vec<(usize, &'static str, usize)>,
}

/// One sound copy.
struct Copy {
    raw: BinaryHeader,
    json: Vec<u8>,
}

impl Header {
    /// True if `bytes` start as the first copy of a LUKS2 header does.
    pub fn probe(bytes: &[u8]) -> bool {
        bytes.starts_with(&PRIMARY) && bytes.get(6..8) == Some(&[0, 2])
    }

    /// Reads the header at byte `base` of `disk`: the newer of the sound copies.
    ///
    /// # Errors
    /// `Corrupt` if no copy is sound or its metadata breaks the rules; `Unsupported` for what
    /// this program does not know, by name.
    pub fn read(disk: &dyn Disk, base: u64) -> Result<Self> {
        let (raw, json, copies) = newest(disk, base)?;
        let end = json.iter().position(|b| *b == 0).unwrap_or(json.len());
        let metadata: Metadata = serde_json::from_slice(&json[..end])
            .map_err(|e| corrupt(format!("LUKS2 metadata is not valid: {e}")))?;
        if metadata.keyslots.len() > MAX_SLOTS {
            return Err(corrupt("LUKS2 metadata has more than 32 keyslots"));
        }
        if let Some(name) = metadata.config.requirements.mandatory.first() {
            let text = format!("LUKS2 requirement '{name}' is not supported");
            return Err(Error::new(Kind::Unsupported, text));
        }
        let segment = segment::only(&metadata.segments)?;
        Ok(Self { raw, copies, metadata, segment })
    }

    /// Where and how the payload is encrypted.
    pub(super) fn segment(&self) -> &CryptSegment {
        &self.segment
    }

    /// The facts for showing.
    pub fn info(&self) -> Info {
        let encryption = match self.metadata.segments.get(&self.segment.name) {
            Some(Segment::Crypt { encryption, .. }) => encryption.clone(),
            _ => String::new(),
        };
        let slots = self.metadata.keyslots.iter().filter_map(|(number, slot)| match slot {
            Keyslot::Luks2 { key_size, kdf, .. } => {
                Some((number.parse().ok()?, Kdf::name(kdf), *key_size))
            }
            Keyslot::Other => None,
        });
        Info {
            uuid: text(&self.raw.uuid),
            label: text(&self.raw.label),
            subsystem: text(&self.raw.subsystem),
            sequence: self.raw.seqid.get(),
            copies: self.copies,
            encryption,
            sector_bytes: self.segment.sector_bytes,
            payload_offset: self.segment.offset,
            payload_size: self.segment.size,
            slots: slots.collect(),
        }
    }
}

fn newest(disk: &dyn Disk, base: u64) -> Result<(BinaryHeader, Vec<u8>, Copies)> {
    let primary = read_copy(disk, base, 0, &PRIMARY)?;
    let places = match &primary {
        Some(copy) => vec![copy.raw.hdr_size.get()],
        None => SIZES.to_vec(),
    };
    let mut secondary = None;
    for place in places {
        if secondary.is_none() {
            secondary = read_copy(disk, base, place, &SECONDARY)?;
        }
    }
    match (primary, secondary) {
        (Some(a), Some(b)) if a.raw.seqid == b.raw.seqid => Ok((a.raw, a.json, Copies::Both)),
        (Some(a), Some(b)) if b.raw.seqid.get() > a.raw.seqid.get() => {
            Ok((b.raw, b.json, Copies::Secondary))
        }
        (Some(a), _) => Ok((a.raw, a.json, Copies::Primary)),
        (None, Some(b)) => Ok((b.raw, b.json, Copies::Secondary)),
        (None, None) => Err(corrupt("Volume has no sound LUKS2 header")),
    }
}

/// The copy at `place` after `base`, if there is a sound one.
fn read_copy(disk: &dyn Disk, base: u64, place: u64, magic: &[u8; 6]) -> Result<Option<Copy>> {
    let Some(start) = base.checked_add(place) else { return Ok(None) };
    let fits = |length: u64| start.checked_add(length).is_some_and(|end| end <= disk.size());
    if !fits(BINARY_BYTES as u64) {
        return Ok(None);
    }
    let mut bytes = vec![0; BINARY_BYTES];
    disk.read_at(&mut bytes, start).context("Unable to read LUKS2 header")?;
    let Ok(raw) = BinaryHeader::read_from_bytes(&bytes) else { return Ok(None) };
    let size = raw.hdr_size.get();
    if raw.magic != *magic
        || raw.version != 2
        || raw.hdr_offset != place
        || !SIZES.contains(&size)
        || (place != 0 && place != size)
        || !fits(size)
    {
        return Ok(None);
    }
    // At most 4 MiB: the size is one of the list.
    bytes.resize(size as usize, 0);
    disk.read_at(&mut bytes[BINARY_BYTES..], start + BINARY_BYTES as u64)
        .context("Unable to read LUKS2 metadata")?;
    let Ok(hash) = HashAlgorithm::from_name(&text(&raw.csum_alg)) else { return Ok(None) };
    bytes[CSUM].fill(0);
    if !raw.csum.starts_with(&hash.digest(&[&bytes])) {
        return Ok(None);
    }
    Ok(Some(Copy { raw, json: bytes.split_off(BINARY_BYTES) }))
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}
