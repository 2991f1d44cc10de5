//! FAT and swap by the program: made, filled, looked at and mounted, in several image
//! formats, judged by dosfstools, mtools and util-linux.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::path::Path;

use disksmith_testkit::oracle::succeed;
use support::{Scratch, disksmith, ours, refused};

/// A tree that FAT can hold.
fn tree(scratch: &Scratch) -> String {
    let tree = scratch.folder("tree");
    fs::create_dir_all(scratch.path("tree/Docs/A longer name")).unwrap();
    fs::write(scratch.path("tree/hello.txt"), "hello").unwrap();
    fs::write(scratch.path("tree/Docs/größe.txt"), "umlauts").unwrap();
    fs::write(scratch.path("tree/Docs/A longer name/large"), vec![7; 300_000]).unwrap();
    fs::write(scratch.path("tree/empty"), "").unwrap();
    tree
}

/// The partition's bytes, for tools that know no images.
fn raw(scratch: &Scratch, address: &str) -> String {
    let raw = scratch.text("part.raw");
    ours(&["convert", "-O", "raw", address, &raw]);
    raw
}

fn clean(image: &str) {
    let said = succeed("fsck.fat", &["-n", image]);
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn every_file_verb_works_on_fat_in_every_image_format() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    for (format, kind) in [
        ("raw", "fat12"),
        ("qcow2", "fat16"),
        ("qcow2", "fat32"),
        ("vmdk", "vfat"),
        ("vhdx", "fat"),
    ] {
        let image = scratch.text(&format!("{kind}.{format}"));
        if !disksmith(&["create", "-q", "-f", format, &image, "80M"]).status.success() {
            // A format that cannot be written yet.
            continue;
        }
        ours(&["partition", &image, "init", "mbr"]);
        // mtools knows FAT32 by its clusters: 65525 at the least.
        ours(&["partition", &image, "add", "--size", "40M"]);
        let part = format!("{image}:1");
        ours(&["mkfs", &part, "-t", kind, "-L", "BOOT", "--uuid", "CAFE-0001"]);
        let at = |path: &str| format!("{image}:1:{path}");
        ours(&["cp", "-r", &tree, &at("/copy")]);
        ours(&["cp", "-a", &format!("{tree}/Docs"), &at("/")]);
        assert_eq!(ours(&["ls", &at("/")]), "Docs\ncopy\n", "{kind}");
        assert_eq!(ours(&["cat", &at("/COPY/Hello.TXT")]), "hello");
        let found = ours(&["find", &at("/"), "-name", "large"]);
        assert_eq!(found.lines().count(), 2, "{found}");
        ours(&["du", &at("/")]);
        ours(&["stat", &at("/copy/hello.txt")]);
        assert!(ours(&["df", &part]).contains("vfat"));
        assert!(ours(&["df", "--json", &part]).contains("BOOT"));
        ours(&["mkdir", "-p", &at("/new/er/est")]);
        ours(&["mv", &at("/copy/hello.txt"), &at("/new/er/A quite long new name.txt")]);
        ours(&["rm", "-r", &at("/Docs")]);
        ours(&["chmod", "a-w", &at("/copy/empty")]);
        assert!(refused(&["chown", "1000", &at("/copy/empty")]).contains("owners"));
        assert!(refused(&["ln", "-s", "x", &at("/link")]).contains("symbolic links"));
        assert!(refused(&["ln", &at("/copy/empty"), &at("/hard")]).contains("hard links"));
        ours(&["cp", "-a", &at("/copy"), &scratch.text(&format!("out-{kind}"))]);
        let out = scratch.path(&format!("out-{kind}/Docs/A longer name/large"));
        assert_eq!(fs::read(out).unwrap(), vec![7; 300_000]);
        // Its label names it, its serial number too.
        assert_eq!(
            ours(&["cat", &format!("{image}:BOOT:/new/er/A quite long new name.txt")]),
            "hello"
        );
        let raw = raw(&scratch, &part);
        clean(&raw);
        let listed = succeed("mdir", &["-i", &raw, "-/", "-b", "::/"]);
        assert!(listed.contains("A quite long new name.txt"), "{listed}");
        let info = succeed("minfo", &["-i", &raw, "::"]);
        assert!(info.contains("hidden sectors: 2048") || info.contains("2048"), "{info}");
        let told = succeed("blkid", &["-p", "-o", "value", "-s", "UUID", "-s", "LABEL", &raw]);
        assert!(told.contains("CAFE-0001") && told.contains("BOOT"), "{told}");
        assert!(ours(&["fsck", &part]).contains("clean"));
        ours(&["label", &part, "OTHER", "--uuid", "0BAD-CAFE"]);
        assert_eq!(ours(&["label", &part]), "OTHER\n");
    }
}

