//! Images that say what cannot be, each thing refused by name where it is met; a writer marks the
//! image and writes no more.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::sync::Arc;

use common::options;
use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::qcow2::layout::{
    BitmapEntry, Extensions, Header, SnapshotEntry, SnapshotParse, parse_bitmap_directory,
};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Preallocation, Repair, ResizeRequest, Snapshot,
    driver,
};

const SIZE: u64 = 1 << 20;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const EXTENSIONS: u64 = 112;

fn be64(disk: &MemoryDisk, at: u64) -> u64 {
    let mut bytes = [0; 8];
    disk.read_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

fn open(disk: &MemoryDisk, mode: OpenMode) -> Result<Arc<dyn Image>> {
    let storage: Arc<dyn Disk> = Arc::new(disk.clone());
    open_on(storage, mode)
}

fn open_on(storage: Arc<dyn Disk>, mode: OpenMode) -> Result<Arc<dyn Image>> {
    let request = OpenRequest { mode, ..OpenRequest::default() };
    let image = (driver("qcow2").unwrap().open)(storage, request)?;
    if image.data_file().is_some() && mode != OpenMode::Inspect {
        image.attach_data_file(Arc::new(MemoryDisk::new(SIZE)))?;
    }
    Ok(image)
}

/// With data in its first clusters, a snapshot and a bitmap where the kind can have them.
fn seed(text: &str) -> MemoryDisk {
    let file = Arc::new(MemoryDisk::new(0));
    let storage: Arc<dyn Disk> = file.clone();
    let data_file = text
        .contains("data")
        .then(|| ("d".to_string(), Arc::new(MemoryDisk::new(0)) as Arc<dyn Disk>));
    let request =
        CreateRequest { size: SIZE, options: options(text), data_file, ..CreateRequest::default() };
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request).unwrap();
    let image = open_on(storage, OpenMode::Write).unwrap();
    image.write_at(&[1; 40_000], 0).unwrap();
    drop(image.create_snapshot(Snapshot { name: "s".into(), ..Snapshot::default() }));
    image.write_at(&[2; 40_000], 0).unwrap();
    drop(image.add_bitmap("b", None, true));
    image.write_at(&[3; 512], 0).unwrap();
    image.close().unwrap();
    MemoryDisk::clone(&file)
}

fn put(seed: &MemoryDisk, pieces: &[(u64, &[u8])]) -> MemoryDisk {
    let disk = seed.clone();
    for (at, bytes) in pieces {
        disk.write_at(bytes, *at).unwrap();
    }
    disk
}

#[track_caller]
fn refused<T>(result: Result<T>, words: &str, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert!(error.to_string().contains(words), "{what}: {error}");
}

/// An extension in front of those that the image has.
fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend([0; 8]);
    bytes
}

#[test]
fn headers() {
    let seed = seed("cluster_size=4k");
    let most: &[u8] = &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0];
    for (at, bytes, words) in [
        (0, &[0][..], "not in qcow2 format"),
        (7, &[9], "Unsupported qcow2 version 9"),
        (23, &[8], "Unsupported cluster size"),
        (23, &[22], "Unsupported cluster size"),
        (8, most, "Invalid backing file offset"),
        (8, &[0, 0, 0, 0, 0, 0, 15, 0, 0, 0, 4, 1], "Backing file name too long"),
        (24, most, ""),
        (24, &[0, 0, 0, 1], "L1 table is too small"),
        (35, &[9], "Unsupported encryption method 9"),
        (35, &[2], "Missing CRYPTO header"),
        (36, &[1], "Active L1 table too large"),
        (47, &[1], "Active L1 table offset invalid"),
        (40, &[0xff], "Active L1 table offset invalid"),
        (55, &[1], "Reference count table offset invalid"),
        (56, &[1], "Reference count table too large"),
        (56, &[0; 4], "does not contain a reference count table"),
        (60, &[1], "Snapshot table too large"),
        (71, &[1], "Snapshot table offset invalid"),
        (72, &[0x80], "Unknown incompatible feature"),
        (79, &[2], "Image is corrupt; cannot be opened read/write"),
        (79, &[16], "Unsupported subcluster size"),
        (79, &[8], "must not be set"),
        (104, &[1], "must be set"),
        (104, &[7], "unknown compression type: 7"),
        (99, &[7], "may not exceed 64 bits"),
        (103, &[90], "header too short"),
        (102, &[0x20], "exceeds cluster size"),
        (95, &[2], "data-file-raw requires a data file"),
    ] {
        let disk = put(&seed, &[(at, bytes)]);
        refused(open(&disk, OpenMode::Write).map(drop), words, &format!("{at}: {bytes:?}"));
    }
    refused(open(&MemoryDisk::new(20), OpenMode::Read).map(drop), "", "a short file");
    let bitmaps = |fields: [u8; 24]| extension(0x2385_2875, &fields);
    let of = |at: usize, value: u8| {
        let mut fields = [0; 24];
        (fields[3], fields[21]) = (1, 0x10);
        fields[at] = value;
        fields
    };
    for (bytes, words) in [
        (vec![1, 2, 3, 4, 0, 1, 0, 0], "Header extension too large"),
        (extension(0xe279_2aca, &[b'x'; 16]), "ext_backing_format: len=16"),
        (extension(0x0537_be77, &[0; 16]), "only expected with LUKS"),
        (extension(0x2385_2875, &[0; 7]), "Invalid extension length"),
        (extension(0x2385_2875, &[0; 32]), "Invalid extension length"),
        (bitmaps(of(7, 1)), "Reserved field is not zero"),
        (bitmaps(of(0, 1)), "bitmaps_ext"),
        (bitmaps(of(3, 0)), "zero bitmaps"),
        (bitmaps(of(23, 1)), "invalid bitmap directory offset"),
        (bitmaps(of(8, 1)), "bitmaps_ext"),
    ] {
        let disk = put(&seed, &[(EXTENSIONS, &bytes)]);
        refused(open(&disk, OpenMode::Read).map(drop), words, words);
    }
    for (data, words) in [(&[0; 7][..], "expected size 16"), (&[1; 16], "not a multiple")] {
        let disk = put(&seed, &[(35, &[2]), (EXTENSIONS, &extension(0x0537_be77, data))]);
        refused(open(&disk, OpenMode::Inspect).map(drop), words, words);
    }
}

