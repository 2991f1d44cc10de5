//! From a password to the master key.

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::Header;
use super::layout::{DIGEST_BYTES, STRIPES};
use crate::{Secret, SectorCipher, antiforensic, pbkdf2};

/// The most PBKDF2 iterations that a slot or digest may cost by default: some ten seconds, six
/// times what QEMU and cryptsetup choose for a slot on a fast machine.
pub const DEFAULT_MAX_ITERATIONS: u32 = 50_000_000;

/// How to unlock a volume.
#[derive(Clone, Debug)]
pub struct UnlockOptions {
    /// Slots (and headers) that ask for more iterations than this are refused: a count in a
    /// hostile header can keep a processor busy for hours.
    pub max_iterations: u32,
    /// The header lies apart from its payload.
    pub detached: bool,
    /// Try this slot only.
    pub slot: Option<usize>,
}

impl Default for UnlockOptions {
    fn default() -> Self {
        Self { max_iterations: DEFAULT_MAX_ITERATIONS, detached: false, slot: None }
    }
}

/// A volume whose master key is known.
#[derive(Debug)]
pub struct Unlocked {
    /// The header.
    pub header: Header,
    /// The key that encrypts the payload.
    pub master_key: Secret,
    /// The payload's cipher. Sectors are numbered from the start of the payload; in a qcow2 by
    /// their place in the file.
    pub cipher: SectorCipher,
    /// The slot that the password opened.
    pub slot: usize,
}

/// Reads the header at byte `base` of `disk` and unlocks it.
///
/// Key material is looked for relative to `base`, so `disk` may be a whole LUKS file (base 0), a
/// detached header, or a qcow2 file with `base` from its header extension.
///
/// # Errors
/// What [`Header::parse`] says; `Refused` "Invalid password, cannot unlock any keyslot";
/// `LimitExceeded` if no slot opened and some were too costly to try.
pub fn unlock(
    disk: &dyn Disk,
    base: u64,
    password: &[u8],
    options: &UnlockOptions,
) -> Result<Unlocked> {
    let header = Header::read(disk, base, options.detached)?;
    let candidates = match options.slot {
        Some(slot) => {
            header.slot(slot)?;
            vec![slot]
        }
        None => header.active_slots(),
    };
    let mut too_costly = None;
    for slot in candidates {
        match open_slot(disk, base, &header, slot, password, options.max_iterations) {
            Ok(Some(master_key)) => {
                let cipher = SectorCipher::new(header.spec(), master_key.bytes())?;
                return Ok(Unlocked { header, master_key, cipher, slot });
            }
            Ok(None) => {}
            Err(error) if error.kind() == Kind::LimitExceeded => {
                too_costly.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(too_costly.unwrap_or_else(|| {
        Error::new(Kind::Refused, "Invalid password, cannot unlock any keyslot")
    }))
}

/// The master key, if `password` opens `slot`.
pub(super) fn open_slot(
    disk: &dyn Disk,
    base: u64,
    header: &Header,
    number: usize,
    password: &[u8],
    max_iterations: u32,
) -> Result<Option<Secret>> {
    let slot = header.slot(number)?;
    if !slot.is_active() {
        return Ok(None);
    }
    let iterations = slot.iterations.get();
    check_cost(iterations, max_iterations, || format!("Keyslot {number}"))?;
    check_cost(header.master_key_iterations(), max_iterations, || "The master key".into())?;

    let mut material = Secret::zeroed(header.material_bytes());
    let place = header.material_place(disk, base, number)?;
    disk.read_at(material.bytes_mut(), place)
        .with_context(|| format!("Failed to read key material of keyslot {number}"))?;
    let mut slot_key = Secret::zeroed(header.key_bytes());
    pbkdf2(header.hash(), password, &slot.salt, iterations, slot_key.bytes_mut())?;
    SectorCipher::new(header.spec(), slot_key.bytes())?.decrypt(0, material.bytes_mut());
    let stripes = header.key_bytes() * STRIPES as usize;
    let candidate =
        antiforensic::merge(header.hash(), &material.bytes()[..stripes], header.key_bytes());
    let digest = master_key_digest(header, candidate.bytes())?;
    Ok((digest == header.raw.mk_digest).then_some(candidate))
}

pub(super) fn master_key_digest(header: &Header, key: &[u8]) -> Result<[u8; DIGEST_BYTES]> {
    let mut digest = [0; DIGEST_BYTES];
    let (salt, iterations) = (&header.raw.mk_digest_salt, header.master_key_iterations());
    pbkdf2(header.hash(), key, salt, iterations, &mut digest)?;
    Ok(digest)
}

fn check_cost(asked: u32, limit: u32, who: impl FnOnce() -> String) -> Result<()> {
    if asked <= limit {
        return Ok(());
    }
    let text = format!("{} asks for {asked} PBKDF2 iterations, the limit is {limit}", who());
    Err(Error::new(Kind::LimitExceeded, text))
}
