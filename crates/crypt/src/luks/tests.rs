use disksmith_disk::{Disk, Kind, MemoryDisk};
use disksmith_testkit::{CrashLimits, Recorder, crash_states};

use super::*;
use crate::{Cipher, CipherSpec, HashAlgorithm, IvGenerator, Mode};

fn cheap() -> CreateOptions {
    CreateOptions { iter_time_ms: 1, ..CreateOptions::default() }
}

fn volume(options: &CreateOptions) -> MemoryDisk {
    let disk = MemoryDisk::new(header_length(options).unwrap() + 4096);
    create(options, b"first").unwrap().write(&disk, 0).unwrap();
    disk
}

fn add(disk: &dyn Disk, volume: &mut Unlocked, password: &[u8], slot: Option<usize>) -> String {
    let options = AddKeyOptions { slot, iter_time_ms: 1 };
    match add_key(disk, 0, volume, password, &options) {
        Ok(slot) => slot.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn layout_is_that_of_qemu() {
    let options = cheap();
    assert_eq!(header_length(&options).unwrap(), 4040 * 512);
    let created = create(&options, b"x").unwrap();
    let info = created.unlocked.header.info();
    assert_eq!(info.payload_offset, 4040 * 512);
    let offsets: Vec<u64> = info.slots.iter().map(|s| s.key_offset / 512).collect();
    assert_eq!(offsets, [8, 512, 1016, 1520, 2024, 2528, 3032, 3536]);
    assert_eq!(info.slots.iter().filter(|s| s.active).count(), 1);
    assert!(info.slots[0].iters.unwrap() >= 1000);
    let disk = MemoryDisk::new(0);
    created.write(&disk, 0).unwrap();
    let mut written = disk.to_bytes();
    written.resize(4040 * 512, 0);
    assert!(written == created.to_bytes());
}

#[test]
fn every_cipher_and_hash_unlocks() {
    for cipher in Cipher::ALL {
        for (mode, iv) in [
            (Mode::Xts, IvGenerator::Plain64),
            (Mode::Cbc, IvGenerator::Essiv),
            (Mode::Ecb, IvGenerator::Plain),
        ] {
            let spec = CipherSpec { cipher, mode, iv, iv_hash: None };
            let options = CreateOptions { spec, ..cheap() };
            if header_length(&options).is_err() {
                continue;
            }
            let disk = volume(&options);
            let unlocked = unlock(&disk, 0, b"first", &UnlockOptions::default()).unwrap();
            assert_eq!(unlocked.header.spec().cipher, cipher);
        }
    }
    for hash in HashAlgorithm::ALL {
        let disk = volume(&CreateOptions { hash, ..cheap() });
        let unlocked = unlock(&disk, 0, b"first", &UnlockOptions::default()).unwrap();
        assert_eq!(unlocked.header.hash(), hash);
        let error = unlock(&disk, 0, b"other", &UnlockOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "Invalid password, cannot unlock any keyslot");
    }
}

#[test]
fn keys_come_and_go() {
    let disk = volume(&cheap());
    let any = UnlockOptions::default();
    let mut volume = unlock(&disk, 0, b"first", &any).unwrap();
    assert_eq!(add(&disk, &mut volume, b"six", Some(6)), "6");
    assert_eq!(add(&disk, &mut volume, b"one", None), "1");
    assert_eq!(
        add(&disk, &mut volume, b"x", Some(6)),
        "Refusing to overwrite active keyslot 6 - please erase it first"
    );
    assert_eq!(
        add(&disk, &mut volume, b"x", Some(8)),
        "Invalid keyslot 8 specified, must be between 0 and 7"
    );
    assert_eq!(unlock(&disk, 0, b"six", &any).unwrap().slot, 6);
    for slot in [2, 3, 4, 5, 7] {
        assert_eq!(add(&disk, &mut volume, b"one", None), slot.to_string());
    }
    assert_eq!(
        add(&disk, &mut volume, b"x", None),
        "Can't add a keyslot - all keyslots are in use"
    );
    let header = &mut volume.header;
    assert_eq!(erase_matching(&disk, 0, header, b"one", false, &any).unwrap(), [1, 2, 3, 4, 5, 7]);
    assert!(unlock(&disk, 0, b"one", &any).is_err());
    erase_slot(&disk, 0, header, 0, false).unwrap();
    assert!(unlock(&disk, 0, b"first", &any).is_err());
    let text = erase_slot(&disk, 0, header, 6, false).unwrap_err().to_string();
    assert!(text.starts_with("Attempt to erase the only active keyslot 6 which will"), "{text}");
    let text = erase_matching(&disk, 0, header, b"six", false, &any).unwrap_err().to_string();
    assert!(text.starts_with("All the active keyslots match the (old) password"), "{text}");
    let error = erase_matching(&disk, 0, header, b"none", true, &any).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(unlock(&disk, 0, b"six", &any).unwrap().slot, 6);
    erase_slot(&disk, 0, header, 6, true).unwrap();
    assert!(unlock(&disk, 0, b"six", &any).is_err());
    assert!(Header::read(&disk, 0, false).unwrap().active_slots().is_empty());
}

#[test]
fn erased_material_is_gone() {
    let disk = volume(&cheap());
    let before = disk.to_bytes();
    let mut header = Header::read(&disk, 0, false).unwrap();
    erase_slot(&disk, 0, &mut header, 0, true).unwrap();
    let after = disk.to_bytes();
    let same = (4096..260_096).filter(|n| before[*n] == after[*n]).count();
    assert!(same < 2000, "{same} of 256000 bytes are as before");
    assert!(before[260_096..] == after[260_096..]);
}

#[test]
fn costly_headers_are_refused() {
    let disk = volume(&cheap());
    disk.write_at(&u32::MAX.to_be_bytes(), 212).unwrap();
    let error = unlock(&disk, 0, b"first", &UnlockOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::LimitExceeded);
    assert_eq!(
        error.to_string(),
        "Keyslot 0 asks for 4294967295 PBKDF2 iterations, the limit is 50000000"
    );
}

#[test]
fn detached_headers() {
    let options = CreateOptions { detached: true, ..cheap() };
    let disk = volume(&options);
    assert!(Header::read(&disk, 0, false).is_err());
    let detached = UnlockOptions { detached: true, ..UnlockOptions::default() };
    let unlocked = unlock(&disk, 0, b"first", &detached).unwrap();
    assert_eq!(unlocked.header.payload_offset(), 0);
    assert!(unlocked.header.info().detached_header);
}

#[test]
fn refusals_have_the_words_of_qemu() {
    let bytes = create(&cheap(), b"x").unwrap().unlocked.header.encode();
    let message = |edits: &[(usize, &[u8])]| {
        let mut bytes = bytes;
        for (at, value) in edits {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        match Header::parse(&bytes, false) {
            Ok(_) => "accepted".into(),
            Err(error) => error.to_string(),
        }
    };
    let be = |n: u32| n.to_be_bytes();
    for (at, value, expected) in [
        (0, &b"X"[..], "Volume is not in LUKS format"),
        (6, &[0, 2], "LUKS version 2 is not supported"),
        (8, &[b'a'; 32], "LUKS header cipher name is not NUL terminated"),
        (40, &[b'a'; 32], "LUKS header cipher mode is not NUL terminated"),
        (72, &[b'a'; 32], "LUKS header hash spec is not NUL terminated"),
        (8, b"des\0", "Algorithm 'des' with key size 32 bytes not supported"),
        (40, b"xts\0", "Unexpected cipher mode string format 'xts'"),
        (72, b"whirlpool\0", "Hash algorithm 'whirlpool' not supported"),
        (104, &be(7), "LUKS payload is overlapping with the header"),
        (104, &be(8), "Keyslot 0 is overlapping with the encrypted payload"),
        (104, &be(4039), "Keyslot 7 is overlapping with the encrypted payload"),
        (108, &be(0), "Algorithm 'aes' with key size 0 bytes not supported"),
        (108, &be(63), "Algorithm 'aes' with key size 31 bytes not supported"),
        (108, &be(128), "Keyslots 0 and 1 are overlapping in the header"),
        (108, &be(u32::MAX), "Keyslot 0 is overlapping with the encrypted payload"),
        (164, &be(0), "LUKS key iteration count is zero"),
        (208, &be(1), "Keyslot 0 state (active/disable) is corrupted"),
        (212, &be(0), "Keyslot 0 iteration count is zero"),
        (248, &be(7), "Keyslot 0 is overlapping with the LUKS header"),
        (248, &be(4000), "Keyslot 0 is overlapping with the encrypted payload"),
        (348, &be(3999), "Keyslot 2 is corrupted (stripes 3999 != 4000)"),
        (392, &be(2024), "Keyslots 3 and 4 are overlapping in the header"),
    ] {
        assert_eq!(message(&[(at, value)]), expected);
    }
    assert!(Header::parse(&bytes[..591], false).is_err());
    assert!(Header::parse(&[], false).is_err());
}

/// Mutated headers are refused or work; none panics, none costs more than it may.
#[test]
fn mutated_headers() {
    let options = CreateOptions {
        spec: CipherSpec { cipher: Cipher::Aes128, ..CipherSpec::default() },
        ..cheap()
    };
    let disk = volume(&options);
    let mut good = [0; Header::BYTES];
    disk.read_at(&mut good, 0).unwrap();
    let limits = UnlockOptions { max_iterations: 2000, ..UnlockOptions::default() };
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut random = |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    let (mut parsed, mut unlocked) = (0, 0);
    for _ in 0..2000 {
        let mut bytes = good;
        for _ in 0..1 + random(3) {
            // Mostly where fields are that decide something.
            let at = if random(2) == 0 { random(bytes.len()) } else { 104 + random(8) };
            bytes[at] = [0, 1, 0x7f, 0xff, random(256) as u8][random(5)];
        }
        let Ok(header) = Header::parse(&bytes, random(4) == 0) else { continue };
        parsed += 1;
        let _ = (header.info(), header.encode());
        if parsed % 20 == 0 {
            disk.write_at(&bytes, 0).unwrap();
            unlocked += usize::from(unlock(&disk, 0, b"first", &limits).is_ok());
        }
    }
    assert!(parsed > 200, "{parsed}");
    assert!(unlocked < parsed);
}

#[test]
fn truncated_volumes() {
    let full = volume(&cheap()).to_bytes();
    for length in [0, 6, 591, 592, 4096, 5000, 260_095] {
        let disk = MemoryDisk::from_bytes(&full[..length]);
        let error = unlock(&disk, 0, b"first", &UnlockOptions::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{length}: {error}");
    }
    let disk = MemoryDisk::from_bytes(&full);
    assert!(unlock(&disk, u64::MAX - 3, b"first", &UnlockOptions::default()).is_err());
}

/// Every content that a crash during `change` may leave of `before`, and what it is afterwards.
fn crashes(
    before: &MemoryDisk,
    change: impl FnOnce(&dyn Disk),
    mut check: impl FnMut(&MemoryDisk, &str),
) -> MemoryDisk {
    let recorder = Recorder::new();
    let disk = recorder.disk(0, before.clone());
    change(&disk);
    let limits = CrashLimits::default();
    let count = crash_states(std::slice::from_ref(before), &recorder.log(), limits, &mut |state| {
        check(&state.files[0], &state.name);
        true
    });
    assert!(count > 10, "{count}");
    disk.content()
}

/// A crash in the middle never takes away a password that is to stay, and a slot that counts as
/// erased has lost its key.
#[test]
fn crashes_while_keys_change() {
    let any = UnlockOptions::default();
    let opens = |disk: &MemoryDisk, password: &[u8]| unlock(disk, 0, password, &any).is_ok();
    let active = |disk: &MemoryDisk, slot: usize| {
        Header::read(disk, 0, false).unwrap().active_slots().contains(&slot)
    };
    let before = volume(&cheap());
    let mut volume = unlock(&before, 0, b"first", &any).unwrap();
    // Slot 6 lies across two sectors of the header.
    let change = |disk: &dyn Disk| {
        assert_eq!(add(disk, &mut volume, b"second", Some(6)), "6");
    };
    let before = crashes(&before, change, |state, name| {
        assert!(opens(state, b"first"), "{name}");
        assert_eq!(active(state, 6), opens(state, b"second"), "{name}");
    });

    let mut material = vec![0; 256_000];
    before.read_at(&mut material, 4096).unwrap();
    let change = |disk: &dyn Disk| erase_slot(disk, 0, &mut volume.header, 0, false).unwrap();
    crashes(&before, change, |state, name| {
        assert!(opens(state, b"second"), "{name}");
        if !active(state, 0) {
            let mut left = vec![0; material.len()];
            state.read_at(&mut left, 4096).unwrap();
            assert!(left.iter().zip(&material).filter(|(a, b)| a == b).count() < 2000, "{name}");
        }
    });
}
