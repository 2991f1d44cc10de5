//! Changing the options of an existing image (digest section 13).
//!
//! Everything is checked before anything is written. Then: upgrade, key slots, refcount width,
//! data file, lazy refcounts, size, downgrade.

use disksmith_crypt::{Secret, luks};
use disksmith_disk::{Disk, Error, Kind, Result};

use super::layout::{AUTOCLEAR_DATA_FILE_RAW, COMPATIBLE_LAZY_REFCOUNTS, INCOMPATIBLE_DATA_FILE};
use super::roots::Roots;
use super::snapshots::table_bytes;
use super::{Qcow2, refuse_by_name};
use crate::{Options, Preallocation, ResizeRequest};

/// Key slots of a LUKS1 header.
const SLOTS: u64 = 8;

/// What is to become of the image.
#[derive(Debug, Default)]
struct Wishes {
    version: Option<u32>,
    lazy: Option<bool>,
    refcount_order: Option<u32>,
    /// A name, or none.
    data_file: Option<Option<String>>,
    raw: Option<bool>,
    size: Option<u64>,
    key: Option<KeyChange>,
}

/// A change of LUKS key slots.
#[derive(Debug)]
enum KeyChange {
    Add { slot: Option<usize>, secret: Secret, iter_time_ms: Option<u64> },
    EraseSlot { slot: usize, old: Option<Secret> },
    EraseMatching { old: Secret },
}

impl Qcow2 {
    /// Changes options. `encrypt.new-secret` and `encrypt.old-secret` hold the passwords
    /// themselves: whoever calls has looked them up.
    pub(super) fn amend_image(
        &self,
        options: &Options,
        force: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let roots = Roots::read(&*self.storage)?;
        let wishes = Wishes::new(options, &roots)?;
        let version = wishes.version.unwrap_or(roots.header.version);
        wishes.check(&roots, version)?;
        let resize =
            wishes.size.map(|size| ResizeRequest { size, preallocation: Preallocation::Off });
        // An upgrade allows more.
        if let Some(resize) = resize.filter(|_| version <= roots.header.version) {
            self.check_resize(resize)?;
        }
        if version > roots.header.version {
            self.edit_snapshots(|editor, table| editor.upgrade(table, table_bytes(table)))?;
        }
        if let Some(change) = &wishes.key {
            self.change_keys(&roots, change, force)?;
        }
        if let Some(order) = wishes.refcount_order.filter(|o| *o != roots.header.refcount_order) {
            self.save_bitmaps()?;
            self.edit(|editor| editor.change_width(order, progress))?;
        }
        self.change_header(&wishes)?;
        if let Some(resize) = resize {
            self.resize_with_bitmaps(resize)?;
        }
        if version < roots.header.version {
            self.downgrade(progress)?;
        }
        Ok(())
    }

    /// Data file and lazy refcounts.
    fn change_header(&self, wishes: &Wishes) -> Result<()> {
        if wishes.lazy.is_none() && wishes.data_file.is_none() && wishes.raw.is_none() {
            return Ok(());
        }
        self.edit(|editor| {
            let roots = &mut editor.roots;
            if let Some(name) = &wishes.data_file {
                roots.extensions.data_file = name.as_ref().map(|name| name.as_bytes().to_vec());
            }
            if wishes.raw == Some(false) {
                roots.header.autoclear_features &= !AUTOCLEAR_DATA_FILE_RAW;
            }
            if let Some(lazy) = wishes.lazy.filter(|_| roots.header.version >= 3) {
                roots.header.compatible_features &= !COMPATIBLE_LAZY_REFCOUNTS;
                roots.header.compatible_features |=
                    if lazy { COMPATIBLE_LAZY_REFCOUNTS } else { 0 };
            }
            match wishes.data_file.is_some() || roots.header.version < 3 {
                true => editor.write_header(),
                false => editor.write_features(),
            }
        })?;
        // All refcounts were written back: without lazy refcounts nothing excuses the mark.
        match wishes.lazy {
            Some(false) => self.edit(|editor| editor.set_dirty(false)),
            _ => Ok(()),
        }
    }

