//! From a password to the volume key.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use disksmith_disk::{Context, Disk, Error, Kind, Result, Slice};

use super::Header;
use super::metadata::{Area, Argon2Cost, Digest, Kdf, Keyslot, Splitter};
use super::segment::parse_encryption;
use crate::luks::DEFAULT_MAX_ITERATIONS;
use crate::{CryptDisk, HashAlgorithm, SECTOR, Secret, SectorCipher, antiforensic, pbkdf2};

/// The most memory for Argon2 by default: what cryptsetup uses at most when it chooses.
pub const DEFAULT_MAX_MEMORY_KIB: u32 = 1 << 20;

/// The longest key material of a slot: a 128-byte key in 4000 stripes.
const MAX_MATERIAL: usize = 128 * 4000;

/// Bytes of the longest digest of a volume key.
const MAX_DIGEST: usize = 64;

/// What a hostile header may cost, and which slot to use.
#[derive(Clone, Debug)]
pub struct UnlockOptions {
    /// Most PBKDF2 iterations of a slot or digest.
    pub max_iterations: u32,
    /// Most memory for Argon2, in KiB. It is really taken while a slot is tried.
    pub max_memory_kib: u32,
    /// Most work for Argon2: KiB times passes. By default 16 passes over the most memory.
    pub max_argon2_work: u64,
    /// Try this slot only.
    pub slot: Option<usize>,
}

impl Default for UnlockOptions {
    fn default() -> Self {
        Self {
            max_iterations: DEFAULT_MAX_ITERATIONS,
            max_memory_kib: DEFAULT_MAX_MEMORY_KIB,
            max_argon2_work: 16 * u64::from(DEFAULT_MAX_MEMORY_KIB),
            slot: None,
        }
    }
}

/// A volume whose key is known.
#[derive(Debug)]
pub struct Unlocked {
    /// The header.
    pub header: Header,
    /// The key that encrypts the payload.
    pub volume_key: Secret,
    /// The slot that the password opened.
    pub slot: usize,
}

impl Unlocked {
    /// The plain bytes of the volume, whose payload lies in `disk`: the disk that also has the
    /// header, or the data disk of a detached one.
    pub fn open<D: Disk>(&self, disk: D) -> Result<CryptDisk<Slice<D>>> {
        let segment = self.header.segment();
        let spec = segment.spec(self.volume_key.bytes().len())?;
        let key = self.volume_key.bytes();
        let cipher = SectorCipher::with_sector_bytes(&spec, key, segment.sector_bytes)?;
        let rest = disk.size().checked_sub(segment.offset);
        let size = match (rest, segment.size) {
            (Some(rest), None) => rest,
            (Some(rest), Some(size)) if size <= rest => size,
            _ => {
                let text = "The payload of the LUKS2 volume lies past the end of the disk";
                return Err(Error::new(Kind::Corrupt, text));
            }
        };
        let slice = Slice::new(disk, segment.offset, size)?;
        Ok(CryptDisk::new(slice, 0, cipher).numbered_from(segment.iv_tweak))
    }
}

/// Reads the header at byte `base` of `disk` and unlocks it.
///
/// # Errors
/// What [`Header::read`] says; `Refused` "Invalid password, cannot unlock any keyslot";
/// `LimitExceeded` or `Unsupported` if no slot opened and one could not be tried.
pub fn unlock(
    disk: &dyn Disk,
    base: u64,
    password: &[u8],
    options: &UnlockOptions,
) -> Result<Unlocked> {
    let header = Header::read(disk, base)?;
    let mut reason = None;
    for (name, slot) in candidates(&header, options.slot) {
        let Ok(number) = name.parse() else { continue };
        match open_slot(disk, base, &header, (name, slot), password, options) {
            Ok(Some(volume_key)) => return Ok(Unlocked { header, volume_key, slot: number }),
            Ok(None) => {}
            Err(error) if matches!(error.kind(), Kind::LimitExceeded | Kind::Unsupported) => {
                reason.get_or_insert(error.context(format!("Keyslot {name}")));
            }
            Err(error) => return Err(error.context(format!("Keyslot {name}"))),
        }
    }
    Err(reason.unwrap_or_else(|| {
        Error::new(Kind::Refused, "Invalid password, cannot unlock any keyslot")
    }))
}

/// Slots to try, preferred ones first.
fn candidates(header: &Header, wanted: Option<usize>) -> Vec<(&str, &Keyslot)> {
    let priority = |slot: &Keyslot| match slot {
        Keyslot::Luks2 { priority, .. } => *priority,
        Keyslot::Other => 0,
    };
    let slots = header.metadata.keyslots.iter().map(|(name, slot)| (name.as_str(), slot));
    let mut slots: Vec<_> = match wanted {
        Some(number) => slots.filter(|(name, _)| **name == number.to_string()).collect(),
        None => slots.filter(|(_, slot)| priority(slot) > 0).collect(),
    };
    slots.sort_by_key(|(_, slot)| std::cmp::Reverse(priority(slot)));
    slots
}

