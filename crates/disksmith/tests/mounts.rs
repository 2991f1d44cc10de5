//! Mounts and attached disks, used by the kernel and judged by other tools.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{qemu_check, run, succeed};
use support::{Scratch, assert_same, awkward, by_kernel, ours, refused, walk};

fn steps(quick: u64) -> u64 {
    if std::env::var_os("DISKSMITH_LONG").is_some() { 100_000 } else { quick }
}

/// The process that serves a mount.
fn server(place: &str) -> String {
    let list = ours(&["attach", "--list", "--json"]);
    let at = list.find(&format!("\"{place}\"")).expect("it is listed");
    let process = list[at..].split("\"process\": ").nth(1).unwrap();
    process.chars().take_while(char::is_ascii_digit).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn gone(process: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    state
        .rsplit(')')
        .next()
        .is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

/// A qcow2 with two partitions.
fn disk(scratch: &Scratch) -> String {
    let image = scratch.text("disk.qcow2");
    succeed("qemu-img", &["create", "-q", "-f", "qcow2", &image, "100M"]);
    ours(&["partition", &image, "init", "gpt"]);
    ours(&["partition", &image, "add", "--size", "40M", "--name", "one"]);
    ours(&["partition", &image, "add", "--name", "two"]);
    image
}

#[test]
fn the_kernel_uses_a_partition_of_an_attached_disk() {
    let scratch = Scratch::new();
    let (image, folder) = (disk(&scratch), scratch.folder("folder"));
    ours(&["attach", &image, &folder]);
    assert_eq!(fs::metadata(scratch.path("folder/p1")).unwrap().len(), 40 << 20);
    let part = scratch.text("folder/p1");
    succeed("mkfs.ext4", &["-q", "-F", &part]);
    by_kernel(&scratch, &part, |root| fs::write(root.join("hello"), "from the kernel").unwrap());
    let refusal = refused(&["attach", &image, &scratch.folder("second")]);
    assert!(refusal.contains("lock") && refusal.contains("disksmith (process"), "{refusal}");
    ours(&["detach", &folder]);
    assert_eq!(qemu_check("qcow2", Path::new(&image)).0, 0);
    assert_eq!(ours(&["cat", &format!("{image}:one:/hello")]), "from the kernel");
    let raw = scratch.text("one.raw");
    ours(&["convert", "-O", "raw", &format!("{image}:1"), &raw]);
    succeed("e2fsck", &["-fn", &raw]);
    ours(&["compare", &format!("{image}:one"), &raw]);
}

#[test]
fn random_steps_on_an_attached_qcow2_agree_with_a_model() {
    const SIZE: u64 = 8 << 20;
    let scratch = Scratch::new();
    let (image, folder) = (scratch.text("d.qcow2"), scratch.folder("folder"));
    succeed("qemu-img", &["create", "-q", "-f", "qcow2", &image, "8M"]);
    ours(&["attach", &image, &folder]);
    let file = File::options().read(true).write(true).open(scratch.path("folder/disk")).unwrap();
    let (mut model, mut rng) = (vec![0; SIZE as usize], Rng::new(5));
    for step in 0..steps(3000) {
        let offset = rng.below(SIZE);
        let length = rng.below(100_000.min(SIZE - offset)) as usize;
        let place = offset as usize..offset as usize + length;
        match rng.below(8) {
            0..3 => {
                let data = rng.bytes(length);
                file.write_all_at(&data, offset).unwrap();
                model[place].copy_from_slice(&data);
            }
            3 if length > 0 => {
                let flags =
                    rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, offset, length as u64).unwrap();
                model[place].fill(0);
            }
            4 if rng.one_in(20) => file.sync_data().unwrap(),
            _ => {
                let mut seen = vec![0; length];
                file.read_exact_at(&mut seen, offset).unwrap();
                assert!(seen == model[place], "step {step}: {length} bytes at {offset}");
            }
        }
    }
    drop(file);
    ours(&["detach", &folder]);
    let raw = scratch.text("d.raw");
    succeed("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &image, &raw]);
    assert!(fs::read(&raw).unwrap() == model);
    assert_eq!(qemu_check("qcow2", Path::new(&image)).0, 0);
}

#[test]
fn a_killed_server_leaves_a_whole_image() {
    let scratch = Scratch::new();
    let (image, folder) = (disk(&scratch), scratch.folder("folder"));
    let part = scratch.path("folder/p2");
    for (signal, value) in [("-TERM", 1u8), ("-INT", 2), ("-KILL", 3)] {
        ours(&["attach", &image, &folder]);
        let process = server(&folder);
        let file = File::options().write(true).open(&part).unwrap();
        file.write_all_at(&vec![value; 3 << 20], 4096).unwrap();
        file.sync_all().unwrap();
        // What is not synced may be lost, and harms nothing.
        let _ = file.write_all_at(&[9; 70_000], 20 << 20);
        let left = if signal == "-KILL" { Some(file) } else { None };
        succeed("kill", &[signal, &process]);
        until("the server ends", || gone(&process));
        drop(left);
        if signal == "-KILL" {
            assert!(fs::metadata(&part).is_err());
            ours(&["detach", &folder]);
        }
        assert!(!part.exists());
        assert_eq!(qemu_check("qcow2", Path::new(&image)).0, 0, "{signal}");
        let raw = scratch.text("part.raw");
        ours(&["convert", "-O", "raw", &format!("{image}:2"), &raw]);
        let content = fs::read(&raw).unwrap();
        assert!(content[4096..][..3 << 20].iter().all(|byte| *byte == value), "{signal}");
        fs::remove_file(&raw).unwrap();
    }
}

#[test]
fn loop_devices_show_partitions_of_any_image() {
    let scratch = Scratch::new();
    let image = disk(&scratch);
    ours(&["mkfs", &format!("{image}:1"), "-t", "ext4"]);
    let device = ours(&["attach", "--loop", &image]).trim().to_string();
    let place = scratch.folder("place");
    succeed("mount", &[&format!("{device}p1"), &place]);
    fs::write(scratch.path("place/hello"), "loop").unwrap();
    let refusal = refused(&["detach", &device]);
    assert!(refusal.contains("in use"), "{refusal}");
    succeed("umount", &[&place]);
    ours(&["detach", &device]);
    assert!(!ours(&["attach", "--list"]).contains(&image));
    assert_eq!(ours(&["cat", &format!("{image}:1:/hello")]), "loop");
}

#[test]
fn a_mounted_filesystem_is_used_like_the_kernels() {
    let scratch = Scratch::new();
    let (image, place) = (scratch.file("a.img", 200 << 20), scratch.folder("place"));
    succeed("mkfs.ext4", &["-q", "-F", "-b", "4096", &image]);
    ours(&["mount", "-o", "allow_other", &image, &place]);
    let refusal = refused(&["rm", &format!("{image}::/x")]);
    assert!(refusal.contains("lock"), "{refusal}");
    let tree = scratch.folder("tree");
    awkward(&tree);
    succeed("cp", &["-a", &tree, &place]);
    let copy = scratch.path("place/tree");
    assert_same(&walk(Path::new(&tree)), &walk(&copy));
    use_it(&copy);
    let expected = walk(&copy);
    let df = |place: &str| succeed("df", &["--output=size,used,avail,itotal,iused", place]);
    succeed("sync", &["-f", &place]);
    let ours_df = df(&place);
    ours(&["umount", &place]);
    succeed("e2fsck", &["-fn", &image]);
    by_kernel(&scratch, &image, |root| {
        assert_same(&expected, &walk(&root.join("tree")));
        assert_eq!(ours_df, df(root.to_str().unwrap()));
    });
    // And what the kernel made is what we show.
    ours(&["mount", "-o", "ro", &image, &place]);
    assert_same(&expected, &walk(&copy));
    assert!(fs::write(copy.join("new"), "x").is_err());
    ours(&["umount", &place]);
}

/// One of everything that programs do with files.
fn use_it(root: &Path) {
    use rustix::fs::{FallocateFlags, RenameFlags, SeekFrom};
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(root.join("work"))
        .unwrap();
    file.write_all_at(&[1; 100_000], 1 << 20).unwrap();
    file.sync_all().unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap(), 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 65_536).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 1 << 20, 40_960).unwrap();
    let mut byte = [9];
    file.read_exact_at(&mut byte, (1 << 20) + 40_000).unwrap();
    assert_eq!(byte, [0]);
    file.set_len(1_060_000).unwrap();
    let (here, one, two) = (rustix::fs::CWD, root.join("one"), root.join("many"));
    rustix::fs::renameat_with(here, &one, here, &two, RenameFlags::EXCHANGE).unwrap();
    rustix::fs::renameat_with(here, &one, here, &two, RenameFlags::EXCHANGE).unwrap();
    assert!(rustix::fs::renameat_with(here, &one, here, &two, RenameFlags::NOREPLACE).is_err());
    fs::rename(root.join("two"), root.join("many/two")).unwrap();
    fs::hard_link(&one, root.join("three")).unwrap();
    fs::remove_file(root.join("many/7")).unwrap();
    // A file that is open lives on without a name.
    let data = File::open(root.join("data")).unwrap();
    fs::remove_file(root.join("data")).unwrap();
    let mut last = [0; 10];
    data.read_exact_at(&mut last, 2_999_990).unwrap();
    assert_eq!(data.metadata().unwrap().nlink(), 0);
    assert_eq!(fs::remove_dir(root.join("many")).unwrap_err().raw_os_error(), Some(39));
    fs::remove_dir_all(root.join("deep")).unwrap();
    for number in 0..300 {
        fs::create_dir_all(root.join(format!("made/{}", number % 7))).unwrap();
        fs::write(root.join(format!("made/{}/{number}", number % 7)), vec![7; number * 50])
            .unwrap();
    }
    let flagged = root.join("three");
    succeed("chattr", &["+a", flagged.to_str().unwrap()]);
    assert!(fs::write(&flagged, "x").is_err(), "it can only be appended to");
    assert!(succeed("lsattr", &[flagged.to_str().unwrap()]).starts_with("-----a"));
    succeed("chattr", &["-a", flagged.to_str().unwrap()]);
}

