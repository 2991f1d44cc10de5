//! What people type out of habit, and what they meet who do so: odd names, pipes, full devices,
//! snapshots as sources, options of the tools they know.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use disksmith_testkit::oracle::succeed;
use support::{Scratch, disksmith, ours, refused};

const SIZE: u64 = 48 << 20;

fn made(scratch: &Scratch, name: &str, kind: &str) -> String {
    let image = scratch.file(name, SIZE);
    ours(&["mkfs", &image, "-t", kind]);
    image
}

fn raw(words: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith")).args(words).output().unwrap()
}

/// A word of text with a byte at its end that is no UTF-8.
fn odd(text: &str) -> OsString {
    OsString::from_vec([text.as_bytes(), b"\xe9"].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn names_that_are_no_utf8_are_names() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let host = scratch.path("").join(odd("caf"));
    fs::write(&host, "drink").unwrap();
    let done = raw(&["cp".as_ref(), host.as_ref(), format!("{image}::/").as_ref()]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(ours(&["ls", &format!("{image}::/")]), "caf\\xe9\nlost+found\n");
    let inside = odd(&format!("{image}::/caf"));
    assert_eq!(raw(&["cat".as_ref(), &inside]).stdout, b"drink");
    let found =
        raw(&["find".as_ref(), format!("{image}::/").as_ref(), "-name".as_ref(), &odd("c*")]);
    assert_eq!(text(&found.stdout), "/caf\\xe9\n");
    for words in [&["chmod", "600"][..], &["chown", "7:8"], &["stat"], &["du"]] {
        let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        words.push(&inside);
        let done = raw(&words);
        assert!(done.status.success(), "{words:?}: {}", text(&done.stderr));
    }
    let moved = odd(&format!("{image}::/th"));
    assert!(raw(&["mv".as_ref(), &inside, &moved]).status.success());
    succeed("debugfs", &["-R", "dump /th\\xe9 /dev/null", &image]);
    let back = scratch.path("").join(odd("back"));
    assert!(raw(&["cp".as_ref(), &moved, back.as_ref()]).status.success());
    assert_eq!(fs::read(&back).unwrap(), b"drink");
    let gone = raw(&["cat".as_ref(), &inside]);
    assert!(text(&gone.stderr).contains("/caf\\xe9': No such file"), "{}", text(&gone.stderr));
    assert!(raw(&["rm".as_ref(), &moved]).status.success());
    succeed("e2fsck", &["-fn", &image]);

    // An image of such a name, in both faces.
    let named = scratch.path("").join(odd("disk"));
    fs::rename(&image, &named).unwrap();
    let mut address = named.clone().into_os_string();
    address.push("::/");
    assert_eq!(text(&raw(&["ls".as_ref(), &address]).stdout), "lost+found\n");
    let info = raw(&["qemu-img".as_ref(), "info".as_ref(), named.as_ref()]);
    let genuine = Command::new("qemu-img").arg("info").arg(&named).output().unwrap();
    assert_eq!(info.stdout, genuine.stdout);
}

#[test]
fn verbs_that_take_only_utf8_say_so_and_do_nothing() {
    let scratch = Scratch::new();
    let target = scratch.path("").join(odd("new"));
    let done = raw(&["create".as_ref(), target.as_ref(), "1M".as_ref()]);
    assert_eq!(done.status.code(), Some(2));
    assert!(text(&done.stderr).contains("is not UTF-8"), "{}", text(&done.stderr));
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 0);
}

#[test]
fn messages_do_not_drive_the_terminal() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "exfat");
    let tree = scratch.folder("tree");
    fs::write(format!("{tree}/red\x1b[31m\nline"), "").unwrap();
    let said = refused(&["cp", "-r", &tree, &format!("{image}::/")]);
    assert!(!said.contains('\x1b'), "{said:?}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let said = refused(&["ls", &format!("{image}::/x\x1b[31m")]);
    assert!(!said.contains('\x1b') && said.contains("\\u{1b}"), "{said:?}");
}

#[test]
fn a_copy_never_hides_another_one() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    fs::write(format!("{tree}/Case"), "upper").unwrap();
    fs::write(format!("{tree}/case"), "lower").unwrap();
    for kind in ["exfat", "fat16"] {
        let image = made(&scratch, &format!("{kind}.img"), kind);
        for how in ["-r", "-a"] {
            let target = format!("{image}::/to{how}");
            let said = refused(&["cp", how, &tree, &target]);
            assert!(said.contains("/case'") && said.contains("just copied"), "{said}");
            assert_eq!(ours(&["cat", &format!("{target}/case")]), "upper");
            // What was there before is replaced, as ever.
            fs::write(format!("{tree}/Case"), "UPPER").unwrap();
            refused(&["cp", how, &format!("{tree}/."), &target]);
            assert_eq!(ours(&["cat", &format!("{target}/case")]), "UPPER");
            fs::write(format!("{tree}/Case"), "upper").unwrap();
        }
    }
    let image = made(&scratch, "ext4.img", "ext4");
    ours(&["cp", "-r", &tree, &format!("{image}::/")]);
    assert_eq!(ours(&["ls", &format!("{image}::/tree")]), "Case\ncase\n");
}

