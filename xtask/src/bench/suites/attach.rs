//! Disks as files of a FUSE mount, read and written in sequence by dd: ours, that of
//! qemu-storage-daemon, and nbdfuse before qemu-nbd.

use crate::bench::case::{Case, OURS, Suite};

const DAEMON: &str = "qemu-storage-daemon";
const NBDFUSE: &str = "qemu-nbd + nbdfuse";

const PREPARE: &str = r"
head -c 512M /dev/urandom > data.bin
cp data.bin disk.raw
qemu-img convert -f raw -O qcow2 data.bin disk.qcow2
mkdir -p served
";

/// Serves the image: afterwards `file` is its disk.
const SERVE: &str = r#"
case $WHO in
qemu-storage-daemon)
    touch export
    qemu-storage-daemon --daemonize --pidfile "$PWD/daemon.pid" \
        --blockdev "driver=file,node-name=file,filename=disk.FORMAT" \
        --blockdev driver=FORMAT,node-name=disk,file=file \
        --export "type=fuse,id=export,node-name=disk,mountpoint=$PWD/export,writable=on"
    ln -sfn export file ;;
disksmith)
    disksmith attach -f FORMAT disk.FORMAT served
    ln -sfn served/disk file ;;
*)
    setsid nbdfuse --pidfile "$PWD/nbdfuse.pid" served [ qemu-nbd -f FORMAT disk.FORMAT ] \
        < /dev/null > /dev/null 2>&1 &
    until [ -s nbdfuse.pid ]; do sleep 0.02; done
    ln -sfn served/nbd file ;;
esac
"#;

/// Ends it, and waits until the image is free.
const END: &str = r#"
case $WHO in
qemu-storage-daemon)
    process=$(cat daemon.pid)
    kill "$process"
    while kill -0 "$process" 2> /dev/null; do sleep 0.02; done
    umount -l export 2> /dev/null || true ;;
disksmith) disksmith detach served ;;
*)
    process=$(cat nbdfuse.pid)
    fusermount3 -u served
    while kill -0 "$process" 2> /dev/null; do sleep 0.02; done ;;
esac
rm -f file daemon.pid nbdfuse.pid
"#;

pub(super) fn suite() -> Suite {
    let mut cases = Vec::new();
    for format in ["raw", "qcow2"] {
        let write = "dd if=data.bin of=file bs=1M conv=notrunc,fsync status=none";
        cases.push(case(format, "write", write));
        cases.push(case(format, "read", "dd if=file of=/dev/null bs=1M status=none"));
    }
    Suite {
        name: "attach",
        title: "Disks as files",
        text: "A disk of 512 MiB as a file of a FUSE mount, written (and synced) and read in \
               sequence. Each run has a fresh mount, so that nothing of it is in the kernel's \
               cache; the image is.",
        disk: false,
        prepare: PREPARE.to_string(),
        cases,
    }
}

fn case(format: &str, verb: &str, line: &str) -> Case {
    let script = |text: &str| text.replace("FORMAT", format);
    [DAEMON, NBDFUSE, OURS]
        .into_iter()
        .fold(Case::new(format!("{verb} {format}")), |case, who| case.job(who, line))
        .before(script(SERVE))
        .after(script(END))
        .at_most(1.0)
}