/// Rounds of mounting, loading and killing.
fn kills() -> u64 {
    if std::env::var_os("DISKSMITH_LONG").is_some() { 20 } else { 3 }
}

#[test]
fn a_killed_mount_keeps_what_was_synced() {
    let scratch = Scratch::new();
    let (image, place) = (scratch.file("a.img", 200 << 20), scratch.folder("place"));
    ours(&["mkfs", &image, "-t", "ext4", "-b", "4096", "-J", "size=4"]);
    let mut synced = Vec::new();
    for round in 0..kills() {
        ours(&["mount", &image, &place]);
        let process = server(&place);
        let folder = scratch.path("place").join(format!("round{round}"));
        fs::create_dir(&folder).unwrap();
        synced.extend(load_until_killed(&folder, &process, round));
        until("the server ends", || gone(&process));
        ours(&["umount", &place]);
        let copy = scratch.text("copy.img");
        succeed("cp", &["--sparse=always", &image, &copy]);
        // e2fsck replays the journal and frees what was open; nothing else is to be done.
        let status = run("e2fsck", &["-p", &copy]).status.code();
        assert!(matches!(status, Some(0 | 1)), "e2fsck -p: {status:?}");
        succeed("e2fsck", &["-fn", &copy]);
        by_kernel(&scratch, &copy, |root| check_synced(root, &synced));
    }
    // And by our own replay.
    ours(&["mount", &image, &place]);
    check_synced(&scratch.path("place"), &synced);
    ours(&["umount", &place]);
    succeed("e2fsck", &["-fn", &image]);
}

