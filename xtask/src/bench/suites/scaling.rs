//! How time and memory grow: with the size of an image, its snapshots, the length of its chain,
//! its fragmentation, the files of a filesystem. No promise but one: nothing is worse than in proportion.

use crate::bench::case::{Case, OURS, Suite};

const THEIRS: &str = "qemu-img";

/// `scattered N`: an image in which every N-th cluster of 64 KiB lies elsewhere than its
/// neighbours; `chain N`: N overlays, each with 64 KiB of its own; `shots N`: N snapshots, each
/// followed by a write; `files N`: a tree of N files of up to 2000 bytes, 50 in a directory, and an
/// ext4 that holds it.
const PREPARE: &str = r#"
writes() { for at in $(seq "$1" "$2" "$3"); do echo "write -q -P $((at % 255 + 1)) ${at}k $4"; done; }
for size in 64 256 1024; do
    truncate -s ${size}M size$size.raw
    head -c ${size}M /dev/zero | tr '\0' 'd' > size$size.raw
    qemu-img convert -f raw -O qcow2 size$size.raw size$size.qcow2
done
for count in 1 8 32 60; do
    qemu-img create -q -f qcow2 chain$count.0 256M
    writes 0 64 4096 64k | qemu-io -f qcow2 chain$count.0
    for number in $(seq 1 $count); do
        qemu-img create -q -f qcow2 -b chain$count.$((number - 1)) -F qcow2 chain$count.$number
        qemu-io -f qcow2 -c "write -q -P $number $((number * 100))k 64k" chain$count.$number
    done
    mv chain$count.$count chain$count.top
done
for count in 1 10 100 400; do
    qemu-img create -q -f qcow2 shots$count 256M
    writes 0 64 8192 64k | qemu-io -f qcow2 shots$count
    for number in $(seq 1 $count); do
        qemu-img snapshot -c s$number shots$count
        qemu-io -f qcow2 -c "write -q -P $((number % 255 + 1)) $((number * 7 % 120))M 64k" shots$count
    done
done
for step in 1 2 8 64; do
    qemu-img create -q -f qcow2 scattered$step 256M
    for first in $(seq 0 64 $((step * 64 - 64))); do
        writes $first $((step * 64)) 131071 64k | qemu-io -f qcow2 scattered$step
    done
done
python3 - <<'PYTHON'
import os
for count in (1000, 5000, 20000, 80000):
    for number in range(count):
        folder = f"files{count}/{number // 2500}/{number // 50 % 50}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/file-{number}", "wb") as file:
            file.write(b"content\n" * (number % 250))
PYTHON
for count in 1000 5000 20000 80000; do
    truncate -s 1G files$count.img
    mke2fs -q -F -t ext4 -N 100000 -d files$count files$count.img
done
"#;

pub(super) fn suite() -> Suite {
    let mut cases = Vec::new();
    for size in [64u32, 256, 1024] {
        let x = f64::from(size);
        cases.push(converting(&format!("convert {size} MiB"), &format!("size{size}.qcow2")).point(
            "Converting qcow2 to raw, by size",
            "MiB of data",
            x,
        ));
        cases.push(
            reading(&format!("check {size} MiB"), &format!("check -q size{size}.qcow2")).point(
                "Checking a qcow2 image, by size",
                "MiB of data",
                x,
            ),
        );
    }
    for count in [1u32, 8, 32, 60] {
        cases.push(
            converting(&format!("convert a chain of {count}"), &format!("chain{count}.top")).point(
                "Converting the top of a chain, by length",
                "overlays",
                count.into(),
            ),
        );
        let line = format!("map --output json chain{count}.top");
        cases.push(reading(&format!("map a chain of {count}"), &line).point(
            "Mapping the top of a chain, by length",
            "overlays",
            count.into(),
        ));
    }
    for count in [1u32, 10, 100, 400] {
        let x = f64::from(count);
        cases.push(
            reading(&format!("check {count} snapshots"), &format!("check -q shots{count}")).point(
                "Checking an image, by snapshots",
                "snapshots",
                x,
            ),
        );
        cases.push(
            both(&format!("snapshot -c beside {count}"), "snapshot -c more out")
                .before(format!("rm -f out; cp --sparse=always shots{count} out"))
                .point("Taking one more snapshot, by snapshots", "snapshots", x),
        );
        cases.push(
            both(&format!("snapshot -d beside {count}"), "snapshot -d s1 out")
                .before(format!("rm -f out; cp --sparse=always shots{count} out"))
                .point("Deleting the first snapshot, by snapshots", "snapshots", x),
        );
    }
    for step in [1u32, 2, 8, 64] {
        cases.push(
            converting(&format!("convert scattered {step}"), &format!("scattered{step}")).point(
                "Converting a fragmented image",
                "stride of what lies together",
                step.into(),
            ),
        );
    }
    for count in [1000u32, 5000, 20_000, 80_000] {
        cases.extend(files(count));
    }
    Suite {
        name: "scaling",
        title: "How time and memory grow",
        text: "Images that differ in one thing only: how much they hold, how many snapshots they \
               have, how long their chain is, how their clusters are scattered; and filesystems by the \
               files in them.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases,
    }
}

fn files(count: u32) -> [Case; 2] {
    let make = format!("-N 100000 -d files{count} out.img");
    let (axis, x) = ("files", f64::from(count));
    [
        Case::new(format!("mkfs and fill, {count} files"))
            .job("mke2fs", format!("mke2fs -q -F -t ext4 {make}"))
            .job(OURS, format!("disksmith mkfs out.img --type ext4 -N 100000 --from files{count}"))
            .before("rm -f out.img; truncate -s 1G out.img")
            .after("e2fsck -fn out.img")
            .point("Making and filling an ext4, by files", axis, x),
        Case::new(format!("check a filesystem of {count} files"))
            .job("e2fsck", format!("e2fsck -fn files{count}.img"))
            .job(OURS, format!("disksmith fsck -n files{count}.img"))
            .point("Checking an ext4, by files", axis, x),
    ]
}

fn both(name: &str, arguments: &str) -> Case {
    Case::new(name)
        .job(THEIRS, format!("qemu-img {arguments}"))
        .job(OURS, format!("disksmith qemu-img {arguments}"))
}

/// Changes nothing and is quick: repeated.
fn reading(name: &str, arguments: &str) -> Case {
    both(name, arguments).repeat(5)
}

fn converting(name: &str, image: &str) -> Case {
    both(name, &format!("convert -O raw {image} out"))
        .before("rm -f out")
        .after(format!("qemu-img compare -q -F raw {image} out"))
}
