//! Convert and dd against flat models.

mod support;

use std::sync::Arc;

use disksmith_disk::{Disk, Kind, MemoryDisk};
use disksmith_open::Node;
use disksmith_operations::{
    ConvertRequest, DdConv, DdPlan, DdRequest, Silent, WriteOrder, convert, dd,
};
use disksmith_testkit::Rng;
use support::*;

/// A list of one.
fn one(node: &Node) -> &[&Node] {
    vec![node].leak()
}

/// Random chains, concatenated, to random targets: the target shows what the sources show.
#[test]
fn the_target_shows_what_the_sources_show() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let cluster = *rng.pick(&[512, 4096, 65536]);
        let count = 1 + rng.below(3) as usize;
        let sources: Vec<_> = (0..count)
            .map(|_| {
                let size = (rng.below(6000) + 1) * 512;
                let layers = rng.below(3) as usize;
                random_chain(&mut rng, layers, size, cluster)
            })
            .collect();
        let sources: Vec<_> = sources.iter().collect();
        let expected: Vec<u8> = sources.iter().flat_map(|node| content(&*node.image)).collect();
        let size = expected.len() as u64;
        let to_raw = rng.one_in(3);
        let dirty = rng.one_in(3);
        let target = match to_raw {
            true => raw(&vec![if dirty { 7 } else { 0 }; size as usize]),
            false => node(Layer::new(size, *rng.pick(&[4096, 65536])), None),
        };
        if dirty && !to_raw {
            target.image.write_at(&vec![7; size as usize], 0).unwrap();
        }
        let request = ConvertRequest {
            target_is_zero: !dirty,
            compress: !to_raw && rng.one_in(2),
            sparse_size: *rng.pick(&[0, 512, 4096, 8192, 20480, 1 << 20, 1 << 30]),
            threads: Some(1 + rng.below(5) as usize),
            writes: *rng.pick(&[
                WriteOrder::InOrder,
                WriteOrder::AsTheyCome,
                WriteOrder::WhereAlike,
            ]),
            ..ConvertRequest::new(&sources, &target)
        };
        convert(&request, &Silent).unwrap();
        assert!(content(&*target.image) == expected, "seed {seed}");
    }
}

/// With a backing image under the target, what the source's top layer lacks stays absent.
#[test]
fn what_the_backing_has_is_not_copied() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let size = (rng.below(4000) + 100) * 512;
        let base = Arc::new(random_chain(&mut rng, 0, size, 4096));
        let top = Layer::random(&mut rng, size, 4096);
        let source = node(top.clone(), Some(base.clone()));
        let made = Layer::new(size, *rng.pick(&[4096, 16384]));
        let target = node(made.clone(), Some(base));
        let request = ConvertRequest {
            target_is_zero: false,
            target_has_backing: true,
            compress: rng.one_in(2),
            ..ConvertRequest::new(one(&source), &target)
        };
        let expected = content(&*source.image);
        convert(&request, &Silent).unwrap();
        assert!(content(&*target.image) == expected, "seed {seed}");
        assert!(made.present() <= top.present(), "seed {seed}");
    }
}

#[test]
fn the_layout_does_not_depend_on_threads() {
    let mut rng = Rng::new(5);
    let source = random_chain(&mut rng, 2, 9 << 20, 65536);
    for compress in [false, true] {
        let mut seen: Vec<Vec<Event>> = Vec::new();
        for threads in [1, 2, 5, 16] {
            let made = Layer::new(9 << 20, 65536);
            let target = node(made.clone(), None);
            let request = ConvertRequest {
                compress,
                threads: Some(threads),
                ..ConvertRequest::new(one(&source), &target)
            };
            convert(&request, &Silent).unwrap();
            seen.push(made.take_events());
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "compress {compress}");
    }
}

#[test]
fn zeroes_are_left_out_in_units_of_the_target() {
    let mut bytes = vec![0; 4 << 16];
    bytes[70_000] = 1;
    bytes[3 << 16] = 1;
    let source = raw(&bytes);
    let made = Layer::new(4 << 16, 65536);
    let target = node(made.clone(), None);
    convert(&ConvertRequest::new(one(&source), &target), &Silent).unwrap();
    let present: Vec<_> = (0..4).map(|n| made.has(n << 16)).collect();
    assert_eq!(present, [false, true, false, true]);

    let disk = Arc::new(MemoryDisk::new(4 << 16));
    let target = raw_on(disk.clone());
    convert(&ConvertRequest::new(one(&source), &target), &Silent).unwrap();
    assert_eq!(disk.allocated(), 8192);

    let disk = Arc::new(MemoryDisk::new(4 << 16));
    let target = raw_on(disk.clone());
    let all = ConvertRequest { sparse_size: 0, ..ConvertRequest::new(one(&source), &target) };
    convert(&all, &Silent).unwrap();
    assert_eq!(disk.allocated(), 4 << 16);
}

