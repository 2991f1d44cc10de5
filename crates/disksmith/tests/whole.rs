//! `build`, `clone` and `grow`, judged by the kernel and the tools for tables and filesystems.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::path::Path;

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{run, succeed};
use support::{Loop, Scratch, assert_same, awkward, ours, refused, walk};

const MIB: u64 = 1 << 20;

/// Mounts a part of a raw image by the kernel while `look` looks.
fn part_by_kernel<T>(
    scratch: &Scratch,
    image: &str,
    start: u64,
    look: impl FnOnce(&Path) -> T,
) -> T {
    let place = scratch.path("part");
    let _ = fs::create_dir(&place);
    let text = place.to_str().unwrap();
    succeed("mount", &["-o", &format!("ro,loop,offset={start}"), image, text]);
    let result = look(&place);
    succeed("umount", &[text]);
    result
}

/// The partitions of a raw image as sfdisk sees them: number, first byte, length, type.
fn partitions(image: &str) -> Vec<(u32, u64, u64, String)> {
    let output = run("sfdisk", &["--json", image]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |entry: &str, key: &str| {
        let rest = entry.split(&format!("\"{key}\":")).nth(1).unwrap_or_default();
        rest.trim_start_matches([' ', '"'])
            .split([',', '"', '}', '\n'])
            .next()
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    let list = text.split("\"partitions\":").nth(1).unwrap_or_default();
    list.split('{')
        .skip(1)
        .map(|entry| {
            let node = field(entry, "node");
            let digits: String = node.chars().rev().take_while(char::is_ascii_digit).collect();
            let number = digits.chars().rev().collect::<String>().parse().unwrap();
            let number_of = |key: &str| field(entry, key).parse::<u64>().unwrap() * 512;
            (number, number_of("start"), number_of("size"), field(entry, "type"))
        })
        .collect()
}

/// The tools for tables and filesystems find nothing wrong.
fn clean(scratch: &Scratch, image: &str) {
    let kind = succeed("blkid", &["-p", "-o", "export", image]);
    if kind.contains("PTTYPE=") {
        let said = succeed("sfdisk", &["--verify", image]);
        assert!(said.contains("No errors detected"), "{said}");
        if kind.contains("PTTYPE=gpt") {
            let said = succeed("sgdisk", &["--verify", image]);
            assert!(said.contains("No problems found"), "{said}");
        }
    }
    let mut parts: Vec<(u64, u64)> =
        partitions(image).into_iter().map(|(_, start, length, _)| (start, length)).collect();
    if parts.is_empty() {
        parts.push((0, fs::metadata(image).unwrap().len()));
    }
    let piece = scratch.text("piece");
    for (start, length) in parts {
        let offset = ["-O", &start.to_string(), "-S", &length.to_string()];
        let found = run(
            "blkid",
            &["-p", "-o", "export", offset[0], offset[1], offset[2], offset[3], image],
        );
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        if found.contains("TYPE=ext") {
            let output = run("e2fsck", &["-fn", &format!("{image}?offset={start}")]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        } else if found.contains("TYPE=vfat") {
            let dd = ["bs=1M", "iflag=skip_bytes,count_bytes", "status=none"];
            let (skip, count) = (format!("skip={start}"), format!("count={length}"));
            succeed(
                "dd",
                &[
                    &format!("if={image}"),
                    &format!("of={piece}"),
                    &skip,
                    &count,
                    dd[0],
                    dd[1],
                    dd[2],
                ],
            );
            succeed("fsck.fat", &["-n", &piece]);
        }
    }
}

fn tree(scratch: &Scratch, name: &str) -> String {
    let tree = scratch.folder(name);
    awkward(&tree);
    tree
}

#[test]
fn the_same_input_gives_the_same_disk() {
    let scratch = Scratch::new();
    let first = tree(&scratch, "tree");
    let second = scratch.text("copy");
    succeed("cp", &["-a", &first, &second]);
    for (name, arguments) in [
        ("disk.raw", &["--size", "96M"][..]),
        ("disk.qcow2", &[][..]),
        ("mbr.raw", &["--table", "mbr", "--type", "ext3"][..]),
    ] {
        let mut images = Vec::new();
        for (round, from) in [&first, &first, &second].into_iter().enumerate() {
            let image = scratch.text(&format!("{round}-{name}"));
            let mut words = vec!["build", "--from", from, "-o", &image, "-q"];
            words.extend(arguments);
            ours(&words);
            images.push(image);
        }
        succeed("cmp", &[&images[0], &images[1]]);
        succeed("cmp", &[&images[0], &images[2]]);
        let other = scratch.text("other");
        ours(&["build", "--from", &first, "-o", &other, "--seed", "random", "-q"]);
        assert!(!run("cmp", &[&images[0], &other]).status.success());
        fs::remove_file(other).unwrap();
    }
}

#[test]
fn a_tree_is_on_the_disk_as_it_was() {
    let scratch = Scratch::new();
    let from = tree(&scratch, "tree");
    let wanted = walk(Path::new(&from));
    let image = scratch.text("disk.raw");
    ours(&["build", "--from", &from, "-o", &image]);
    clean(&scratch, &image);
    part_by_kernel(&scratch, &image, MIB, |place| assert_same(&wanted, &walk(place)));
    // The same through tar files, packed in every way, and standard input.
    let tar = scratch.text("tree.tar");
    let packs = [("", ""), (".gz", "gzip"), (".xz", "xz"), (".zst", "zstd -q")];
    let keep = ["--xattrs", "--acls", "--sparse", "--format=posix"];
    succeed("tar", &[&keep[..], &["-cf", &tar, "-C", &from, "."]].concat());
    for (suffix, packer) in packs {
        let packed = format!("{tar}{suffix}");
        if !packer.is_empty() {
            succeed("bash", &["-c", &format!("{packer} < {tar} > {packed}")]);
        }
        let image = scratch.text("from-tar.raw");
        let program = env!("CARGO_BIN_EXE_disksmith");
        let command = format!("{program} build --from - -o {image} --force -q < {packed}");
        succeed("bash", &["-c", &command]);
        clean(&scratch, &image);
        part_by_kernel(&scratch, &image, MIB, |place| {
            // Sockets are tar's matter.
            let seen = walk(place);
            assert_eq!(
                seen.keys().collect::<Vec<_>>(),
                wanted.keys().collect::<Vec<_>>(),
                "{packed}"
            );
            for name in ["data", "owner", "suid", "deep/d1/d2", "old"] {
                assert_eq!(
                    seen.get(name.as_bytes()),
                    wanted.get(name.as_bytes()),
                    "{packed}: {name}"
                );
            }
        });
    }
}

#[test]
fn a_described_disk_has_all_that_was_described() {
    let scratch = Scratch::new();
    let (from, esp) = (tree(&scratch, "tree"), scratch.folder("esp"));
    fs::create_dir_all(scratch.path("esp/EFI/BOOT")).unwrap();
    fs::write(scratch.path("esp/EFI/BOOT/BOOTX64.EFI"), [9; 100_000]).unwrap();
    fs::write(scratch.path("owners"), "one 11:22 600\nmany/** 33:44\n").unwrap();
    let spec = "format = 'qcow2'\nsize = '200M'\nid = '11111111-2222-3333-4444-555555555555'\n\
        options = { cluster_size = '128k' }\n\
        [[partition]]\ntype = 'esp'\nname = 'boot'\nfilesystem = 'fat32'\nlabel = 'ESP'\nfilesystem-uuid = 'ABCD-1234'\nsize = '40M'\nfrom = 'esp'\n\
        [[partition]]\nfilesystem = 'swap'\nlabel = 'swap'\nsize = '16M'\n\
        [[partition]]\nname = 'root'\nfilesystem = 'ext4'\nlabel = 'root'\nfilesystem-uuid = '01234567-89ab-cdef-0123-456789abcdef'\nfeatures = '^huge_file'\nweight = 3\nfrom = 'tree'\nmanifest = 'owners'\n\
        [[partition.file]]\nto = 'etc/motd'\ntext = 'welcome'\nmode = '600'\nowner = '5:6'\n\
        [[partition.content]]\nfrom = 'esp'\nto = '/copy'\nbelow = 'EFI'\n\
        [[partition]]\ntype = 'home'\nfilesystem = 'ext3'\nweight = 1\n";
    let file = scratch.text("disk.toml");
    fs::write(&file, spec).unwrap();
    let (image, raw) = (scratch.text("disk.img"), scratch.text("disk.raw"));
    ours(&["build", &file, "-o", &image]);
    assert!(ours(&["info", &image]).contains("qcow2"));
    assert!(ours(&["info", "--json", &image]).contains("131072"));
    ours(&["convert", "-O", "raw", &image, &raw]);
    clean(&scratch, &raw);
    let table = succeed("sfdisk", &["--dump", &raw]);
    for word in [
        "label-id: 11111111-2222-3333-4444-555555555555",
        "name=\"boot\"",
        "name=\"root\"",
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "933AC7E1-2EB4-4F13-B844-0E14E2AEF915",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    let parts = partitions(&raw);
    assert_eq!(parts[0].2, 40 * MIB);
    assert!(parts[2].2.abs_diff(parts[3].2 * 3) <= 4 * MIB, "{parts:?}");
    let at = |index: usize| {
        let (start, length) = (parts[index].1.to_string(), parts[index].2.to_string());
        succeed("blkid", &["-p", "-o", "export", "-O", &start, "-S", &length, &raw])
    };
    for (index, words) in [
        (0, &["TYPE=vfat", "UUID=ABCD-1234", "LABEL=ESP"][..]),
        (1, &["TYPE=swap", "LABEL=swap"][..]),
        (2, &["TYPE=ext4", "UUID=01234567-89ab-cdef-0123-456789abcdef", "LABEL=root"][..]),
        (3, &["TYPE=ext3"][..]),
    ] {
        let found = at(index);
        assert!(words.iter().all(|word| found.contains(word)), "{found}");
    }
    let wanted = walk(Path::new(&from));
    part_by_kernel(&scratch, &raw, parts[2].1, |place| {
        use std::os::unix::fs::MetadataExt;
        let owner = |name: &str| {
            let meta = fs::metadata(place.join(name)).unwrap();
            (meta.uid(), meta.gid(), meta.mode() & 0o7777)
        };
        assert_eq!(owner("one"), (11, 22, 0o600));
        assert_eq!(owner("many/1").0, 33);
        assert_eq!(owner("etc/motd"), (5, 6, 0o600));
        assert_eq!(fs::read(place.join("etc/motd")).unwrap(), b"welcome");
        assert_eq!(fs::read(place.join("copy/BOOT/BOOTX64.EFI")).unwrap(), [9; 100_000]);
        let seen = walk(place);
        assert_eq!(seen.get(&b"data"[..]), wanted.get(&b"data"[..]));
    });
    assert!(!esp.is_empty());
}

/// What extlinux does to a mounted filesystem, we do without mounting it.
#[test]
fn a_disk_boots_by_the_same_sectors_that_extlinux_writes() {
    let scratch = Scratch::new();
    let from = scratch.folder("tree");
    fs::create_dir_all(scratch.path("tree/boot/extlinux")).unwrap();
    fs::write(
        scratch.path("tree/boot/extlinux/extlinux.conf"),
        "DEFAULT x\nLABEL x\n LINUX /boot/k\n",
    )
    .unwrap();
    fs::write(scratch.path("tree/data"), Rng::new(5).bytes(300_000)).unwrap();
    for (table, code) in
        [("mbr", "/usr/lib/EXTLINUX/mbr.bin"), ("gpt", "/usr/lib/EXTLINUX/gptmbr.bin")]
    {
        let image = scratch.text(&format!("{table}.raw"));
        ours(&[
            "build", "--from", &from, "--boot", "bios", "--table", table, "--size", "64M", "-o",
            &image,
        ]);
        clean(&scratch, &image);
        let bytes = fs::read(&image).unwrap();
        let code = fs::read(code).unwrap();
        assert_eq!(bytes[..code.len()], code[..]);
        let ours_boot = bytes[MIB as usize..][..512].to_vec();
        let ours_file = ours(&["ls", "-l", &format!("{image}:1:/boot/extlinux")]);
        assert!(
            ours_file.contains("ldlinux.sys") && ours_file.contains("ldlinux.c32"),
            "{ours_file}"
        );
        let sys = scratch.text("ours.sys");
        ours(&["cp", &format!("{image}:1:/boot/extlinux/ldlinux.sys"), &sys]);
        let ours_sys = fs::read(&sys).unwrap();
        // The genuine installer writes over ours, into the same blocks or others.
        let place = scratch.folder(&format!("mounted-{table}"));
        let length = partitions(&image)[0].2;
        let options = format!("loop,offset={MIB},sizelimit={length}");
        succeed("mount", &["-o", &options, &image, &place]);
        let output = run("extlinux", &["--install", &format!("{place}/boot/extlinux")]);
        succeed("umount", &[&place]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = fs::read(&image).unwrap();
        let theirs_boot = bytes[MIB as usize..][..512].to_vec();
        ours(&["cp", &format!("{image}:1:/boot/extlinux/ldlinux.sys"), &sys]);
        let theirs_sys = fs::read(&sys).unwrap();
        assert_eq!(ours_sys.len(), theirs_sys.len());
        // Geometry is anyone's guess; where the file begins may differ. All else is the same.
        let differ = |a: &[u8], b: &[u8]| -> Vec<usize> {
            (0..a.len()).filter(|at| a[*at] != b[*at]).collect()
        };
        let allowed = |at: &usize| (0x18..0x1c).contains(at) || (0x11a..0x124).contains(at);
        let odd: Vec<usize> =
            differ(&ours_boot, &theirs_boot).into_iter().filter(|at| !allowed(at)).collect();
        assert!(odd.is_empty(), "{table}: the boot sectors differ at {odd:x?}");
        // The checksum, the map of sectors and the two numbers of the data vector's.
        let allowed = |at: &usize| {
            (0x28..0x2c).contains(at)
                || (0x1ee..0x1ee + 192 * 10).contains(at)
                || (0x16d8..0x16e8).contains(at)
        };
        let odd: Vec<usize> =
            differ(&ours_sys, &theirs_sys).into_iter().filter(|at| !allowed(at)).collect();
        assert!(odd.is_empty(), "{table}: ldlinux.sys differs at {odd:x?}");
        let sum = |bytes: &[u8]| {
            let words = bytes[..bytes.len() - 1024].chunks(4);
            words.fold(0u32, |sum, word| {
                sum.wrapping_add(u32::from_le_bytes(word.try_into().unwrap()))
            })
        };
        assert_eq!(sum(&ours_sys), 0x3eb2_02fe);
        assert_eq!(sum(&theirs_sys), 0x3eb2_02fe);
    }
}

#[test]
fn bad_input_is_one_line_and_makes_nothing() {
    let scratch = Scratch::new();
    let from = scratch.folder("tree");
    fs::write(scratch.path("tree/data"), vec![7; 3 << 20]).unwrap();
    let image = scratch.text("x.raw");
    let one_line = |words: &[&str], part: &str| {
        let said = refused(words);
        assert!(said.contains(part), "{said}");
        assert!(said.lines().count() <= 2, "{said}");
        let left: Vec<_> =
            fs::read_dir(scratch.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("x.raw")), "{left:?}");
    };
    one_line(&["build", "--from", &from, "--size", "3M", "-o", &image], "its files need");
    one_line(&["build", "--from", "/no/where", "-o", &image], "/no/where");
    one_line(&["build", "--from", &from, "--type", "xfs", "-o", &image], "'xfs' is not known");
    one_line(&["build", "--from", &from, "--boot", "bios", "-o", &image], "extlinux.conf");
    one_line(&["build", "--from", &from, "--table", "amiga", "-o", &image], "'amiga'");
    fs::write(scratch.path("s.toml"), "tabel = 'gpt'\n[[partition]]\nsize='1M'\n").unwrap();
    let said = refused(&["build", &scratch.text("s.toml"), "-o", &image]);
    assert!(said.contains("tabel"), "{said}");
    fs::create_dir_all(scratch.path("tree/boot/grub")).unwrap();
    fs::write(scratch.path("tree/boot/grub/grub.cfg"), "").unwrap();
    one_line(&["build", "--from", &from, "--boot", "bios", "-o", &image], "GRUB");
    // A target that holds something stays as it is.
    let taken = scratch.file("taken.raw", 16 * MIB);
    succeed("mke2fs", &["-q", "-t", "ext4", &taken]);
    let before = fs::read(&taken).unwrap();
    for words in [&["build", "--from", &from, "-o", &taken][..], &["clone", &taken, &taken][..]] {
        assert!(refused(words).lines().count() <= 2);
    }
    let other = scratch.file("other.raw", MIB);
    assert!(refused(&["clone", &other, &taken]).contains("ext4"));
    assert!(fs::read(&taken).unwrap() == before);
    // No room on the host.
    let small = scratch.folder("small");
    succeed("mount", &["-t", "tmpfs", "-o", "size=2M", "none", &small]);
    let target = format!("{small}/x.raw");
    let said = refused(&["build", "--from", &from, "-o", &target]);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    let noise = scratch.text("noise.raw");
    fs::write(&noise, Rng::new(1).bytes(4 << 20)).unwrap();
    let said = refused(&["clone", &noise, &target]);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!Path::new(&target).exists());
}

/// Bytes that were read from a block device.
fn read_from(device: &str) -> u64 {
    let name = device.trim_start_matches("/dev/");
    let text = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    text.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap() * 512
}

#[test]
fn a_device_is_cloned_without_its_free_space() {
    let scratch = Scratch::new();
    let image = scratch.file("source.raw", 300 * MIB);
    succeed(
        "bash",
        &[
            "-c",
            &format!(
                "printf 'label: gpt\\nsize=200M\\nsize=98M,type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\\n' | sfdisk -q {image}"
            ),
        ],
    );
    let device = Loop::new(&image);
    let parts = partitions(&image);
    // Noise all over: what is free must not be read, whatever is there.
    for (_, start, length, _) in &parts {
        let (seek, count) = (format!("seek={}", start / MIB), format!("count={}", length / MIB));
        succeed(
            "dd",
            &[
                "if=/dev/urandom",
                &format!("of={image}"),
                "bs=1M",
                &seek,
                &count,
                "conv=notrunc",
                "status=none",
            ],
        );
    }
    let (first, second) = (format!("{}p1", device.0), format!("{}p2", device.0));
    // The largest attribute needs a block of more than 3000 bytes.
    succeed("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "4096", &first]);
    succeed("mkfs.fat", &["-F", "32", &second]);
    let from = tree(&scratch, "tree");
    let place = scratch.folder("mounted");
    succeed("mount", &[&first, &place]);
    succeed("cp", &["-a", &format!("{from}/."), &place]);
    succeed("umount", &[&place]);
    let plain = scratch.folder("plain");
    let mut rng = Rng::new(3);
    for number in 0..40 {
        fs::write(format!("{plain}/File {number}.dat"), rng.bytes(100_000)).unwrap();
    }
    succeed("bash", &["-c", &format!("mcopy -s -i {second} {plain}/* ::")]);
    succeed("sync", &[]);
    let report = succeed("dumpe2fs", &["-h", &first]);
    let number = |key: &str| -> u64 {
        let line = report.lines().find(|line| line.starts_with(key)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let ext_used = (number("Block count:") - number("Free blocks:")) * number("Block size:");
    let fat = run("fsck.fat", &["-n", "-v", &second]);
    let fat = String::from_utf8_lossy(&fat.stdout).into_owned();
    let clusters: u64 = fat
        .lines()
        .last()
        .unwrap()
        .split(", ")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let size: u64 = fat
        .lines()
        .find(|l| l.contains("bytes per cluster"))
        .unwrap()
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let used = ext_used + clusters * size;
    for target in ["target.qcow2", "target.raw"] {
        let target = scratch.text(target);
        succeed("blockdev", &["--flushbufs", &device.0]);
        let before = read_from(&device.0);
        ours(&["clone", &device.0, &target, "--used-only"]);
        let read = read_from(&device.0) - before;
        assert!(read <= used + used / 10, "{read} bytes read, {used} used");
        let raw = scratch.text("raw");
        ours(&["convert", "-O", "raw", &target, &raw]);
        clean(&scratch, &raw);
        part_by_kernel(&scratch, &raw, parts[0].1, |place| {
            assert_same(&walk(Path::new(&from)), &walk(place));
        });
        for number in 0..40 {
            let name = format!("File {number}.dat");
            let copy = scratch.text("copy.dat");
            ours(&["cp", &format!("{target}:2:/{name}"), &copy]);
            succeed("cmp", &[&copy, &format!("{plain}/{name}")]);
            fs::remove_file(copy).unwrap();
        }
    }
    // All of it, and back onto a device.
    let (whole, back) = (scratch.text("whole.qcow2"), scratch.file("back.raw", 300 * MIB));
    ours(&["clone", &device.0, &whole, "--verify"]);
    let target = Loop::new(&back);
    ours(&["clone", &whole, &target.0, "--verify"]);
    succeed("cmp", &[&image, &back]);
    assert!(refused(&["clone", &whole, &target.0]).contains("partition table"));
    // What is mounted is kept still, or not touched.
    succeed("mount", &[&first, &place]);
    fs::write(format!("{place}/late"), "late").unwrap();
    let still = scratch.text("still.raw");
    ours(&["clone", &device.0, &still, "--used-only"]);
    fs::write(format!("{place}/later"), "it is thawed").unwrap();
    assert!(refused(&["clone", &whole, &device.0, "--force"]).contains("mounted"));
    succeed("umount", &[&place]);
    clean(&scratch, &still);
    part_by_kernel(&scratch, &still, parts[0].1, |place| {
        assert_eq!(fs::read(place.join("late")).unwrap(), b"late");
        assert!(!place.join("later").exists());
    });
}

#[test]
fn an_interrupted_clone_goes_on_where_it_stopped() {
    let scratch = Scratch::new();
    let source = scratch.text("source.raw");
    fs::write(&source, Rng::new(2).bytes(24 << 20)).unwrap();
    // The host has no room for the second half, until it has.
    let small = scratch.folder("small");
    succeed("mount", &["-t", "tmpfs", "-o", "size=16M", "none", &small]);
    // (A qcow2 image of a full host cannot be made durable: its copy begins anew.)
    let target = format!("{small}/copy.raw");
    succeed("mount", &["-o", "remount,size=16M", &small]);
    let said = refused(&["clone", &source, &target]);
    assert!(said.contains("No space left on device") && said.contains("again"), "{said}");
    assert!(!Path::new(&target).exists());
    succeed("mount", &["-o", "remount,size=64M", &small]);
    let output = support::disksmith(&["clone", &source, &target, "--verify"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("going on from"), "{said}");
    ours(&["compare", &source, &target]);
    assert_eq!(fs::read_dir(&small).unwrap().count(), 1, "nothing else is left");
    fs::remove_file(&target).unwrap();
    // The copy of another source is not gone on with.
    succeed("mount", &["-o", "remount,size=16M", &small]);
    refused(&["clone", &source, &target]);
    succeed("mount", &["-o", "remount,size=64M", &small]);
    let mut other = fs::read(&source).unwrap();
    other[5] ^= 1;
    fs::write(&source, &other).unwrap();
    let output = support::disksmith(&["clone", &source, &target]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("going on"));
    succeed("cmp", &[&source, &target]);
}

#[test]
fn disks_of_all_sorts_grow() {
    let scratch = Scratch::new();
    let from = tree(&scratch, "tree");
    let wanted = walk(Path::new(&from));
    let plain = scratch.folder("plain");
    for number in 0..30 {
        let bytes = Rng::new(number).bytes(number as usize * 3000);
        fs::write(format!("{plain}/A file {number}.dat"), bytes).unwrap();
    }
    let rounds = if std::env::var_os("DISKSMITH_LONG").is_some() { 200 } else { 12 };
    for round in 0..rounds {
        let mut rng = Rng::new(0x6077 + round);
        let table = *rng.pick(&["gpt", "mbr", "none"]);
        let count = if table == "none" { 1 } else { 1 + rng.below(6) };
        let mut spec = format!("table = '{table}'\n");
        let mut last = "";
        for index in 0..count {
            let lasts = ["ext2", "ext3", "ext4", "ext4", "fat32", "swap"];
            last = if index + 1 == count {
                *rng.pick(&lasts)
            } else {
                *rng.pick(&["ext2", "ext4", "fat16", "swap"])
            };
            let size = match last {
                "fat32" => 40,
                "ext2" | "ext3" | "ext4" if index + 1 == count => 24,
                _ => 10,
            };
            spec += &format!(
                "[[partition]]\nfilesystem = '{last}'\nsize = '{}K'\n",
                size * 1024 + rng.below(5000)
            );
            match last {
                "fat32" => spec += &format!("from = '{plain}'\n"),
                "ext2" | "ext3" | "ext4" if index + 1 == count => {
                    spec += &format!("from = '{from}'\n");
                }
                _ => {}
            }
        }
        let file = scratch.text("disk.toml");
        fs::write(&file, &spec).unwrap();
        let format = *rng.pick(&["raw", "qcow2"]);
        let (image, raw) = (scratch.text(&format!("grown.{format}")), scratch.text("plain.raw"));
        ours(&["build", &file, "-o", &image, "--force"]);
        let mut size = 0;
        for step in 0..2 {
            let more = (1 + rng.below(200)) * MIB + rng.below(2000) * 512;
            let planned = ours(&["grow", "--dry-run", &image, &format!("+{more}")]);
            let done = ours(&["grow", &image, &format!("+{more}")]);
            assert_eq!(planned, done, "{spec}");
            ours(&["convert", "-O", "raw", &image, &raw]);
            let now = fs::metadata(&raw).unwrap().len();
            assert!(step == 0 || now == size + more, "{spec}");
            size = now;
            clean(&scratch, &raw);
            let parts = partitions(&raw);
            let start =
                parts.iter().filter(|part| part.3 != "f").map(|part| part.1).max().unwrap_or(0);
            let end = parts.iter().map(|part| part.1 + part.2).max().unwrap_or(size);
            assert!(size - end < 2 * MIB, "{spec}: {} bytes are left", size - end);
            match last {
                "swap" => swap_reaches(&raw, start, end),
                "fat32" => fat_has(&scratch, &raw, start, &plain),
                _ => part_by_kernel(&scratch, &raw, start, |place| {
                    assert_same(&wanted, &walk(place));
                    let room = rustix::fs::statvfs(place).unwrap();
                    let room = room.f_blocks * room.f_frsize;
                    assert!(room > (end - start) / 10 * 8, "{spec}: {last} has only {room} bytes");
                }),
            }
        }
        fs::remove_file(image).unwrap();
    }
}

/// The header of swap space names its last page.
fn swap_reaches(image: &str, start: u64, end: u64) {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 4];
    fs::File::open(image).unwrap().read_exact_at(&mut bytes, start + 1028).unwrap();
    assert_eq!(u64::from(u32::from_le_bytes(bytes)), (end - start) / 4096 - 1);
}

/// mtools reads the files of a FAT.
fn fat_has(scratch: &Scratch, image: &str, start: u64, plain: &str) {
    let out = scratch.folder("mcopied");
    succeed("mcopy", &["-s", "-n", "-i", &format!("{image}@@{start}"), "::*", &out]);
    succeed("diff", &["-r", plain, &out]);
    fs::remove_dir_all(out).unwrap();
}

/// Files, table and filesystem are what they were, on a smaller disk.
#[test]
fn a_disk_becomes_smaller_with_all_that_is_on_it() {
    let scratch = Scratch::new();
    let from = tree(&scratch, "tree");
    for number in 0..40 {
        fs::write(scratch.path(&format!("tree/big-{number}")), Rng::new(number).bytes(300_000))
            .unwrap();
    }
    let wanted = walk(Path::new(&from));
    for (name, arguments) in [
        ("gpt.qcow2", &["--type", "ext4"][..]),
        ("mbr.raw", &["--table", "mbr", "--type", "ext3"]),
        ("bare.raw", &["--table", "none", "--type", "ext4"]),
    ] {
        let image = scratch.text(name);
        ours(
            &[&["build", "--from", &from, "--size", "400M", "-q", "-o", &image][..], arguments]
                .concat(),
        );
        let told = ours(&["shrink", "--dry-run", &image, "-200M"]);
        assert!(
            told.contains("shrink the disk from 400 MiB (419430400 bytes) to 200 MiB"),
            "{told}"
        );
        for (arguments, least, most) in [
            (&["-200M"][..], 200 * MIB, 200 * MIB),
            (&["150M"], 150 * MIB, 150 * MIB),
            (&["--minimum"], 12 * MIB, 60 * MIB),
            (&[], 12 * MIB, 60 * MIB),
        ] {
            ours(&[&["shrink", "-q", &image][..], arguments].concat());
            let raw = scratch.text("raw");
            ours(&["convert", "-O", "raw", &image, &raw]);
            clean(&scratch, &raw);
            let size = fs::metadata(&raw).unwrap().len();
            assert!((least..=most).contains(&size), "{name} {arguments:?}: {size}");
            let start = partitions(&raw).last().map_or(0, |part| part.1);
            part_by_kernel(&scratch, &raw, start, |place| {
                let mut seen = walk(place);
                seen.remove(&b"lost+found"[..]);
                let mut wanted = wanted.clone();
                wanted.remove(&b"lost+found"[..]);
                assert_same(&wanted, &seen);
            });
        }
        let told = ours(&["shrink", &image]);
        assert!(told.starts_with("Nothing to do"), "{told}");
        ours(&["grow", "-q", &image, "300M"]);
    }
}

#[test]
fn fat_and_logical_partitions_shrink_with_their_disk() {
    let scratch = Scratch::new();
    let image = scratch.text("disk.qcow2");
    ours(&["create", "-q", &image, "300M"]);
    ours(&["partition", &image, "init", "mbr"]);
    ours(&["partition", &image, "add", "--size", "20M"]);
    ours(&["partition", &image, "add", "--logical", "--size", "30M"]);
    ours(&["partition", &image, "add", "--logical", "--type", "fat32"]);
    ours(&["mkfs", "--type", "fat32", &format!("{image}:6")]);
    let data = scratch.text("data");
    fs::write(&data, Rng::new(3).bytes(9_000_000)).unwrap();
    ours(&["cp", &data, &format!("{image}:6:/data")]);
    let before = ours(&["partition", "--json", &image]);
    let said = refused(&["shrink", &format!("{image}:5"), "200M"]);
    assert!(said.contains("partition 6 lies behind it"), "{said}");
    assert_eq!(ours(&["partition", "--json", &image]), before);
    ours(&["shrink", "-q", &format!("{image}:6"), "160M"]);
    let raw = scratch.text("raw");
    ours(&["convert", "-O", "raw", &image, &raw]);
    assert_eq!(fs::metadata(&raw).unwrap().len(), 160 * MIB);
    clean(&scratch, &raw);
    let back = scratch.text("back");
    ours(&["cp", &format!("{image}:6:/data"), &back]);
    succeed("cmp", &[&data, &back]);
}