    fn downgrade(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let zeroes = vec![0; self.cluster_size as usize];
        let write = |guest: u64, host: u64| match &self.cipher {
            Some(cipher) => cipher.write(&*self.storage, &zeroes, guest, host),
            None => self.storage.write_at(&zeroes, host),
        };
        self.edit_snapshots(|editor, snapshots| {
            editor.check_downgrade(snapshots)?;
            if editor.roots.backing.is_some()
                && editor.roots.header.crypt_method != 0
                && self.cipher.is_none()
            {
                return Err(Error::new(Kind::InvalidInput, "the key is needed to write zeroes"));
            }
            editor.expand_zeroes(snapshots, &write, progress)?;
            editor.downgrade()
        })
    }

    fn change_keys(&self, roots: &Roots, change: &KeyChange, force: bool) -> Result<()> {
        let Some(place) = roots.extensions.crypto_header else {
            return refuse_by_name("Can't amend encryption options - encryption not present");
        };
        let (disk, base): (&dyn Disk, u64) = (&*self.storage, place.offset);
        let limits = luks::UnlockOptions::default();
        match change {
            KeyChange::Add { slot, secret, iter_time_ms } => {
                let Some(present) = &self.secret else {
                    return refuse_by_name("Parameter 'encrypt.key-secret' is required for cipher");
                };
                let mut unlocked = luks::unlock(disk, base, present.bytes(), &limits)?;
                let mut options = luks::AddKeyOptions { slot: *slot, ..Default::default() };
                options.iter_time_ms = iter_time_ms.unwrap_or(options.iter_time_ms);
                if let Some(slot) =
                    slot.filter(|s| force && unlocked.header.active_slots().contains(s))
                {
                    luks::erase_slot(disk, base, &mut unlocked.header, slot, true)?;
                }
                luks::add_key(disk, base, &mut unlocked, secret.bytes(), &options).map(drop)
            }
            KeyChange::EraseSlot { slot, old } => {
                let mut header = luks::Header::read(disk, base, true)?;
                if let Some(old) = old {
                    crate::luks::expect_password(disk, base, *slot, old.bytes())?;
                }
                luks::erase_slot(disk, base, &mut header, *slot, force)
            }
            KeyChange::EraseMatching { old } => {
                let mut header = luks::Header::read(disk, base, true)?;
                luks::erase_matching(disk, base, &mut header, old.bytes(), force, &limits).map(drop)
            }
        }
    }
}

impl Wishes {
    /// Reads the options, in QEMU's order of complaint.
    fn new(options: &Options, roots: &Roots) -> Result<Self> {
        let version = match options.text("compat") {
            None => None,
            Some("0.10" | "v2") => Some(2),
            Some("1.1" | "v3") => Some(3),
            Some(other) => {
                return refuse_by_name(&format!("Unknown compatibility level {other}"));
            }
        };
        let key = KeyChange::new(options, roots)?;
        let raw = options.flag("data_file_raw")?;
        let data_file = options.text("data_file");
        let has_data_file = roots.header.has(INCOMPATIBLE_DATA_FILE);
        if data_file.is_some() && !has_data_file {
            return refuse_by_name(
                "data-file can only be set for images that use an external data file",
            );
        }
        let is_raw = roots.header.autoclear_features & AUTOCLEAR_DATA_FILE_RAW != 0;
        if raw == Some(true) && !(has_data_file && is_raw) {
            return refuse_by_name("data-file-raw cannot be set on existing images");
        }
        let refcount_order = match options.number("refcount_bits")? {
            None => None,
            Some(bits @ 1..=64) if bits.is_power_of_two() => Some(bits.trailing_zeros()),
            Some(_) => {
                return refuse_by_name(
                    "Refcount width must be a power of two and may not exceed 64 bits",
                );
            }
        };
        check_backing(options, roots)?;
        Ok(Self {
            version,
            lazy: options.flag("lazy_refcounts")?,
            refcount_order,
            data_file: data_file.map(|name| (!name.is_empty()).then(|| name.to_string())),
            raw,
            // Zero means that the size stays.
            size: options.size("size")?.filter(|size| *size != 0),
            key,
        })
    }

