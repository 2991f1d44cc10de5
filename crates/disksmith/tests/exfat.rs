//! exFAT by the program: made, filled, written, mounted, checked, labelled, in several image
//! formats, judged by exfatprogs and util-linux.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::path::Path;

use disksmith_testkit::oracle::{run, succeed};
use support::{Scratch, disksmith, ours, refused};

/// A tree that exFAT can hold.
fn tree(scratch: &Scratch) -> String {
    let tree = scratch.folder("tree");
    fs::create_dir_all(scratch.path("tree/Docs/A longer name")).unwrap();
    fs::write(scratch.path("tree/hello.txt"), "hello").unwrap();
    fs::write(scratch.path("tree/Docs/größe.txt"), "umlauts").unwrap();
    fs::write(scratch.path("tree/Docs/A longer name/large"), vec![7; 300_000]).unwrap();
    fs::write(scratch.path("tree/empty"), "").unwrap();
    tree
}

/// `fsck.exfat -n` finds nothing, and neither do we.
fn clean(image: &str) {
    let said = run("fsck.exfat", &["-n", image]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success() && text.contains(": clean"), "{text}");
    assert!(ours(&["fsck", image]).contains("clean"));
}

#[test]
fn every_file_verb_works_on_exfat_in_every_image_format() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    for format in ["raw", "qcow2", "vmdk", "vhdx"] {
        let image = scratch.text(&format!("image.{format}"));
        if !disksmith(&["create", "-q", "-f", format, &image, "80M"]).status.success() {
            // A format that cannot be written yet.
            continue;
        }
        ours(&["partition", &image, "init", "gpt"]);
        ours(&["partition", &image, "add", "--size", "40M"]);
        let part = format!("{image}:1");
        ours(&["mkfs", &part, "-t", "exfat", "-L", "Größe", "--uuid", "CAFE-0001"]);
        let at = |path: &str| format!("{image}:1:{path}");
        ours(&["cp", "-r", &tree, &at("/copy")]);
        ours(&["cp", "-a", &format!("{tree}/Docs"), &at("/")]);
        assert_eq!(ours(&["ls", &at("/")]), "Docs\ncopy\n", "{format}");
        assert_eq!(ours(&["cat", &at("/COPY/Hello.TXT")]), "hello");
        let found = ours(&["find", &at("/"), "-name", "large"]);
        assert_eq!(found.lines().count(), 2, "{found}");
        ours(&["du", &at("/")]);
        ours(&["stat", &at("/copy/hello.txt")]);
        assert!(ours(&["df", "--json", &part]).contains(r"Gr\u00F6\u00DFe"));
        ours(&["mkdir", "-p", &at("/new/er/est")]);
        ours(&["mv", &at("/copy/hello.txt"), &at("/new/er/A quite long new name.txt")]);
        ours(&["rm", "-r", &at("/Docs")]);
        ours(&["chmod", "a-w", &at("/copy/empty")]);
        assert!(refused(&["chown", "1000", &at("/copy/empty")]).contains("owners"));
        assert!(refused(&["ln", "-s", "x", &at("/link")]).contains("symbolic links"));
        assert!(refused(&["ln", &at("/copy/empty"), &at("/hard")]).contains("hard links"));
        let out = scratch.text(&format!("out-{format}"));
        ours(&["cp", "-a", &at("/copy"), &out]);
        let large = Path::new(&out).join("Docs/A longer name/large");
        assert_eq!(fs::read(large).unwrap(), vec![7; 300_000]);
        assert_eq!(ours(&["cat", &at("/new/er/a QUITE long new name.txt")]), "hello");
        ours(&["label", &part, "Other ö", "--uuid", "0BAD-CAFE"]);
        assert_eq!(ours(&["label", &part]), "Other ö\n");
        let raw = scratch.text("part.raw");
        ours(&["convert", "-O", "raw", &part, &raw]);
        clean(&raw);
        let told = succeed("blkid", &["-p", "-o", "value", "-s", "UUID", "-s", "LABEL", &raw]);
        assert!(told.contains("0BAD-CAFE") && told.contains("Other ö"), "{told}");
    }
}

