//! What is refused, is refused by name, before anything is changed.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;

use common::{open, options};
use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::qcow2::Measure;
use disksmith_formats::{
    Backing, CreateRequest, Image, OpenMode, OpenRequest, Preallocation, Repair, ResizeRequest,
    Snapshot, driver,
};

const SIZE: u64 = 1 << 20;

/// What is asked for and the words of the refusal.
type Refusals = &'static [(&'static str, &'static str)];

fn create_sized(format: &str, size: u64, text: &str) -> Result<Arc<MemoryDisk>> {
    let file = Arc::new(MemoryDisk::new(0));
    let storage: Arc<dyn Disk> = file.clone();
    let mut options = options(text);
    let backing = options.take("backing").map(|name| Backing { name, format: None });
    let data = options.take("data");
    let secret = options.take("secret").map(|word| Secret::new(word.into()));
    let request = CreateRequest {
        size,
        options,
        backing,
        secret,
        data_file: data.map(|name| (name, Arc::new(MemoryDisk::new(0)) as Arc<dyn Disk>)),
    };
    (driver(format).unwrap().create.unwrap())(&storage, &request)?;
    Ok(file)
}

fn create(format: &str, text: &str) -> Result<Arc<MemoryDisk>> {
    create_sized(format, SIZE, text)
}

#[track_caller]
fn refused<T>(result: Result<T>, words: &str, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert!(error.to_string().contains(words), "{what}: {error}");
}

const CREATE: Refusals = &[
    ("compat=2", "'version' does not accept value '2'"),
    ("compression_type=lzo", "'compression-type' does not accept"),
    ("preallocation=some", "'preallocation' does not accept"),
    ("cluster_size=3k", "power of two between 512 and 2048k"),
    ("cluster_size=x", "'cluster_size' expects"),
    ("extended_l2=maybe", "expects 'on' or 'off'"),
    ("lazy_refcounts=maybe", "expects 'on' or 'off'"),
    ("data_file_raw=maybe", "expects 'on' or 'off'"),
    ("encryption=maybe", "expects 'on' or 'off'"),
    ("extended_l2=on,cluster_size=8k", "at least 16384 bytes"),
    ("extended_l2=on,compat=0.10", "compatibility level 1.1"),
    ("backing=base,preallocation=full", "extended_l2 is on"),
    ("lazy_refcounts=on,compat=0.10", "compatibility level 1.1"),
    ("refcount_bits=3", "Refcount width must be a power of two"),
    ("refcount_bits=128", "Refcount width must be a power of two"),
    ("refcount_bits=x", "'refcount_bits' expects"),
    ("refcount_bits=8,compat=0.10", "Different refcount widths than 16 bits"),
    ("data_file_raw=on", "data-file-raw requires data-file"),
    ("data=d,data_file_raw=on,backing=base", "cannot be used at the same time"),
    ("data=d,compat=0.10", "External data files are only supported"),
    ("compression_type=zstd,compat=0.10", "Non-zlib compression type"),
    ("encrypt.format=luks,encryption=on", "can't be used at the same time"),
    ("encrypt.format=des", "'format' does not accept"),
    ("encrypt.key-secret=x", "'encrypt.format' is missing"),
    ("encrypt.cipher-alg=aes-256", "'encrypt.format' is missing"),
    ("encryption=on,encrypt.cipher-alg=aes-256", "'encrypt.cipher-alg' is unexpected"),
    ("encryption=on", "'encrypt.key-secret' is required"),
    ("secret=s,encrypt.format=luks,encrypt.cipher-alg=x", "'cipher-alg' does not accept"),
    ("secret=s,encrypt.format=luks,encrypt.cipher-mode=x", "'cipher-mode' does not accept"),
    ("secret=s,encrypt.format=luks,encrypt.ivgen-alg=x", "'ivgen-alg' does not accept"),
    ("secret=s,encrypt.format=luks,encrypt.ivgen-hash-alg=x", "'ivgen-hash-alg' does not accept"),
    ("secret=s,encrypt.format=luks,encrypt.hash-alg=x", "'hash-alg' does not accept"),
    ("secret=s,encrypt.format=luks,encrypt.iter-time=0", "iter-time must be non-zero"),
    ("secret=s,encrypt.format=luks,encrypt.iter-time=x", "'encrypt.iter-time' expects"),
];

