//! Every verb of qemu-img, by qemu-img and by ours in its place; plain copies also by two threads
//! that do nothing else, and by our native face, whose target is durable before it ends.

use crate::bench::case::{Case, Measure, OURS, Suite, Target};

const THEIRS: &str = "qemu-img";
/// Two threads that copy; qemu-img's rival in doing nothing but the job.
const BARE: &str = "bare copy";
/// qemu-img, and what it wrote made durable.
const SYNCED: &str = "qemu-img, sync";
/// Ours under its own name: durable too.
const NATIVE: &str = "disksmith native";

/// How much slower than the bare copy a plain conversion may be.
const OF_BARE: f64 = 1.15;
/// How much larger than qemu-img's a compressed image may be.
const OF_SIZE: f64 = 1.02;
/// Memory of any conversion.
const MEMORY: f64 = (128 << 20) as f64;

/// `qemu-io` changes every eighth MiB of the first 2 GiB in the overlays, every 64th in the
/// other base.
const PREPARE: &str = r#"
qemu-img convert -f raw -O qcow2 src.raw plain.qcow2
qemu-img convert -c -f raw -O qcow2 src.raw zlib.qcow2
qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd src.raw zstd.qcow2
cp --sparse=always plain.qcow2 other.qcow2
qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 overlay.qcow2
qemu-img create -q -f qcow2 -b other.qcow2 -F qcow2 second.qcow2
last=$(($(stat -L -c %s src.raw) / 1048576 - 1))
[ $last -lt 2048 ] || last=2047
change() {
    for at in $(seq 0 "$2" $last); do echo "write -q -P $((at % 255 + 1)) ${at}M 1M"; done |
        qemu-io -f qcow2 "$1"
}
change other.qcow2 64
change overlay.qcow2 8
change second.qcow2 8
"#;

pub(super) fn suite() -> Suite {
    let mut cases = copies();
    cases.extend(compressed());
    cases.extend(readers());
    cases.extend(writers());
    cases.extend([1u32, 16, 256, 1024].map(sparse));
    Suite {
        name: "images",
        title: "Every verb beside qemu-img",
        text: "Both programs get the same arguments and qemu-img's default of not waiting for the \
               disk (`-t unsafe`); everything is read from the page cache: what is compared is the \
               programs, not the disk. `bare copy` is a program of two threads that copies the same \
               file 1 MiB at a time and does nothing else. `disksmith native` ends only when its \
               target is durable; it stands beside qemu-img followed by a sync of the file.",
        disk: true,
        prepare: PREPARE.to_string(),
        cases,
    }
}

/// The same verb by both.
fn verb(name: &str, arguments: &str) -> Case {
    Case::new(name)
        .job(THEIRS, format!("qemu-img {arguments}"))
        .job(OURS, format!("disksmith qemu-img {arguments}"))
}

/// A conversion of images of one size into `out`; the result is as large and the same.
fn conversion(name: &str, arguments: &str, format: &str) -> Case {
    let same = format!("qemu-img compare -q -f {format} -F raw out src.raw");
    verb(name, &format!("convert {arguments} out"))
        .before("rm -f out")
        .after(same)
        .output("out")
        .target(Target { label: OURS, measure: Measure::Memory, most: MEMORY, than: None })
}

fn with_native(case: Case, arguments: &str) -> Case {
    let theirs = format!("qemu-img convert {arguments} out && sync out");
    case.job(SYNCED, theirs)
        .job(NATIVE, format!("disksmith convert {arguments} out"))
        .target(Target { label: NATIVE, measure: Measure::Wall, most: 1.0, than: Some(SYNCED) })
}

fn with_bare(case: Case) -> Case {
    case.job(BARE, "xtask bare-copy src.raw out.bare").target(Target {
        label: OURS,
        measure: Measure::Wall,
        most: OF_BARE,
        than: Some(BARE),
    })
}

fn copies() -> Vec<Case> {
    let plain = [
        ("convert raw to qcow2", "-f raw -O qcow2 src.raw", "qcow2", 0.8),
        ("convert qcow2 to raw", "-f qcow2 -O raw plain.qcow2", "raw", 0.8),
        ("convert qcow2 to qcow2", "-O qcow2 plain.qcow2", "qcow2", 1.0),
        ("convert raw to raw", "-f raw -O raw src.raw", "raw", 1.0),
    ];
    let mut cases: Vec<Case> = plain
        .map(|(name, arguments, format, most)| {
            let case = conversion(name, arguments, format).at_most(most);
            let case = with_native(case, arguments);
            if most < 1.0 { with_bare(case) } else { case }
        })
        .into();
    cases.push(
        conversion(
            "convert raw to qcow2, -t none",
            "-f raw -O qcow2 -T none -t none src.raw",
            "qcow2",
        )
        .slow()
        .at_most(1.0),
    );
    // The bare copy writes a file of its own, which must not stay.
    for case in &mut cases {
        case.before = "rm -f out out.bare".to_string();
        case.after =
            format!("case \"$WHO\" in bare*) cmp out.bare src.raw;; *) {};; esac", case.after);
    }
    cases.push(
        verb("dd", "dd -f raw -O raw bs=1M count=1024 if=src.raw of=out")
            .before("rm -f out")
            .at_most(1.0),
    );
    cases
}

