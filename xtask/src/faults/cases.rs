//! The command lines that are made to fail.

/// One command line with what belongs to it. Scripts run in bash in the scratch folder, with
/// `disksmith` and the genuine `qemu-img` at hand.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Makes the inputs.
    pub(crate) setup: &'static str,
    /// The command's arguments.
    pub(crate) command: &'static str,
    /// Files that must not change.
    pub(crate) untouched: &'static [&'static str],
    /// Succeeds when the result is right.
    pub(crate) right: &'static str,
    /// Succeeds when nothing is broken after a failure; empty: `out` is not there, or `right`.
    pub(crate) whole: &'static str,
    /// The command cannot be repeated with the same result (`+1M`).
    pub(crate) once: bool,
    /// A status other than 0 may come without a text (compare).
    pub(crate) refuses: bool,
}

const RAW: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw";
const QCOW2: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw; qemu-img convert -O qcow2 -o cluster_size=4k a.raw a.qcow2";
const CHAIN: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw; qemu-img convert -O qcow2 a.raw base.qcow2; qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2; qemu-io -c 'write -P 7 64k 128k' top.qcow2 >/dev/null; qemu-img convert -O raw top.qcow2 want.raw";
const SNAPSHOT: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw; qemu-img convert -O qcow2 -o cluster_size=4k a.raw a.qcow2; qemu-img snapshot -c one a.qcow2; qemu-io -c 'write -P 7 0 64k' a.qcow2 >/dev/null; qemu-img convert -O raw a.qcow2 now.raw";
const BITMAP: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw; qemu-img convert -O qcow2 a.raw a.qcow2; qemu-img bitmap --add a.qcow2 b0; qemu-io -c 'write -P 7 0 64k' a.qcow2 >/dev/null; qemu-img convert -O raw a.qcow2 now.raw";

/// Leaks are allowed after a failure, damage is not: `check` ends with 0 or 3.
const NO_DAMAGE: &str = "r=0; qemu-img check -q a.qcow2 >/dev/null 2>&1 || r=$?; [ $r = 0 ] || [ $r = 3 ] || { disksmith check -r all a.qcow2 >/dev/null && qemu-img check -q a.qcow2; }";

const fn making(
    name: &'static str,
    setup: &'static str,
    command: &'static str,
    untouched: &'static [&'static str],
    right: &'static str,
) -> Case {
    Case { name, setup, command, untouched, right, whole: "", once: false, refuses: false }
}

const fn looking(
    name: &'static str,
    setup: &'static str,
    command: &'static str,
    untouched: &'static [&'static str],
) -> Case {
    Case {
        name,
        setup,
        command,
        untouched,
        right: "true",
        whole: "true",
        once: false,
        refuses: true,
    }
}

const fn changing(
    name: &'static str,
    setup: &'static str,
    command: &'static str,
    right: &'static str,
) -> Case {
    Case {
        name,
        setup,
        command,
        untouched: &[],
        right,
        whole: NO_DAMAGE,
        once: true,
        refuses: false,
    }
}

