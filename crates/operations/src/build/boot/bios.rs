//! BIOS: boot code in sector 0 starts the boot sector of the active partition, which is
//! syslinux's, and that reads `/boot/extlinux/extlinux.conf`.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_filesystems::ext::Ext;
use disksmith_filesystems::resolve;
use disksmith_partitions::Label;

use super::syslinux::{Program, Whereabouts};
use super::{Additions, find, missing};
use crate::build::contents::ListedFile;
use crate::build::survey::{Interest, Survey};

/// Boot code ends where the disk's id and the partition entries begin.
const CODE_LENGTH: usize = 440;
const SECTOR: u64 = 512;
/// Configurations of syslinux, in the order of preference, each with its directory.
const CONFIGURATIONS: [(&str, &str); 6] = [
    ("boot/extlinux/extlinux.conf", "boot/extlinux"),
    ("boot/extlinux/syslinux.cfg", "boot/extlinux"),
    ("boot/syslinux/extlinux.conf", "boot/syslinux"),
    ("boot/syslinux/syslinux.cfg", "boot/syslinux"),
    ("extlinux.conf", ""),
    ("syslinux.cfg", ""),
];
const GRUB: &str = "boot/grub/grub.cfg";
const INSTALLERS: [&str; 3] = ["usr/bin/extlinux", "usr/sbin/extlinux", "sbin/extlinux"];
const MODULES: [&str; 3] = [
    "usr/lib/syslinux/modules/bios/ldlinux.c32",
    "usr/share/syslinux/ldlinux.c32",
    "usr/lib/syslinux/bios/ldlinux.c32",
];
const MBR_CODE: [&str; 4] = [
    "usr/lib/EXTLINUX/mbr.bin",
    "usr/lib/syslinux/mbr/mbr.bin",
    "usr/share/syslinux/mbr.bin",
    "usr/lib/syslinux/bios/mbr.bin",
];
const GPT_CODE: [&str; 4] = [
    "usr/lib/EXTLINUX/gptmbr.bin",
    "usr/lib/syslinux/mbr/gptmbr.bin",
    "usr/share/syslinux/gptmbr.bin",
    "usr/lib/syslinux/bios/gptmbr.bin",
];

pub(super) fn interest(path: &str) -> Interest {
    if path == GRUB || CONFIGURATIONS.iter().any(|(name, _)| *name == path) {
        return Interest::Note;
    }
    let all = [&INSTALLERS[..], &MODULES, &MBR_CODE, &GPT_CODE];
    if all.iter().any(|list| list.contains(&path)) { Interest::Take } else { Interest::None }
}

/// What is written when the filesystem is made.
#[derive(Clone, Debug)]
pub(in crate::build) struct Loader {
    /// For sector 0.
    code: Vec<u8>,
    program: Program,
    /// Where `ldlinux.sys` is, without a slash in front.
    directory: &'static str,
    /// Index of the partition.
    pub(in crate::build) partition: usize,
}

/// What the first partition with a configuration lacks.
pub(in crate::build) fn additions(surveys: &[Survey], label: Label) -> Result<Additions> {
    let configured = surveys.iter().enumerate().find_map(|(index, survey)| {
        let names = CONFIGURATIONS.iter();
        let found = names.clone().find(|(name, _)| survey.found.contains_key(*name));
        found.map(|(_, directory)| (index, survey, *directory))
    });
    let Some((partition, survey, directory)) = configured else {
        return Err(unconfigured(surveys));
    };
    let installer = find(survey, &INSTALLERS).ok_or_else(|| {
        missing(
            "syslinux was not found, neither in the tree nor on this host",
            "Install the package extlinux.",
        )
    })?;
    let program =
        Program::from_installer(&installer.bytes).with_context(|| installer.origin.clone())?;
    let module = find(survey, &MODULES).ok_or_else(|| {
        missing(
            "ldlinux.c32 was not found, neither in the tree nor on this host",
            "Install the package syslinux-common.",
        )
    })?;
    let codes = if label == Label::Gpt { &GPT_CODE } else { &MBR_CODE };
    let code = find(survey, codes).ok_or_else(|| {
        missing(
            "boot code for sector 0 was not found, neither in the tree nor on this host",
            "Install the package extlinux.",
        )
    })?;
    if code.bytes.len() > CODE_LENGTH {
        return Err(Error::new(
            Kind::Corrupt,
            format!("{} is longer than {CODE_LENGTH} bytes", code.origin),
        ));
    }
    let mut files = vec![Vec::new(); surveys.len()];
    files[partition] = vec![
        ListedFile::new(&format!("{directory}/ldlinux.sys"), 0o444, program.file()),
        ListedFile::new(&format!("{directory}/ldlinux.c32"), 0o444, module.bytes),
    ];
    let loader = Loader { code: code.bytes, program, directory, partition };
    Ok(Additions { files, bios: Some(loader) })
}

fn unconfigured(surveys: &[Survey]) -> Error {
    if surveys.iter().any(|survey| survey.found.contains_key(GRUB)) {
        return Error::new(
            Kind::Unsupported,
            "the tree boots with GRUB, whose core image only grub-mkimage can make",
        )
        .with_hint(
            "Give the tree a /boot/extlinux/extlinux.conf for syslinux, or boot with --boot uefi.",
        );
    }
    missing(
        "the tree has no /boot/extlinux/extlinux.conf: there is nothing to boot",
        "Write one: DEFAULT linux / LABEL linux / LINUX /boot/vmlinuz / INITRD /boot/initrd.img / APPEND root=/dev/vda1",
    )
}

impl Loader {
    /// Writes the boot code in front of the partition entries.
    pub(in crate::build) fn write_code(&self, disk: &dyn Disk) -> Result<()> {
        let mut code = self.code.clone();
        code.resize(CODE_LENGTH, 0);
        disk.write_at(&code, 0).context("Could not write the boot code")
    }

    /// Tells `ldlinux.sys` where it lies, and the boot sector where that begins.
    pub(in crate::build) fn install(&self, part: &Arc<dyn Disk>, start: u64) -> Result<()> {
        self.install_in(part, start).context("Could not install syslinux")
    }

    fn install_in(&self, part: &Arc<dyn Disk>, start: u64) -> Result<()> {
        let path = format!("/{}/ldlinux.sys", self.directory);
        let length = self.program.file().len() as u64;
        let mut sectors = Vec::new();
        let filesystem = Ext::open(part.clone(), true)?;
        let file = resolve(&filesystem, path.as_bytes(), false)?;
        for place in filesystem.places(file.inode)? {
            if place.offset != sectors.len() as u64 * SECTOR {
                return Err(Error::new(Kind::Corrupt, "ldlinux.sys has a hole"));
            }
            let first = place.at / SECTOR;
            sectors.extend(first..first + place.length / SECTOR);
        }
        sectors.truncate(usize::try_from(length / SECTOR).unwrap_or(usize::MAX));
        drop(filesystem);
        let place = Whereabouts { start_sector: start / SECTOR, sectors: part.size() / SECTOR };
        let directory = format!("/{}", self.directory);
        let (code, boot_sector) = self.program.patched(&sectors, &directory, place)?;
        for (sector, bytes) in sectors.iter().zip(code.chunks(SECTOR as usize)) {
            part.write_at(bytes, sector * SECTOR)?;
        }
        part.write_at(&boot_sector, 0)
    }
}
