//! `shrink`, judged by the tools of others.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::path::Path;

use disksmith_testkit::oracle::succeed;
use support::{Loop, Scratch, assert_same, awkward, by_kernel, disksmith, ours, refused, walk};

/// The partition as a file of its own.
fn part(scratch: &Scratch, image: &str, number: &str) -> String {
    let file = scratch.text("part.raw");
    let _ = fs::remove_file(&file);
    ours(&["convert", "-O", "raw", &format!("{image}:{number}"), &file]);
    file
}

fn as_raw(scratch: &Scratch, image: &str) -> String {
    let file = scratch.text("whole.raw");
    let _ = fs::remove_file(&file);
    succeed("qemu-img", &["convert", "-O", "raw", image, &file]);
    file
}

fn size(image: &str) -> u64 {
    let told: serde_json::Value = serde_json::from_str(&ours(&["info", "--json", image])).unwrap();
    told["virtual-size"].as_u64().unwrap()
}

#[test]
fn a_disk_with_gpt_and_ext4_becomes_as_small_as_its_files() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    awkward(&tree);
    let image = scratch.text("a.qcow2");
    ours(&["create", "-q", &image, "400M"]);
    ours(&["partition", "-q", &image, "init", "gpt"]);
    ours(&["partition", "-q", &image, "add", "--size", "20M", "--name", "first"]);
    ours(&["partition", "-q", &image, "add", "--size", "rest", "--name", "root"]);
    ours(&["mkfs", &format!("{image}:2"), "-b", "4096", "-d", &tree]);
    ours(&["mkfs", &format!("{image}:1"), "-t", "fat16"]);

    let before = fs::read(&image).unwrap();
    let planned = ours(&["shrink", "--dry-run", &image]);
    assert!(planned.contains("shrink the ext4 filesystem in partition 2"), "{planned}");
    assert!(fs::read(&image).unwrap() == before);

    ours(&["shrink", &image, "200M"]);
    assert_eq!(size(&image), 200 << 20);
    let told = ours(&["shrink", "--minimum", "--json", &image]);
    assert!(told.contains("\"new-size\""), "{told}");
    let least = size(&image);
    assert!(least < 150 << 20, "{least}");
    succeed("qemu-img", &["check", &image]);
    let raw = as_raw(&scratch, &image);
    succeed("sfdisk", &["--verify", &raw]);
    succeed("sgdisk", &["--verify", &raw]);
    succeed("e2fsck", &["-fn", &part(&scratch, &image, "2")]);
    succeed("fsck.fat", &["-n", &part(&scratch, &image, "1")]);
    // As full as the kernel finds it.
    let second = part(&scratch, &image, "2");
    let kernels = by_kernel(&scratch, &second, |place| {
        succeed("df", &["-k", "--output=size,used,avail", place.to_str().unwrap()])
    });
    let kernels: Vec<&str> = kernels.lines().last().unwrap().split_whitespace().collect();
    let told = ours(&["df", &format!("{image}:2")]);
    let told: Vec<&str> = told.lines().last().unwrap().split_whitespace().skip(2).take(3).collect();
    assert_eq!(told, kernels);
    ours(&["cp", "-a", &format!("{image}:root:/"), &scratch.text("out")]);
    let _ = fs::remove_dir(scratch.path("out/lost+found"));
    assert_same(&walk(Path::new(&tree)), &walk(&scratch.path("out")));

    let before = fs::read(&image).unwrap();
    let said = refused(&["shrink", &image, "22M"]);
    assert!(said.contains("cannot be shrunk") && said.contains("It needs at least"), "{said}");
    assert!(refused(&["shrink", &image, "10M"]).contains("begins behind a disk of"));
    assert!(refused(&["shrink", &image, "1G"]).contains("'grow'"));
    assert!(fs::read(&image).unwrap() == before);
    // And back again.
    ours(&["grow", &image, "300M"]);
    succeed("e2fsck", &["-fn", &part(&scratch, &image, "2")]);
}

#[test]
fn logical_partitions_shrink_with_the_extended_one() {
    let scratch = Scratch::new();
    let image = scratch.text("a.qcow2");
    ours(&["create", "-q", &image, "200M"]);
    ours(&["partition", "-q", &image, "init", "mbr"]);
    ours(&["partition", "-q", &image, "add", "--size", "30M"]);
    ours(&["partition", "-q", &image, "add", "--logical", "--size", "rest", "--type", "fat32"]);
    ours(&["mkfs", &format!("{image}:5"), "-t", "fat16"]);
    fs::write(scratch.path("file"), vec![3; 5 << 20]).unwrap();
    ours(&["cp", &scratch.text("file"), &format!("{image}:5:/")]);
    ours(&["shrink", &image, "-60M"]);
    assert_eq!(size(&image), 140 << 20);
    succeed("sfdisk", &["--verify", &as_raw(&scratch, &image)]);
    succeed("fsck.fat", &["-n", &part(&scratch, &image, "5")]);
    ours(&["shrink", &image]);
    assert!(size(&image) < 100 << 20);
    succeed("sfdisk", &["--verify", &as_raw(&scratch, &image)]);
    succeed("fsck.fat", &["-n", &part(&scratch, &image, "5")]);
    ours(&["cp", &format!("{image}:5:/file"), &scratch.text("back")]);
    assert!(fs::read(scratch.path("file")).unwrap() == fs::read(scratch.path("back")).unwrap());
}

