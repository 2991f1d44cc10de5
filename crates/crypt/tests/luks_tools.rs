//! LUKS against QEMU and cryptsetup, both ways.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use disksmith_crypt::luks::{self, AddKeyOptions, CreateOptions, Header, UnlockOptions};
use disksmith_crypt::{Cipher, CipherSpec, CryptDisk, HashAlgorithm, IvGenerator, Mode};
use disksmith_disk::{Disk, MemoryDisk};

const SIZE: usize = 96 << 10;

fn cryptsetup(arguments: &[&str]) -> String {
    must("cryptsetup-bin", "cryptsetup", arguments)
}

/// True if cryptsetup opens a slot of the file with `password`.
fn cryptsetup_opens(ours: &Ours, password: &str) -> bool {
    let key = ours.folder.path().join("password");
    std::fs::write(&key, password).unwrap();
    let key = key.to_str().unwrap();
    let arguments =
        ["open", "--test-passphrase", "--disable-locks", "--key-file", key, ours.text()];
    run("cryptsetup-bin", "cryptsetup", &arguments).success
}

fn json_field(json: &str, name: &str) -> String {
    let start = json.find(&format!("\"{name}\": ")).unwrap_or_else(|| panic!("{name}: {json}"));
    let value = &json[start + name.len() + 4..];
    let end = value.find([',', '\n']).unwrap();
    value[..end].trim_matches('"').to_string()
}

#[test]
fn what_qemu_makes_we_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qemu.luks");
    let (object, text) = (secret("öpen sesame"), path.to_str().unwrap());
    let options = "key-secret=s0,iter-time=10";
    qemu_img(&["create", "-q", "-f", "luks", "--object", &object, "-o", options, text, "1M"]);
    let opts = luks_options(&path);
    let writes = ["-c", "write -P 0x5a 0 64k", "-c", "write -P 0xc3 300k 1536"];
    qemu_io(&[&["--object", &object, "--image-opts", &opts][..], &writes].concat());

    let ours = our_content(&path, "öpen sesame");
    assert!(ours == qemu_content(folder.path(), "öpen sesame", &opts));
    assert!(ours[..65536].iter().all(|b| *b == 0x5a));

    let header = Header::parse(&std::fs::read(&path).unwrap(), false).unwrap();
    let disk = MemoryDisk::from_bytes(&std::fs::read(&path).unwrap());
    let error = luks::unlock(&disk, 0, b"wrong", &UnlockOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "Invalid password, cannot unlock any keyslot");
    let json = qemu_img(&["info", "--output=json", text]);
    assert_eq!(json_field(&json, "uuid"), header.uuid());

    // QEMU's refusal has the same words.
    let wrong = secret("wrong");
    let arguments = ["--object", &wrong, "-c", "read 0 512", "--image-opts", &opts];
    let answer = run("qemu-utils", "qemu-io", &arguments);
    assert!(answer.err.contains(&error.to_string()), "{answer:?}");
}

/// Makes a file, has QEMU show and read it, has QEMU write it, reads it.
fn both_ways(options: &CreateOptions) {
    let plain = noise(SIZE);
    let ours = Ours::new(options, "secret", &plain);
    let info = ours.unlocked.header.info();
    let json = qemu_img(&["info", "--output=json", "-f", "luks", ours.text()]);
    for (name, value) in [
        ("cipher-alg", info.cipher_alg),
        ("cipher-mode", info.cipher_mode),
        ("ivgen-alg", info.ivgen_alg),
        ("hash-alg", info.hash_alg),
        ("uuid", &info.uuid),
        ("payload-offset", &info.payload_offset.to_string()),
        ("master-key-iters", &info.master_key_iters.to_string()),
        ("iters", &info.slots[0].iters.unwrap().to_string()),
    ] {
        assert_eq!(json_field(&json, name), value, "{name}");
    }
    if let Some(hash) = info.ivgen_hash_alg {
        assert_eq!(json_field(&json, "ivgen-hash-alg"), hash);
    }
    let opts = luks_options(&ours.path);
    assert!(qemu_content(ours.folder.path(), "secret", &opts) == plain, "{info:?}");

    let object = secret("secret");
    let write = "write -P 0x77 5120 40960";
    qemu_io(&["--object", &object, "--image-opts", &opts, "-c", write]);
    let mut expected = plain;
    expected[5120..5120 + 40960].fill(0x77);
    assert!(our_content(&ours.path, "secret") == expected, "{info:?}");
}

