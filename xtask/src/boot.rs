//! Disks made by `build` are booted in a real machine: `cargo xtask boot [RECIPE…]`.
//!
//! A guest (Debian's kernel, an initrd of busybox and one script) checks the hashes of 900 files,
//! changes the disk and powers off. The changes are read back; the disk is grown while it is off;
//! the guest starts again and sees the room. Without `/dev/kvm` that is of use, a recipe takes about
//! a minute. Root gets what is missing (QEMU, OVMF, a kernel) installed; others are told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Outcome, root, search_path};

/// A guest that is not done after so long is stuck, in seconds; a busy host is slow.
const LIMIT: &str = "900";
/// Files whose hashes the guest checks.
const FILES: usize = 900;

/// What the guest's kernel is told. On a busy host an emulated timer ticks too seldom for the
/// kernel's test of it, which then panics: no_timer_check leaves the test out.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// A disk to boot: firmware and image format.
struct Recipe {
    name: &'static str,
    /// What `build` is told.
    arguments: &'static [&'static str],
    image: &'static str,
    /// The partition with the tree.
    root: u32,
    firmware: Firmware,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Firmware {
    /// The machine is given kernel and initrd.
    None,
    Bios,
    Uefi,
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "kernel",
        arguments: &[],
        image: "disk.qcow2",
        root: 1,
        firmware: Firmware::None,
    },
    Recipe {
        name: "bios-raw",
        arguments: &["--boot", "bios", "--table", "mbr"],
        image: "disk.raw",
        root: 1,
        firmware: Firmware::Bios,
    },
    Recipe {
        name: "bios-qcow2",
        arguments: &["--boot", "bios", "--table", "mbr"],
        image: "disk.qcow2",
        root: 1,
        firmware: Firmware::Bios,
    },
    Recipe {
        name: "bios-gpt",
        arguments: &["--boot", "bios", "--table", "gpt"],
        image: "disk.raw",
        root: 1,
        firmware: Firmware::Bios,
    },
    Recipe {
        name: "uefi-raw",
        arguments: &["--boot", "uefi", "--table", "gpt"],
        image: "disk.raw",
        root: 2,
        firmware: Firmware::Uefi,
    },
    Recipe {
        name: "uefi-qcow2",
        arguments: &["--boot", "uefi"],
        image: "disk.qcow2",
        root: 2,
        firmware: Firmware::Uefi,
    },
];

/// Runs all recipes, or those named.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    crate::oracles::ensure(NEEDED)?;
    let program = program()?;
    let folder = tempfile::Builder::new()
        .prefix("disksmith-boot")
        .tempdir()
        .map_err(|error| format!("no folder for the guests: {error}"))?;
    let guest = Guest::make(folder.path())?;
    for recipe in RECIPES {
        let wanted = arguments.is_empty()
            || arguments.iter().any(|name| recipe.name.starts_with(name.as_str()));
        if !wanted {
            continue;
        }
        let place = folder.path().join(recipe.name);
        fs::create_dir(&place).map_err(text)?;
        let begun = Instant::now();
        trial(recipe, &program, &guest, &place).map_err(|why| format!("{}: {why}", recipe.name))?;
        println!("{:12} ok, {:.0} s", recipe.name, begun.elapsed().as_secs_f64());
        let _ = fs::remove_dir_all(&place);
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Programs, files and the Debian packages that have them.
const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi"),
    ("extlinux", "extlinux"),
    ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common"),
    ("/boot/vmlinuz-*", "linux-image-amd64"),
    ("modprobe", "kmod"),
    ("/bin/busybox", "busybox-static"),
    ("cpio", "cpio"),
];

fn program() -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("DISKSMITH") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    crate::succeed(
        Command::new(cargo).args(["build", "--release", "-p", "disksmith"]).current_dir(root()),
    )?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/disksmith"))
}

