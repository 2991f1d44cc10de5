//! How time and memory grow: with the size of an image, its snapshots, the length of its chain,
//! its fragmentation. No promise but one: nothing is worse than in proportion.

use crate::bench::case::{Case, OURS, Suite};

const THEIRS: &str = "qemu-img";

/// `scattered N`: an image in which every N-th cluster of 64 KiB lies elsewhere than its
/// neighbours; `chain N`: N overlays, each with 64 KiB of its own; `shots N`: N snapshots, each
/// followed by a write.
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
    Suite {
        name: "scaling",
        title: "How time and memory grow",
        text: "Images that differ in one thing only: how much they hold, how many snapshots they \
               have, how long their chain is, how their clusters are scattered.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases,
    }
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