#[test]
fn structures_that_are_cut_off() {
    let seed = seed("cluster_size=4k");
    let mut bytes = vec![0; 4096];
    seed.read_at(&mut bytes, 0).unwrap();
    let whole = Header::parse(&bytes).unwrap();
    for length in 0..=112 {
        let known = Header::parse(&bytes[..length]).is_ok();
        assert_eq!(known, length >= 105, "{length} bytes");
        drop(Extensions::parse(&whole, &bytes[..length * 3]));
    }
    let at = be64(&seed, 64);
    seed.read_at(&mut bytes, at).unwrap();
    let entry = |length: usize| SnapshotEntry::parse(&bytes[..length]);
    let SnapshotParse::Entry(_, needed) = entry(4096) else { panic!("no entry") };
    for length in 0..needed {
        // What fills the last eight bytes up may be missing.
        let more = matches!(entry(length), SnapshotParse::More(_));
        assert!(more || length + 8 > needed, "{length} bytes");
    }
    let entry = BitmapEntry { name: b"name".to_vec(), ..BitmapEntry::default() }.encode();
    assert!(parse_bitmap_directory(&entry, 1).is_some());
    for length in 0..entry.len() {
        assert!(parse_bitmap_directory(&entry[..length], 1).is_none(), "{length} bytes");
    }
}

/// What is done to an image until it meets what is broken.
fn use_it(image: &dyn Image) -> [Result<()>; 4] {
    let mut bytes = vec![0; 65_536];
    let resize = ResizeRequest { size: 2 * SIZE, preallocation: Preallocation::Metadata };
    [
        image.read_at(&mut bytes, 0),
        image.write_at(&bytes, 0).and_then(|()| image.flush()),
        image.write_zeroes(0, 65_536, ZeroMode::Unmap),
        image.resize(resize),
    ]
}

/// The error of whichever comes first; and once a writer met damage, it writes no more.
fn meets(disk: &MemoryDisk, words: &str) {
    for mode in [OpenMode::Read, OpenMode::Write] {
        let storage = Arc::new(disk.clone());
        let image = match open_on(storage.clone(), mode) {
            Ok(image) => image,
            Err(error) => {
                assert!(error.to_string().contains(words), "{words}: {error}");
                continue;
            }
        };
        let said: Vec<String> =
            use_it(&*image).into_iter().filter_map(|it| it.err()).map(|e| e.to_string()).collect();
        // Counts are met by writers only.
        let met = said.iter().any(|it| it.contains(words));
        assert!(met || mode == OpenMode::Read, "{words}: {said:?}");
        if said.iter().any(|it| it.contains("Marking image as corrupt")) {
            let before = storage.to_bytes();
            assert!(image.write_at(&[7; 512], 8192).is_err(), "{words}: is written on");
            assert!(storage.to_bytes() == before, "{words}: is written on");
            let again = open(&storage, OpenMode::Write);
            assert!(again.is_err() || be64(&storage, 0) & 0xff == 2, "{words}: is not marked");
        }
    }
    // These are no findings of qemu-img's check either.
    if words.contains("pre-v3") || words.contains("does not match guest") {
        return;
    }
    let image = open(disk, OpenMode::Check).unwrap();
    let found = image.check(Repair::None, &mut |_| {});
    let sound = found.is_ok_and(|it| it.unwrap().corruptions == 0 && it.unwrap().check_errors == 0);
    assert!(!sound, "{words}: a check finds nothing");
}

/// The first L1 entry, L2 entry, entry of the refcount table, and count of an image.
fn places(disk: &MemoryDisk) -> [u64; 4] {
    let (l1, table) = (be64(disk, 40), be64(disk, 48));
    [l1, be64(disk, l1) & OFFSET, table, be64(disk, table)]
}

