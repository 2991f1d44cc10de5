//! A LUKS1 header that has been checked.

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{
    DISABLED, ENABLED, HEADER_BYTES, HEADER_SECTORS, KeySlot, MAGIC, Phdr, SLOTS, STRIPES, text,
};
use crate::{CipherSpec, HashAlgorithm, SECTOR};

/// A LUKS1 header: known cipher, known hash, sound key slots.
#[derive(Clone, Debug)]
pub struct Header {
    pub(super) raw: Phdr,
    spec: CipherSpec,
    hash: HashAlgorithm,
    detached: bool,
}

impl Header {
    /// Bytes of the header itself, without key material.
    pub const BYTES: usize = HEADER_BYTES;

    /// True if `bytes` start as a LUKS1 header does (magic and version). LUKS2 is something else.
    pub fn probe(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC) && bytes.get(6..8) == Some(&[0, 1])
    }

    /// Reads and checks the first [`BYTES`](Self::BYTES) of a volume or detached header.
    ///
    /// A `detached` header lies apart from its payload, whose offset may then be anything.
    pub fn parse(bytes: &[u8], detached: bool) -> Result<Self> {
        let raw = match Phdr::read_from_prefix(bytes) {
            Ok((raw, _)) if raw.magic == MAGIC => raw,
            _ => return Err(corrupt("Volume is not in LUKS format")),
        };
        if raw.version != 1 {
            let text = format!("LUKS version {} is not supported", raw.version);
            return Err(unsupported(text));
        }
        let string = |field: &[u8], name: &str| {
            let missing = || corrupt(format!("LUKS header {name} is not NUL terminated"));
            text(field).ok_or_else(missing)
        };
        let cipher = string(&raw.cipher_name, "cipher name")?;
        let mode = string(&raw.cipher_mode, "cipher mode")?;
        let hash = string(&raw.hash_spec, "hash spec")?;
        check_layout(&raw, detached)?;
        let spec = CipherSpec::from_header(&cipher, &mode, raw.key_bytes.get() as usize)?;
        let hash = HashAlgorithm::from_name(&hash)?;
        Ok(Self { raw, spec, hash, detached })
    }

    /// Reads the header at byte `base` of `disk` and checks it.
    pub fn read(disk: &dyn Disk, base: u64, detached: bool) -> Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        let end = base.checked_add(HEADER_BYTES as u64);
        if end.is_none_or(|end| end > disk.size()) {
            return Err(corrupt("Volume is not in LUKS format"));
        }
        disk.read_at(&mut bytes, base).context("Unable to read LUKS header")?;
        Self::parse(&bytes, detached)
    }

    pub(super) fn from_raw(
        raw: Phdr,
        spec: CipherSpec,
        hash: HashAlgorithm,
        detached: bool,
    ) -> Self {
        Self { raw, spec, hash, detached }
    }

    /// The header as it lies on disk.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(self.raw.as_bytes());
        bytes
    }

    /// Cipher, mode and IV generator of payload and key material.
    pub fn spec(&self) -> &CipherSpec {
        &self.spec
    }

    /// The hash of key derivation and of the anti-forensic splitter.
    pub fn hash(&self) -> HashAlgorithm {
        self.hash
    }

    /// True if the header lies apart from its payload.
    pub fn detached(&self) -> bool {
        self.detached
    }

    /// Bytes of the master key.
    pub fn key_bytes(&self) -> usize {
        self.spec.key_bytes()
    }

    /// Where the payload starts, in bytes from the start of the header. Without meaning inside a
    /// qcow2, where clusters say where data is, and for a detached header.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.raw.payload_offset.get()) * SECTOR
    }

    /// Iterations that the digest of the master key costs.
    pub fn master_key_iterations(&self) -> u32 {
        self.raw.mk_digest_iter.get()
    }

    /// The volume's UUID, as the text in the header.
    pub fn uuid(&self) -> String {
        let field = &self.raw.uuid;
        text(field).unwrap_or_else(|| String::from_utf8_lossy(field).into_owned())
    }

    /// Numbers of the slots that hold a key.
    pub fn active_slots(&self) -> Vec<usize> {
        let slots = self.raw.slots.iter().enumerate();
        slots.filter(|(_, slot)| slot.is_active()).map(|(n, _)| n).collect()
    }

    pub(super) fn slot(&self, number: usize) -> Result<&KeySlot> {
        self.raw.slots.get(number).ok_or_else(|| {
            let text = format!("Invalid keyslot {number} specified, must be between 0 and 7");
            Error::new(Kind::InvalidInput, text)
        })
    }

    /// Where on `disk` the key material of slot `number` lies, header at byte `base`.
    pub(super) fn material_place(&self, disk: &dyn Disk, base: u64, number: usize) -> Result<u64> {
        let start = base.checked_add(self.slot(number)?.material_offset());
        let end = start.and_then(|start| start.checked_add(self.material_bytes() as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= disk.size() => Ok(start),
            _ => Err(corrupt(format!(
                "Key material of keyslot {number} lies past the end of the volume"
            ))),
        }
    }

    /// Bytes of one slot's key material on disk: whole sectors.
    pub(super) fn material_bytes(&self) -> usize {
        material_bytes(self.key_bytes())
    }
}