/// All cases.
pub(crate) const CASES: &[Case] = &[
    making("create-raw", "true", "create out 2M", &[], "[ $(stat -c %s out) = 2097152 ]"),
    making(
        "create-raw-falloc",
        "true",
        "create -f raw -o preallocation=falloc out 2M",
        &[],
        "[ $(stat -c %s out) = 2097152 ]",
    ),
    making(
        "create-raw-full",
        "true",
        "create -f raw -o preallocation=full out 2M",
        &[],
        "[ $(stat -c %s out) = 2097152 ]",
    ),
    making("create-qcow2", "true", "create -f qcow2 out 2M", &[], "qemu-img check -q out"),
    making(
        "create-qcow2-metadata",
        "true",
        "create -f qcow2 -o preallocation=metadata out 2M",
        &[],
        "qemu-img check -q out",
    ),
    making(
        "create-qcow2-extended",
        "true",
        "create -f qcow2 -o extended_l2=on out 2M",
        &[],
        "qemu-img check -q out",
    ),
    making(
        "create-overlay",
        QCOW2,
        "create -f qcow2 -b a.qcow2 -F qcow2 out",
        &["a.qcow2"],
        "qemu-img check -q out",
    ),
    making("convert-raw-raw", RAW, "convert -O raw a.raw out", &["a.raw"], "cmp a.raw out"),
    making(
        "convert-raw-qcow2",
        RAW,
        "convert -O qcow2 a.raw out",
        &["a.raw"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making(
        "convert-raw-qcow2-4k",
        RAW,
        "convert -O qcow2 -o cluster_size=4k a.raw out",
        &["a.raw"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making("convert-qcow2-raw", QCOW2, "convert -O raw a.qcow2 out", &["a.qcow2"], "cmp a.raw out"),
    making(
        "convert-qcow2-qcow2",
        QCOW2,
        "convert -O qcow2 a.qcow2 out",
        &["a.qcow2"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making(
        "convert-zlib",
        RAW,
        "convert -c -O qcow2 a.raw out",
        &["a.raw"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making(
        "convert-zstd",
        RAW,
        "convert -c -O qcow2 -o compression_type=zstd a.raw out",
        &["a.raw"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making(
        "convert-v2",
        RAW,
        "convert -O qcow2 -o compat=0.10 a.raw out",
        &["a.raw"],
        "qemu-img check -q out && qemu-img compare -q a.raw out",
    ),
    making(
        "convert-two",
        RAW,
        "convert -O qcow2 a.raw a.raw out",
        &["a.raw"],
        "cat a.raw a.raw > two.raw; qemu-img compare -q two.raw out",
    ),
    making(
        "convert-chain",
        CHAIN,
        "convert -O raw top.qcow2 out",
        &["top.qcow2", "base.qcow2"],
        "cmp want.raw out",
    ),
    making(
        "convert-snapshot",
        SNAPSHOT,
        "convert -l one -O raw a.qcow2 out",
        &["a.qcow2"],
        "cmp a.raw out",
    ),
    making("convert-dense", RAW, "convert -S 0 -O raw a.raw out", &["a.raw"], "cmp a.raw out"),
    making(
        "dd",
        RAW,
        "dd if=a.raw of=out bs=64k count=4",
        &["a.raw"],
        "head -c 262144 a.raw | cmp - out",
    ),
    looking("info", QCOW2, "info a.qcow2", &["a.qcow2"]),
    looking("info-chain", CHAIN, "info --backing-chain top.qcow2", &["top.qcow2", "base.qcow2"]),
    looking("map", CHAIN, "map --output json top.qcow2", &["top.qcow2", "base.qcow2"]),
    looking("measure", QCOW2, "measure -O qcow2 a.qcow2", &["a.qcow2"]),
    looking("check", QCOW2, "check a.qcow2", &["a.qcow2"]),
    looking("compare", QCOW2, "compare a.raw a.qcow2", &["a.raw", "a.qcow2"]),
    looking("snapshot-list", SNAPSHOT, "snapshot -l a.qcow2", &["a.qcow2"]),
    changing(
        "snapshot-create",
        SNAPSHOT,
        "snapshot -c two a.qcow2",
        "qemu-img check -q a.qcow2 && qemu-img compare -q now.raw a.qcow2 && qemu-img snapshot -l a.qcow2 | grep -q two",
    ),
    changing(
        "snapshot-apply",
        SNAPSHOT,
        "snapshot -a one a.qcow2",
        "qemu-img check -q a.qcow2 && qemu-img compare -q a.raw a.qcow2",
    ),
    changing(
        "snapshot-delete",
        SNAPSHOT,
        "snapshot -d one a.qcow2",
        "qemu-img check -q a.qcow2 && qemu-img compare -q now.raw a.qcow2",
    ),
    changing("resize-grow", QCOW2, "resize a.qcow2 +1M", "qemu-img check -q a.qcow2"),
    changing("resize-shrink", QCOW2, "resize --shrink a.qcow2 1M", "qemu-img check -q a.qcow2"),
    changing(
        "amend-v2",
        QCOW2,
        "amend -o compat=0.10 a.qcow2",
        "qemu-img check -q a.qcow2 && qemu-img compare -q a.raw a.qcow2",
    ),
    changing(
        "amend-refcounts",
        QCOW2,
        "amend -o refcount_bits=64 a.qcow2",
        "qemu-img check -q a.qcow2 && qemu-img compare -q a.raw a.qcow2",
    ),
    changing("bitmap-add", QCOW2, "bitmap --add a.qcow2 b1", "qemu-img check -q a.qcow2"),
    changing(
        "bitmap-clear",
        BITMAP,
        "bitmap --clear a.qcow2 b0",
        "qemu-img check -q a.qcow2 && qemu-img compare -q now.raw a.qcow2",
    ),
    changing(
        "bitmap-remove",
        BITMAP,
        "bitmap --remove a.qcow2 b0",
        "qemu-img check -q a.qcow2 && qemu-img compare -q now.raw a.qcow2",
    ),
    Case {
        name: "commit",
        setup: CHAIN,
        command: "commit top.qcow2",
        untouched: &[],
        right: "qemu-img check -q base.qcow2 && qemu-img compare -q want.raw base.qcow2",
        // Before or after: the overlay shows the same.
        whole: "qemu-img compare -q want.raw top.qcow2",
        once: false,
        refuses: false,
    },
    Case {
        name: "rebase-none",
        setup: CHAIN,
        command: "rebase --backing= top.qcow2",
        untouched: &["base.qcow2"],
        right: "qemu-img compare -q want.raw top.qcow2",
        whole: "qemu-img compare -q want.raw top.qcow2",
        once: true,
        refuses: false,
    },
    Case {
        name: "check-repair",
        setup: "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw; qemu-img convert -O qcow2 -o cluster_size=4k a.raw a.qcow2; printf '\\0\\0\\0\\0' | dd of=a.qcow2 bs=1 seek=$((0x2010)) conv=notrunc status=none",
        command: "check -r all a.qcow2",
        untouched: &[],
        right: "qemu-img check -q a.qcow2 && qemu-img compare -q a.raw a.qcow2",
        whole: "disksmith check -r all a.qcow2 >/dev/null; qemu-img check -q a.qcow2 && qemu-img compare -q a.raw a.qcow2",
        once: true,
        refuses: true,
    },
];
