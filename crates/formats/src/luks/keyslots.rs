//! Changes of key slots, as `amend -o` words them.

use disksmith_crypt::luks::{self, AddKeyOptions, UnlockOptions, Unlocked};
use disksmith_disk::{Disk, Error, Kind, Result};

use crate::Options;

/// Adds or erases passphrases of the volume whose header is at byte `base` of `disk`.
///
/// Option names have `prefix` in front. `new-secret` and `old-secret` hold the passphrases
/// themselves: whoever calls has looked them up by their id.
pub(crate) fn amend_keyslots(
    disk: &dyn Disk,
    base: u64,
    unlocked: &mut Unlocked,
    options: &Options,
    prefix: &str,
    force: bool,
) -> Result<()> {
    let name = |name: &str| format!("{prefix}{name}");
    let new = options.text(&name("new-secret"));
    let old = options.text(&name("old-secret"));
    let slot = options.number(&name("keyslot"))?;
    let iter_time_ms = options.number(&name("iter-time"))?;
    let slot = slot
        .map(|slot| usize::try_from(slot).ok().filter(|slot| *slot < 8).ok_or_else(invalid_slot))
        .transpose()?;
    match options.text(&name("state")) {
        Some("active") => {
            let new =
                new.ok_or_else(|| invalid("'new-secret' is required to activate a keyslot"))?;
            if old.is_some() {
                return Err(invalid("'old-secret' must not be given when activating keyslots"));
            }
            let mut add = AddKeyOptions { slot, ..AddKeyOptions::default() };
            if let Some(milliseconds) = iter_time_ms {
                add.iter_time_ms = milliseconds;
            }
            if let Some(slot) =
                slot.filter(|slot| force && unlocked.header.active_slots().contains(slot))
            {
                luks::erase_slot(disk, base, &mut unlocked.header, slot, true)?;
            }
            luks::add_key(disk, base, unlocked, new.as_bytes(), &add).map(drop)
        }
        Some("inactive") => {
            if new.is_some() {
                return Err(invalid("'new-secret' must not be given when erasing keyslots"));
            }
            if iter_time_ms.is_some() {
                return Err(invalid("'iter-time' must not be given when erasing keyslots"));
            }
            erase(disk, base, unlocked, slot, old, force)
        }
        Some(other) => {
            let text = format!("Parameter 'state' does not accept value '{other}'");
            Err(Error::new(Kind::InvalidInput, text))
        }
        None => Err(invalid("Parameter 'state' is missing")),
    }
}

fn erase(
    disk: &dyn Disk,
    base: u64,
    unlocked: &mut Unlocked,
    slot: Option<usize>,
    old: Option<&str>,
    force: bool,
) -> Result<()> {
    let header = &mut unlocked.header;
    match (slot, old) {
        (Some(slot), Some(old)) => {
            expect_password(disk, base, slot, old.as_bytes())?;
            luks::erase_slot(disk, base, header, slot, force)
        }
        (Some(slot), None) => luks::erase_slot(disk, base, header, slot, force),
        (None, Some(old)) => {
            let options = UnlockOptions::default();
            luks::erase_matching(disk, base, header, old.as_bytes(), force, &options).map(drop)
        }
        (None, None) => Err(invalid(
            "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given",
        )),
    }
}

/// Refuses if `slot` is not opened by that password.
pub(crate) fn expect_password(disk: &dyn Disk, base: u64, slot: usize, word: &[u8]) -> Result<()> {
    let only = UnlockOptions { slot: Some(slot), ..UnlockOptions::default() };
    match luks::unlock(disk, base, word, &only) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Kind::Refused => Err(invalid(&format!(
            "Given keyslot {slot} doesn't contain the given old password for erase operation"
        ))),
        Err(error) => Err(error),
    }
}

fn invalid_slot() -> Error {
    invalid("Invalid keyslot index given - keyslots are numbered from 0 to 7")
}

fn invalid(text: &str) -> Error {
    Error::new(Kind::InvalidInput, text)
}