/// What the guest runs: kernel and initrd.
struct Guest {
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Guest {
    /// Takes the host's newest kernel and packs an initrd for it.
    fn make(folder: &Path) -> Result<Self, String> {
        let mut kernels: Vec<PathBuf> = fs::read_dir("/boot")
            .map_err(text)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            })
            .collect();
        kernels.sort();
        let kernel =
            kernels.pop().ok_or("there is no /boot/vmlinuz-*: install linux-image-amd64")?;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version = name.trim_start_matches("vmlinuz-");
        let initrd = folder.join("initrd.gz");
        fs::write(folder.join("init"), INIT).map_err(text)?;
        shell(PACK, folder, &[version, &initrd.to_string_lossy()])?;
        Ok(Self { kernel, initrd })
    }
}

/// Packs busybox, the modules for the disk and ext4, and `init`.
const PACK: &str = r#"
    mkdir -p rd/bin rd/mods rd/proc rd/sys rd/dev rd/mnt
    cp /bin/busybox rd/bin/; cp init rd/init; chmod 755 rd/init
    for applet in sh mount umount insmod sha256sum echo cat dd ln rm mv mkdir chown sync poweroff df uname awk sed cut; do
        ln -s busybox rd/bin/$applet
    done
    modprobe -S "$1" --show-depends virtio_pci > list; modprobe -S "$1" --show-depends virtio_blk >> list
    modprobe -S "$1" --show-depends ext4 >> list
    grep -v -e crc32c-intel -e builtin list | awk '{print $2}' | awk '!seen[$0]++' | while read -r module; do
        name=$(basename "$module"); cp "$module" rd/mods/; echo "/mods/$name" >> rd/mods/order
    done
    (cd rd && find . | sort | cpio -o -H newc --quiet | gzip -1) > "$2"
"#;