#[test]
fn options_of_new_images() {
    for (text, words) in CREATE {
        refused(create("qcow2", text), words, text);
        if !text.contains("secret") && !text.starts_with("encryption=on") && !text.contains("data=")
        {
            let backing = text.contains("backing");
            refused(Measure::new(SIZE, &options(text), backing).map(drop), words, text);
        }
    }
    for size in [u64::MAX, 1 << 62] {
        refused(create_sized("qcow2", size, ""), "too large", "a huge disk");
        refused(Measure::new(size, &options(""), false).map(drop), "too large", "measured");
    }
    let name = format!("backing={}", "n".repeat(1024));
    refused(create("qcow2", &name), "name too long", "a long name");
    let name = format!("backing={},cluster_size=512", "n".repeat(600));
    refused(create("qcow2", &name), "No space left in the file header", "a name and no room");
}

const AMEND: Refusals = &[
    ("compat=9", "Unknown compatibility level 9"),
    ("data_file=x", "use an external data file"),
    ("data_file_raw=on", "cannot be set on existing images"),
    ("data_file_raw=x", "expects 'on' or 'off'"),
    ("lazy_refcounts=x", "expects 'on' or 'off'"),
    ("refcount_bits=3", "Refcount width must be a power of two"),
    ("refcount_bits=x", "'refcount_bits' expects"),
    ("size=x", "'size' expects"),
    ("size=700", "multiple of 512"),
    ("backing_file=other", "Cannot amend the backing file"),
    ("compat=0.10,refcount_bits=8", "Refcount widths other than 16 bits"),
    ("compat=0.10,lazy_refcounts=on", "Lazy refcounts only supported"),
    ("encrypt.state=active", "encryption not present"),
    ("refcount_bits=1", "Cannot decrease refcount entry width to 1 bits"),
    ("compat=0.10", "Cannot downgrade an image with persistent bitmaps"),
];

/// With a snapshot and a bitmap.
fn rich(text: &str) -> Arc<MemoryDisk> {
    let file = create("qcow2", text).unwrap();
    let image = open(file.clone(), OpenMode::Write);
    image.write_at(&[1; 70_000], 0).unwrap();
    image.create_snapshot(Snapshot { name: "s".into(), ..Snapshot::default() }).unwrap();
    if !text.contains("0.10") {
        image.add_bitmap("b", None, true).unwrap();
    }
    image.close().unwrap();
    file
}

fn amend(image: &dyn Image, text: &str) -> Result<()> {
    image.amend(&options(text), false, &mut |_, _| {})
}

/// Refused, with nothing changed, and the image still works.
fn refused_unchanged(file: &Arc<MemoryDisk>, image: &dyn Image, text: &str, words: &str) {
    let before = file.to_bytes();
    refused(amend(image, text), words, text);
    assert!(file.to_bytes() == before, "{text}: something was written");
}

#[test]
fn options_of_images() {
    let file = rich("");
    let image = open(file.clone(), OpenMode::Write);
    for (text, words) in AMEND {
        refused_unchanged(&file, &*image, text, words);
    }
    image.write_at(&[2; 512], 0).unwrap();
    image.close().unwrap();
    let file = rich("compat=0.10");
    let image = open(file.clone(), OpenMode::Write);
    for (text, words) in [
        ("refcount_bits=8", "Refcount widths other than 16 bits"),
        ("lazy_refcounts=on", "Lazy refcounts only supported"),
        ("size=2M", "Can't resize a v2 image which has snapshots"),
    ] {
        refused_unchanged(&file, &*image, text, words);
    }
    for (text, words) in [
        ("extended_l2=on", "incompatible features"),
        ("refcount_bits=8", "compat=0.10 requires refcount_bits=16"),
    ] {
        let file = create("qcow2", text).unwrap();
        let image = open(file.clone(), OpenMode::Write);
        refused_unchanged(&file, &*image, "compat=0.10", words);
    }
}

const KEYS: Refusals = &[
    ("new-secret=b", "Parameter 'state' is missing"),
    ("state=idle", "'state' does not accept value 'idle'"),
    ("state=active", "'new-secret' is required"),
    ("state=active,new-secret=b,old-secret=a", "'old-secret' must not be given"),
    ("state=inactive,new-secret=b", "'new-secret' must not be given"),
    ("state=inactive,iter-time=5,keyslot=0", "'iter-time' must not be given"),
    ("state=inactive", "either explicit keyslot index or the password"),
    ("state=inactive,keyslot=8", "keyslot"),
    ("state=active,keyslot=x,new-secret=b", "keyslot' expects"),
    ("state=active,iter-time=x,new-secret=b", "iter-time' expects"),
    ("state=active,keyslot=0,new-secret=b,iter-time=1", "Refusing to overwrite active keyslot 0"),
    ("state=inactive,keyslot=0", "only active keyslot 0"),
    ("state=inactive,keyslot=3", "keyslot 3 is already erased"),
    ("state=inactive,keyslot=0,old-secret=b", "doesn't contain the"),
    ("state=inactive,old-secret=b", "No keyslots match"),
    ("state=inactive,old-secret=a", "All the active keyslots match"),
];

