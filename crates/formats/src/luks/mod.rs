//! LUKS volumes as images: a header with key slots, then the encrypted disk.
//!
//! Version 1, as QEMU makes them. What the guest did not write decrypts to noise: a new volume
//! does not read as zero.

mod keyslots;

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_crypt::luks::{self, Header, SlotInfo, UnlockOptions, Unlocked};
use disksmith_crypt::{Cipher, CipherSpec, CryptDisk, HashAlgorithm, IvGenerator, Mode, Secret};
use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

use self::keyslots::amend_keyslots;
pub(crate) use self::keyslots::expect_password;
use crate::{
    CreateRequest, Driver, Fact, Image, OpenMode, OpenRequest, OptionKind, OptionSpec, Options,
    Preallocation, ResizeRequest,
};

/// The format's entry in the registry.
pub static DRIVER: Driver = Driver {
    name: "luks",
    probe,
    open: |storage, request| Ok(Arc::new(Luks::open(storage, &request)?)),
    create: Some(create),
    create_options: &[
        option("size", OptionKind::Size, "Virtual disk size"),
        option(
            "key-secret",
            OptionKind::Text,
            "ID of the secret that provides the keyslot passphrase",
        ),
        option("cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm"),
        option("cipher-mode", OptionKind::Text, "Name of encryption cipher mode"),
        option("ivgen-alg", OptionKind::Text, "Name of IV generator algorithm"),
        option("ivgen-hash-alg", OptionKind::Text, "Name of IV generator hash algorithm"),
        option("hash-alg", OptionKind::Text, "Name of encryption hash algorithm"),
        option("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
        option("detached-header", OptionKind::Flag, "Create a detached LUKS header"),
        option(
            "preallocation",
            OptionKind::Text,
            "Preallocation mode (allowed values: off, falloc, full)",
        ),
    ],
    runtime_options: &[OptionSpec::named("key-secret", OptionKind::Text)],
    amend_options: &[
        option(
            "state",
            OptionKind::Text,
            "Select new state of affected keyslots (active/inactive)",
        ),
        option("keyslot", OptionKind::Number, "Select a single keyslot to modify explicitly"),
        option("old-secret", OptionKind::Text, "Select all keyslots that match this password"),
        option(
            "new-secret",
            OptionKind::Text,
            "New secret to set in the matching keyslots. Empty string to erase",
        ),
        option("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
    ],
    backing: false,
};

const fn option(name: &'static str, kind: OptionKind, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, help, default: None }
}

fn probe(start: &[u8]) -> u8 {
    // Version 2 is another layout under the same magic.
    match start {
        [b'L', b'U', b'K', b'S', 0xba, 0xbe, 0, 1, ..] => 100,
        _ => 0,
    }
}

/// An open volume.
#[derive(Debug)]
pub struct Luks {
    storage: Arc<dyn Disk>,
    header: Header,
    /// Absent when opened for inspection.
    plain: Option<CryptDisk<Arc<dyn Disk>>>,
    unlocked: Mutex<Option<Unlocked>>,
    writable: bool,
}

impl Luks {
    /// Reads the header, and unlocks the volume unless it is opened for inspection.
    pub fn open(storage: Arc<dyn Disk>, request: &OpenRequest) -> Result<Self> {
        if request.mode == OpenMode::Inspect {
            let header = Header::read(&*storage, 0, false)?;
            let unlocked = Mutex::new(None);
            return Ok(Self { storage, header, plain: None, unlocked, writable: false });
        }
        let secret = required(request.secret.as_ref())?;
        let unlocked = luks::unlock(&*storage, 0, secret.bytes(), &UnlockOptions::default())?;
        let header = unlocked.header.clone();
        let again = luks_cipher(&unlocked)?;
        let plain = CryptDisk::new(storage.clone(), header.payload_offset(), again);
        Ok(Self {
            storage,
            header,
            plain: Some(plain),
            unlocked: Mutex::new(Some(unlocked)),
            writable: request.mode.writes(),
        })
    }

    fn plain(&self) -> Result<&CryptDisk<Arc<dyn Disk>>> {
        self.plain.as_ref().ok_or_else(|| {
            Error::new(Kind::Refused, "the volume was opened for inspection, its data is locked")
        })
    }

    fn plain_to_write(&self) -> Result<&CryptDisk<Arc<dyn Disk>>> {
        match self.writable {
            true => self.plain(),
            false => Err(Error::new(Kind::Refused, "Image is read-only")),
        }
    }

    fn unlocked(&self) -> MutexGuard<'_, Option<Unlocked>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn luks_cipher(unlocked: &Unlocked) -> Result<disksmith_crypt::SectorCipher> {
    disksmith_crypt::SectorCipher::new(unlocked.header.spec(), unlocked.master_key.bytes())
}

fn required(secret: Option<&Secret>) -> Result<&Secret> {
    secret.ok_or_else(|| {
        Error::new(Kind::InvalidInput, "Parameter 'key-secret' is required for cipher")
            .with_hint("Give its key: --object secret,id=NAME,data=TEXT (or file=PATH).")
    })
}

impl Disk for Luks {
    fn size(&self) -> u64 {
        let size = self.storage.size().saturating_sub(self.header.payload_offset());
        size - size % 512
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.plain()?.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.plain_to_write()?.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.plain_to_write()?.write_zeroes(offset, length, mode)
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.storage.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let left = self.size().saturating_sub(offset);
        match length.min(left) {
            0 => Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the disk")),
            length => Ok(Extent::opaque(length, false)),
        }
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }
}

impl Image for Luks {
    fn format(&self) -> &'static str {
        "luks"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn storage(&self) -> &Arc<dyn Disk> {
        &self.storage
    }

    fn encrypted(&self) -> bool {
        true
    }

    fn facts(&self) -> Result<Option<Vec<(&'static str, Fact)>>> {
        Ok(Some(header_facts(&self.header, None)))
    }

    fn resize(&self, request: ResizeRequest) -> Result<()> {
        let size = request.size.checked_add(self.header.payload_offset());
        let size = size.ok_or_else(|| Error::new(Kind::InvalidInput, "The size is too large"))?;
        let old = self.storage.size();
        reserve(&*self.storage, old, size, request.preallocation)
    }

    fn amend(
        &self,
        options: &Options,
        force: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        progress(0, 1);
        let mut unlocked = self.unlocked();
        let unlocked = unlocked.as_mut().ok_or_else(|| {
            Error::new(Kind::Refused, "the volume was opened for inspection only")
        })?;
        amend_keyslots(&*self.storage, 0, unlocked, options, "", force)
    }
}

/// What a header says, in the order in which qemu-img prints it. Inside another format its
/// name goes in between.
pub(crate) fn header_facts(header: &Header, inside: Option<&str>) -> Vec<(&'static str, Fact)> {
    let text = |value: &str| Fact::Text(value.to_string());
    let info = header.info();
    let mut facts = vec![("ivgen-alg", text(info.ivgen_alg))];
    if let Some(hash) = info.ivgen_hash_alg {
        facts.push(("ivgen-hash-alg", text(hash)));
    }
    facts.push(("detached-header", Fact::Bool(info.detached_header)));
    facts.push(("hash-alg", text(info.hash_alg)));
    facts.push(("cipher-alg", text(info.cipher_alg)));
    facts.push(("uuid", Fact::Text(info.uuid)));
    if let Some(name) = inside {
        facts.push(("format", text(name)));
    }
    facts.push(("cipher-mode", text(info.cipher_mode)));
    facts.push(("slots", Fact::List(info.slots.iter().map(slot_fact).collect())));
    facts.push(("payload-offset", Fact::Number(info.payload_offset)));
    facts.push(("master-key-iters", Fact::Number(info.master_key_iters.into())));
    facts
}

fn slot_fact(slot: &SlotInfo) -> Fact {
    let mut facts = vec![("active", Fact::Bool(slot.active))];
    if let Some(iterations) = slot.iters {
        facts.push(("iters", Fact::Number(iterations.into())));
    }
    facts.push(("key-offset", Fact::Number(slot.key_offset)));
    if let Some(stripes) = slot.stripes {
        facts.push(("stripes", Fact::Number(stripes.into())));
    }
    Fact::Map(facts)
}

fn create(storage: &Arc<dyn Disk>, request: &CreateRequest) -> Result<()> {
    let secret = required(request.secret.as_ref())?;
    let options = create_options(&request.options, "")?;
    if request.options.flag("detached-header")?.unwrap_or(false) {
        return Err(Error::new(Kind::InvalidInput, "Parameter 'detached-header' is unexpected"));
    }
    let mode = match request.options.text("preallocation") {
        None | Some("off") => Preallocation::Off,
        Some("falloc") => Preallocation::Falloc,
        Some("full") => Preallocation::Full,
        Some("metadata") => Preallocation::Metadata,
        Some(other) => {
            let text = format!("Parameter 'preallocation' does not accept value '{other}'");
            return Err(Error::new(Kind::InvalidInput, text));
        }
    };
    let created = luks::create(&options, secret.bytes())?;
    let size = request.size.checked_next_multiple_of(512);
    let size = size.and_then(|size| size.checked_add(luks::header_length(&options).ok()?));
    let size = size.ok_or_else(|| Error::new(Kind::InvalidInput, "The size is too large"))?;
    reserve(&**storage, 0, size, mode)?;
    created.write(&**storage, 0)
}

/// Makes the file `size` bytes long, what lies past `old` reserved as asked for.
fn reserve(storage: &dyn Disk, old: u64, size: u64, mode: Preallocation) -> Result<()> {
    if mode == Preallocation::Metadata {
        return Err(Error::new(Kind::Unsupported, "Unsupported preallocation mode: metadata"));
    }
    storage.set_size(size)?;
    match mode {
        Preallocation::Falloc if size > old => {
            storage.write_zeroes(old, size - old, ZeroMode::Keep)
        }
        Preallocation::Full if size > old => crate::raw::write_out(storage, old, size - old),
        _ => Ok(()),
    }
}

/// Bytes before the payload of a volume made with the `create` options `options`.
pub fn header_length(options: &Options) -> Result<u64> {
    luks::header_length(&create_options(options, "")?)
}

/// The options of a new volume, named with a prefix.
pub(crate) fn create_options(options: &Options, prefix: &str) -> Result<luks::CreateOptions> {
    let mut result = luks::CreateOptions::default();
    let text = |name: &str| options.text(&format!("{prefix}{name}"));
    let refused = |name: &'static str, value: &str| {
        let text = format!("Parameter '{name}' does not accept value '{value}'");
        Error::new(Kind::InvalidInput, text)
    };
    let mut spec: CipherSpec = result.spec;
    if let Some(value) = text("cipher-alg") {
        spec.cipher = Cipher::from_name(value).map_err(|_| refused("cipher-alg", value))?;
    }
    if let Some(value) = text("cipher-mode") {
        spec.mode = Mode::from_name(value).map_err(|_| refused("cipher-mode", value))?;
    }
    if let Some(value) = text("ivgen-alg") {
        spec.iv = IvGenerator::from_name(value).map_err(|_| refused("ivgen-alg", value))?;
    }
    if let Some(value) = text("ivgen-hash-alg") {
        let hash = HashAlgorithm::from_name(value);
        spec.iv_hash = Some(hash.map_err(|_| refused("ivgen-hash-alg", value))?);
    }
    if let Some(value) = text("hash-alg") {
        result.hash = HashAlgorithm::from_name(value).map_err(|_| refused("hash-alg", value))?;
    }
    if let Some(milliseconds) = options.number(&format!("{prefix}iter-time"))? {
        if milliseconds == 0 {
            return Err(Error::new(Kind::InvalidInput, "iter-time must be non-zero"));
        }
        result.iter_time_ms = milliseconds;
    }
    result.spec = spec;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    #[test]
    fn a_new_volume_keeps_what_is_written() {
        let storage: Arc<dyn Disk> = Arc::new(MemoryDisk::new(0));
        let mut options = Options::new();
        options.set("iter-time", "1");
        let secret = || Some(Secret::new(b"word".to_vec()));
        let request =
            CreateRequest { size: 1 << 20, options, secret: secret(), ..CreateRequest::default() };
        create(&storage, &request).unwrap();
        let open = |mode, secret| {
            Luks::open(storage.clone(), &OpenRequest { mode, secret, ..OpenRequest::default() })
        };
        let image = open(OpenMode::Write, secret()).unwrap();
        assert_eq!(image.size(), 1 << 20);
        image.write_at(b"plain", 70_000).unwrap();
        let mut buffer = [0; 5];
        open(OpenMode::Read, secret()).unwrap().read_at(&mut buffer, 70_000).unwrap();
        assert_eq!(&buffer, b"plain");
        assert!(open(OpenMode::Read, Some(Secret::new(b"other".to_vec()))).is_err());
        assert!(open(OpenMode::Read, None).is_err());
        assert!(open(OpenMode::Inspect, None).unwrap().read_at(&mut buffer, 0).is_err());

        let mut change = Options::new();
        change.set("state", "active");
        change.set("new-secret", "other");
        change.set("iter-time", "1");
        image.amend(&change, false, &mut |_, _| {}).unwrap();
        assert!(open(OpenMode::Read, Some(Secret::new(b"other".to_vec()))).is_ok());
        let mut change = Options::new();
        change.set("state", "inactive");
        change.set("old-secret", "word");
        image.amend(&change, false, &mut |_, _| {}).unwrap();
        assert!(open(OpenMode::Read, secret()).is_err());
    }
}
