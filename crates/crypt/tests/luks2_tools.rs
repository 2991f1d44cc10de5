//! LUKS2 against cryptsetup, which encrypts and decrypts files in place without device mapper.
#![allow(clippy::unwrap_used)]

mod common;

use common::{must, noise, run};
use disksmith_crypt::HashAlgorithm;
use disksmith_crypt::luks2::{self, Copies, Header, UnlockOptions};
use disksmith_disk::{Disk, Kind, MemoryDisk};
use tempfile::TempDir;

const SIZE: usize = 192 << 10;
const ARGON2ID: &[&str] =
    &["--pbkdf", "argon2id", "--pbkdf-memory", "4096", "--pbkdf-force-iterations", "4"];
const ARGON2I: &[&str] =
    &["--pbkdf", "argon2i", "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4"];
const PBKDF2: &[&str] = &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

fn cryptsetup(arguments: &[&str]) -> String {
    must("cryptsetup-bin", "cryptsetup", &[&["-q", "--disable-locks"], arguments].concat())
}

struct Volume {
    folder: TempDir,
}

impl Volume {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    fn disk(&self, name: &str) -> MemoryDisk {
        MemoryDisk::from_bytes(&std::fs::read(self.path(name)).unwrap())
    }

    fn empty() -> Self {
        let volume = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(volume.path("key"), "pass").unwrap();
        volume
    }

    /// A volume of header and data together, without content.
    fn formatted(options: &[&str]) -> Self {
        let volume = Self::empty();
        std::fs::write(volume.path("disk"), vec![0; 17 << 20]).unwrap();
        let (disk, key) = (volume.path("disk"), volume.path("key"));
        let format = ["luksFormat", "--type", "luks2", "--key-file", &key];
        cryptsetup(&[&format[..], options, &[&disk]].concat());
        volume
    }

    /// `plain`, encrypted by cryptsetup, under a header in a file of its own.
    fn encrypted(plain: &[u8], options: &[&str]) -> Self {
        let volume = Self::empty();
        std::fs::write(volume.path("data"), plain).unwrap();
        std::fs::write(volume.path("head"), vec![0; 16 << 20]).unwrap();
        let (data, head, key) = (volume.path("data"), volume.path("head"), volume.path("key"));
        let encrypt = ["reencrypt", "--encrypt", "--type", "luks2", "--key-file", &key];
        cryptsetup(&[&encrypt[..], options, &["--header", &head, &data]].concat());
        volume
    }
}

#[test]
fn what_cryptsetup_encrypts_we_read_and_write() {
    let plain = noise(SIZE);
    // Other ciphers need the kernel's help in cryptsetup.
    for (kdf, cipher, bits, sector) in [
        (ARGON2ID, "aes-xts-plain64", "512", "4096"),
        (ARGON2I, "aes-xts-plain64", "256", "512"),
        (PBKDF2, "aes-cbc-essiv:sha256", "256", "512"),
        (PBKDF2, "aes-xts-plain64", "512", "2048"),
        (PBKDF2, "aes-cbc-plain64", "192", "1024"),
    ] {
        let shape = ["--cipher", cipher, "--key-size", bits, "--sector-size", sector];
        let volume = Volume::encrypted(&plain, &[kdf, &shape].concat());
        let head = volume.disk("head");
        let unlocked = luks2::unlock(&head, 0, b"pass", &UnlockOptions::default()).unwrap();
        let info = unlocked.header.info();
        assert_eq!(info.encryption, cipher);
        assert_eq!(info.sector_bytes.to_string(), sector);
        assert_eq!(info.slots, [(0, kdf[1], bits.parse::<usize>().unwrap() / 8)]);
        let opened = unlocked.open(volume.disk("data")).unwrap();
        let mut read = vec![0; SIZE];
        opened.read_at(&mut read, 0).unwrap();
        assert!(read == plain, "{cipher}");

        let (mut expected, change) = (plain.clone(), noise(30_000));
        expected[5000..35_000].copy_from_slice(&change);
        let data = volume.disk("data");
        unlocked.open(&data).unwrap().write_at(&change, 5000).unwrap();
        std::fs::write(volume.path("data"), data.to_bytes()).unwrap();
        let (data, head, key) = (volume.path("data"), volume.path("head"), volume.path("key"));
        let decrypt = ["reencrypt", "--decrypt", "--force-offline-reencrypt", "--key-file", &key];
        cryptsetup(&[&decrypt[..], &["--header", &head, &data]].concat());
        assert!(std::fs::read(data).unwrap() == expected, "{cipher}");
    }
}