#[test]
fn damage_is_told_and_mended() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    let image = scratch.file("a.img", 8 << 20);
    ours(&["mkfs", &image, "-t", "exfat", "-d", &tree, "--cluster-size", "512"]);
    clean(&image);
    // A cluster in use that belongs to nobody, by a bit of the bitmap, which begins the heap.
    let mut bytes = fs::read(&image).unwrap();
    let heap = u32::from_le_bytes(bytes[88..92].try_into().unwrap()) as usize * 512;
    bytes[heap + 1000] |= 4;
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
    let output = disksmith(&["mkfs", &image, "-t", "exfat", "--size", "auto", "-d", &tree]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 symbolic links were left out: exFAT"), "{said}");
    clean(&image);
    assert!(fs::metadata(&image).unwrap().len() < 3 << 20);
    assert_eq!(ours(&["cat", &format!("{image}::/docs/GRÖße.txt")]), "umlauts");
    let tar = scratch.text("tree.tar");
    succeed("tar", &["-C", &tree, "-cf", &tar, "."]);
    let second = scratch.file("second.img", 8 << 20);
    ours(&["mkfs", &second, "-t", "exfat", "-d", &tar, "--cluster-size", "512"]);
    clean(&second);
    assert_eq!(ours(&["cat", &format!("{second}::/docs/A LONGER NAME/large")]).len(), 300_000);
    fs::write(scratch.path("tree/what?"), "x").unwrap();
    let refusal = refused(&["mkfs", &second, "-t", "exfat", "--force", "-d", &tree]);
    assert!(refusal.contains("what?"), "{refusal}");
    ours(&["mkfs", &second, "-t", "exfat", "--force", "--map-names", "-d", &tree]);
    assert_eq!(ours(&["cat", &format!("{second}::/what_")]), "x");
}

#[test]
fn a_volume_is_mounted_and_used() {
    let scratch = Scratch::new();
    let tree = tree(&scratch);
    let image = scratch.text("disk.qcow2");
    ours(&["create", "-q", "-f", "qcow2", &image, "64M"]);
    ours(&["mkfs", &image, "-t", "exfat"]);
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
    let raw = scratch.text("part.raw");
    ours(&["convert", "-O", "raw", &image, &raw]);
    clean(&raw);
    assert_eq!(ours(&["ls", &format!("{image}::/tree")]), "empty\n");
}

#[test]
fn exfat_is_made_and_read() {
    let scratch = Scratch::new();
    for (size, cluster) in [("8M", "4096"), ("300M", "32768"), ("300M", "512")] {
        let image = scratch.text("exfat.img");
        let _ = fs::remove_file(&image);
        ours(&[
            "mkfs",
            &image,
            "-t",
            "exfat",
            "-L",
            "Größe",
            "--uuid",
            "12345678",
            "--size",
            size,
            "--cluster-size",
            cluster,
        ]);
        let said = run("fsck.exfat", &["-n", &image]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success() && text.contains("clean"), "{text}");
        let told = succeed("blkid", &["-p", "-o", "value", "-s", "UUID", "-s", "LABEL", &image]);
        assert!(told.contains("1234-5678") && told.contains("Größe"), "{told}");
        assert_eq!(ours(&["ls", &format!("{image}::/")]), "");
        let df = ours(&["df", &image]);
        assert!(df.contains("exfat"), "{df}");
    }
    let theirs = scratch.file("theirs.img", 64 << 20);
    succeed("mkfs.exfat", &["-L", "theirs", &theirs]);
    assert_eq!(ours(&["ls", &format!("{theirs}::/")]), "");
    assert!(ours(&["df", &theirs]).contains("theirs"));
}
