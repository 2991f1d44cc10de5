//! Adding and erasing keys.
//!
//! LUKS1 has one header and no second copy. Material is durable before the header speaks of it,
//! and each sector of the header is written once.

use std::time::Duration;

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::create::DEFAULT_ITER_TIME_MS;
use super::layout::{DISABLED, ENABLED, SALT_BYTES, STRIPES};
use super::unlock::open_slot;
use super::{Header, UnlockOptions, Unlocked};
use crate::secret::fill_random;
use crate::{SECTOR, Secret, SectorCipher, antiforensic, iterations_for, pbkdf2};

/// How often the material of an erased slot is overwritten, each time durably.
const ERASE_PASSES: usize = 3;

/// Where a new key goes and what unlocking with it costs.
#[derive(Clone, Debug)]
pub struct AddKeyOptions {
    /// The slot to fill; the first free one if there is none.
    pub slot: Option<usize>,
    /// How long one unlock is to take on this machine, in milliseconds.
    pub iter_time_ms: u64,
}

impl Default for AddKeyOptions {
    fn default() -> Self {
        Self { slot: None, iter_time_ms: DEFAULT_ITER_TIME_MS }
    }
}

/// Makes `password` open the volume too. Gives the number of the slot it got.
///
/// The header in `unlocked` is changed only if the one on disk has been.
pub fn add_key(
    disk: &dyn Disk,
    base: u64,
    unlocked: &mut Unlocked,
    password: &[u8],
    options: &AddKeyOptions,
) -> Result<usize> {
    let mut header = unlocked.header.clone();
    let number = free_slot(&header, options.slot)?;
    header.material_place(disk, base, number)?;
    let time = Duration::from_millis(options.iter_time_ms);
    let content = SlotContent::fill(&mut header, number, &unlocked.master_key, password, time)?;
    content.write(disk, base)?;
    write_header(disk, base, &header)?;
    unlocked.header = header;
    Ok(number)
}

fn free_slot(header: &Header, wanted: Option<usize>) -> Result<usize> {
    match wanted {
        None => (0..header.raw.slots.len())
            .find(|n| header.slot(*n).is_ok_and(|slot| !slot.is_active()))
            .ok_or_else(|| refused("Can't add a keyslot - all keyslots are in use")),
        Some(number) if header.slot(number)?.is_active() => Err(refused(format!(
            "Refusing to overwrite active keyslot {number} - please erase it first"
        ))),
        Some(number) => Ok(number),
    }
}

/// Erases one slot: overwrites its key material, then marks it free.
///
/// # Errors
/// `Refused` if it is the last active slot and `force` is not given: nobody could open the
/// volume again. `InvalidInput` if the slot is not active.
pub fn erase_slot(
    disk: &dyn Disk,
    base: u64,
    header: &mut Header,
    number: usize,
    force: bool,
) -> Result<()> {
    if !header.slot(number)?.is_active() && !force {
        // The blank at the end is QEMU's.
        let text = format!("Given keyslot {number} is already erased (inactive) ");
        return Err(Error::new(Kind::InvalidInput, text));
    }
    if header.active_slots() == [number] && !force {
        return Err(refused(format!(
            "Attempt to erase the only active keyslot {number} which will erase all the data in \
             the image irreversibly - refusing operation"
        )));
    }
    erase(disk, base, header, number)
}

/// Erases every slot that `password` opens. Gives their numbers.
///
/// # Errors
/// `NotFound` if there is none, `Refused` if that would be all of the active slots and `force`
/// is not given.
pub fn erase_matching(
    disk: &dyn Disk,
    base: u64,
    header: &mut Header,
    password: &[u8],
    force: bool,
    options: &UnlockOptions,
) -> Result<Vec<usize>> {
    let active = header.active_slots();
    let mut matching = Vec::new();
    for number in &active {
        if open_slot(disk, base, header, *number, password, options.max_iterations)?.is_some() {
            matching.push(*number);
        }
    }
    if matching.is_empty() {
        let text = "No keyslots match given (old) password for erase operation";
        return Err(Error::new(Kind::NotFound, text));
    }
    if matching == active && !force {
        return Err(refused(
            "All the active keyslots match the (old) password that was given and erasing them \
             will erase all the data in the image irreversibly - refusing operation",
        ));
    }
    for number in &matching {
        erase(disk, base, header, *number)?;
    }
    Ok(matching)
}

/// Material first: a crash in between leaves a slot that opens nothing and can be erased again,
/// never a slot that counts as erased and still holds its key.
fn erase(disk: &dyn Disk, base: u64, header: &mut Header, number: usize) -> Result<()> {
    header.material_place(disk, base, number)?;
    let mut material = vec![0; header.material_bytes()];
    let offset = header.slot(number)?.material_offset();
    for _ in 0..ERASE_PASSES {
        fill_random(&mut material)?;
        SlotContent { offset, material: material.clone() }
            .write(disk, base)
            .with_context(|| format!("Unable to erase keyslot {number}"))?;
    }
    let mut changed = header.clone();
    if let Some(slot) = changed.raw.slots.get_mut(number) {
        slot.active = DISABLED.into();
        slot.iterations = 0.into();
        slot.salt = [0; SALT_BYTES];
    }
    write_header(disk, base, &changed)?;
    *header = changed;
    Ok(())
}

/// Encrypted key material and where it belongs.
#[derive(Debug)]
pub(super) struct SlotContent {
    /// Bytes from the start of the header.
    pub(super) offset: u64,
    pub(super) material: Vec<u8>,
}

impl SlotContent {
    /// Puts `master_key` under `password` into slot `number` of `header`.
    pub(super) fn fill(
        header: &mut Header,
        number: usize,
        master_key: &Secret,
        password: &[u8],
        time: Duration,
    ) -> Result<Self> {
        let (hash, key_bytes, spec) = (header.hash(), header.key_bytes(), *header.spec());
        let iterations = iterations_for(hash, key_bytes, time)?;
        let mut salt = [0; SALT_BYTES];
        fill_random(&mut salt)?;
        let mut slot_key = Secret::zeroed(key_bytes);
        pbkdf2(hash, password, &salt, iterations, slot_key.bytes_mut())?;
        let stripes = antiforensic::split(hash, master_key.bytes(), STRIPES as usize)?;
        let mut material = stripes.bytes().to_vec();
        material.resize(header.material_bytes(), 0);
        SectorCipher::new(&spec, slot_key.bytes())?.encrypt(0, &mut material);
        let offset = header.slot(number)?.material_offset();
        if let Some(slot) = header.raw.slots.get_mut(number) {
            slot.active = ENABLED.into();
            slot.iterations = iterations.into();
            slot.salt = salt;
        }
        Ok(Self { offset, material })
    }
}

/// Writes the header and makes it durable. Its second sector goes first: it holds the end of
/// slot 6, whose state lies in the first.
pub(super) fn write_header(disk: &dyn Disk, base: u64, header: &Header) -> Result<()> {
    let bytes = header.encode();
    let (first, second) = bytes.split_at(SECTOR as usize);
    let attempt = "Unable to write LUKS header";
    let place = base
        .checked_add(SECTOR)
        .ok_or_else(|| Error::new(Kind::InvalidInput, "LUKS header offset is out of range"))?;
    disk.write_at(second, place).context(attempt)?;
    disk.flush().context(attempt)?;
    disk.write_at(first, base).context(attempt)?;
    disk.flush().context(attempt)
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(Kind::Refused, message)
}
