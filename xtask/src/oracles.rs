//! The independent tools that tests compare with.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, succeed};

/// A program and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common"),
    ("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi"),
    ("blkid", "util-linux"),
    ("cryptsetup", "cryptsetup-bin"),
    ("ddrescuelog", "gddrescue"),
    ("debugfs", "e2fsprogs"),
    ("dumpe2fs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("extlinux", "extlinux"),
    ("fsck.exfat", "exfatprogs"),
    ("fsck.fat", "dosfstools"),
    ("fusermount3", "fuse3"),
    ("getfattr", "attr"),
    ("losetup", "mount"),
    ("mcopy", "mtools"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.exfat", "exfatprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("fdisk", "fdisk"),
    ("partx", "util-linux"),
    ("pvcreate", "lvm2"),
    ("genisoimage", "genisoimage"),
    ("mkfs.erofs", "erofs-utils"),
    ("mkfs.ntfs", "ntfs-3g"),
    ("mkfs.f2fs", "f2fs-tools"),
    ("mksquashfs", "squashfs-tools"),
    ("mke2fs", "e2fsprogs"),
    ("mkswap", "util-linux"),
    ("nbdinfo", "libnbd-bin"),
    ("parted", "parted"),
    ("python3", "python3"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("setfacl", "acl"),
    ("tune2fs", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("strace", "strace"),
    ("sfdisk", "fdisk"),
    ("sgdisk", "gdisk"),
];

/// What the tests need.
pub(crate) fn run(_: &[String]) -> Outcome {
    ensure(TOOLS)
}

/// Installs what is missing of these when run by root; otherwise names it and fails.
pub(crate) fn ensure(tools: &[(&str, &str)]) -> Outcome {
    let missing = missing_packages(tools);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        return Err(format!("these Debian packages are needed: {}", missing.join(" ")));
    }
    eprintln!("installing {}", missing.join(" "));
    succeed(Command::new("apt-get").args(["update", "-q"]))?;
    succeed(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(missing.iter().map(|package| like_the_other_qemu(package))),
    )?;
    match missing_packages(tools) {
        still if still.is_empty() => Ok(()),
        still => Err(format!("still missing after the installation: {}", still.join(" "))),
    }
}

/// QEMU's packages are asked for in the version of the one that is there: another one would
/// replace it, and with it the qemu-img that everything is compared with.
fn like_the_other_qemu(package: &str) -> String {
    let version = package.starts_with("qemu-").then(|| installed_version("qemu-utils")).flatten();
    version.map_or_else(|| package.to_string(), |version| format!("{package}={version}"))
}

fn installed_version(package: &str) -> Option<String> {
    let query = ["-W", "-f", "${db:Status-Status} ${Version}", package];
    let output = Command::new("dpkg-query").args(query).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_string)
}

fn missing_packages<'p>(tools: &[(&str, &'p str)]) -> Vec<&'p str> {
    let mut packages: Vec<_> =
        tools.iter().filter(|(tool, _)| !on_path(tool)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a program, a file or one whose name begins so (`*`) is there.
/// Administrators' folders are looked at too: an ordinary user's path leaves them out.
fn on_path(tool: &str) -> bool {
    if let Some(beginning) = tool.strip_suffix('*') {
        let (folder, name) = beginning.rsplit_once('/').unwrap_or((".", beginning));
        let mut names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        return names.any(|entry| entry.file_name().to_string_lossy().starts_with(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.iter().any(|folder| folder.join(tool).exists())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|m| m.uid() == 0)
}
