//! Volumes whose storage fails, and LUKS2 metadata that is sound JSON under a right checksum and
//! says what cannot be: refused by name.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cheap, must};
use disksmith_crypt::luks::{self, AddKeyOptions};
use disksmith_crypt::luks2::{self, UnlockOptions};
use disksmith_crypt::{CipherSpec, HashAlgorithm};
use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_testkit::sweep::{self, WHOLE};

/// Bytes of one copy of the header.
const COPY: usize = 16 << 10;
const BINARY: usize = 4096;

/// A volume that `pass` opens, as cryptsetup makes it.
fn luks2_volume(kdf: &[&str]) -> MemoryDisk {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("key"), "pass").unwrap();
    std::fs::write(path("disk"), vec![0; 17 << 20]).unwrap();
    let (disk, key) = (path("disk"), path("key"));
    let format = ["-q", "--disable-locks", "luksFormat", "--type", "luks2", "--key-file", &key];
    let shape = ["--cipher", "aes-xts-plain64", "--key-size", "512", "--sector-size", "512"];
    must("cryptsetup-bin", "cryptsetup", &[&format[..], &shape, kdf, &[&disk]].concat());
    MemoryDisk::from_bytes(&std::fs::read(disk).unwrap())
}

fn pbkdf2() -> MemoryDisk {
    luks2_volume(&["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
}

fn argon2() -> MemoryDisk {
    let cost = ["--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4"];
    luks2_volume(&[&["--pbkdf", "argon2id"], &cost[..]].concat())
}

/// The volume with other words in its metadata, of which one copy is left.
fn reworded(volume: &MemoryDisk, from: &str, to: &str) -> MemoryDisk {
    let mut bytes = vec![0; COPY];
    volume.read_at(&mut bytes, 0).unwrap();
    let json = String::from_utf8(bytes[BINARY..].to_vec()).unwrap();
    let json = json.trim_end_matches('\0');
    assert!(json.contains(from), "{from} is not in {json}");
    let changed = json.replacen(from, to, 1);
    bytes.truncate(BINARY);
    bytes.extend_from_slice(changed.as_bytes());
    bytes.resize(COPY, 0);
    bytes[448..512].fill(0);
    let sum = HashAlgorithm::Sha256.digest(&[&bytes]);
    bytes[448..448 + sum.len()].copy_from_slice(&sum);
    let disk = volume.clone();
    disk.write_at(&bytes, 0).unwrap();
    disk.write_at(&[0; BINARY], COPY as u64).unwrap();
    disk
}

#[track_caller]
fn refused<T>(result: Result<T>, words: &str, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert!(error.to_string().contains(words), "{what}: {error}");
}

fn open(disk: &MemoryDisk) -> Result<()> {
    luks2::unlock(disk, 0, b"pass", &UnlockOptions::default())?.open(disk).map(drop)
}

#[test]
fn metadata_that_cannot_be() {
    let volume = pbkdf2();
    open(&volume).unwrap();
    let many: String = (1..40).map(|n| format!("\"{n}\":{{\"type\":\"x\"}},")).collect();
    let many = format!("\"keyslots\":{{{many}");
    for (from, to, words) in [
        ("{", "[", "metadata is not valid"),
        ("\"keyslots\":{", many.as_str(), "more than 32 keyslots"),
        ("\"config\":{", "\"config\":{\"requirements\":{\"mandatory\":[\"new\"]},", "'new'"),
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "segment 0 is not supported"),
        ("\"segments\":{", "\"segments\":{\"1\":{\"type\":\"x\"},", "of 2 segments"),
        ("\"size\":\"dynamic\"", "\"size\":\"dynamic\",\"integrity\":{}", "integrity"),
        ("\"size\":\"dynamic\"", "\"size\":\"dynamic\",\"flags\":[\"f\"]", "flag 'f'"),
        ("\"size\":\"dynamic\"", "\"size\":\"x\"", "segment size is not valid"),
        ("\"size\":\"dynamic\"", "\"size\":\"700\"", "not aligned"),
        ("\"size\":\"dynamic\"", "\"size\":\"4398046511104\"", "past the end of the disk"),
        ("\"offset\":\"16777216\"", "\"offset\":\"4398046511104\"", "past the end of the disk"),
        ("\"sector_size\":512", "\"sector_size\":520", "not aligned"),
        ("\"type\":\"luks1\"", "\"type\":\"x\"", "splitter is not supported"),
        ("\"type\":\"raw\"", "\"type\":\"x\"", "area is not supported"),
        ("\"kdf\":{\"type\":\"pbkdf2\"", "\"kdf\":{\"type\":\"x\"", "derivation is not supported"),
        ("\"iterations\":1000", "\"iterations\":4000000000", "4000000000 iterations"),
        ("\"key_size\":64", "\"key_size\":0", "length of its key"),
        ("\"key_size\":64", "\"key_size\":6400", "length of its key"),
        ("\"offset\":\"32768\"", "\"offset\":\"18446744073709551615\"", "past the end"),
        ("\"offset\":\"32768\"", "\"offset\":\"4398046511104\"", "past the end"),
        ("\"size\":\"258048\"", "\"size\":\"512\"", "past the end"),
        ("\"hash\":\"sha256\"", "\"hash\":\"sha9\"", "sha9"),
        ("aes-xts-plain64", "aes", "Encryption 'aes' is not supported"),
        ("aes-xts-plain64", "des-xts-plain64", "des"),
        ("\"digest\":\"", "\"digest\":\"\",\"other\":\"", "length of its digest"),
    ] {
        refused(open(&reworded(&volume, from, to)), words, &format!("{from} → {to}"));
    }
    let volume = argon2();
    for (from, to, words) in [
        ("\"time\":4", "\"time\":0", "key derivation is not valid"),
        ("\"cpus\":", "\"cpus\":0,\"was\":", "key derivation is not valid"),
        ("\"memory\":1024", "\"memory\":4000000000", "4000000000 KiB"),
        ("\"time\":4", "\"time\":4000000000", "4000000000 passes"),
    ] {
        refused(open(&reworded(&volume, from, to)), words, &format!("{from} → {to}"));
    }
    refused(luks2::unlock(&volume, u64::MAX, b"", &Default::default()), "no sound", "far away");
    refused(luks2::Header::read(&MemoryDisk::new(100), 0), "no sound", "a short disk");
}

/// Lets each request fail; whoever asked is told.
fn fail_each(
    disk: &MemoryDisk,
    job: &dyn Fn(&dyn Disk) -> Result<()>,
    judge: &dyn Fn(&MemoryDisk, &str),
) {
    let start = std::slice::from_ref(disk);
    sweep::fail_each(start, "a volume", WHOLE, u64::MAX, &|files| job(&*files[0]), &|run| {
        run.told();
        judge(&run.files[0], &run.what);
    });
}

#[test]
fn whoever_asks_is_told() {
    let volume = pbkdf2();
    let unlock = |disk: &dyn Disk| {
        let unlocked = luks2::unlock(disk, 0, b"pass", &UnlockOptions::default())?;
        unlocked.open(disk)?.read_at(&mut [0; 512], 0)
    };
    fail_each(&volume, &unlock, &|_, _| {});
    let options = cheap(CipherSpec::default());
    let made = luks::create(&options, b"first").unwrap();
    let disk = MemoryDisk::new(luks::header_length(&options).unwrap() + 4096);
    fail_each(&disk, &|disk| made.write(disk, 0), &|_, _| {});
    made.write(&disk, 0).unwrap();
    let opens =
        |disk: &MemoryDisk, word: &[u8]| luks::unlock(disk, 0, word, &Default::default()).is_ok();
    let change = |disk: &dyn Disk| {
        let limits = luks::UnlockOptions::default();
        let mut unlocked = luks::unlock(disk, 0, b"first", &limits)?;
        let add = AddKeyOptions { iter_time_ms: 1, ..AddKeyOptions::default() };
        luks::add_key(disk, 0, &mut unlocked, b"second", &add)?;
        let header = &mut unlocked.header;
        luks::erase_matching(disk, 0, header, b"first", false, &limits).map(drop)
    };
    fail_each(&disk, &change, &|left, what| {
        assert!(opens(left, b"first") || opens(left, b"second"), "{what}: nobody gets in");
    });
}

#[test]
fn places_that_cannot_be() {
    let options = cheap(CipherSpec::default());
    let made = luks::create(&options, b"first").unwrap();
    let disk = MemoryDisk::new(4 << 20);
    refused(made.write(&disk, u64::MAX - 100), "out of range", "a header at the end of all");
    made.write(&disk, 0).unwrap();
    let unlock = |base, slot| {
        let options = luks::UnlockOptions { slot, ..Default::default() };
        luks::unlock(&disk, base, b"first", &options)
    };
    refused(unlock(u64::MAX - 100, None), "not in LUKS format", "a header at the end of all");
    refused(unlock(0, Some(8)), "Invalid keyslot 8", "slot 8");
    refused(unlock(0, Some(3)), "Invalid password", "an empty slot");
    let mut unlocked = unlock(0, None).unwrap();
    let add = |slot| AddKeyOptions { slot: Some(slot), iter_time_ms: 1 };
    refused(luks::add_key(&disk, 0, &mut unlocked, b"x", &add(0)), "overwrite active", "slot 0");
    refused(luks::add_key(&disk, 0, &mut unlocked, b"x", &add(9)), "Invalid keyslot 9", "slot 9");
    let mut header = unlocked.header.clone();
    refused(luks::erase_slot(&disk, 0, &mut header, 9, true), "Invalid keyslot 9", "slot 9");
    disk.set_size(300_000).unwrap();
    refused(luks::add_key(&disk, 0, &mut unlocked, b"x", &add(7)), "past the end", "cut off");
    refused(luks::erase_slot(&disk, 0, &mut header, 7, true), "past the end", "cut off");
}
