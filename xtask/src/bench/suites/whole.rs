//! Whole disks: built from a tree, cloned, grown, beside the chains of tools that do it today.

use crate::bench::case::{Case, Measure, OURS, Suite, Target};

/// A tree of about 470 MB in 49 000 files, one folder of 18 000 among them: this machine's own
/// documentation, filled up with made ones so that every machine has as much.
const PREPARE: &str = r#"
mkdir -p tree/many tree/made
for name in locale doc man vim icons perl5 perl i18n zoneinfo fonts; do
    [ -d /usr/share/$name ] && cp -a /usr/share/$name tree/
done
python3 - <<'END'
import os, random
random.seed(1)
text = b"the quick brown fox jumps over the lazy dog. " * 2000
def files(folder): return sum(len(names) for _, _, names in os.walk(folder))
def size(folder): return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)
for number in range(18574):
    open(f"tree/many/{number}", "wb").write(text[:random.randrange(4000)])
left = max(0, 48955 - files("tree"))
room = max(0, 467_000_000 - size("tree"))
for number in range(left):
    if number % 500 == 0: os.mkdir(f"tree/made/{number}")
    open(f"tree/made/{number // 500 * 500}/{number}", "wb").write(os.urandom(room // left) if left else b"")
END
disksmith build --from tree --size 2G -o source.raw -q
"#;

const TOOLS: &str = "mke2fs, sfdisk, qemu-img";

pub(super) fn suite() -> Suite {
    Suite {
        name: "whole",
        title: "Whole disks",
        text: "`build` beside mke2fs -d, sfdisk and qemu-img convert, from a tree of 470 MB in 49 000 \
               files to a qcow2 image; `clone --used-only` of a disk of 2 GiB beside \
               cp --sparse=always, which is synced to be as durable as ours, and alone; `grow` from 2 \
               to 4 GiB. Ours ends when its target is durable; the others do not wait for that.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases: vec![build(), clone(), grow()],
    }
}

fn build() -> Case {
    let theirs = "truncate -s 2G disk.raw && printf 'label: gpt\\nstart=2048\\n' | sfdisk -q disk.raw && \
                  mke2fs -q -t ext4 -d tree -E offset=1048576 disk.raw 2094080K && \
                  qemu-img convert -f raw -O qcow2 disk.raw out.qcow2 && rm disk.raw";
    Case::new("build a disk from a tree")
        .job(TOOLS, theirs)
        .job(OURS, "disksmith build --from tree --size 2G -o out.qcow2 -q")
        .before("rm -f out.qcow2")
        .after("qemu-img check -q out.qcow2")
        .output("out.qcow2")
        .slow()
        .at_most(0.3)
}

fn clone() -> Case {
    Case::new("clone what is used of a disk")
        .job("cp and sync", "cp --sparse=always source.raw out.raw && sync out.raw .")
        .job("cp", "cp --sparse=always source.raw out.raw")
        .job(OURS, "disksmith clone source.raw out.raw --used-only -q")
        .before("rm -f out.raw")
        .after("e2fsck -fn 'out.raw?offset=1048576' > /dev/null 2>&1")
        .output("out.raw")
        .at_most(1.0)
}

fn grow() -> Case {
    Case::new("grow a disk from 2 to 4 GiB")
        .job(OURS, "disksmith grow out.raw 4G -q")
        .before("cp --sparse=always source.raw out.raw")
        .after("e2fsck -fn 'out.raw?offset=1048576' > /dev/null 2>&1")
        .target(Target { label: OURS, measure: Measure::Wall, most: 1.0, than: None })
}