/// Name and byte that a synced file is full of.
type Synced = (String, u8);

/// Two threads change files, of which one syncs each and says so; the server is killed meanwhile.
fn load_until_killed(folder: &Path, process: &str, round: u64) -> Vec<Synced> {
    let synced = std::sync::Mutex::new(Vec::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let going = || !stop.load(std::sync::atomic::Ordering::Acquire);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_u64.. {
                let (name, value) = (format!("s{number}"), (number % 250) as u8 + 1);
                let write = || -> std::io::Result<()> {
                    let temporary = folder.join("temporary");
                    let file = File::create(&temporary)?;
                    file.write_all_at(&vec![value; 1000 + number as usize * 300 % 70_000], 0)?;
                    file.sync_all()?;
                    fs::rename(&temporary, folder.join(&name))?;
                    File::open(folder)?.sync_all()
                };
                match write() {
                    Ok(()) => synced.lock().unwrap().push((format!("round{round}/{name}"), value)),
                    Err(_) => break,
                }
            }
        });
        scope.spawn(|| {
            // What is not synced may be lost, and harms nothing.
            for number in (0_u64..).take_while(|_| going()) {
                let path = folder.join(format!("u{}", number % 40));
                let _ = fs::write(&path, vec![7; number as usize * 977 % 200_000]);
                let _ = fs::rename(&path, folder.join(format!("v{}", number % 17)));
                let _ = fs::create_dir(folder.join(format!("d{number}")));
                let _ = fs::remove_file(folder.join(format!("v{}", number % 5)));
            }
        });
        std::thread::sleep(Duration::from_millis(200 + round * 37 % 400));
        succeed("kill", &["-KILL", process]);
        stop.store(true, std::sync::atomic::Ordering::Release);
    });
    synced.into_inner().unwrap()
}