#[test]
fn tables() {
    let entry = |raw: u64| raw.to_be_bytes();
    let plain = seed("cluster_size=4k");
    let [l1, l2, table, block] = places(&plain);
    meets(&put(&plain, &[(l1, &entry(1 << 63 | 0x4200))]), "L2 table offset 0x4200 unaligned");
    meets(&put(&plain, &[(l2, &entry(1 << 63 | 0x4200))]), "offset 0x4200 unaligned");
    meets(&put(&plain, &[(table, &entry(0x4200))]), "Refblock offset 0x4200 unaligned");
    meets(&put(&plain, &[(block, &[0, 0])]), "allocation of");
    meets(&put(&plain, &[(block, &[0; 256])]), "");
    meets(&put(&plain, &[(l2, &entry(1 << 63 | l1))]), "overlaps with active L1 table");
    // Compressed, and what is there is no stream.
    meets(&put(&plain, &[(l2, &entry(1 << 62 | 0x1000))]), "compressed cluster");
    let old = seed("cluster_size=4k,compat=0.10");
    let l2 = places(&old)[1];
    meets(&put(&old, &[(l2, &entry(1))]), "Zero cluster entry found in pre-v3 image");
    let fine = seed("cluster_size=16k,extended_l2=on");
    let l2 = places(&fine)[1];
    let raw = be64(&fine, l2);
    meets(&put(&fine, &[(l2 + 8, &entry(1 << 32 | 1))]), "Invalid cluster entry");
    meets(&put(&fine, &[(l2, &entry(1 << 62 | raw)), (l2 + 8, &entry(1))]), "Invalid cluster");
    let apart = seed("cluster_size=4k,data_file=d");
    let l2 = places(&apart)[1];
    meets(&put(&apart, &[(l2, &entry(1 << 62 | 0x1000))]), "with external data file");
    meets(&put(&apart, &[(l2, &entry(1 << 63 | 0x3000))]), "does not match guest cluster");
}

#[test]
fn snapshots_and_bitmaps() {
    let seed = seed("cluster_size=4k");
    let at = be64(&seed, 64);
    let table = be64(&seed, at);
    type Use = fn(&dyn Image) -> Result<()>;
    let uses: [(&str, Use); 3] = [
        ("open", |image| image.open_snapshot("s").map(drop)),
        ("delete", |image| image.delete_snapshot("s")),
        ("create", |image| {
            image.create_snapshot(Snapshot { name: "t".into(), ..Default::default() })
        }),
    ];
    for (place, bytes, using, words) in [
        (at + 8, &[0x7f][..], &uses[..2], "L1 table too large"),
        (at + 7, &[1], &uses[..2], "L1 table offset invalid"),
        (at + 8, &[0; 4], &uses[..1], "Snapshot L1 table is too small"),
        (table, &[0x80, 0, 0, 0, 0, 0, 0x42, 0], &uses[1..2], "offset 0x4200 unaligned"),
        (table, &[0x80, 0, 0, 1, 0, 0, 0, 0], &uses[1..2], "beyond the end"),
        (be64(&seed, 40) + 6, &[0x42], &uses[2..], "unaligned"),
    ] {
        for (name, action) in using {
            let image = open(&put(&seed, &[(place, bytes)]), OpenMode::Write).unwrap();
            refused(action(&*image), words, &format!("{name}: {place} {bytes:?}"));
        }
    }
    refused(
        open(&put(&seed, &[(at + 36, &[1])]), OpenMode::Read).map(drop),
        "Too much extra metadata",
        "extra data",
    );
    broken_bitmaps(&seed);
}

fn broken_bitmaps(seed: &MemoryDisk) {
    // The extension of the bitmaps is behind the names of the features.
    let mut head = vec![0; 4096];
    seed.read_at(&mut head, 0).unwrap();
    let parsed = Extensions::parse(&Header::parse(&head).unwrap(), &head).unwrap();
    let directory = parsed.bitmaps.unwrap().directory_offset;
    let table = be64(seed, directory);
    for (at, bytes, words) in [
        (directory + 8, &[0x7f][..], "table of bitmap 'b' is broken"),
        (table, &[0, 0, 0, 0, 0, 0, 0, 2], "table of bitmap 'b' is broken"),
        (directory + 15, &[1], "inconsistent"),
        (directory + 18, &[0xff, 0xff], "directory is broken"),
    ] {
        let image = open(&put(seed, &[(at, bytes)]), OpenMode::Write).unwrap();
        refused(image.dirty_ranges("b").map(drop), words, words);
        refused(image.clear_bitmap("b"), words, words);
        assert!(words.contains("directory") == image.bitmaps().unwrap().is_empty(), "{words}");
    }
    let narrow = self::seed("cluster_size=512,refcount_bits=1");
    let image = open(&narrow, OpenMode::Write).unwrap();
    refused(
        image.create_snapshot(Snapshot { name: "t".into(), ..Default::default() }),
        "",
        "counts of one bit",
    );
    image.write_at(&[5; 4096], 0).unwrap();
    image.close().unwrap();
}