/// The volume key, if `password` opens the slot.
fn open_slot(
    disk: &dyn Disk,
    base: u64,
    header: &Header,
    (name, slot): (&str, &Keyslot),
    password: &[u8],
    options: &UnlockOptions,
) -> Result<Option<Secret>> {
    let Keyslot::Luks2 { key_size, af, area, kdf, .. } = slot else { return Ok(None) };
    let Splitter::Luks1 { stripes, hash } = af else {
        return Err(unsupported("The type of its splitter is not supported"));
    };
    let Some(digest) = digest_of(header, name) else { return Ok(None) };
    let Area::Raw { offset, size, encryption, key_size: area_key_bytes } = area else {
        return Err(unsupported("The type of its area is not supported"));
    };
    let af_hash = HashAlgorithm::from_name(hash)?;
    let spec = parse_encryption(encryption, *area_key_bytes)?;
    let used = key_size.checked_mul(*stripes as usize).filter(|n| (1..=MAX_MATERIAL).contains(n));
    let Some(used) = used else { return Err(corrupt("The length of its key is not valid")) };
    let length = used.next_multiple_of(SECTOR as usize);
    let start = base.checked_add(offset.0);
    let end = start.and_then(|start| start.checked_add(length as u64));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(corrupt("Its area lies past the end of the volume"));
    };
    if length as u64 > size.0 || end > disk.size() {
        return Err(corrupt("Its area lies past the end of the volume"));
    }

    let mut area_key = Secret::zeroed(spec.key_bytes());
    derive(kdf, password, area_key.bytes_mut(), options)?;
    let mut material = Secret::zeroed(length);
    disk.read_at(material.bytes_mut(), start).context("Failed to read key material")?;
    SectorCipher::new(&spec, area_key.bytes())?.decrypt(0, material.bytes_mut());
    let key = antiforensic::merge(af_hash, &material.bytes()[..used], *key_size);
    Ok(is_volume_key(digest, key.bytes(), options)?.then_some(key))
}

/// The digest that says whether a key from this slot is the payload's.
fn digest_of<'a>(header: &'a Header, slot: &str) -> Option<&'a Digest> {
    let segment = &header.segment().name;
    header.metadata.digests.values().find(|digest| match digest {
        Digest::Pbkdf2 { keyslots, segments, .. } => {
            keyslots.iter().any(|s| s == slot) && segments.contains(segment)
        }
        Digest::Other => false,
    })
}

fn is_volume_key(digest: &Digest, key: &[u8], options: &UnlockOptions) -> Result<bool> {
    let Digest::Pbkdf2 { hash, iterations, salt, digest, .. } = digest else {
        return Err(unsupported("The type of its digest is not supported"));
    };
    if digest.0.is_empty() || digest.0.len() > MAX_DIGEST {
        return Err(corrupt("The length of its digest is not valid"));
    }
    check_iterations(*iterations, options)?;
    let mut found = vec![0; digest.0.len()];
    pbkdf2(HashAlgorithm::from_name(hash)?, key, &salt.0, *iterations, &mut found)?;
    Ok(found == digest.0)
}

fn derive(kdf: &Kdf, password: &[u8], key: &mut [u8], options: &UnlockOptions) -> Result<()> {
    match kdf {
        Kdf::Pbkdf2 { hash, iterations, salt } => {
            check_iterations(*iterations, options)?;
            pbkdf2(HashAlgorithm::from_name(hash)?, password, &salt.0, *iterations, key)
        }
        Kdf::Argon2i(cost) => derive_argon2(Algorithm::Argon2i, cost, password, key, options),
        Kdf::Argon2id(cost) => derive_argon2(Algorithm::Argon2id, cost, password, key, options),
        Kdf::Other => Err(unsupported("Its key derivation is not supported")),
    }
}

fn derive_argon2(
    algorithm: Algorithm,
    cost: &Argon2Cost,
    password: &[u8],
    key: &mut [u8],
    options: &UnlockOptions,
) -> Result<()> {
    let Argon2Cost { time, memory, cpus, salt } = cost;
    if *memory > options.max_memory_kib {
        let limit = options.max_memory_kib;
        return Err(too_costly(format!("Argon2 asks for {memory} KiB, the limit is {limit}")));
    }
    let work = u64::from(*memory) * u64::from(*time);
    if work > options.max_argon2_work {
        let text = format!("Argon2 asks for {time} passes over {memory} KiB, which is too costly");
        return Err(too_costly(text));
    }
    let invalid = |e: argon2::Error| corrupt(format!("Its key derivation is not valid: {e}"));
    let params = Params::new(*memory, *time, *cpus, None).map_err(invalid)?;
    let count = params.block_count();
    let mut blocks = Vec::new();
    blocks.try_reserve_exact(count).map_err(|_| {
        too_costly(format!("Argon2 asks for {memory} KiB, which this machine does not have"))
    })?;
    blocks.resize(count, Block::default());
    Argon2::new(algorithm, Version::V0x13, params)
        .hash_password_into_with_memory(password, &salt.0, key, &mut blocks)
        .map_err(invalid)
}

fn check_iterations(asked: u32, options: &UnlockOptions) -> Result<()> {
    let limit = options.max_iterations;
    if asked <= limit {
        return Ok(());
    }
    Err(too_costly(format!("PBKDF2 asks for {asked} iterations, the limit is {limit}")))
}

fn too_costly(message: String) -> Error {
    Error::new(Kind::LimitExceeded, message)
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Kind::Unsupported, message)
}