    fn check(&self, roots: &Roots, version: u32) -> Result<()> {
        if version < 3 && self.refcount_order.is_some_and(|order| order != 4) {
            return refuse_by_name(
                "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)",
            );
        }
        if version < 3 && self.lazy == Some(true) {
            return refuse_by_name(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
            );
        }
        let order = self.refcount_order.unwrap_or(roots.header.refcount_order);
        if version < 3 && order != 4 {
            return refuse_by_name("compat=0.10 requires refcount_bits=16");
        }
        Ok(())
    }
}

/// The backing file can be named, if nothing changes by that.
fn check_backing(options: &Options, roots: &Roots) -> Result<()> {
    let (name, format) = (options.text("backing_file"), options.text("backing_fmt"));
    if name.is_none() && format.is_none() {
        return Ok(());
    }
    let same = name.map(str::as_bytes) == roots.backing.as_deref()
        && format.map(str::as_bytes) == roots.extensions.backing_format.as_deref();
    match same {
        true => Ok(()),
        false => Err(Error::new(Kind::InvalidInput, "Cannot amend the backing file")
            .with_hint("You can use 'qemu-img rebase' instead.")),
    }
}

impl KeyChange {
    fn new(options: &Options, roots: &Roots) -> Result<Option<Self>> {
        if !options.iter().any(|(name, _)| name.starts_with("encrypt.")) {
            return Ok(None);
        }
        if roots.header.crypt_method == 0 {
            return refuse_by_name("Can't amend encryption options - encryption not present");
        }
        if roots.header.crypt_method == 1 {
            return refuse_by_name(
                "Only LUKS encryption options can be amended for qcow2 with amend",
            );
        }
        let secret = |name| options.text(name).map(|text: &str| Secret::new(text.into()));
        let (new, old) = (secret("encrypt.new-secret"), secret("encrypt.old-secret"));
        let iter_time_ms = options.number("encrypt.iter-time")?;
        let slot = match options.number("encrypt.keyslot")? {
            Some(slot) if slot >= SLOTS => {
                return refuse_by_name(&format!(
                    "Invalid keyslot {slot} specified, must be between 0 and {}",
                    SLOTS - 1
                ));
            }
            slot => slot.map(|slot| slot as usize),
        };
        match options.text("encrypt.state") {
            None => refuse_by_name("Parameter 'state' is missing"),
            Some("active") => match (new, old) {
                (None, _) => refuse_by_name("'new-secret' is required to activate a keyslot"),
                (_, Some(_)) => {
                    refuse_by_name("'old-secret' must not be given when activating keyslots")
                }
                (Some(secret), None) => Ok(Some(Self::Add { slot, secret, iter_time_ms })),
            },
            Some("inactive") if new.is_some() => {
                refuse_by_name("'new-secret' must not be given when erasing keyslots")
            }
            Some("inactive") if iter_time_ms.is_some() => {
                refuse_by_name("'iter-time' must not be given when erasing keyslots")
            }
            Some("inactive") => match (slot, old) {
                (Some(slot), old) => Ok(Some(Self::EraseSlot { slot, old })),
                (None, Some(old)) => Ok(Some(Self::EraseMatching { old })),
                (None, None) => refuse_by_name(
                    "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given",
                ),
            },
            Some(other) => {
                refuse_by_name(&format!("Parameter 'state' does not accept value '{other}'"))
            }
        }
    }
}