fn open_locked(file: &Arc<MemoryDisk>, format: &str, mode: OpenMode) -> Result<Arc<dyn Image>> {
    let secret = Some(Secret::new(b"a".into()));
    let request = OpenRequest { mode, secret, ..OpenRequest::default() };
    (driver(format).unwrap().open)(file.clone(), request)
}

#[test]
fn changes_of_passwords() {
    for (format, text, prefix) in [
        ("luks", "secret=a,iter-time=1", ""),
        ("qcow2", "secret=a,encrypt.format=luks,encrypt.iter-time=1", "encrypt."),
    ] {
        let file = create(format, text).unwrap();
        let image = open_locked(&file, format, OpenMode::Write).unwrap();
        for (text, words) in KEYS {
            let named: Vec<_> = text.split(',').map(|pair| format!("{prefix}{pair}")).collect();
            refused_unchanged(&file, &*image, &named.join(","), words);
        }
        for number in 1..8 {
            let text =
                format!("{prefix}state=active,{prefix}new-secret=w{number},{prefix}iter-time=1");
            amend(&*image, &text).unwrap();
        }
        let text = format!("{prefix}state=active,{prefix}new-secret=one,{prefix}iter-time=1");
        refused_unchanged(&file, &*image, &text, "all keyslots are in use");
        let inspected = open_locked(&file, format, OpenMode::Inspect).unwrap();
        assert!(amend(&*inspected, &text).is_err());
        assert!(inspected.read_at(&mut [0; 512], 0).is_err());
    }
    let file = create("qcow2", "secret=a,encryption=on").unwrap();
    let image = open_locked(&file, "qcow2", OpenMode::Write).unwrap();
    refused_unchanged(&file, &*image, "encrypt.state=active", "Only LUKS encryption options");
}

const LUKS: Refusals = &[
    ("", "'key-secret' is required"),
    ("secret=a,cipher-alg=x", "'cipher-alg' does not accept"),
    ("secret=a,cipher-mode=x", "'cipher-mode' does not accept"),
    ("secret=a,ivgen-alg=x", "'ivgen-alg' does not accept"),
    ("secret=a,ivgen-hash-alg=x", "'ivgen-hash-alg' does not accept"),
    ("secret=a,hash-alg=x", "'hash-alg' does not accept"),
    ("secret=a,iter-time=0", "iter-time must be non-zero"),
    ("secret=a,iter-time=x", "'iter-time' expects"),
    ("secret=a,detached-header=on", "'detached-header' is unexpected"),
    ("secret=a,detached-header=x", "expects 'on' or 'off'"),
    ("secret=a,preallocation=x", "'preallocation' does not accept"),
    ("secret=a,preallocation=metadata,iter-time=1", "Unsupported preallocation mode"),
];

#[test]
fn luks_and_raw() {
    for (text, words) in LUKS {
        refused(create("luks", text), words, text);
    }
    for format in ["luks", "raw"] {
        let text = "secret=a,iter-time=1";
        refused(create_sized(format, u64::MAX, text), "too large", "a huge disk");
        let file = create(format, text).unwrap();
        let image = open_locked(&file, format, OpenMode::Write).unwrap();
        let resize = |size, preallocation| image.resize(ResizeRequest { size, preallocation });
        refused(resize(2 << 20, Preallocation::Metadata), "Unsupported", "tables");
        refused(resize(u64::MAX, Preallocation::Off), "", "a huge disk");
        refused(image.map(SIZE, 1).map(drop), "nothing to map", "the end");
        refused(image.write_at(&[0; 2], SIZE - 1), "", "past the end");
        refused(image.read_at(&mut [0; 2], u64::MAX - 1), "", "far past the end");
        refused(image.write_zeroes(u64::MAX - 1, 2, ZeroMode::Keep), "", "far past the end");
        let reader = open_locked(&file, format, OpenMode::Read).unwrap();
        refused(reader.write_at(&[0; 512], 0), "read-only", "a reader writes");
        refused(reader.write_zeroes(0, 512, ZeroMode::Keep), "read-only", "a reader writes");
    }
    refused(create("raw", "preallocation=x"), "invalid parameter value: x", "raw");
    refused(create("raw", "preallocation=metadata"), "Unsupported preallocation", "raw");
    let file = create("raw", "").unwrap();
    let open = |text: &str| {
        let request =
            OpenRequest { mode: OpenMode::Write, options: options(text), ..OpenRequest::default() };
        (driver("raw").unwrap().open)(file.clone(), request)
    };
    for (text, words) in [
        ("offset=2M", "is smaller than offset"),
        ("offset=512k,size=600k", "has to be smaller or equal"),
        ("offset=512,size=700", "not multiple of 512"),
        ("offset=x", "'offset' expects"),
        ("size=x", "'size' expects"),
        ("guard=x", "expects 'on' or 'off'"),
        ("cache.direct=x", "expects 'on' or 'off'"),
    ] {
        refused(open(text).map(drop), words, text);
    }
    let window = open("offset=512k").unwrap();
    let request = ResizeRequest { size: SIZE, preallocation: Preallocation::Off };
    refused(window.resize(request), "Cannot resize a window", "a window");
    refused(window.read_at(&mut [0; 2], u64::MAX - 1), "past the end", "far past the end");
    refused(window.map(u64::MAX - 1, 1).map(drop), "nothing to map", "far past the end");
    let guarded = open("guard=on").unwrap();
    refused(guarded.write_at(b"QFI\xfb\0\0\0\x03", 0), "look like qcow2", "guarded");
    let shrink = ResizeRequest { size: 512, preallocation: Preallocation::Full };
    refused(guarded.resize(shrink), "can't be used for shrinking", "shrinking");
}