#[test]
fn ciphers_in_qemu() {
    for cipher in Cipher::ALL {
        for (mode, iv) in [(Mode::Xts, IvGenerator::Plain64), (Mode::Cbc, IvGenerator::Plain64)] {
            let spec = CipherSpec { cipher, mode, iv, iv_hash: None };
            // QEMU stops on an assertion where key material is not whole sectors: 24-byte keys.
            if spec.check().is_err() || spec.key_bytes() == 24 {
                continue;
            }
            both_ways(&cheap(spec));
        }
    }
}

#[test]
fn modes_and_ivs_in_qemu() {
    use HashAlgorithm::Sha256;
    for (cipher, mode, iv, iv_hash) in [
        (Cipher::Aes128, Mode::Cbc, IvGenerator::Essiv, Some(Sha256)),
        (Cipher::Aes256, Mode::Cbc, IvGenerator::Essiv, None),
        (Cipher::Aes256, Mode::Xts, IvGenerator::Essiv, Some(Sha256)),
        (Cipher::Serpent256, Mode::Cbc, IvGenerator::Essiv, None),
        (Cipher::Twofish128, Mode::Cbc, IvGenerator::Essiv, None),
        (Cipher::Aes256, Mode::Xts, IvGenerator::Plain, None),
        (Cipher::Aes256, Mode::Xts, IvGenerator::Plain64, Some(Sha256)),
        (Cipher::Aes256, Mode::Ecb, IvGenerator::Plain64, None),
        (Cipher::Aes256, Mode::Ctr, IvGenerator::Plain64, None),
        (Cipher::Twofish256, Mode::Ctr, IvGenerator::Essiv, None),
        (Cipher::Cast5, Mode::Ctr, IvGenerator::Plain64, None),
    ] {
        both_ways(&cheap(CipherSpec { cipher, mode, iv, iv_hash }));
    }
}

#[test]
fn hashes_in_qemu_and_cryptsetup() {
    for hash in HashAlgorithm::ALL {
        let options = CreateOptions { hash, ..cheap(CipherSpec::default()) };
        both_ways(&options);
        let ours = Ours::new(&options, "secret", &[0; 512]);
        assert!(cryptsetup_opens(&ours, "secret"), "{hash:?}");
    }
}

#[test]
fn cryptsetup_agrees() {
    for (cipher, mode, iv) in [
        (Cipher::Aes256, Mode::Xts, IvGenerator::Plain64),
        (Cipher::Aes128, Mode::Cbc, IvGenerator::Essiv),
        (Cipher::Aes192, Mode::Cbc, IvGenerator::Plain),
    ] {
        let spec = CipherSpec { cipher, mode, iv, iv_hash: None };
        let ours = Ours::new(&cheap(spec), "secret", &noise(4096));
        let dump = cryptsetup(&["luksDump", "--disable-locks", ours.text()]);
        let header = &ours.unlocked.header;
        for (name, value) in [
            ("Version", "1".to_string()),
            ("Cipher name", "aes".to_string()),
            ("Cipher mode", header.spec().header_mode()),
            ("Hash spec", "sha256".to_string()),
            ("Payload offset", (header.payload_offset() / 512).to_string()),
            ("MK bits", (header.key_bytes() * 8).to_string()),
            ("UUID", header.uuid()),
        ] {
            let line = dump.lines().find(|l| l.starts_with(&format!("{name}:")));
            let line = line.unwrap_or_else(|| panic!("{name}: {dump}"));
            assert_eq!(line.split_once(':').unwrap().1.trim(), value);
        }
        assert!(cryptsetup_opens(&ours, "secret"), "{spec:?}");
        assert!(!cryptsetup_opens(&ours, "Secret"));
    }
}