#[test]
fn pipes_and_devices_are_read_where_content_is_meant() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let mut child = Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .args(["cp", "/dev/stdin", &format!("{image}::/from-pipe")])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ours(&["cat", &format!("{image}::/from-pipe")]), "through a pipe");

    ours(&["cp", "/dev/null", &format!("{image}::/")]);
    assert_eq!(
        ours(&["stat", "-c", "%F %s", &format!("{image}::/null")]),
        "regular empty file 0\n"
    );
    ours(&["cp", "-a", "/dev/null", &format!("{image}::/node")]);
    assert_eq!(
        ours(&["stat", "-c", "%F %t %T", &format!("{image}::/node")]),
        "character special file 1 3\n"
    );
    let said = refused(&["cp", &format!("{image}::/node"), &scratch.text("node")]);
    assert!(said.contains("character special file"), "{said}");
    assert!(!scratch.path("node").exists());
    succeed("e2fsck", &["-fn", &image]);
}

#[test]
fn a_slash_behind_a_target_means_a_directory() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let file = scratch.text("file");
    fs::write(&file, "x").unwrap();
    let said = refused(&["cp", &file, &format!("{image}::/none/")]);
    assert!(said.contains(&format!("'{image}::/none/': No such file")), "{said}");
    ours(&["cp", &file, &format!("{image}::/")]);
    refused(&["cp", &format!("{image}::/file"), &scratch.text("none/")]);
    assert!(!scratch.path("none").exists());
    let tree = scratch.folder("tree");
    ours(&["cp", "-r", &tree, &format!("{image}::/new/")]);
    assert_eq!(ours(&["ls", &format!("{image}::/")]), "file\nlost+found\nnew\n");
}

#[test]
fn half_a_file_is_not_left() {
    let scratch = Scratch::new();
    let large = scratch.text("large");
    fs::write(&large, vec![7; 3 << 20]).unwrap();
    let image = scratch.file("a.img", 3 << 20);
    ours(&["mkfs", &image, "-t", "ext2"]);
    let said = refused(&["cp", &large, &format!("{image}::/")]);
    assert!(said.contains("'large': Could not write: No space left"), "{said}");
    assert_eq!(ours(&["ls", &format!("{image}::/")]), "lost+found\n");
    succeed("e2fsck", &["-fn", &image]);
}

#[test]
fn files_come_back_from_a_snapshot_of_the_same_image() {
    let scratch = Scratch::new();
    let image = scratch.text("a.qcow2");
    ours(&["create", "-q", &image, "48M"]);
    ours(&["mkfs", &image]);
    let file = scratch.text("file");
    fs::write(&file, "as it was").unwrap();
    ours(&["cp", &file, &format!("{image}::/")]);
    ours(&["snapshot", "-c", "monday", &image]);
    fs::write(&file, "spoilt").unwrap();
    ours(&["cp", &file, &format!("{image}::/")]);
    ours(&["cp", "-a", &format!("{image}@monday::/file"), &format!("{image}::/file")]);
    assert_eq!(ours(&["cat", &format!("{image}::/file")]), "as it was");
    ours(&["fsck", &image]);
    ours(&["check", &image]);
    // The same image by another name.
    let other = scratch.text("link.qcow2");
    symlink(&image, &other).unwrap();
    ours(&["cp", &format!("{other}::/file"), &format!("{image}::/again")]);
    ours(&["cp", &format!("{other}@monday::/file"), &format!("{image}::/more")]);
    assert_eq!(ours(&["cat", &format!("{image}::/more")]), "as it was");
}