#[test]
fn operations_on_images() {
    let file = rich("");
    let image = open(file.clone(), OpenMode::Write);
    let before = file.to_bytes();
    let resize = |size, preallocation| image.resize(ResizeRequest { size, preallocation });
    refused(resize(700, Preallocation::Off), "multiple of 512", "an odd size");
    refused(resize(512, Preallocation::Full), "can't be used for shrinking", "shrinking");
    refused(resize(1 << 60, Preallocation::Off), "Failed to grow the L1 table", "a huge disk");
    refused(image.read_at(&mut [0; 2], SIZE - 1), "outside of the image", "past the end");
    refused(image.write_at(&[0; 2], u64::MAX), "outside of the image", "far past the end");
    refused(image.discard(SIZE, 1), "outside of the image", "past the end");
    refused(image.write_zeroes(SIZE, 1, ZeroMode::Keep), "outside of the image", "past the end");
    refused(image.map(SIZE, 1).map(drop), "nothing to map", "the end");
    refused(image.write_packed(SIZE, &[0; 9]), "outside", "past the end");
    refused(image.write_packed(512, &[0; 9]), "", "within a cluster");
    refused(image.write_packed(0, &[0; 1 << 17]), "", "more than a cluster");
    let name = |name: String| Snapshot { name, ..Snapshot::default() };
    refused(image.create_snapshot(name("n".repeat(70_000))), "Invalid argument", "a long name");
    refused(image.apply_snapshot("none"), "No such file", "no snapshot");
    refused(image.apply_snapshot("s"), "active dirty bitmaps", "with bitmaps");
    refused(image.delete_snapshot("none"), "not found", "no snapshot");
    refused(image.open_snapshot("none").map(drop), "Can't find snapshot", "no snapshot");
    refused(image.add_bitmap("", None, true), "cannot be empty", "no name");
    refused(image.add_bitmap("b", None, true), "already exists", "twice");
    refused(image.add_bitmap("c", Some(700), true), "power of 2", "granularity");
    refused(image.add_bitmap(&"n".repeat(1024), None, true), "too long", "a long name");
    for result in [
        image.remove_bitmap("none"),
        image.clear_bitmap("none"),
        image.enable_bitmap("none", true),
        image.merge_bitmap("none", &[]),
        image.dirty_ranges("none").map(drop),
    ] {
        refused(result, "'none' not found", "no bitmap");
    }
    refused(image.attach_data_file(Arc::new(MemoryDisk::new(0))), "can only be set", "data file");
    let long = Backing { name: "n".repeat(1024), format: None };
    refused(image.change_backing(Some(long)), "name too long", "a long name");
    assert!(file.to_bytes() == before, "something was written");
    image.write_at(&[3; 512], 0).unwrap();
    image.close().unwrap();
    refused_to_readers(&file);
}