#[test]
fn what_cryptsetup_makes_we_unlock() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("c.luks"), folder.path().join("key"));
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    std::fs::write(&key, "pass").unwrap();
    let (text, key) = (path.to_str().unwrap(), key.to_str().unwrap());
    let common = ["-q", "--disable-locks", "--type", "luks1", "--pbkdf-force-iterations", "1000"];
    let format = ["luksFormat", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "192"];
    cryptsetup(&[&format[..], &common, &["--key-file", key, text]].concat());
    let disk = MemoryDisk::from_bytes(&std::fs::read(&path).unwrap());
    let mut volume = luks::unlock(&disk, 0, b"pass", &UnlockOptions::default()).unwrap();
    assert_eq!(volume.header.info().cipher_alg, "aes-192");

    // A key of ours in cryptsetup's volume.
    let cheap = AddKeyOptions { slot: Some(7), iter_time_ms: 1 };
    assert_eq!(luks::add_key(&disk, 0, &mut volume, b"more", &cheap).unwrap(), 7);
    std::fs::write(&path, disk.to_bytes()).unwrap();
    std::fs::write(key, "more").unwrap();
    let open = ["open", "--test-passphrase", "--disable-locks", "--key-slot", "7"];
    cryptsetup(&[&open[..], &["--key-file", key, text]].concat());
}

#[test]
fn keys_in_qemu() {
    let plain = noise(SIZE);
    let mut ours = Ours::new(&cheap(CipherSpec::default()), "old", &plain);
    let cheap = AddKeyOptions { slot: None, iter_time_ms: 5 };
    luks::add_key(&ours.disk, 0, &mut ours.unlocked, b"new", &cheap).unwrap();
    ours.save();
    let opts = luks_options(&ours.path);
    for password in ["old", "new"] {
        assert!(qemu_content(ours.folder.path(), password, &opts) == plain);
    }
    let header = &mut ours.unlocked.header;
    let any = UnlockOptions::default();
    let erased = luks::erase_matching(&ours.disk, 0, header, b"old", false, &any).unwrap();
    assert_eq!(erased, [0]);
    ours.save();
    assert!(qemu_content(ours.folder.path(), "new", &opts) == plain);
    let old = secret("old");
    let arguments = ["--object", &old, "-c", "read 0 512", "--image-opts", &opts];
    let answer = run("qemu-utils", "qemu-io", &arguments);
    assert!(answer.err.contains("Invalid password, cannot unlock any keyslot"), "{answer:?}");
    assert!(!cryptsetup_opens(&ours, "old") && cryptsetup_opens(&ours, "new"));

    // A key of QEMU's in our volume, and QEMU erasing ours.
    let (new, third) = (secret("new"), "secret,id=s1,data=third");
    let amend = |options: &str| {
        let objects = ["amend", "--object", &new, "--object", third, "--image-opts", &opts];
        qemu_img(&[&objects[..], &["-o", options]].concat());
    };
    amend("state=active,new-secret=s1,keyslot=6,iter-time=10");
    amend("state=inactive,old-secret=s0");
    assert!(our_content(&ours.path, "third") == plain);
    let disk = MemoryDisk::from_bytes(&std::fs::read(&ours.path).unwrap());
    assert!(luks::unlock(&disk, 0, b"new", &any).is_err());
    assert_eq!(luks::unlock(&disk, 0, b"third", &any).unwrap().slot, 6);
}

#[test]
fn detached_header_in_qemu() {
    let options = CreateOptions { detached: true, ..cheap(CipherSpec::default()) };
    let folder = tempfile::tempdir().unwrap();
    let (head, data) = (folder.path().join("head"), folder.path().join("data"));
    let created = luks::create(&options, b"secret").unwrap();
    std::fs::write(&head, created.to_bytes()).unwrap();
    let plain = noise(SIZE);
    let payload = CryptDisk::new(MemoryDisk::new(SIZE as u64), 0, created.unlocked.cipher);
    payload.write_at(&plain, 0).unwrap();
    std::fs::write(&data, payload.inner().to_bytes()).unwrap();
    let opts = format!(
        "driver=luks,key-secret=s0,file.filename={},header.driver=file,header.filename={}",
        data.display(),
        head.display()
    );
    assert!(qemu_content(folder.path(), "secret", &opts) == plain);
}