#[test]
fn zeroes_of_exfat_become_holes() {
    let scratch = Scratch::new();
    let sparse = scratch.file("sparse", 30 << 20);
    fs::OpenOptions::new().write(true).open(&sparse).unwrap().write_all(b"begin").unwrap();
    let (exfat, ext4) = (made(&scratch, "x.img", "exfat"), made(&scratch, "e.img", "ext4"));
    ours(&["cp", &sparse, &format!("{exfat}::/")]);
    ours(&["cp", "-a", &format!("{exfat}::/sparse"), &format!("{ext4}::/")]);
    let told = ours(&["stat", "-c", "%s %b", &format!("{ext4}::/sparse")]);
    let (size, blocks) = told.trim().split_once(' ').unwrap();
    assert_eq!(size, (30u64 << 20).to_string());
    assert!(blocks.parse::<u64>().unwrap() <= 2048, "{told}");
    ours(&["cp", &format!("{ext4}::/sparse"), &scratch.text("back")]);
    assert!(fs::read(&sparse).unwrap() == fs::read(scratch.path("back")).unwrap());
    succeed("e2fsck", &["-fn", &ext4]);
}

#[test]
fn a_directory_of_a_filesystem_is_mounted_alone() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let place = scratch.folder("place");
    ours(&["mkdir", "-p", &format!("{image}::/srv/www")]);
    let mount = |path: &str| disksmith(&["mount", &format!("{image}::{path}"), &place]);
    assert!(mount("/srv").status.success());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    fs::write(format!("{place}/www/index"), "hello").unwrap();
    fs::rename(format!("{place}/www/index"), format!("{place}/top")).unwrap();
    assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o755);
    ours(&["umount", &place]);
    assert_eq!(ours(&["cat", &format!("{image}::/srv/top")]), "hello");
    for path in ["/srv/top", "/none"] {
        let refused = mount(path);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("Could not mount"), "{}", text(&refused.stderr));
    }
    succeed("e2fsck", &["-fn", &image]);
}

#[test]
fn packed_archives_are_imported() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    fs::write(format!("{tree}/file"), "packed").unwrap();
    let image = made(&scratch, "a.img", "ext4");
    for (option, name) in [("-z", "a.tgz"), ("-J", "a.txz"), ("--zstd", "a.tzst"), ("-h", "a.tar")]
    {
        let archive = scratch.text(name);
        succeed("tar", &[option, "-cf", &archive, "-C", &tree, "."]);
        ours(&["mkdir", &format!("{image}::/{name}")]);
        ours(&["tar", "--import", &format!("{image}::/{name}"), &archive]);
        assert_eq!(ours(&["cat", &format!("{image}::/{name}/file")]), "packed");
    }
    let nothing = scratch.text("text");
    fs::write(&nothing, "no archive at all\n".repeat(100)).unwrap();
    let said = refused(&["tar", "--import", &format!("{image}::/"), &nothing]);
    assert!(said.contains(&format!("Could not import '{nothing}'")), "{said}");
}

#[test]
fn what_fat_cannot_hold_of_an_archive_is_told_and_the_rest_is_there() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    symlink("z", format!("{tree}/a")).unwrap();
    fs::write(format!("{tree}/z"), "rest").unwrap();
    let archive = scratch.text("a.tar");
    succeed("tar", &["-cf", &archive, "-C", &tree, "a", "z"]);
    let image = made(&scratch, "a.img", "exfat");
    let said = refused(&["tar", "--import", &format!("{image}::/"), &archive]);
    assert!(said.contains("'a': exFAT has no symbolic links"), "{said}");
    assert_eq!(ours(&["cat", &format!("{image}::/z")]), "rest");
}

