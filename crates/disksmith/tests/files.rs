//! The file verbs, compared with what the kernel sees and GNU tar makes.

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use disksmith_testkit::oracle::succeed;
use support::{Scratch, assert_same, awkward, by_kernel, disksmith, ours, refused, walk};

const SIZE: u64 = 200 << 20;

fn ext4(scratch: &Scratch, name: &str) -> String {
    let image = scratch.file(name, SIZE);
    succeed("mkfs.ext4", &["-q", "-F", "-b", "4096", &image]);
    image
}

fn clean(image: &str) {
    succeed("e2fsck", &["-fn", image]);
}

#[test]
fn archives_keep_everything_both_ways() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    awkward(&tree);
    let expected = walk(Path::new(&tree));
    let image = ext4(&scratch, "a.img");

    ours(&["cp", "-a", &tree, &format!("{image}::/copy")]);
    clean(&image);
    let seen = by_kernel(&scratch, &image, |root| walk(&root.join("copy")));
    assert_same(&expected, &seen);

    ours(&["cp", "-a", &format!("{image}::/copy"), &scratch.text("out")]);
    assert_same(&expected, &walk(&scratch.path("out")));

    // Image to image, through a qcow2.
    let other = scratch.text("b.qcow2");
    ours(&["create", "-q", "-f", "qcow2", &other, "300M"]);
    ours(&["mkfs", &other, "-t", "ext4", "-b", "4096", "-L", "second"]);
    ours(&["cp", "-a", &format!("{image}::/copy"), &format!("{other}:second:/")]);
    let raw = scratch.text("b.raw");
    succeed("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &other, &raw]);
    clean(&raw);
    assert_same(&expected, &by_kernel(&scratch, &raw, |root| walk(&root.join("copy"))));
}

#[test]
fn tar_streams_agree_with_gnu_tar() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    awkward(&tree);
    let expected = walk(Path::new(&tree));
    let image = scratch.file("a.img", SIZE);
    ours(&["mkfs", &image, "-b", "4096", "-d", &tree]);
    clean(&image);

    let tar = scratch.text("ours.tar");
    ours(&["tar", "--export", &format!("{image}::/"), &tar]);
    let out = scratch.folder("out");
    let all = ["--xattrs", "--xattrs-include=*", "--acls", "--exclude=./lost+found"];
    succeed("tar", &[&all[..], &["-xpf", &tar, "-C", &out]].concat());
    assert_same(&expected, &walk(Path::new(&out)));

    let tar = scratch.text("theirs.tar");
    succeed(
        "tar",
        &[&all[..], &["--format=pax", "--sparse", "-cf", &tar, "-C", &tree, "."]].concat(),
    );
    ours(&["mkdir", &format!("{image}::/theirs")]);
    ours(&["tar", "--import", &format!("{image}::/theirs"), &tar]);
    clean(&image);
    assert_same(&expected, &by_kernel(&scratch, &image, |root| walk(&root.join("theirs"))));
}

#[test]
fn verbs_change_what_they_say() {
    let scratch = Scratch::new();
    let image = ext4(&scratch, "a.img");
    let at = |path: &str| format!("{image}::{path}");
    std::fs::write(scratch.path("file"), "content").unwrap();
    ours(&["mkdir", "-p", &at("/a/b/c")]);
    ours(&["cp", &scratch.text("file"), &at("/a/file")]);
    ours(&["mv", &at("/a/file"), &at("/a/b")]);
    ours(&["ln", &at("/a/b/file"), &at("/hard")]);
    ours(&["ln", "-s", "/a/b/file", &at("/soft")]);
    ours(&["chmod", "u=rwx,go=", &at("/hard")]);
    ours(&["chown", "-R", "70000:8", &at("/a")]);
    assert_eq!(ours(&["cat", &at("/soft")]), "content");
    assert_eq!(ours(&["find", &at("/"), "--name", "f*"]), "/a/b/file\n");
    assert_eq!(ours(&["ls", &at("/a/b")]), "c\nfile\n");
    let stat = ours(&["stat", "--json", &at("/hard")]);
    for fact in ["\"mode\": \"0700\"", "\"uid\": 70000", "\"links\": 2", "\"size\": 7"] {
        assert!(stat.contains(fact), "{stat}");
    }
    clean(&image);
    by_kernel(&scratch, &image, |root| {
        assert_eq!(std::fs::read(root.join("a/b/file")).unwrap(), b"content");
        assert_eq!(std::fs::read_link(root.join("soft")).unwrap(), Path::new("/a/b/file"));
        let text = succeed("stat", &["-c", "%a %u:%g %h", root.join("hard").to_str().unwrap()]);
        assert_eq!(text, "700 70000:8 2\n");
    });
    refused(&["rm", &at("/a")]);
    refused(&["mkdir", &at("/a")]);
    refused(&["cat", &at("/none")]);
    refused(&["cp", "-a", &at("/a"), &at("/a/b")]);
    ours(&["rm", "-r", &at("/a"), &at("/hard")]);
    assert_eq!(ours(&["ls", &at("/")]), "lost+found\nsoft\n");
    clean(&image);
}

