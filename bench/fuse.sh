#!/bin/bash
# Sequential throughput of an attached disk, beside qemu-storage-daemon's FUSE export and qemu-nbd
# with nbdfuse, interleaved. Needs root, qemu-utils, qemu-storage-daemon, libnbd's nbdfuse.
#   bench/fuse.sh PROGRAM [FOLDER [MEBIBYTES [ROUNDS]]]
set -u
program=$(realpath "$1")
folder=$(mktemp -d -p "${2:-${TMPDIR:-/tmp}}")
size=${3:-1024}
rounds=${4:-3}
cd "$folder" || exit 1
mkdir ours nbd
touch export
trap 'cd /; rm -rf "$folder"' EXIT

rate() { # label, format, file
    local a b c
    sync
    # The image itself is in the cache, the file that shows it is not.
    echo 3 > /proc/sys/vm/drop_caches
    cat "disk.$2" > /dev/null
    a=$(date +%s%N)
    dd if="$3" of=/dev/null bs=1M status=none
    b=$(date +%s%N)
    dd if=/dev/zero of="$3" bs=1M count="$size" conv=notrunc,fsync status=none
    c=$(date +%s%N)
    printf '%-8s %-6s read %5d MiB/s  write+fsync %5d MiB/s\n' "$1" "$2" \
        $((size * 1000000000 / (b - a))) $((size * 1000000000 / (c - b)))
}

wait_for() { # path
    for _ in $(seq 200); do [ -s "$1" ] && return; sleep 0.02; done
}

stop() { # process
    kill "$1"
    while kill -0 "$1" 2> /dev/null; do sleep 0.05; done
}

for format in raw qcow2; do
    qemu-img create -q -f "$format" "disk.$format" "${size}M"
    qemu-io -f "$format" -c "write -q -P 1 0 ${size}M" "disk.$format"
    for _ in $(seq "$rounds"); do
        "$program" attach -f "$format" "disk.$format" ours
        rate ours "$format" ours/disk
        "$program" detach ours

        qemu-storage-daemon --blockdev "driver=file,filename=disk.$format,node-name=f" \
            --blockdev "driver=$format,file=f,node-name=n" \
            --export "type=fuse,id=e,node-name=n,mountpoint=$folder/export,writable=on" \
            --pidfile qsd.pid --daemonize
        server=$(cat qsd.pid)
        wait_for export
        rate qsd "$format" export
        stop "$server"

        qemu-nbd -f "$format" -k "$folder/socket" -e 4 -t --pid-file nbd.pid --fork "disk.$format"
        server=$(cat nbd.pid)
        nbdfuse nbd/disk "nbd+unix://?socket=$folder/socket" &
        wait_for nbd/disk
        rate nbdfuse "$format" nbd/disk
        fusermount3 -u nbd
        wait
        stop "$server"
    done
done