#[test]
fn damage_is_told_and_mended() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    let image = scratch.file("a.img", 8 << 20);
    ours(&["mkfs", &image, "-t", "fat16", "-d", &tree, "--cluster-size", "512"]);
    // A cluster in use that belongs to nobody.
    let mut bytes = fs::read(&image).unwrap();
    bytes[512 + 2 * 12_000..][..2].fill(0xFF);
    fs::write(&image, &bytes).unwrap();
    let output = disksmith(&["fsck", &image]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stdout).contains("belong to no file"));
    assert_eq!(disksmith(&["fsck", "-y", &image]).status.code(), Some(1));
    clean(&image);
    assert!(ours(&["ls", &format!("{image}::/")]).contains("FSCK0000.REC"));
}

#[test]
fn a_volume_is_made_from_a_folder_and_from_a_tar() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    std::os::unix::fs::symlink("hello.txt", scratch.path("tree/link")).unwrap();
    let image = scratch.text("auto.img");
    let output = disksmith(&["mkfs", &image, "-t", "vfat", "--size", "auto", "-d", &tree]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 symbolic links were left out"), "{said}");
    clean(&image);
    assert!(fs::metadata(&image).unwrap().len() < 2 << 20);
    // mtools reads its arguments in the locale's character set.
    let read = ["LC_ALL=C.UTF-8", "mtype", "-i", &image, "::/Docs/größe.txt"];
    assert_eq!(succeed("env", &read), "umlauts");

    let tar = scratch.text("tree.tar");
    succeed("tar", &["-C", &tree, "-cf", &tar, "."]);
    let second = scratch.file("second.img", 8 << 20);
    ours(&["mkfs", &second, "-t", "fat16", "-d", &tar, "--cluster-size", "512"]);
    clean(&second);
    assert_eq!(ours(&["cat", &format!("{second}::/docs/A LONGER NAME/large")]).len(), 300_000);
    assert!(refused(&["mkfs", &second, "-t", "fat32"]).contains("--force"));

    fs::write(scratch.path("tree/what?"), "x").unwrap();
    let refusal = refused(&["mkfs", &second, "-t", "vfat", "--force", "-d", &tree]);
    assert!(refusal.contains("what?"), "{refusal}");
    ours(&["mkfs", &second, "-t", "vfat", "--force", "--map-names", "-d", &tree]);
    assert_eq!(ours(&["cat", &format!("{second}::/what_")]), "x");
    assert!(
        refused(&["mkfs", &second, "-t", "vfat", "--force", "-O", "extent"]).contains("--features")
    );
    assert!(refused(&["mkfs", &second, "-t", "fat99", "--force"]).contains("fat16"));
}

#[test]
fn a_volume_is_mounted_and_used() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    let image = scratch.text("disk.qcow2");
    ours(&["create", "-q", "-f", "qcow2", &image, "64M"]);
    ours(&["mkfs", &image, "-t", "fat32"]);
    let place = scratch.folder("place");
    ours(&["mount", &image, &place]);
    let inside = |name: &str| Path::new(&place).join(name);
    succeed("cp", &["-r", &tree, &place]);
    succeed("diff", &["-r", &tree, inside("tree").to_str().unwrap()]);
    fs::rename(inside("tree/hello.txt"), inside("HELLO again.txt")).unwrap();
    fs::write(inside("HELLO again.txt"), "twice").unwrap();
    assert_eq!(fs::read_to_string(inside("HELLO again.txt")).unwrap(), "twice");
    fs::remove_dir_all(inside("tree/Docs")).unwrap();
    assert!(std::os::unix::fs::symlink("x", inside("link")).is_err());
    // An open file lives on without its name.
    let open = fs::File::open(inside("HELLO again.txt")).unwrap();
    fs::remove_file(inside("HELLO again.txt")).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 5);
    drop(open);
    for number in 0..200 {
        fs::write(inside(&format!("file number {number}")), vec![number as u8; 5000]).unwrap();
    }
    for number in (0..200).step_by(2) {
        fs::remove_file(inside(&format!("FILE NUMBER {number}"))).unwrap();
    }
    assert_eq!(fs::read_dir(&place).unwrap().count(), 101);
    ours(&["umount", &place]);
    clean(&raw(&scratch, &image));
    assert_eq!(ours(&["ls", &format!("{image}::/tree")]), "empty\n");
}

#[test]
fn swap_is_what_mkswap_makes() {
    let scratch = Scratch::new();
    let uuid = "12345678-1234-1234-1234-123456789abc";
    let (image, theirs) = (scratch.file("ours", 10 << 20), scratch.file("theirs", 10 << 20));
    ours(&["mkfs", &image, "-t", "swap", "-L", "swappy", "--uuid", uuid]);
    succeed("mkswap", &["-L", "swappy", "-U", uuid, &theirs]);
    assert_eq!(fs::read(&image).unwrap(), fs::read(&theirs).unwrap());
    assert!(succeed("swaplabel", &[&image]).contains(uuid));
    ours(&["label", &image, "other", "--uuid", "random"]);
    let told = succeed("swaplabel", &[&image]);
    assert!(told.contains("other") && !told.contains(uuid), "{told}");
    assert!(
        refused(&["mkfs", &image, "-t", "swap", "--force", "-L", "much too long a label"])
            .contains("15")
    );
}