fn refused_to_readers(file: &Arc<MemoryDisk>) {
    let before = file.to_bytes();
    let image = open(file.clone(), OpenMode::Read);
    let resize = ResizeRequest { size: 2 * SIZE, preallocation: Preallocation::Off };
    for result in [
        image.write_at(&[0; 512], 0),
        image.write_zeroes(0, 512, ZeroMode::Keep),
        image.discard(0, 65_536),
        image.write_packed(0, &[0; 9]),
        image.resize(resize),
        image.make_empty(),
        image.change_backing(None),
        image.create_snapshot(Snapshot::default()),
        image.apply_snapshot("s"),
        image.delete_snapshot("s"),
        image.add_bitmap("new", None, true),
        image.remove_bitmap("b"),
        image.clear_bitmap("b"),
        image.enable_bitmap("b", false),
        image.merge_bitmap("b", &[]),
        amend(&*image, "refcount_bits=32"),
        image.check(Repair::All, &mut |_| {}).map(drop),
    ] {
        refused(result, "read-only", "a reader changes");
    }
    assert!(file.to_bytes() == before, "a reader wrote");
    let request = OpenRequest { mode: OpenMode::Inspect, ..OpenRequest::default() };
    let image = (driver("qcow2").unwrap().open)(file.clone(), request).unwrap();
    refused(image.read_at(&mut [0; 512], 0), "for inspection only", "looked at only");
}

#[test]
fn what_is_said_when_opening() {
    let plain = create("qcow2", "").unwrap();
    let luks = create("qcow2", "secret=a,encrypt.format=luks,encrypt.iter-time=1").unwrap();
    let aes = create("qcow2", "secret=a,encryption=on").unwrap();
    for (file, text, words) in [
        (&plain, "encrypt.format=luks", "No encryption in image header"),
        (&luks, "encrypt.format=aes", "reported 'luks' encryption format"),
        (&aes, "encrypt.format=luks", "reported 'aes' encryption format"),
        (&luks, "", "'encrypt.key-secret' is required"),
        (&aes, "", "'encrypt.key-secret' is required"),
        (&plain, "l2-cache-size=x", "'l2-cache-size' expects"),
        (&plain, "refcount-cache-size=x", "'refcount-cache-size' expects"),
    ] {
        let request = OpenRequest { options: options(text), ..OpenRequest::default() };
        let opened = (driver("qcow2").unwrap().open)(file.clone(), request);
        refused(opened.map(drop), words, text);
    }
}

#[test]
fn what_a_kind_cannot() {
    let file = create("qcow2", "data=d").unwrap();
    let image = open(file.clone(), OpenMode::Write);
    let words = "'data-file' is required";
    let resize = ResizeRequest { size: 2 * SIZE, preallocation: Preallocation::Off };
    refused(image.read_at(&mut [0; 512], 0).and(image.write_at(&[1; 512], 0)), words, "no file");
    refused(image.resize(resize), words, "no file");
    refused(image.discard(0, SIZE), words, "no file");
    image.attach_data_file(Arc::new(MemoryDisk::new(SIZE))).unwrap();
    for result in [
        image.create_snapshot(Snapshot::default()),
        image.apply_snapshot("s"),
        image.delete_snapshot("s"),
        image.write_packed(0, &[0; 9]),
    ] {
        refused(result, "not supported", "with a data file");
    }
    let old = open(create("qcow2", "compat=0.10").unwrap(), OpenMode::Write);
    refused(old.add_bitmap("b", None, true), "in qcow2 v2 files", "version 2");
    let empty = open(create_sized("qcow2", 0, "").unwrap(), OpenMode::Write);
    refused(empty.add_bitmap("b", None, true), "the disk has no size", "no size");
    let raw = open(create("qcow2", "data=d,data_file_raw=on").unwrap(), OpenMode::Write);
    let backing = Backing { name: "b".into(), format: None };
    refused(raw.change_backing(Some(backing)), "cannot be used at the same time", "raw data");
    narrow_counts();
}

/// Counts of two bits: three users of a cluster at most.
fn narrow_counts() {
    let file = create("qcow2", "refcount_bits=2,cluster_size=4k").unwrap();
    let image = open(file, OpenMode::Write);
    image.write_at(&[1; 30_000], 0).unwrap();
    let take =
        |name: &str| image.create_snapshot(Snapshot { name: name.into(), ..Default::default() });
    take("one").unwrap();
    take("two").unwrap();
    refused(take("three"), "", "a fourth user");
    refused(image.apply_snapshot("one"), "Failed to load snapshot", "a fourth user");
    let report = image.check(Repair::None, &mut |_| {}).unwrap().unwrap();
    assert_eq!((report.corruptions, report.leaks), (0, 0));
    assert_eq!(image.dirty(), Some(false));
    image.write_at(&[2; 30_000], 0).unwrap();
    image.close().unwrap();
}
