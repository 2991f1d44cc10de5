//! Filesystems: making and filling them, looking into an image, and working in a mount.

use crate::bench::case::{Case, Measure, OURS, Suite, Target};

/// A tree of 49 000 entries and 470 MB with 18 000 of them in one directory, and the same without
/// that directory; two disks with the latter and a large file.
const PREPARE: &str = r#"
python3 - <<'PYTHON'
import os, random
random.seed(1)
def fill(root, folders, files, largest):
    for number in range(files):
        folder = f"{root}/{number % folders}/{number % 7}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/file-{number}", "wb") as file:
            file.write(random.randbytes(random.randint(100, largest)))
        if number % 13 == 0:
            os.symlink(f"file-{number}", f"{folder}/link-{number}")
for root in ("tree", "small"):
    fill(root, 400, 26000, 32000)
os.makedirs("tree/crowd")
for number in range(18000):
    with open(f"tree/crowd/entry-{number}", "wb") as file:
        file.write(random.randbytes(random.randint(50, 4000)))
PYTHON
head -c 512M /dev/urandom > large
image() { truncate -s 2G "$1"; mke2fs -q -F -t ext4 "$1"; }
image empty.img
qemu-img convert -f raw -O qcow2 empty.img empty.qcow2
image disk.img
disksmith create -q disk.qcow2 4G
disksmith partition disk.qcow2 init gpt
disksmith partition disk.qcow2 add
disksmith mkfs disk.qcow2:1 --type ext4
for disk in disk.img: disk.qcow2:1; do
    disksmith cp -a small "$disk:/"
    disksmith cp large "$disk:/large"
done
rm large
mkdir -p mount
"#;

/// The tree that a new filesystem holds is the one given.
const SAME: &str = r#"e2fsck -fn out.img && mount -o loop,ro out.img mount && {
    diff -rq --no-dereference "$TREE" "$(test "$WHO" = kernel && echo mount/$TREE || echo mount)" |
        { grep -v lost+found || true; } > differences
    umount mount; test ! -s differences; }"#;

const FUSE2FS: &str = "fuse2fs";

pub(super) fn suite() -> Suite {
    let mut cases = vec![fill("tree", 0.1).slow(), fill("small", 0.7)];
    cases.extend(questions());
    cases.extend(mounts());
    Suite {
        name: "filesystems",
        title: "Filesystems",
        text: "Making ext4 and filling it, beside `mke2fs -d` and beside the kernel (loop mount and \
               `cp -a`, which needs root); answering small questions about a qcow2 with a partition \
               table; and working in a FUSE mount beside `fuse2fs`, mounting and unmounting \
               included. What a mount writes is there when the command ends.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases,
    }
}

fn fill(tree: &'static str, part: f64) -> Case {
    let name = match tree {
        "tree" => "mkfs and fill, 49 000 files, 18 000 in one directory",
        _ => "mkfs and fill, 28 000 files",
    };
    let kernel = format!(
        "mke2fs -q -F -t ext4 out.img && mount -o loop out.img mount && cp -a {tree} mount && \
         umount mount"
    );
    Case::new(name)
        .job("mke2fs -d", format!("mke2fs -q -F -t ext4 -d {tree} out.img"))
        .job("kernel", kernel)
        .job(OURS, format!("disksmith mkfs out.img --type ext4 --from {tree}"))
        .before("rm -f out.img; truncate -s 2G out.img")
        .after(format!("TREE={tree}; {SAME}"))
        .output("out.img")
        .at_most(part)
        .target(Target { label: OURS, measure: Measure::Wall, most: 1.0, than: Some("kernel") })
        .target(Target {
            label: OURS,
            measure: Measure::Memory,
            most: (256 << 20) as f64,
            than: None,
        })
}

/// What libguestfs boots a machine for.
fn questions() -> Vec<Case> {
    let question = |name: &str, line: &str| {
        Case::new(name).job(OURS, line).repeat(10).target(Target {
            label: OURS,
            measure: Measure::Wall,
            most: 0.030,
            than: None,
        })
    };
    vec![
        question("cat of one file in a qcow2", "disksmith cat disk.qcow2:1:/small/0/0/file-0"),
        question("ls of a directory in a qcow2", "disksmith ls disk.qcow2:1:/small"),
        question("df of a qcow2", "disksmith df disk.qcow2:1"),
    ]
}

/// Disks to work on: a raw one, and a qcow2 of ours.
type Disks = (&'static str, &'static str);
/// What is there to be read; and what is made anew before each run.
const FULL: Disks = ("disk.img", "disk.qcow2:1");
const EMPTY: Disks = ("work.img", "work.qcow2");
const ANEW: &str =
    "cp --sparse=always empty.img work.img; cp --sparse=always empty.qcow2 work.qcow2";
const OURS_QCOW2: &str = "disksmith, qcow2";

/// The same commands in all mounts; `part` of fuse2fs's time.
fn mounted(name: &str, disks: Disks, part: f64, work: &str) -> Case {
    let (raw, qcow2) = disks;
    let fuse2fs = format!(
        "fuse2fs {raw} mount -o allow_other,fakeroot 2>/dev/null && (cd mount; {work}) && \
         umount mount && while pgrep -x fuse2fs > /dev/null; do sleep 0.01; done"
    );
    let ours = |disk| {
        format!("disksmith mount {disk} mount && (cd mount; {work}) && disksmith umount mount")
    };
    Case::new(name)
        .job(FUSE2FS, fuse2fs)
        .job(OURS, ours(raw))
        .job(OURS_QCOW2, ours(qcow2))
        .before(if disks == EMPTY { ANEW } else { "" })
        .after(format!("e2fsck -fn {raw}; disksmith fsck -n {qcow2}"))
        .at_most(part)
        .target(Target {
            label: OURS_QCOW2,
            measure: Measure::Wall,
            most: part,
            than: Some(FUSE2FS),
        })
}

fn mounts() -> Vec<Case> {
    let create = "mkdir d && seq 10000 | python3 -c 'import sys\n\
                  for n in sys.stdin: open(\"d/\" + n.strip(), \"w\").write(n * 200)' && sync -f .";
    let write = "dd if=/dev/zero of=file bs=1M count=512 conv=fsync status=none";
    let read = "dd if=large of=/dev/null bs=1M status=none";
    const STREAM: f64 = 1.0 / 1.5;
    const WALK: f64 = 1.0 / 2.0;
    vec![
        mounted("write 512 MiB in a mount", EMPTY, STREAM, write),
        mounted("read 512 MiB in a mount", FULL, STREAM, read),
        mounted("10 000 new files in a mount", EMPTY, STREAM, create),
        mounted("find in a mount", FULL, WALK, "find . > /dev/null"),
        mounted("du in a mount", FULL, WALK, "du -s . > /dev/null"),
        mounted("ls -lR in a mount", FULL, WALK, "ls -lR . > /dev/null"),
    ]
}
