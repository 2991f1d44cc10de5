//! qcow2: opening, reading, checking, repairing, and operations on what opens.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Options, Preallocation, Repair, ResizeRequest,
    Snapshot, driver,
};
use disksmith_testkit::Rng;

use crate::budget::Metered;
use crate::{Target, fields};

/// Guest bytes read of an image, in pieces.
const READ_LIMIT: u64 = 1 << 20;
/// Runs of the map that are looked at.
const MAP_LIMIT: usize = 1000;

macro_rules! target {
    ($const:ident, $name:literal, $run:expr) => {
        pub(crate) const $const: Target =
            Target { name: $name, run: $run, seeds, fields: fields::qcow2::FIELDS, fix: None };
    };
}

target!(INSPECT, "qcow2_inspect", |data| {
    if let Ok(image) = open(&Metered::new(data), OpenMode::Inspect) {
        drop((image.facts(), image.backing(), image.data_file(), image.dirty()));
        drop((image.snapshots(), image.bitmaps()));
    }
});

target!(READ, "qcow2_read", |data| {
    if let Ok(image) = open(&Metered::new(data), OpenMode::Read) {
        read(&*image);
    }
});

target!(CHECK, "qcow2_check", |data| {
    if let Ok(image) = open(&Metered::new(data), OpenMode::Check) {
        drop(image.check(Repair::None, &mut |_| {}));
    }
});

target!(REPAIR, "qcow2_repair", |data| {
    let storage = Metered::new(data);
    let Ok(image) = open(&storage, OpenMode::Repair) else { return };
    let Ok(Some(report)) = image.check(Repair::All, &mut |_| {}) else { return };
    drop(image.close());
    drop(image);
    if report.corruptions > 0 || report.check_errors > 0 {
        return;
    }
    let again = Metered::over(storage.content());
    // Without the key an encrypted image can only be checked.
    let image = open(&again, OpenMode::Check).expect("a repaired image opens");
    let report = image.check(Repair::None, &mut |_| {}).expect("a repaired image can be checked");
    let corruptions = report.map_or(0, |report| report.corruptions);
    assert_eq!(corruptions, 0, "a repaired image is clean");
});

target!(SNAPSHOTS, "qcow2_snapshots", |data| {
    let Ok(image) = open(&Metered::new(data), OpenMode::Write) else { return };
    for snapshot in image.snapshots().into_iter().take(4) {
        if let Ok(view) = image.open_snapshot(&snapshot.id) {
            read(&*view);
        }
        drop(image.apply_snapshot(&snapshot.id));
    }
    drop(image.create_snapshot(Snapshot { name: "new".into(), ..Snapshot::default() }));
    drop(image.delete_snapshot("new"));
    drop(image.close());
});

target!(BITMAPS, "qcow2_bitmaps", |data| {
    let Ok(image) = open(&Metered::new(data), OpenMode::Write) else { return };
    for bitmap in image.bitmaps().into_iter().flatten().take(4) {
        if let Ok(ranges) = image.dirty_ranges(&bitmap.name) {
            drop(image.merge_bitmap(&bitmap.name, &ranges));
        }
        drop(image.enable_bitmap(&bitmap.name, !bitmap.enabled));
        drop(image.clear_bitmap(&bitmap.name));
    }
    drop(image.add_bitmap("new", None, true));
    drop(image.write_at(&[1; 4096], 0));
    drop(image.remove_bitmap("new"));
    drop(image.close());
});

target!(OPERATIONS, "qcow2_operations", |data| {
    // The last bytes choose the operations.
    let (image, choices) = data.split_at(data.len().saturating_sub(8));
    let Ok(image) = open(&Metered::new(image), OpenMode::Write) else { return };
    let seed = choices.iter().fold(0u64, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rng = Rng::new(seed);
    for _ in 0..8 {
        drop(operate(&*image, &mut rng));
    }
    drop(image.close());
});

fn operate(image: &dyn Image, rng: &mut Rng) -> Result<()> {
    let size = image.size().min(1 << 30);
    let offset = rng.below(size + 1) / 512 * 512;
    let length = (512 + rng.below(65536) / 512 * 512).min(size - offset.min(size));
    match rng.below(8) {
        0..=2 => image.write_at(&vec![7; length as usize], offset),
        3 => image.write_zeroes(offset, length, ZeroMode::Unmap),
        4 => image.discard(offset, length),
        5 => image.flush(),
        6 => {
            let size = rng.below(1 << 24) / 512 * 512;
            image.resize(ResizeRequest { size, preallocation: Preallocation::Off })
        }
        _ => {
            read(image);
            Ok(())
        }
    }
}

fn open(storage: &Arc<Metered>, mode: OpenMode) -> Result<Arc<dyn Image>> {
    let request = OpenRequest { mode, ..OpenRequest::default() };
    let image = (driver("qcow2").expect("registered").open)(storage.clone(), request)?;
    if image.data_file().is_some() && mode != OpenMode::Inspect {
        image.attach_data_file(Arc::new(MemoryDisk::new(1 << 20)))?;
    }
    if image.backing().is_some() && mode != OpenMode::Inspect {
        image.attach_backing(Some(Arc::new(MemoryDisk::new(1 << 20))))?;
    }
    Ok(image)
}

fn read(image: &dyn Image) {
    let size = image.size();
    let mut buffer = vec![0; 65536];
    let mut at = 0;
    while at < size.min(READ_LIMIT) {
        let step = buffer.len().min((size - at) as usize);
        drop(image.read_at(&mut buffer[..step], at));
        at += step as u64;
    }
    if size > READ_LIMIT {
        drop(image.read_at(&mut buffer[..512], size - 512));
    }
    let mut at = 0;
    for _ in 0..MAP_LIMIT {
        match image.map(at, size - at) {
            Ok(extent) if at + extent.length < size => at += extent.length,
            _ => break,
        }
    }
}

/// Images with data, a snapshot, a bitmap, compressed and zero clusters.
fn seeds() -> Vec<Vec<u8>> {
    let kinds: &[&[(&str, &str)]] = &[
        &[("cluster_size", "4k")],
        &[("cluster_size", "4k"), ("compat", "0.10")],
        &[("cluster_size", "4k"), ("lazy_refcounts", "on"), ("refcount_bits", "16")],
        &[("cluster_size", "16k"), ("extended_l2", "on")],
        &[("cluster_size", "512"), ("refcount_bits", "1")],
    ];
    kinds.iter().filter_map(|options| seed(options).ok()).collect()
}

fn seed(pairs: &[(&str, &str)]) -> Result<Vec<u8>> {
    let storage = Arc::new(MemoryDisk::new(0));
    let disk: Arc<dyn Disk> = storage.clone();
    let mut options = Options::new();
    for (name, value) in pairs {
        options.set(name, *value);
    }
    let driver = driver("qcow2").expect("registered");
    let create = driver.create.expect("can be made");
    create(&disk, &CreateRequest { size: 256 << 10, options, ..CreateRequest::default() })?;
    let request = OpenRequest { mode: OpenMode::Write, ..OpenRequest::default() };
    let image = (driver.open)(disk, request)?;
    image.write_at(&[5; 20480], 1024)?;
    image.write_zeroes(65536, 8192, ZeroMode::Unmap)?;
    // Narrow refcounts and version 2 cannot do all of the following; they go without.
    drop(image.create_snapshot(Snapshot { name: "one".into(), ..Snapshot::default() }));
    drop(image.add_bitmap("bitmap", None, true));
    image.write_at(&[6; 4096], 36864)?;
    image.close()?;
    Ok(storage.to_bytes())
}
