//! New volumes.

use std::time::Duration;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use uuid::Uuid;
use zerocopy::FromZeros;

use super::header::{material_bytes, slot_sectors};
use super::keyslots::{SlotContent, write_header};
use super::layout::{DISABLED, HEADER_SECTORS, MAGIC, Phdr, SLOTS, STRIPES, field};
use super::unlock::master_key_digest;
use super::{Header, Unlocked};
use crate::kdf::MIN_ITERATIONS;
use crate::secret::fill_random;
use crate::{CipherSpec, HashAlgorithm, IvGenerator, SECTOR, Secret, SectorCipher, iterations_for};

/// Milliseconds that unlocking a new slot takes by default, as in QEMU and cryptsetup.
pub const DEFAULT_ITER_TIME_MS: u64 = 2000;

/// The digest of the master key gets this part of a slot's time.
const DIGEST_SHARE: u64 = 8;

/// What a new volume is to be like. The defaults are QEMU's.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Cipher, mode and IV generator. ESSIV without a hash gets SHA-256.
    pub spec: CipherSpec,
    /// The hash of key derivation and of the anti-forensic splitter.
    pub hash: HashAlgorithm,
    /// How long one unlock is to take on this machine, in milliseconds; at least 1000
    /// iterations are chosen, however short.
    pub iter_time_ms: u64,
    /// The header is to lie apart from its payload.
    pub detached: bool,
    /// The UUID; random if there is none.
    pub uuid: Option<Uuid>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            spec: CipherSpec::default(),
            hash: HashAlgorithm::Sha256,
            iter_time_ms: DEFAULT_ITER_TIME_MS,
            detached: false,
            uuid: None,
        }
    }
}

impl CreateOptions {
    /// The cipher as it will be used.
    fn full_spec(&self) -> Result<CipherSpec> {
        let mut spec = self.spec;
        if spec.iv == IvGenerator::Essiv {
            spec.iv_hash.get_or_insert(HashAlgorithm::Sha256);
        }
        spec.check()?;
        Ok(spec)
    }
}

/// Bytes that header and key material take in front of the payload: 2 068 480 with the defaults.
/// A multiple of 4096.
pub fn header_length(options: &CreateOptions) -> Result<u64> {
    let slots = SLOTS as u64 * u64::from(slot_sectors(options.full_spec()?.key_bytes()));
    Ok((u64::from(HEADER_SECTORS) + slots) * SECTOR)
}

/// A new volume that is in memory only.
#[derive(Debug)]
pub struct Created {
    /// What [`unlock`](super::unlock) would say of it.
    pub unlocked: Unlocked,
    content: SlotContent,
}

impl Created {
    /// Writes the volume with its header at byte `base` of `disk` and makes it durable: key
    /// material, flush, header, flush. The caller has made room for
    /// [`header_length`] bytes that read as zero.
    pub fn write(&self, disk: &dyn Disk, base: u64) -> Result<()> {
        self.content.write(disk, base)?;
        write_header(disk, base, &self.unlocked.header)
    }

    /// Header and key material as one run of [`header_length`] bytes, for a target that is
    /// written front to back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = &self.unlocked.header;
        let sectors = HEADER_SECTORS + SLOTS as u32 * slot_sectors(header.key_bytes());
        let mut bytes = vec![0; sectors as usize * SECTOR as usize];
        bytes[..Header::BYTES].copy_from_slice(&header.encode());
        let start = self.content.offset as usize;
        bytes[start..start + self.content.material.len()].copy_from_slice(&self.content.material);
        bytes
    }
}

/// Makes a new volume that `password` opens through slot 0.
pub fn create(options: &CreateOptions, password: &[u8]) -> Result<Created> {
    let spec = options.full_spec()?;
    let master_key = Secret::random(spec.key_bytes())?;
    let mut header = new_header(options, spec)?;
    let time = Duration::from_millis(options.iter_time_ms / DIGEST_SHARE);
    let iterations = iterations_for(options.hash, super::layout::DIGEST_BYTES, time)?;
    header.raw.mk_digest_iter = iterations.max(MIN_ITERATIONS).into();
    header.raw.mk_digest = master_key_digest(&header, master_key.bytes())?;
    let time = Duration::from_millis(options.iter_time_ms);
    let content = SlotContent::fill(&mut header, 0, &master_key, password, time)?;
    let cipher = SectorCipher::new(&spec, master_key.bytes())?;
    Ok(Created { unlocked: Unlocked { header, master_key, cipher, slot: 0 }, content })
}

/// A header without keys.
fn new_header(options: &CreateOptions, spec: CipherSpec) -> Result<Header> {
    let too_long = || Error::new(Kind::InvalidInput, "A name does not fit the LUKS header");
    let mut raw = Phdr::new_zeroed();
    raw.magic = MAGIC;
    raw.version = 1.into();
    raw.cipher_name = field(spec.cipher.header_name()).ok_or_else(too_long)?;
    raw.cipher_mode = field(&spec.header_mode()).ok_or_else(too_long)?;
    raw.hash_spec = field(options.hash.name()).ok_or_else(too_long)?;
    raw.key_bytes = (spec.key_bytes() as u32).into();
    fill_random(&mut raw.mk_digest_salt)?;
    let uuid = options.uuid.unwrap_or_else(Uuid::new_v4);
    raw.uuid = field(&uuid.to_string()).ok_or_else(too_long)?;
    let mut next = HEADER_SECTORS;
    for slot in &mut raw.slots {
        slot.active = DISABLED.into();
        slot.key_material_offset = next.into();
        slot.stripes = STRIPES.into();
        next += slot_sectors(spec.key_bytes());
    }
    raw.payload_offset = if options.detached { 0 } else { next }.into();
    debug_assert!(material_bytes(spec.key_bytes()) as u64 <= u64::from(next) * SECTOR);
    Ok(Header::from_raw(raw, spec, options.hash, options.detached))
}

impl SlotContent {
    /// Writes the key material and makes it durable.
    pub(super) fn write(&self, disk: &dyn Disk, base: u64) -> Result<()> {
        let place = base
            .checked_add(self.offset)
            .ok_or_else(|| Error::new(Kind::InvalidInput, "LUKS header offset is out of range"))?;
        disk.write_at(&self.material, place).context("Unable to write key material")?;
        disk.flush()
    }
}