fn compressed() -> Vec<Case> {
    let smaller = Target { label: OURS, measure: Measure::Size, most: OF_SIZE, than: Some(THEIRS) };
    vec![
        conversion("convert -c (zlib)", "-c -f raw -O qcow2 src.raw", "qcow2")
            .slow()
            .at_most(0.25)
            .target(smaller),
        conversion(
            "convert -c (zstd)",
            "-c -f raw -O qcow2 -o compression_type=zstd src.raw",
            "qcow2",
        )
        .at_most(0.6)
        .target(smaller),
        conversion("convert zlib qcow2 to raw", "-O raw zlib.qcow2", "raw").at_most(0.5),
        conversion("convert zstd qcow2 to raw", "-O raw zstd.qcow2", "raw").at_most(0.8),
    ]
}

fn readers() -> Vec<Case> {
    vec![
        verb("compare raw with qcow2", "compare -f raw -F qcow2 src.raw plain.qcow2").at_most(0.7),
        verb("compare raw with zlib qcow2", "compare -f raw -F qcow2 src.raw zlib.qcow2")
            .slow()
            .at_most(0.7),
        verb("info", "info plain.qcow2").repeat(20).at_most(0.5),
        verb("check", "check -q plain.qcow2").repeat(5).at_most(1.0),
        verb("check (zlib)", "check -q zlib.qcow2").repeat(5).at_most(1.0),
        verb("map", "map --output json plain.qcow2").repeat(5).at_most(1.0),
        verb("map raw", "map --output json -f raw src.raw").repeat(5).at_most(1.0),
        verb("measure", "measure -O qcow2 -f raw src.raw").repeat(5).at_most(1.0),
        verb("measure qcow2", "measure -O qcow2 plain.qcow2").repeat(5).at_most(1.0),
        verb("bench (reads)", "bench -f qcow2 -c 200000 -s 4096 plain.qcow2").at_most(1.0),
    ]
}

fn writers() -> Vec<Case> {
    const FRESH: &str = "rm -f out; qemu-img create -q -f qcow2 out 10G";
    const OVERLAY: &str = "rm -f out; cp overlay.qcow2 out";
    let snapshot = format!("{OVERLAY}; qemu-img snapshot -c one out");
    vec![
        verb("create", "create -q -f qcow2 out 64G").before("rm -f out").repeat(20).at_most(0.5),
        verb("commit", "commit -q -d second.qcow2").at_most(1.0),
        verb("rebase", "rebase -b other.qcow2 -F qcow2 out").before(OVERLAY).at_most(1.0),
        verb("rebase -u", "rebase -u -b other.qcow2 -F qcow2 second.qcow2").repeat(20).at_most(1.0),
        verb("snapshot -c", "snapshot -c one out").before(OVERLAY).at_most(1.0),
        verb("snapshot -a", "snapshot -a one out").before(&*snapshot).at_most(1.0),
        verb("snapshot -d", "snapshot -d one out").before(&*snapshot).at_most(1.0),
        verb("snapshot -l", "snapshot -l plain.qcow2").repeat(20).at_most(1.0),
        verb("resize", "resize -q out 100G").before(FRESH).repeat(10).at_most(1.0),
        verb("amend", "amend -o lazy_refcounts=on out").before(FRESH).repeat(10).at_most(1.0),
        verb("bitmap --add", "bitmap --add out b0").before(FRESH).repeat(10).at_most(1.0),
        verb("bench (writes)", "bench -w -f qcow2 -c 50000 -s 4096 out").before(FRESH).at_most(1.0),
    ]
}

/// An image without data, however large, costs nothing to speak of.
fn sparse(gibibytes: u32) -> Case {
    let name = format!("convert {gibibytes} GiB of nothing");
    verb(&name, "convert -f raw -O qcow2 holes.raw out")
        .before(format!("rm -f out holes.raw; truncate -s {gibibytes}G holes.raw"))
        .point("Converting a raw file of holes to qcow2", "GiB", gibibytes.into())
        .target(Target { label: OURS, measure: Measure::Wall, most: 1.0, than: None })
}
