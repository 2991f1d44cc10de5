//! `build`: disks with large sectors, compressed, without anything to boot, and too small.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::path::Path;

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{run, succeed};
use support::{Loop, Scratch, assert_same, awkward, disksmith, ours, refused, walk};

const MIB: u64 = 1 << 20;

/// A tree with a kernel, a boot loader and files, none of them real.
fn bootable(scratch: &Scratch, name: &str) -> String {
    let tree = scratch.folder(name);
    let loader = format!("{tree}/usr/lib/systemd/boot/efi");
    fs::create_dir_all(&loader).unwrap();
    fs::create_dir_all(format!("{tree}/boot")).unwrap();
    let mut rng = Rng::new(9);
    fs::write(format!("{loader}/systemd-bootx64.efi"), rng.bytes(100_000)).unwrap();
    fs::write(format!("{tree}/boot/vmlinuz-1"), rng.bytes(3_000_000)).unwrap();
    fs::write(format!("{tree}/data"), rng.bytes(2_000_000)).unwrap();
    tree
}

fn mounted<T>(scratch: &Scratch, device: &str, look: impl FnOnce(&Path) -> T) -> T {
    let place = scratch.path("part");
    let _ = fs::create_dir(&place);
    let text = place.to_str().unwrap();
    succeed("mount", &["-o", "ro", device, text]);
    let result = look(&place);
    succeed("umount", &[text]);
    result
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_what_the_kernel_and_the_tools_expect() {
    let scratch = Scratch::new();
    let tree = bootable(&scratch, "tree");
    let wanted = walk(Path::new(&tree));
    let image = scratch.text("disk.raw");
    let arguments = ["build", "--from", &tree, "--boot", "uefi", "--sector-size", "4096"];
    ours(&[&arguments[..], &["-o", &image]].concat());
    let look = |image: &str| {
        let device = Loop::with(image, &["--sector-size", "4096"]);
        let said = succeed("sfdisk", &["--verify", &device.0]);
        assert!(said.contains("No errors detected"), "{said}");
        let said = succeed("sgdisk", &["--verify", &device.0]);
        assert!(said.contains("No problems found"), "{said}");
        let table = succeed("sfdisk", &["--json", &device.0]);
        assert!(table.contains("\"sectorsize\": 4096"), "{table}");
        let table = succeed("fdisk", &["--list", "--sector-size", "4096", image]);
        assert!(table.contains("EFI System"), "{table}");
        let (esp, root) = (format!("{}p1", device.0), format!("{}p2", device.0));
        let said = run("fsck.fat", &["-n", "-v", &esp]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{text}");
        assert!(text.contains("4096 bytes per logical sector"), "{text}");
        assert!(text.contains("32 bit entries"), "{text}");
        let said = run("e2fsck", &["-fn", &root]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        mounted(&scratch, &root, |place| {
            let mut seen = walk(place);
            // It is where the EFI system partition is mounted.
            seen.remove(&b"boot/efi"[..]);
            assert_eq!(seen.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
            assert_eq!(seen.get(&b"data"[..]), wanted.get(&b"data"[..]));
        });
        // The kernel of the machine need not know FAT.
        let copy = scratch.text("copy");
        succeed("mcopy", &["-n", "-i", &esp, "::vmlinuz", &copy]);
        succeed("cmp", &[&copy, &format!("{tree}/boot/vmlinuz-1")]);
        succeed("mcopy", &["-n", "-i", &esp, "::EFI/BOOT/BOOTX64.EFI", &copy]);
        succeed("cmp", &[&copy, &format!("{tree}/usr/lib/systemd/boot/efi/systemd-bootx64.efi")]);
    };
    look(&image);
    // We read it as it is, and it grows.
    assert!(ours(&["cat", &format!("{image}:2:/data")]).len() > MIB as usize / 2);
    ours(&["grow", &image, "+64M"]);
    look(&image);
    // A FAT of a given size, in an MBR.
    let file = scratch.text("disk.toml");
    fs::write(
        &file,
        "table = 'mbr'\nsector-size = 4096\nsize = '64M'\n[[partition]]\nfilesystem = 'fat16'\nsize = '40M'\n[[partition]]\nfilesystem = 'ext4'\nsize = 'rest'\n",
    )
    .unwrap();
    ours(&["build", &file, "-o", &image, "--force"]);
    let device = Loop::with(&image, &["--sector-size", "4096"]);
    succeed("fsck.fat", &["-n", &format!("{}p1", device.0)]);
    let table = succeed("sfdisk", &["--json", &device.0]);
    assert!(table.contains("\"start\": 256,"), "{table}");
    drop(device);
    for (words, part) in [
        (&["--sector-size", "1024"][..], "512 or 4096"),
        (&["--sector-size", "4096", "--boot", "bios"], "BIOS"),
        (&["--sector-size", "4096", "--size", "100001K"], "sector size"),
    ] {
        let all = [&["build", "--from", &tree, "-o", "/nowhere/x.raw"], words].concat();
        let said = refused(&all);
        assert!(said.contains(part) && said.lines().count() <= 2, "{said}");
    }
}

#[test]
fn a_compressed_disk_is_the_same_and_smaller() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    awkward(&tree);
    fs::write(format!("{tree}/text"), "much ado about nothing\n".repeat(200_000)).unwrap();
    let (plain, packed) = (scratch.text("plain.qcow2"), scratch.text("packed.qcow2"));
    ours(&["build", "--from", &tree, "-o", &plain, "-q"]);
    ours(&["build", "--from", &tree, "-c", "-o", &packed, "-q"]);
    succeed("qemu-img", &["check", &packed]);
    succeed("qemu-img", &["compare", &plain, &packed]);
    let size = |name: &str| fs::metadata(name).unwrap().len();
    assert!(size(&packed) < size(&plain) / 2, "{} of {}", size(&packed), size(&plain));
    let zstd = scratch.text("zstd.qcow2");
    let options = ["--options", "compression_type=zstd,cluster_size=128k"];
    ours(&[&["build", "--from", &tree, "-c", "-o", &zstd, "-q"], &options[..]].concat());
    succeed("qemu-img", &["compare", &plain, &zstd]);
    let raw = scratch.text("x.raw");
    assert!(refused(&["build", "--from", &tree, "-c", "-o", &raw]).contains("not supported"));
    let left: Vec<_> = fs::read_dir(scratch.path("")).unwrap().flatten().collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn nothing_to_boot_is_told() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    fs::write(format!("{tree}/data"), "x").unwrap();
    let image = scratch.text("disk.raw");
    let words = ["build", "--from", &tree, "--boot", "uefi", "-o", &image];
    let said = refused(&words);
    assert!(said.contains("there is nothing to boot: no kernel"), "{said}");
    assert!(said.contains("--boot-later") && said.lines().count() == 2, "{said}");
    assert!(!Path::new(&image).exists());
    ours(&[&words[..], &["--boot-later"]].concat());
    assert!(ours(&["partition", &image]).contains("EFI"));
    fs::create_dir(format!("{tree}/boot")).unwrap();
    fs::write(format!("{tree}/boot/vmlinuz"), "kernel").unwrap();
    let output = disksmith(&[&words[..], &["--force"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // This host may have no boot loader to put there.
    assert!(output.status.success() || said.contains("no boot loader"), "{said}");
}

/// The size that is asked for is enough.
#[test]
fn the_size_that_files_need_counts_what_the_filesystem_keeps() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    let mut rng = Rng::new(4);
    for number in 0..900 {
        let length = rng.below(60_000) as usize;
        fs::write(format!("{tree}/{number}"), rng.bytes(length)).unwrap();
    }
    let wanted = walk(Path::new(&tree));
    for kind in ["ext2", "ext3", "ext4", "fat32"] {
        let image = scratch.text("disk.raw");
        let words = |size: &'static str| ["build", "--from", &tree, "--type", kind, "--size", size];
        let mut last = 0;
        // From far too small to just too small.
        for size in ["20M", "27M", "29M"] {
            let output = disksmith(&[&words(size)[..], &["-o", &image, "--force", "-q"]].concat());
            if output.status.success() {
                continue;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let number = said.split("need ").nth(1).and_then(|rest| rest.split('(').nth(1));
            let number = number.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            last = number.unwrap_or_else(|| panic!("{kind} {size}: {said}"));
            assert!(!Path::new(&image).exists(), "{kind} {size}");
        }
        assert!(last > 26 * MIB, "{kind}: {last}");
        let spec = scratch.text("spec.toml");
        let text =
            format!("[[partition]]\nfilesystem = '{kind}'\nsize = '{last}'\nfrom = '{tree}'\n");
        fs::write(&spec, text).unwrap();
        ours(&["build", &spec, "-o", &image, "--force", "-q"]);
        let part = scratch.text("part.raw");
        ours(&["convert", "-O", "raw", &format!("{image}:1"), &part]);
        if kind != "fat32" {
            support::by_kernel(&scratch, &part, |place| assert_same(&wanted, &walk(place)));
        }
        fs::remove_file(&image).unwrap();
    }
}

/// The value of a key in the JSON that a command prints.
fn told(arguments: &[&str], pointer: &str) -> serde_json::Value {
    let text = ours(arguments);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {text}")).clone()
}

#[test]
fn what_was_built_cloned_and_measured_is_told_as_json() {
    let scratch = Scratch::new();
    let tree = bootable(&scratch, "tree");
    let (disk, copy, tar) =
        (scratch.text("disk.raw"), scratch.text("copy.qcow2"), scratch.text("t"));
    let start = told(&["build", "--json", "--from", &tree, "-o", &disk], "/partitions/0/start");
    let table: serde_json::Value =
        serde_json::from_str(&succeed("sfdisk", &["--json", &disk])).unwrap();
    let sectors = table.pointer("/partitiontable/partitions/0/start").unwrap().as_u64().unwrap();
    assert_eq!(start.as_u64(), Some(sectors * 512));
    let clone = ["clone", "--used-only", "--verify", "--json", &disk, &copy];
    assert_eq!(told(&clone, "/parts/0/type"), "ext4");
    assert_eq!(told(&["bench", "--json", "-c", "10", &copy], "/requests"), 10);
    assert_eq!(told(&["label", "--json", &format!("{copy}:1")], "/type"), "ext4");
    ours(&["tar", "-c", &format!("{copy}:1:/"), "-f", &tar]);
    assert!(succeed("tar", &["-tf", &tar]).contains("./boot/vmlinuz-1"));
}
