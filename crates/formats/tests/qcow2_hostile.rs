//! Damaged images: whatever the bytes say, every operation ends with an answer or one error,
//! soon, and without a panic.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Random, open, options, random_operations};
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Repair, ResizeRequest, Snapshot, driver,
};

const SIZE: u64 = 1 << 20;

fn seeds() -> Vec<MemoryDisk> {
    let texts =
        ["cluster_size=4k", "cluster_size=512", "cluster_size=16k,extended_l2=on", "compat=0.10"];
    texts
        .iter()
        .map(|text| {
            let file = Arc::new(MemoryDisk::new(0));
            let storage: Arc<dyn Disk> = file.clone();
            let request =
                CreateRequest { size: SIZE, options: options(text), ..CreateRequest::default() };
            (driver("qcow2").unwrap().create.unwrap())(&storage, &request).unwrap();
            let image = open(storage, OpenMode::Write);
            let model = MemoryDisk::new(SIZE);
            random_operations(&*image, &model, 5, 30, 50_000);
            image.create_snapshot(Snapshot { name: "s".into(), ..Snapshot::default() }).unwrap();
            random_operations(&*image, &model, 6, 20, 50_000);
            if !text.contains("0.10") {
                image.add_bitmap("b", None, true).unwrap();
            }
            image.close().unwrap();
            MemoryDisk::clone(&file)
        })
        .collect()
}

/// Changes up to four fields to values at the borders of sense.
fn mutate(file: &MemoryDisk, random: &mut Random) {
    let size = file.size();
    for _ in 0..=random.below(3) {
        let width = [1u64, 2, 4, 8][random.below(4) as usize];
        let place = match random.below(3) {
            0 => random.below(112),
            1 => random.below(1024),
            _ => random.below(size),
        } / width
            * width;
        let mut old = [0; 8];
        let _ = file.read_at(&mut old[8 - width as usize..], place);
        let old = u64::from_be_bytes(old);
        let values = [
            0,
            1,
            u64::MAX,
            i64::MAX as u64,
            1 << 63,
            1 << 62,
            old.wrapping_add(1),
            old.wrapping_sub(1),
            old.wrapping_shl(1),
            old ^ 1 << random.below(64),
            size,
            size + 512,
            place,
            4096,
            random.next(),
            random.next() & 0x8000_0000_00ff_fe00,
        ];
        let value = values[random.below(values.len() as u64) as usize].to_be_bytes();
        let _ = file.write_at(&value[8 - width as usize..], place);
    }
}

fn reopen(file: &MemoryDisk, mode: OpenMode) -> Option<Arc<dyn Image>> {
    let storage: Arc<dyn Disk> = Arc::new(file.clone());
    let request = OpenRequest { mode, ..OpenRequest::default() };
    (driver("qcow2").unwrap().open)(storage, request).ok()
}

/// Does everything there is to do; errors are fine.
fn exercise(file: &MemoryDisk, random: &mut Random) {
    if let Some(image) = reopen(file, OpenMode::Inspect) {
        let _ = (image.facts(), image.snapshots(), image.bitmaps(), image.backing());
    }
    let mut buffer = vec![0; 70_000];
    if let Some(image) = reopen(file, OpenMode::Read) {
        let mut at = 0;
        for _ in 0..200 {
            let Ok(extent) = image.map(at, u64::MAX) else { break };
            at = at.saturating_add(extent.length);
        }
        for _ in 0..6 {
            let place = random.below(image.size().max(1));
            let length = (image.size() - place).min(buffer.len() as u64) as usize;
            let _ = image.read_at(&mut buffer[..length], place);
        }
        let _ = image.open_snapshot("s").map(|view| view.map(0, 1));
    }
    if let Some(image) = reopen(file, OpenMode::Write) {
        let size = image.size().max(1);
        for _ in 0..4 {
            let place = random.below(size.min(4 << 20));
            let length = (size - place).min(buffer.len() as u64).min(image.size());
            let _ = image.write_at(&buffer[..length as usize], place);
            let _ = image.write_zeroes(place, length, ZeroMode::Unmap);
            let _ = image.discard(place, length);
        }
        let _ = image.flush();
        let _ = image.create_snapshot(Snapshot { name: "t".into(), ..Snapshot::default() });
        let _ = image.apply_snapshot("s");
        let _ = image.delete_snapshot("s");
        if image.size() < 1 << 30 {
            let size = image.size().next_multiple_of(512) + (1 << 20);
            let _ = image.resize(ResizeRequest { size, preallocation: Default::default() });
            let _ = image.make_empty();
        }
        let _ = image.close();
    }
    if let Some(image) = reopen(file, OpenMode::Check) {
        let _ = image.check(Repair::None, &mut |_| {});
    }
}

#[test]
fn nothing_panics() {
    let count = if std::env::var_os("DISKSMITH_LONG").is_some() { 20_000 } else { 400 };
    let seeds = seeds();
    for number in 0..count {
        let mut random = Random::new(number + 1);
        let file = seeds[number as usize % seeds.len()].clone();
        mutate(&file, &mut random);
        let begin = Instant::now();
        let told = std::panic::AssertUnwindSafe(|| exercise(&file, &mut random));
        if std::panic::catch_unwind(told).is_err() {
            panic!("mutant {number}");
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "mutant {number}: {took:?}");
        if took > Duration::from_secs(2) {
            println!("mutant {number}: {took:?}");
        }
    }
}