fn check_synced(root: &Path, synced: &[Synced]) {
    assert!(!synced.is_empty(), "nothing was synced in time");
    for (name, value) in synced {
        let content = fs::read(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(content.len() >= 1000 && content.iter().all(|byte| byte == value), "{name}");
    }
}

/// Where nothing has a label, whoever asks for one is told not to ask again; what has one, tells.
#[test]
fn labels_of_selinux_are_kept_and_told() {
    let scratch = Scratch::new();
    let (image, mount) = (scratch.file("disk.img", 16 << 20), scratch.folder("mount"));
    ours(&["mkfs", &image]);
    ours(&["mount", &image, &mount]);
    let file = scratch.text("mount/file");
    fs::write(&file, "content").unwrap();
    let label = ["-n", "security.selinux", "--only-values", "-h"];
    let get = |file: &str| run("getfattr", &[&label[..], &[file]].concat());
    let said = String::from_utf8_lossy(&get(&file).stderr).into_owned();
    assert!(said.contains("not supported"), "{said}");
    succeed("setfattr", &["-n", "security.selinux", "-v", "u:r:t:s0", &file]);
    assert_eq!(get(&file).stdout, b"u:r:t:s0");
    let said = String::from_utf8_lossy(&get(&mount).stderr).into_owned();
    assert!(said.contains("No such attribute"), "{said}");
    ours(&["umount", &mount]);
    assert!(ours(&["stat", &format!("{image}::/file"), "--json"]).contains("security.selinux"));
    ours(&["mount", &image, &mount]);
    assert_eq!(get(&file).stdout, b"u:r:t:s0");
    ours(&["umount", &mount]);
}

#[test]
fn an_ordinary_user_mounts_and_works() {
    let scratch = Scratch::new();
    let (image, place) = (scratch.file("a.img", 64 << 20), scratch.folder("place"));
    succeed("chmod", &["755", scratch.path(".").to_str().unwrap()]);
    succeed("chown", &["65534:65534", &image, &place]);
    // Where that user may reach it.
    let program = scratch.text("program");
    fs::copy(env!("CARGO_BIN_EXE_disksmith"), &program).unwrap();
    let source = scratch.folder("source");
    succeed("bash", &["-c", "cd $1; for i in $(seq 300); do seq $i > file$i; done", "", &source]);
    succeed("chmod", &["755", &source]);
    let script = r#"
        set -e
        "$1" mkfs "$2" --type ext4 -E root_owner=65534:65534
        "$1" mount "$2" "$3"
        grep -q "$3 fuse.disksmith-ext4 rw,nosuid,nodev" /proc/mounts
        cp -r "$4" "$3"; diff -r "$4" "$3/source"
        mkdir "$3/d"; ln "$3/source/file7" "$3/d/b"; chmod 600 "$3/d/b"; chown 5:6 "$3/d/b"
        setfattr -n user.x -v y "$3/d/b"
        if "$1" rm "$2::/d" 2> /dev/null; then exit 7; fi
        "$1" umount "$3"
        test -z "$(ls -A "$3")"
        "$1" stat "$2::/d/b"
    "#;
    let said = succeed(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "bash",
            "-c",
            script,
            "bash",
            &program,
            &image,
            &place,
            &source,
        ],
    );
    assert!(said.contains("Uid: 5  Gid: 6") && said.contains("user.x=\"y\""), "{said}");
    succeed("e2fsck", &["-fn", &image]);
}