#[test]
fn df_tells_what_the_kernel_tells() {
    let scratch = Scratch::new();
    let image = ext4(&scratch, "a.img");
    std::fs::write(scratch.path("file"), vec![1; 5 << 20]).unwrap();
    ours(&["cp", &scratch.text("file"), &format!("{image}::/")]);
    let numbers = |text: &str| {
        let line = text.lines().last().unwrap();
        line.split_whitespace()
            .filter(|w| w.bytes().all(|b| b.is_ascii_digit()))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    let df = numbers(&ours(&["df", &image]));
    let inodes = numbers(&ours(&["df", "-i", &image]));
    by_kernel(&scratch, &image, |root| {
        let root = root.to_str().unwrap();
        assert_eq!(df, numbers(&succeed("df", &["--output=size,used,avail", root])));
        assert_eq!(inodes, numbers(&succeed("df", &["--output=itotal,iused,iavail", root])));
    });
}

#[test]
fn nothing_is_written_outside_of_the_target() {
    let scratch = Scratch::new();
    let image = ext4(&scratch, "a.img");
    let at = |path: &str| format!("{image}::{path}");
    std::fs::write(scratch.path("file"), "evil").unwrap();
    let outside = scratch.folder("outside");
    ours(&["mkdir", "-p", &at("/tree/way")]);
    ours(&["cp", &scratch.text("file"), &at("/tree/way/file")]);
    ours(&["cp", &scratch.text("file"), &at("/tree/leaf")]);
    // Symlinks that lie in the target already, as a first archive could have left them.
    let target = scratch.folder("target");
    symlink(&outside, scratch.path("target/way")).unwrap();
    symlink(scratch.path("outside/leaf"), scratch.path("target/leaf")).unwrap();
    let output = disksmith(&["cp", "-r", &at("/tree/way"), &at("/tree/leaf"), &target]);
    assert!(!output.status.success());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(std::fs::read(scratch.path("target/leaf")).unwrap(), b"evil");

    // A guest's symlinks lead nowhere but into the guest.
    ours(&["ln", "-s", &scratch.text("file"), &at("/host")]);
    ours(&["ln", "-s", "../../../../../../../../../../etc", &at("/up")]);
    refused(&["cat", &at("/host")]);
    refused(&["ls", &at("/up/")]);

    // Control bytes do not reach the terminal.
    ours(&["cp", &scratch.text("file"), &at("/x\u{1b}[31m\n")]);
    assert!(!ours(&["ls", &at("/")]).contains('\u{1b}'));
    assert!(ours(&["ls", &at("/")]).contains("x\\u{1b}[31m\\n\n"));
}

#[test]
fn mkfs_makes_an_image_of_the_right_size() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    awkward(&tree);
    let expected = walk(Path::new(&tree));
    let archive = scratch.text("tree.tar");
    let all = ["--xattrs", "--xattrs-include=*", "--acls", "--format=pax", "--sparse"];
    succeed("tar", &[&all[..], &["-cf", &archive, "-C", &tree, "."]].concat());
    for (name, from) in [("a.qcow2", &tree), ("b.raw", &archive)] {
        let image = scratch.text(name);
        ours(&["mkfs", &image, "--type", "ext4", "-b", "4096", "--from", from, "--size", "auto"]);
        let raw = scratch.text("copy.raw");
        succeed("qemu-img", &["convert", "-O", "raw", &image, &raw]);
        clean(&raw);
        // The files are 3 MB, in 700 blocks at least; journal and tables come to that.
        let length = std::fs::metadata(&raw).unwrap().len();
        assert!(length < 16 << 20, "{length}");
        assert_same(&expected, &by_kernel(&scratch, &raw, walk));
    }
    // A stream that can be read once, and an image that cannot be made.
    let image = scratch.text("c.img");
    let program = env!("CARGO_BIN_EXE_disksmith");
    let script = r#"cat "$1" | "$2" mkfs "$3" --from - --size auto"#;
    succeed("bash", &["-c", script, "", &archive, program, &image]);
    clean(&image);
    let refusal = refused(&["mkfs", &scratch.text("d.img"), "--from", &tree, "--size", "1M"]);
    assert!(refusal.contains("d.img") && !scratch.path("d.img").exists(), "{refusal}");
}