#[test]
fn archives_into_exfat_lose_no_file_by_its_name() {
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    fs::write(format!("{tree}/Case"), "upper").unwrap();
    fs::write(format!("{tree}/case"), "lower").unwrap();
    fs::hard_link(format!("{tree}/Case"), format!("{tree}/second")).unwrap();
    let archive = scratch.text("a.tar");
    succeed("tar", &["-cf", &archive, "-C", &tree, "Case", "case", "second"]);
    let image = made(&scratch, "a.img", "exfat");
    let said = refused(&["tar", "--import", &format!("{image}::/"), &archive]);
    assert!(said.starts_with("disksmith: 'case': another file"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for name in ["Case", "second"] {
        assert_eq!(ours(&["cat", &format!("{image}::/{name}")]), "upper");
    }
    // A later version of the same file replaces the earlier.
    fs::write(format!("{tree}/case"), "later").unwrap();
    succeed("tar", &["-cf", &archive, "-C", &tree, "case"]);
    fs::write(format!("{tree}/case"), "latest").unwrap();
    succeed("tar", &["-rf", &archive, "-C", &tree, "case"]);
    ours(&["tar", "--import", &format!("{image}::/"), &archive]);
    assert_eq!(ours(&["cat", &format!("{image}::/case")]), "latest");
    succeed("fsck.exfat", &["-n", &image]);
}

#[test]
fn results_that_cannot_be_written_are_told() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    for words in [&["ls"][..], &["find"], &["du"], &["stat"], &["ls", "--json"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let done = Command::new(env!("CARGO_BIN_EXE_disksmith"))
            .args(words)
            .arg(format!("{image}::/"))
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(1), "{words:?}");
        let said = text(&done.stderr);
        assert_eq!(said, "disksmith: Could not write to stdout: No space left on device\n");
    }
}

#[test]
fn a_suffix_that_promises_another_format_is_not_given_to_a_raw_disk() {
    let scratch = Scratch::new();
    for suffix in ["vmdk", "vdi", "vhdx", "qed"] {
        let image = scratch.text(&format!("a.{suffix}"));
        if disksmith(&["create", "-q", "-f", suffix, &image, "1M"]).status.success() {
            // A format that can be made.
            continue;
        }
        let said = refused(&["create", &image, "1M"]);
        assert!(said.contains(&format!("Unknown file format '{suffix}'")), "{said}");
        assert!(!Path::new(&image).exists());
        ours(&["create", "-q", "-f", "raw", &image, "1M"]);
    }
}

#[test]
fn options_of_the_tools_that_people_know() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let at = |path: &str| format!("{image}::{path}");
    let tree = scratch.folder("tree");
    for (name, length, time) in
        [("small", 1, "2001"), ("large", 9000, "2002"), ("Empty", 0, "2000")]
    {
        fs::write(format!("{tree}/{name}"), vec![b'x'; length]).unwrap();
        succeed("touch", &["-d", &format!("{time}-01-01"), &format!("{tree}/{name}")]);
    }
    assert_eq!(ours(&["cp", "-av", &tree, &at("/")]), "tree\ntree/Empty\ntree/large\ntree/small\n");
    let tree_in = at("/tree");
    assert_eq!(ours(&["ls", "-1A", &tree_in]), "Empty\nlarge\nsmall\n");
    assert_eq!(ours(&["ls", "-t", &tree_in]), "large\nsmall\nEmpty\n");
    assert_eq!(ours(&["ls", "-S", &tree_in]), "large\nsmall\nEmpty\n");
    assert_eq!(ours(&["ls", "-tr", &tree_in]), "Empty\nsmall\nlarge\n");
    assert!(ours(&["ls", "-n", &tree_in]).contains("-rw-r--r-- 1 0 0 9000 2002-01-01"));

    let find = |tests: &[&str]| {
        let words: Vec<&str> = [&["find", tree_in.as_str()], tests].concat();
        ours(&words).replace('\n', " ")
    };
    assert_eq!(find(&["-iname", "eMP*"]), "/tree/Empty ");
    assert_eq!(find(&["-empty", "-print"]), "/tree/Empty ");
    assert_eq!(find(&["-mindepth", "1", "-type", "d,l"]), "");
    assert_eq!(find(&["-maxdepth", "0"]), "/tree ");
    assert_eq!(find(&["-size", "9000c"]), "/tree/large ");
    assert_eq!(find(&["-perm", "/111"]), "/tree ");
    assert_eq!(find(&["-perm", "-644", "-type", "d"]), "/tree ");

    assert!(ours(&["du", "-d", "0", &at("/")]).lines().count() == 1);
    assert!(ours(&["du", "-k", "--max-depth=1", &at("/")]).contains("\t/tree\n"));
    assert!(ours(&["df", "-kT", &image]).contains("ext4"));
    for format in ["%a %A %F %s %u:%g %h", "%f %Y", "%%"] {
        let genuine = succeed("stat", &["-c", format, &format!("{tree}/large")]);
        assert_eq!(ours(&["stat", "-c", format, &at("/tree/large")]), genuine, "{format}");
    }

    ours(&["ln", "-s", "large", &at("/tree/link")]);
    ours(&["chown", "-h", "5:6", &at("/tree/link")]);
    assert_eq!(ours(&["stat", "-c", "%u:%g", &at("/tree/link")]), "5:6\n");
    assert_eq!(ours(&["stat", "-c", "%u:%g", &at("/tree/large")]), "0:0\n");
    ours(&["cp", "-pf", &format!("{tree}/large"), &at("/kept")]);
    assert!(ours(&["ls", "-l", &at("/kept")]).contains("2002-01-01"));
    ours(&["cp", "-P", &at("/tree/link"), &at("/link")]);
    assert_eq!(ours(&["stat", "-c", "%N", &at("/link")]), "'/link' -> 'large'\n");
    ours(&["mv", "-f", &at("/kept"), &at("/link")]);
    for words in [&["chmod", "zz"][..], &["mkdir", "-m", "zz"], &["find", "--size", "zz"]] {
        let words: Vec<&str> = [words, &[tree_in.as_str()]].concat();
        assert_eq!(disksmith(&words).status.code(), Some(2), "{words:?}");
    }
    let said = refused(&["chown", "1", &scratch_fat(&scratch)]);
    assert!(!said.contains(": :"), "{said}");
    succeed("e2fsck", &["-fn", &image]);
}