const INIT: &str = r#"#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mods/order); do insmod $module; done
part=$(sed -n 's/.*guestpart=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t ext4 /dev/vda$part /mnt || echo GUEST-NO-MOUNT
cd /mnt
sha256sum -c SHA256SUMS > /tmp.out 2>&1 && echo GUEST-VERIFY-OK
echo "GUEST-ROOM $(df -k /mnt | awk 'END { print $2 }')"
if [ ! -e from-guest ]; then
    echo "written by guest $(uname -r)" >> hello.txt
    mkdir -p from-guest/sub; ln -s ../hello.txt from-guest/link
    dd if=/dev/zero of=from-guest/big bs=64k count=32 2>/dev/null; chown 1234:5678 from-guest/big
    rm deleteme; mv renameme from-guest/renamed
fi
cd /; sync; umount /mnt && echo GUEST-DONE
poweroff -f
"#;

/// One disk: built, booted, read, grown, booted again.
fn trial(recipe: &Recipe, program: &Path, guest: &Guest, place: &Path) -> Outcome {
    let tree = place.join("tree");
    fs::create_dir(&tree).map_err(text)?;
    let (kernel, initrd) = (guest.kernel.to_string_lossy(), guest.initrd.to_string_lossy());
    let (files, root) = (FILES.to_string(), recipe.root.to_string());
    shell(TREE, &tree, &[&files, &kernel, &initrd, &root, KERNEL_OPTIONS])?;
    let image = place.join(recipe.image);
    let image_text = image.to_string_lossy().into_owned();
    let mut arguments = vec!["build", "--from", "tree", "--size", "512M", "-o", recipe.image];
    arguments.extend(recipe.arguments);
    ours(program, place, &arguments)?;
    let first = boot(recipe, guest, &image)?;
    for word in ["GUEST-VERIFY-OK", "GUEST-DONE"] {
        if !first.contains(word) {
            return Err(format!("the guest did not say {word}; it said:\n{first}"));
        }
    }
    let address = |path: &str| format!("{image_text}:{}:{path}", recipe.root);
    let hello = ours(program, place, &["cat", &address("/hello.txt")])?;
    if !hello.contains("hello") || !hello.contains("written by guest") {
        return Err(format!("what the guest wrote is not there: {hello}"));
    }
    let listing = ours(program, place, &["ls", "-l", &address("/from-guest")])?;
    for word in ["big", "link", "renamed", "2097152", "1234"] {
        if !listing.contains(word) {
            return Err(format!("{word} is not in what the guest made:\n{listing}"));
        }
    }
    if ours(program, place, &["stat", &address("/deleteme")]).is_ok() {
        return Err("what the guest removed is still there".into());
    }
    clean(program, place, recipe, &image_text)?;
    ours(program, place, &["grow", recipe.image, "1G"])?;
    clean(program, place, recipe, &image_text)?;
    let second = boot(recipe, guest, &image)?;
    if !second.contains("GUEST-VERIFY-OK") || !second.contains("GUEST-DONE") {
        return Err(format!("after growing, the guest said:\n{second}"));
    }
    let (before, after) = (room(&first)?, room(&second)?);
    match after > before + 400_000 {
        true => Ok(()),
        false => Err(format!("the guest saw {before} KiB before, {after} KiB after growing")),
    }
}

/// What to fill the disk with: files and their hashes, and what the firmware's loaders need.
const TREE: &str = r#"
    mkdir -p files boot/extlinux boot/efi/loader/entries
    for i in $(seq "$1"); do head -c $((i * 37 % 20000 + 1)) /dev/urandom > files/f$i; done
    sha256sum files/* > SHA256SUMS
    echo hello > hello.txt; echo x > deleteme; echo x > renameme
    options="$5 guestpart=$4"
    cp "$2" boot/vmlinuz; cp "$3" boot/initrd.gz
    printf 'SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nTIMEOUT 1\nLABEL linux\n  LINUX /boot/vmlinuz\n  INITRD /boot/initrd.gz\n  APPEND %s\n' "$options" > boot/extlinux/extlinux.conf
    cp "$2" boot/efi/vmlinuz; cp "$3" boot/efi/initrd.gz
    printf 'timeout 0\ndefault t.conf\n' > boot/efi/loader/loader.conf
    printf 'title t\nlinux /vmlinuz\ninitrd /initrd.gz\noptions %s\n' "$options" > boot/efi/loader/entries/t.conf
"#;

/// The root filesystem, looked at by e2fsck.
fn clean(program: &Path, place: &Path, recipe: &Recipe, image: &str) -> Outcome {
    ours(
        program,
        place,
        &["convert", "-O", "raw", &format!("{image}:{}", recipe.root), "part.raw"],
    )?;
    shell("e2fsck -fn part.raw", place, &[]).map(drop)
}

fn room(said: &str) -> Result<u64, String> {
    let line = said.lines().find_map(|line| line.split("GUEST-ROOM ").nth(1));
    line.and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| "the guest told no size".to_string())
}

fn boot(recipe: &Recipe, guest: &Guest, image: &Path) -> Result<String, String> {
    let format = if recipe.image.ends_with("qcow2") { "qcow2" } else { "raw" };
    let drive = format!("file={},if=virtio,format={format}", image.display());
    let mut machine = Command::new("timeout");
    machine.args([LIMIT, "qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-user-config"]);
    machine.args([
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-m",
        "512",
        "-drive",
        &drive,
    ]);
    let variables = image.with_file_name("vars.fd");
    match recipe.firmware {
        Firmware::None => {
            machine.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
            machine.args(["-append", &format!("{KERNEL_OPTIONS} guestpart={}", recipe.root)]);
        }
        Firmware::Bios => {}
        Firmware::Uefi => {
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).map_err(text)?;
            machine.args(["-machine", "q35"]);
            machine.args([
                "-drive",
                "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
            ]);
            machine.args(["-drive", &format!("if=pflash,format=raw,file={}", variables.display())]);
        }
    }
    let output = machine.stdin(Stdio::null()).output().map_err(text)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ours(program: &Path, place: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(place).output().map_err(text)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "disksmith {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn shell(script: &str, place: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("bash")
        .args(["-c", &format!("set -e; {script}"), "bash"])
        .args(arguments)
        .current_dir(place)
        .env("PATH", search_path())
        .output()
        .map_err(text)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)),
    }
}