#[test]
fn volume_keys_and_slots() {
    let volume = Volume::formatted(&[ARGON2ID, &["--label", "my disk"]].concat());
    let (disk, key) = (volume.path("disk"), volume.path("key"));
    std::fs::write(volume.path("more"), "more").unwrap();
    let add = ["luksAddKey", "--key-file", &key, "--key-slot", "5"];
    cryptsetup(&[&add[..], PBKDF2, &[&disk, &volume.path("more")]].concat());
    let dump = ["luksDump", "--dump-volume-key", "--key-file", &key, &disk];
    let dump = cryptsetup(&dump);
    let (_, expected) = dump.split_once("MK dump:").unwrap();

    let memory = volume.disk("disk");
    let unlocked = luks2::unlock(&memory, 0, b"more", &UnlockOptions::default()).unwrap();
    assert_eq!(unlocked.slot, 5);
    let hex: String = unlocked.volume_key.bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected.split_whitespace().collect::<String>());
    let info = unlocked.header.info();
    assert_eq!((info.label.as_str(), info.copies), ("my disk", Copies::Both));
    assert!(dump.contains(&info.uuid));
    assert_eq!(unlocked.open(&memory).unwrap().size(), 1 << 20);
    assert!(Header::probe(&memory.to_bytes()[..512]));

    let only = UnlockOptions { slot: Some(0), ..UnlockOptions::default() };
    let error = luks2::unlock(&memory, 0, b"more", &only).unwrap_err();
    assert_eq!(error.to_string(), "Invalid password, cannot unlock any keyslot");
    let poor = UnlockOptions { max_memory_kib: 4095, slot: Some(0), ..UnlockOptions::default() };
    let error = luks2::unlock(&memory, 0, b"pass", &poor).unwrap_err();
    assert_eq!(error.kind(), Kind::LimitExceeded);
    assert_eq!(error.to_string(), "Keyslot 0: Argon2 asks for 4096 KiB, the limit is 4095");
}

#[test]
fn either_copy_is_enough() {
    let volume = Volume::formatted(PBKDF2);
    let sound = volume.disk("disk");
    let copies = |disk: &MemoryDisk| {
        let unlocked = luks2::unlock(disk, 0, b"pass", &UnlockOptions::default());
        unlocked.map(|unlocked| unlocked.header.info().copies)
    };
    let first = sound.clone();
    first.write_at(&[0; 4096], 0).unwrap();
    assert_eq!(copies(&first).unwrap(), Copies::Secondary);
    let json = sound.clone();
    json.write_at(b"x", 4100).unwrap();
    assert_eq!(copies(&json).unwrap(), Copies::Secondary);
    let second = sound.clone();
    second.write_at(b"x", 20_000).unwrap();
    assert_eq!(copies(&second).unwrap(), Copies::Primary);
    second.write_at(b"x", 300).unwrap();
    let error = copies(&second).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.to_string(), "Volume has no sound LUKS2 header");
}

#[test]
fn half_encrypted_volumes_are_refused() {
    let volume = Volume::empty();
    std::fs::write(volume.path("data"), noise(SIZE)).unwrap();
    std::fs::write(volume.path("head"), vec![0; 16 << 20]).unwrap();
    let (data, head, key) = (volume.path("data"), volume.path("head"), volume.path("key"));
    let start = ["reencrypt", "--encrypt", "--init-only", "--type", "luks2", "--key-file", &key];
    cryptsetup(&[&start[..], PBKDF2, &["--header", &head, &data]].concat());
    let error = Header::read(&volume.disk("head"), 0).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let text = error.to_string();
    assert!(text.starts_with("LUKS2 requirement 'online-reencrypt"), "{text}");
    let luks1 = run("cryptsetup-bin", "cryptsetup", &["isLuks", "--type", "luks1", &head]);
    assert!(!luks1.success);
}

/// Headers with damaged metadata and right checksums are refused or work; none panics, and none
/// costs more than it may.
#[test]
fn mutated_metadata() {
    let volume = Volume::formatted(&[ARGON2I, &["--sector-size", "512"]].concat());
    let start = volume.disk("disk");
    let mut good = vec![0; 16 << 10];
    start.read_at(&mut good, 0).unwrap();
    let json_bytes = good[4096..].iter().position(|b| *b == 0).unwrap();
    // Key material is never looked at: the disk ends in front of the second copy.
    let options = UnlockOptions {
        max_iterations: 2000,
        max_memory_kib: 2048,
        max_argon2_work: 8192,
        ..UnlockOptions::default()
    };
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut random = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let (mut parsed, mut opened) = (0, 0);
    for round in 0..2000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(2) {
            let at = 4096 + random(json_bytes);
            match random(3) {
                0 if bytes[at].is_ascii_digit() => bytes[at] = b'0' + random(10) as u8,
                1 => bytes[at] = b"\"{}[],:-0919ab"[random(14)],
                _ => {
                    // Another place's piece of the same text.
                    let length = random(12).min(4096 + json_bytes - at);
                    let from = 4096 + random(json_bytes - length);
                    bytes.copy_within(from..from + length, at);
                }
            }
        }
        bytes[448..512].fill(0);
        let digest = HashAlgorithm::Sha256.digest(&[&bytes]);
        bytes[448..480].copy_from_slice(&digest);
        let disk = MemoryDisk::from_bytes(&bytes);
        let Ok(header) = Header::read(&disk, 0) else { continue };
        parsed += 1;
        let _ = header.info();
        if round % 40 == 0 {
            start.write_at(&bytes, 0).unwrap();
            if let Ok(unlocked) = luks2::unlock(&start, 0, b"pass", &options) {
                opened += usize::from(unlocked.open(&start).is_ok());
            }
        } else {
            assert!(luks2::unlock(&disk, 0, b"pass", &options).is_err());
        }
    }
    assert!(parsed > 100 && parsed < 2000, "{parsed}");
    assert!(opened <= parsed);
}
