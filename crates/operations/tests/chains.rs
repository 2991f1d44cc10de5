//! Compare, commit and rebase against flat models.

mod support;

use std::sync::Arc;

use disksmith_disk::Disk;
use disksmith_formats::Backing;
use disksmith_operations::{
    CommitRequest, CompareRequest, RebaseRequest, Silent, Verdict, commit, compare, rebase,
};
use disksmith_testkit::Rng;
use support::*;

#[test]
fn the_first_difference_is_found() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let size = (rng.below(8000) + 1) * 512;
        let a = random_chain(&mut rng, 2, size, 4096);
        let mut bytes = content(&*a.image);
        let more = rng.below(3) * 512 * rng.below(3000);
        bytes.resize((size + more) as usize, 0);
        let mut first = None;
        for _ in 0..rng.below(3) {
            let at = rng.below(bytes.len() as u64);
            bytes[at as usize] ^= 1;
        }
        let old = content(&*a.image);
        for (at, byte) in bytes.iter().enumerate() {
            if *byte != old.get(at).copied().unwrap_or(0) {
                first = Some(at as u64 / 512 * 512);
                break;
            }
        }
        let b = raw(&bytes);
        let (a, b) = if rng.one_in(2) { (&a, &b) } else { (&b, &a) };
        let found = compare(&CompareRequest { a, b, strict: false }, &Silent).unwrap();
        let expected = first.map_or(Verdict::Identical, Verdict::ContentDiffers);
        assert_eq!(found.verdict, expected, "seed {seed}");
        let tail = first.is_none_or(|at| at >= size);
        assert_eq!(found.size_mismatch, more > 0 && tail, "seed {seed}");
    }
}

#[test]
fn strict_looks_at_sizes_and_allocation() {
    let strict = |a, b| compare(&CompareRequest { a, b, strict: true }, &Silent).unwrap().verdict;
    let (a, b) = (Layer::new(1 << 20, 65536), Layer::new(1 << 20, 65536));
    let longer = node(Layer::new(2 << 20, 65536), None);
    b.write_at(&[0; 65536], 131_072).unwrap();
    let (a, b) = (node(a, None), node(b, None));
    assert_eq!(strict(&a, &a), Verdict::Identical);
    assert_eq!(strict(&a, &b), Verdict::StatusDiffers(131_072));
    assert_eq!(strict(&a, &longer), Verdict::SizeDiffers);
    b.image.write_at(&[1; 512], 140_000).unwrap();
    a.image.write_at(&[1; 512], 0).unwrap();
    b.image.write_at(&[2; 512], 0).unwrap();
    assert_eq!(strict(&a, &b), Verdict::ContentDiffers(0));
}

#[test]
fn commit_moves_everything_and_empties_the_overlay_last() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let size = (rng.below(6000) + 100) * 512;
        let shorter = size - rng.below(90) * 512;
        let base = Layer::random(&mut rng, shorter, 4096);
        let bottom = Arc::new(node(base.clone(), None));
        let middle = Layer::random(&mut rng, size, 8192);
        let deep = rng.one_in(2);
        let below = match deep {
            true => Arc::new(node(middle, Some(bottom))),
            false => bottom,
        };
        let overlay = Layer::random(&mut rng, size, 4096);
        let top = node(overlay.clone(), Some(below));
        let expected = content(&*top.image);
        base.take_events();
        overlay.take_events();
        let request = CommitRequest {
            top: &top,
            base: &*base,
            base_depth: if deep { 2 } else { 1 },
            keep_overlay: deep,
            rate: None,
        };
        commit(&request, &Silent).unwrap();
        assert!(content(&*base) == expected, "seed {seed}");
        assert!(content(&*top.image) == expected, "seed {seed}");
        assert_eq!(base.take_events().last(), Some(&Event::Flush));
        match deep {
            true => assert!(overlay.take_events().is_empty()),
            false => {
                assert_eq!(overlay.take_events(), [Event::Empty, Event::Flush]);
                assert_eq!(overlay.present(), 0);
            }
        }
    }
}

#[test]
fn rebase_keeps_what_the_image_shows() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let size = (rng.below(6000) + 100) * 512;
        let shorter = size - rng.below(90) * 512;
        let old = Arc::new(random_chain(&mut rng, 1, shorter, 4096));
        let cluster = *rng.pick(&[4096, 65536]);
        let image = Layer::random(&mut rng, size, cluster);
        let top = node(image.clone(), Some(old.clone()));
        let expected = content(&*top.image);
        image.take_events();
        let new = match rng.below(4) {
            0 => None,
            1 => {
                // Mostly what the old one shows: little is to be copied.
                let mut bytes = content(&*old.image);
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1;
                Some(raw(&bytes))
            }
            _ => Some(random_chain(&mut rng, 1, size, 4096)),
        };
        let before = image.present();
        let nearly_same = new.as_ref().is_some_and(|node| node.backing.is_none());
        let record = new.as_ref().map(|_| Backing { name: "new".into(), format: None });
        let request = RebaseRequest {
            image: &top,
            new: new.as_ref(),
            record: record.as_ref(),
            compress: rng.one_in(2),
            store_zeroes: rng.one_in(2),
        };
        rebase(&request, &Silent).unwrap();
        assert!(content(&*image) == expected, "seed {seed}");
        assert_eq!(image.named(), record);
        if nearly_same {
            // The overlay may be longer than its backing image was; that end reads as zero.
            assert!(image.present() <= before + 1, "seed {seed}");
        }
        let events = image.take_events();
        let renamed = events.iter().position(|event| *event == Event::Rename).unwrap();
        assert_eq!(events[renamed - 1], Event::Flush);
        assert_eq!(events[renamed + 1..], [Event::Flush]);
    }
}