#[test]
fn a_filesystem_without_a_table_and_what_cannot_be_shrunk() {
    let scratch = Scratch::new();
    let image = scratch.file("a.img", 100 << 20);
    ours(&["mkfs", &image, "-t", "ext2"]);
    ours(&["shrink", &image, "50M"]);
    assert_eq!(fs::metadata(&image).unwrap().len(), 50 << 20);
    succeed("e2fsck", &["-fn", &image]);
    ours(&["shrink", &image]);
    assert!(fs::metadata(&image).unwrap().len() < 20 << 20);
    succeed("e2fsck", &["-fn", &image]);

    let exfat = scratch.file("x.img", 100 << 20);
    ours(&["mkfs", &exfat, "-t", "exfat"]);
    let said = refused(&["shrink", &exfat, "50M"]);
    assert!(said.contains("exfat on the disk cannot be shrunk here"), "{said}");
    assert!(ours(&["shrink", &exfat]).contains("left as it is"));
    assert_eq!(fs::metadata(&exfat).unwrap().len(), 100 << 20);
    assert_eq!(disksmith(&["shrink", &exfat, "zz"]).status.code(), Some(2));
    let device = Loop::new(&image);
    let said = refused(&["shrink", &device.0]);
    assert!(said.contains("it is a device"), "{said}");
    let nothing = scratch.file("n.img", 1 << 20);
    assert!(refused(&["shrink", &nothing]).contains("neither a partition table"));
}

#[test]
fn a_partition_is_resized_with_what_is_in_it() {
    let scratch = Scratch::new();
    let image = scratch.text("a.qcow2");
    ours(&["create", "-q", &image, "200M"]);
    ours(&["partition", "-q", &image, "init", "gpt"]);
    for (number, kind) in [("1", "ext4"), ("2", "fat16"), ("3", "exfat")] {
        ours(&["partition", "-q", &image, "add", "--size", "40M"]);
        ours(&["mkfs", &format!("{image}:{number}"), "-t", kind]);
    }
    fs::write(scratch.path("file"), vec![5; 3 << 20]).unwrap();
    ours(&["cp", &scratch.text("file"), &format!("{image}:1:/")]);
    let first = format!("{image}:1");
    let before = fs::read(&image).unwrap();
    // Without being asked for nothing becomes smaller, and nothing grows into its neighbour.
    assert!(refused(&["resize", &first, "20M"]).contains("With --shrink"));
    assert!(refused(&["resize", &first, "+10M"]).contains("can have at most"));
    assert!(refused(&["resize", "--shrink", &first, "2M"]).contains("needs at least"));
    let third = format!("{image}:3");
    assert!(refused(&["resize", "--shrink", &third, "20M"]).contains("exfat cannot be shrunk"));
    assert!(refused(&["resize", &third, "+20M"]).contains("exfat cannot be grown"));
    assert!(fs::read(&image).unwrap() == before);

    assert_eq!(ours(&["resize", "--shrink", &first, "20M"]), "Partition resized.\n");
    ours(&["resize", "-q", &first, "+10M"]);
    ours(&["resize", "--shrink", &format!("{image}:2"), "-12M"]);
    assert_eq!(size(&image), 200 << 20);
    let raw = as_raw(&scratch, &image);
    succeed("sfdisk", &["--verify", &raw]);
    let second = part(&scratch, &image, "2");
    assert_eq!(fs::metadata(&second).unwrap().len(), 28 << 20);
    succeed("fsck.fat", &["-n", &second]);
    let first = part(&scratch, &image, "1");
    assert_eq!(fs::metadata(&first).unwrap().len(), 30 << 20);
    succeed("e2fsck", &["-fn", &first]);
    let header = succeed("dumpe2fs", &["-h", &first]);
    let blocks = header.lines().find_map(|line| line.strip_prefix("Block count:")).unwrap();
    assert_eq!(blocks.trim(), (30 << 10).to_string());
    ours(&["cp", &format!("{image}:1:/file"), &scratch.text("back")]);
    assert!(fs::read(scratch.path("file")).unwrap() == fs::read(scratch.path("back")).unwrap());

    // A filesystem that has the whole disk is named by an empty part.
    let bare = scratch.file("b.img", 40 << 20);
    ours(&["mkfs", &bare, "-t", "ext3"]);
    ours(&["resize", "--shrink", &format!("{bare}:"), "30M"]);
    succeed("e2fsck", &["-fn", &bare]);
    ours(&["resize", &format!("{bare}:"), "60M"]);
    assert_eq!(fs::metadata(&bare).unwrap().len(), 60 << 20);
    succeed("e2fsck", &["-fn", &bare]);
    assert!(ours(&["df", &bare]).contains("ext3"));
}