#[test]
fn bad_sectors_fail_or_are_salvaged() {
    let mut rng = Rng::new(1);
    let bytes = rng.bytes(3 << 20);
    let bad = vec![10, 11, 4000];
    let source = raw_on(Arc::new(BadSectors { disk: MemoryDisk::from_bytes(&bytes), bad }));
    let target = raw(&vec![0; 3 << 20]);
    let error = convert(&ConvertRequest::new(one(&source), &target), &Silent).unwrap_err();
    assert_eq!(error.to_string(), "error while reading at byte 0: Input/output error");

    let heard = Heard::default();
    let request = ConvertRequest { salvage: true, ..ConvertRequest::new(one(&source), &target) };
    convert(&request, &heard).unwrap();
    let mut expected = bytes;
    expected[10 * 512..12 * 512].fill(0);
    expected[4000 * 512..4001 * 512].fill(0);
    assert!(content(&*target.image) == expected);
    let lines: Vec<_> = [5120, 5632, 2_048_000]
        .iter()
        .map(|at| format!("error while reading offset {at}: Input/output error"))
        .collect();
    assert_eq!(*heard.warnings.lock().unwrap(), lines);
}

#[test]
fn progress_ascends_and_cancelling_stops() {
    let source = raw(&vec![1; 20 << 20]);
    let target = raw(&vec![0; 20 << 20]);
    let heard = Heard::default();
    convert(&ConvertRequest::new(one(&source), &target), &heard).unwrap();
    let told = heard.progress.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert_eq!((told[0].0, told.last().unwrap().0), (0, 20 << 20));

    let heard = Heard { cancel_after: Some(3), ..Default::default() };
    let error = convert(&ConvertRequest::new(one(&source), &target), &heard).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
}

#[test]
fn huge_and_empty_takes_no_time_and_no_memory() {
    let source = raw_on(Arc::new(MemoryDisk::new(1 << 40)));
    let target = raw_on(Arc::new(MemoryDisk::new(1 << 40)));
    let started = std::time::Instant::now();
    // MemoryDisk looks at every piece of a run; a layer knows at once.
    drop(source);
    let source = node(Layer::new(1 << 36, 1 << 30), None);
    convert(&ConvertRequest::new(one(&source), &target), &Silent).unwrap();
    assert!(started.elapsed().as_secs() < 1);
}

#[test]
fn a_smaller_target_is_refused() {
    let (source, target) = (raw(&[1; 1024]), raw(&[0; 512]));
    let error = convert(&ConvertRequest::new(one(&source), &target), &Silent).unwrap_err();
    assert_eq!(error.to_string(), "output file is smaller than input file");
    let target = raw(&[0; 1024]);
    let request = ConvertRequest { compress: true, ..ConvertRequest::new(one(&source), &target) };
    let error = convert(&request, &Silent).unwrap_err();
    assert_eq!(error.to_string(), "Compression not supported for this file format");
}

#[test]
fn dd_copies_the_blocks_asked_for() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let size = (rng.below(3000) + 1) * 512;
        let source = random_chain(&mut rng, 1, size, 4096);
        let bytes = content(&*source.image);
        let block = *rng.pick(&[1, 512, 1000, 4096, 100_000]);
        let count = rng.one_in(2).then(|| rng.below(size / block + 3));
        let skip = rng.below(size / block + 2);
        let seek = rng.below(20);
        let plan = DdPlan::new(size, block, count, skip, seek, false).unwrap();
        let from = (skip * block).min(size) as usize;
        let length = count.map_or(usize::MAX, |count| (count * block) as usize);
        let expected = &bytes[from..from.saturating_add(length).min(bytes.len())];
        assert_eq!(plan.length, expected.len() as u64);
        let whole = plan.target_size().next_multiple_of(512);
        let disk = Arc::new(MemoryDisk::new(whole));
        let target = raw_on(disk.clone());
        let request = DdRequest {
            source: &source,
            target: &*target.image,
            plan,
            target_is_zero: rng.one_in(2),
            conv: DdConv { sparse: rng.one_in(2), ..DdConv::default() },
        };
        dd(&request, &Silent).unwrap();
        let written = disk.to_bytes();
        let start = (seek * block) as usize;
        assert!(written[..start].iter().all(|byte| *byte == 0), "seed {seed}");
        assert!(&written[start..start + expected.len()] == expected, "seed {seed}");
    }
}

#[test]
fn dd_counts_as_qemu_img_does_when_asked() {
    let plan = DdPlan::new(10 << 20, 1 << 20, Some(5), 2, 0, true).unwrap();
    assert_eq!((plan.from, plan.length), (2 << 20, 3 << 20));
    let plan = DdPlan::new(10 << 20, 1 << 20, Some(5), 6, 0, true).unwrap();
    assert!(plan.skipped_too_far && plan.length == 0);
}
