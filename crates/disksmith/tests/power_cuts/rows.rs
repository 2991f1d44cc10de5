//! The command lines whose writes are cut.

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Makes the files, with the genuine tools.
    pub(crate) setup: &'static str,
    /// What is recorded: the same words for both programs, or, for `qemu-io`, QEMU alone.
    pub(crate) command: &'static str,
    /// The images, the one that is looked at first.
    pub(crate) files: &'static [&'static str],
    /// Damaged from the start: what the command repairs.
    pub(crate) damaged: bool,
}

const A: &[&str] = &["a"];
const CHAIN: &[&str] = &["top", "base", "other"];

const fn row(name: &'static str, setup: &'static str, command: &'static str) -> Row {
    Row { name, setup, command, files: A, damaged: false }
}

const PLAIN: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k a 1M
qemu-io -f qcow2 -c 'write -P 1 0 200k' -c 'write -z 100k 20k' a >/dev/null
qemu-img create -q -f raw patch 1M
qemu-io -f raw -c 'write -P 2 30k 50k' -c 'write -P 3 700k 60k' patch >/dev/null";
const SNAPSHOT: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k a 1M
qemu-io -f qcow2 -c 'write -P 1 0 200k' a >/dev/null; qemu-img snapshot -c one a
qemu-io -f qcow2 -c 'write -P 4 20k 60k' a >/dev/null
qemu-img create -q -f raw patch 1M
qemu-io -f raw -c 'write -P 2 30k 50k' -c 'write -P 3 700k 60k' patch >/dev/null";
const LAZY: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=on a 1M
qemu-io -f qcow2 -c 'write -P 1 0 200k' a >/dev/null
qemu-img create -q -f raw patch 1M
qemu-io -f raw -c 'write -P 2 30k 50k' -c 'write -P 3 700k 60k' patch >/dev/null";
const BITMAP: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k a 1M
qemu-img bitmap --add -g 4k a b; qemu-img bitmap --add -g 4k a c
qemu-io -f qcow2 -c 'write -P 1 0 200k' a >/dev/null";
const LAYERS: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k base 1M
qemu-io -f qcow2 -c 'write -P 1 0 200k' base >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=4k other 1M
qemu-io -f qcow2 -c 'write -P 1 0 90k' -c 'write -P 8 150k 100k' other >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=4k -b base -F qcow2 top
qemu-io -f qcow2 -c 'write -P 5 40k 60k' -c 'write -P 6 500k 30k' top >/dev/null";
const DAMAGED: &str = "qemu-img create -q -f qcow2 -o cluster_size=4k a 1M
qemu-io -f qcow2 -c 'write -P 1 0 200k' a >/dev/null
printf '\\0\\0\\0\\7\\0\\0' | dd of=a bs=1 seek=$((0x2010)) conv=notrunc status=none";

const GUEST: &str = "qemu-io -f qcow2 -t writeback -c 'write -P 2 30k 50k' -c 'write -P 3 700k 60k' -c 'write -z -u 120k 40k' a";
const INTO: &str = "qemu-img convert -n -t writeback -f raw -O qcow2 patch a";

pub(crate) const ROWS: &[Row] = &[
    row("guest writes", PLAIN, GUEST),
    row("guest writes after a snapshot", SNAPSHOT, GUEST),
    row("guest writes, lazy refcounts", LAZY, GUEST),
    row("convert into an image", PLAIN, INTO),
    row("convert into an image with a snapshot", SNAPSHOT, INTO),
    row("convert into an image, lazy refcounts", LAZY, INTO),
    row("snapshot create", SNAPSHOT, "qemu-img snapshot -c two a"),
    row("snapshot delete", SNAPSHOT, "qemu-img snapshot -d one a"),
    row("snapshot apply", SNAPSHOT, "qemu-img snapshot -a one a"),
    row("grow", PLAIN, "qemu-img resize -f qcow2 a 3M"),
    row("grow, metadata", PLAIN, "qemu-img resize -f qcow2 --preallocation=metadata a 3M"),
    row("shrink", PLAIN, "qemu-img resize -f qcow2 --shrink a 60k"),
    row("amend: refcount width", PLAIN, "qemu-img amend -f qcow2 -o refcount_bits=64 a"),
    row("amend: to version 2", PLAIN, "qemu-img amend -f qcow2 -o compat=0.10 a"),
    row("amend: lazy refcounts", PLAIN, "qemu-img amend -f qcow2 -o lazy_refcounts=on a"),
    row("bitmap: add", BITMAP, "qemu-img bitmap -f qcow2 --add a d"),
    row("bitmap: remove", BITMAP, "qemu-img bitmap -f qcow2 --remove a b"),
    row("bitmap: clear", BITMAP, "qemu-img bitmap -f qcow2 --clear a b"),
    row("bitmap: merge", BITMAP, "qemu-img bitmap -f qcow2 --merge b a c"),
    Row { files: CHAIN, ..row("commit", LAYERS, "qemu-img commit -q -f qcow2 top") },
    Row { files: CHAIN, ..row("rebase", LAYERS, "qemu-img rebase -f qcow2 -b other -F qcow2 top") },
    Row { files: CHAIN, ..row("rebase to none", LAYERS, "qemu-img rebase -f qcow2 -b '' top") },
    Row { damaged: true, ..row("check -r all", DAMAGED, "qemu-img check -q -f qcow2 -r all a") },
];