fn scratch_fat(scratch: &Scratch) -> String {
    let image = made(scratch, "f.img", "fat16");
    ours(&["mkdir", &format!("{image}::/a")]);
    format!("{image}::/a")
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let before = fs::read(&image).unwrap();
    let told = ours(&["mkfs", "--dry-run", &image, "-t", "exfat"]);
    assert_eq!(
        told,
        format!("would need --force: it holds ext4\nmake exfat of 48 MiB in '{image}'\n")
    );
    ours(&["mkfs", "--dry-run", "--force", &image, "-t", "exfat"]);
    let new = scratch.text("new.img");
    assert!(ours(&["mkfs", "--dry-run", &new, "--size", "9M"]).contains("make the image"));
    assert!(ours(&["clone", "--dry-run", &image, &new]).contains("copy 48 MiB"));
    assert!(!Path::new(&new).exists());
    let other = made(&scratch, "b.img", "exfat");
    assert!(ours(&["clone", "--dry-run", &other, &image]).contains("would need --force"));
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn loop_devices_are_told_by_their_images() {
    let scratch = Scratch::new();
    let image = scratch.text("a.qcow2");
    ours(&["create", "-q", &image, "48M"]);
    ours(&["partition", "-q", &image, "init", "gpt"]);
    ours(&["partition", "-q", &image, "add", "--size", "rest"]);
    let told: serde_json::Value =
        serde_json::from_str(&ours(&["attach", "--loop", "--json", &image])).unwrap();
    let device = told["device"].as_str().unwrap().to_string();
    assert_eq!(told["partitions"], serde_json::json!([format!("{device}p1")]));
    let list = ours(&["attach", "--list"]);
    ours(&["detach", &device]);
    let lines: Vec<&str> = list.lines().filter(|line| line.contains(&image)).collect();
    assert_eq!(lines.len(), 1, "{list}");
    assert!(lines[0].starts_with(&device), "{list}");
}

#[test]
fn images_come_from_stdin() {
    let scratch = Scratch::new();
    let image = made(&scratch, "a.img", "ext4");
    let packed = scratch.text("a.qcow2");
    ours(&["convert", "-O", "qcow2", &image, &packed]);
    for source in [&image, &packed] {
        for through_a_pipe in [true, false] {
            let run = |words: &[&str]| {
                let mut cat =
                    Command::new("cat").arg(source).stdout(Stdio::piped()).spawn().unwrap();
                let stdin = match through_a_pipe {
                    true => Stdio::from(cat.stdout.take().unwrap()),
                    false => Stdio::from(fs::File::open(source).unwrap()),
                };
                drop(cat.stdout.take());
                let done = Command::new(env!("CARGO_BIN_EXE_disksmith"))
                    .args(words)
                    .stdin(stdin)
                    .output()
                    .unwrap();
                cat.wait().unwrap();
                assert!(done.status.success(), "{words:?}: {}", text(&done.stderr));
                text(&done.stdout)
            };
            let copy = scratch.text("copy.qcow2");
            run(&["convert", "-", &copy]);
            succeed("qemu-img", &["compare", &copy, &image]);
            fs::remove_file(&copy).unwrap();
            run(&["clone", "-", &copy]);
            succeed("qemu-img", &["compare", &copy, &image]);
            fs::remove_file(&copy).unwrap();
            assert!(run(&["info", "-"]).contains("image: -\n"));
            assert!(run(&["compare", "-", &image]).contains("identical"));
        }
    }
}

#[test]
fn what_was_done_is_told_as_json() {
    let scratch = Scratch::new();
    let (base, top) = (scratch.text("base.qcow2"), scratch.text("top.qcow2"));
    let json =
        |words: &[&str]| -> serde_json::Value { serde_json::from_str(&ours(words)).unwrap() };
    let made = json(&["create", "--json", &base, "8M"]);
    assert_eq!(made["format"], "qcow2");
    assert_eq!(made["virtual-size"], 8 << 20);
    assert_eq!(json(&["create", "--json", "-b", &base, &top])["backing-filename"], base.as_str());
    let resized = json(&["resize", "--output", "json", &top, "+1M"]);
    assert_eq!(
        (&resized["old-size"], &resized["new-size"]),
        (&(8 << 20).into(), &(9 << 20).into())
    );
    assert_eq!(json(&["commit", "--json", &top])["emptied"], true);
}

#[test]
fn a_copy_that_is_stopped_leaves_no_half_of_it() {
    let scratch = Scratch::new();
    let large = scratch.text("large");
    fs::write(&large, vec![7; 300 << 20]).unwrap();
    let image = scratch.text("a.img");
    ours(&["mkfs", &image, "--size", "auto", "--from", &large_folder(&scratch, &large)]);
    let copy = scratch.path("copy");
    let mut child = Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .args(["cp", &format!("{image}::/large"), copy.to_str().unwrap()])
        .spawn()
        .unwrap();
    while !copy.exists() && child.try_wait().unwrap().is_none() {}
    succeed("kill", &["-INT", &child.id().to_string()]);
    assert!(!child.wait().unwrap().success());
    assert!(!copy.exists());
}

fn large_folder(scratch: &Scratch, large: &str) -> String {
    let folder = scratch.folder("folder");
    fs::rename(large, format!("{folder}/large")).unwrap();
    folder
}

#[test]
fn the_only_key_is_that_of_the_image() {
    let scratch = Scratch::new();
    let image = scratch.text("a.qcow2");
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let key = ["--object", "secret,id=s,data=pw"];
    ours(&[&["create", "-q", "-o", options, &image, "30M"][..], &key].concat());
    ours(&[&["mkfs", &image][..], &key].concat());
    let root = format!("{image}::/");
    assert_eq!(ours(&[&["ls", &root][..], &key].concat()), "lost+found\n");
    let said = refused(&["ls", &root]);
    assert!(said.contains("Give its key: --object"), "{said}");
    refused(&["ls", &root, "--object", "secret,id=s,data=wrong"]);
    // qemu-img wants it named.
    let done = disksmith(&[&["qemu-img", "map", &image][..], &key].concat());
    let genuine = Command::new("qemu-img").args(["map", &image]).args(key).output().unwrap();
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(1), text(&genuine.stderr)));
}