/// Bytes that the stripes of a key take on disk. Keys of 24 bytes do not fill the last sector.
pub(super) fn material_bytes(key_bytes: usize) -> usize {
    (key_bytes * STRIPES as usize).next_multiple_of(SECTOR as usize)
}

/// Sectors from one slot's key material to the next one's.
pub(super) fn slot_sectors(key_bytes: usize) -> u32 {
    let sectors = material_bytes(key_bytes) / SECTOR as usize;
    sectors.next_multiple_of(HEADER_SECTORS as usize) as u32
}

impl KeySlot {
    pub(super) fn is_active(&self) -> bool {
        self.active == ENABLED
    }

    /// Bytes from the start of the header.
    pub(super) fn material_offset(&self) -> u64 {
        u64::from(self.key_material_offset.get()) * SECTOR
    }
}

fn check_layout(raw: &Phdr, detached: bool) -> Result<()> {
    let payload = u64::from(raw.payload_offset.get());
    if !detached && payload < u64::from(HEADER_SECTORS) {
        return Err(corrupt("LUKS payload is overlapping with the header"));
    }
    if raw.mk_digest_iter == 0 {
        return Err(corrupt("LUKS key iteration count is zero"));
    }
    // Rounded as it is when slots are laid out; the key length is not known to be sensible yet.
    let length = (u64::from(raw.key_bytes.get()) * u64::from(STRIPES))
        .div_ceil(SECTOR)
        .next_multiple_of(u64::from(HEADER_SECTORS));
    for (n, slot) in raw.slots.iter().enumerate() {
        check_slot(n, slot)?;
        let start = u64::from(slot.key_material_offset.get());
        if !detached && start + length > payload {
            return Err(corrupt(format!("Keyslot {n} is overlapping with the encrypted payload")));
        }
        for (m, other) in (0..SLOTS).zip(&raw.slots).skip(n + 1) {
            let other = u64::from(other.key_material_offset.get());
            if start < other + length && other < start + length {
                let text = format!("Keyslots {n} and {m} are overlapping in the header");
                return Err(corrupt(text));
            }
        }
    }
    Ok(())
}

fn check_slot(n: usize, slot: &KeySlot) -> Result<()> {
    if slot.active != ENABLED && slot.active != DISABLED {
        return Err(corrupt(format!("Keyslot {n} state (active/disable) is corrupted")));
    }
    if slot.stripes != STRIPES {
        let text = format!("Keyslot {n} is corrupted (stripes {} != {STRIPES})", slot.stripes);
        return Err(corrupt(text));
    }
    if slot.key_material_offset.get() < HEADER_SECTORS {
        return Err(corrupt(format!("Keyslot {n} is overlapping with the LUKS header")));
    }
    if slot.is_active() && slot.iterations == 0 {
        return Err(corrupt(format!("Keyslot {n} iteration count is zero")));
    }
    Ok(())
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Kind::Unsupported, message)
}