#[test]
fn mkfs_takes_what_mke2fs_takes() {
    let scratch = Scratch::new();
    let image = scratch.file("a.img", 64 << 20);
    let seed = "01020304-0506-0708-090a-0b0c0d0e0f10";
    let extended = format!(
        "stride=16,stripe_width=64,lazy_itable_init=0,hash_seed={seed},root_owner=1000:100"
    );
    let arguments =
        ["-t", "ext3", "-b", "1024", "-I", "128", "-J", "size=2", "-L", "here", "-m", "1"];
    ours(&[&["mkfs", &image, "-E", &extended], &arguments[..]].concat());
    clean(&image);
    let said = succeed("dumpe2fs", &["-h", &image]);
    for line in [
        "Filesystem volume name:   here",
        "Inode size:\t          128",
        "Reserved block count:     655",
        "RAID stride:              16",
        "RAID stripe width:        64",
        &format!("Directory Hash Seed:      {seed}"),
        "Total journal blocks:     2048",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let root = ours(&["stat", &format!("{image}::/")]);
    assert!(root.contains("Uid: 1000  Gid: 100"), "{root}");
    for wrong in [["-E", "stride=x"], ["-T", "none"], ["-J", "device=/dev/sda"], ["-O", "^extent"]]
    {
        refused(&[&["mkfs", "--force", &image][..], &wrong[..]].concat());
    }
}

#[test]
fn files_go_between_partitions_of_one_image() {
    let scratch = Scratch::new();
    let disk = scratch.text("disk.qcow2");
    ours(&["create", "-q", &disk, "300M"]);
    ours(&["partition", &disk, "init", "gpt"]);
    ours(&["partition", &disk, "add", "--size", "100M", "--name", "one"]);
    ours(&["partition", &disk, "add", "--name", "two"]);
    ours(&["mkfs", &format!("{disk}:1"), "-t", "ext2", "-b", "4096"]);
    ours(&["mkfs", &format!("{disk}:two"), "-t", "ext4", "-L", "root", "-b", "4096"]);
    let tree = scratch.folder("tree");
    awkward(&tree);
    let expected = walk(Path::new(&tree));
    ours(&["cp", "-a", &tree, &format!("{disk}:two:/tree")]);
    ours(&["cp", "-a", &format!("{disk}:root:/tree"), &format!("{disk}:1:/copy")]);
    // By two names of one partition: it is the same filesystem.
    ours(&["cp", "-a", &format!("{disk}:2:/tree/many"), &format!("{disk}:root:/again")]);
    ours(&["cp", "-a", &format!("{disk}:1:/copy"), &scratch.text("out")]);
    assert_same(&expected, &walk(&scratch.path("out")));
    for part in ["1", "2"] {
        let raw = scratch.text("part.raw");
        ours(&["convert", "-O", "raw", &format!("{disk}:{part}"), &raw]);
        clean(&raw);
    }
    assert_eq!(ours(&["find", &format!("{disk}:2:/again"), "-type", "f"]).lines().count(), 600);
    let human = ours(&["df", "-h", &disk]);
    assert!(human.contains("ext2") && human.contains("ext4"), "{human}");
    assert!(ours(&["ls", "-lah", &format!("{disk}:2:/again")]).lines().count() >= 600);
}
