//! UEFI: firmware runs `EFI/BOOT/BOOTX64.EFI` of the EFI system partition (UEFI specification,
//! section 3.5.1.1). Where the tree has none, a boot loader is put there.

use disksmith_disk::Result;

use super::{Additions, find, missing};
use crate::build::contents::ListedFile;
use crate::build::survey::{Interest, Survey};

/// The machine types whose boot loaders we know, with the name that firmware looks for.
struct Machine {
    /// In the names of files.
    word: &'static str,
    default: &'static str,
    /// Loaders on the EFI system partition itself, in any letter case, in order of preference.
    on_esp: &'static [&'static str],
    /// Loaders in the tree or on the host: systemd-boot, then GRUB made to stand alone.
    elsewhere: &'static [&'static str],
}

const MACHINES: [Machine; 2] = [
    Machine {
        word: "x64",
        default: "EFI/BOOT/BOOTX64.EFI",
        on_esp: &["efi/systemd/systemd-bootx64.efi", "efi/debian/grubx64.efi", "efi/fedora/grubx64.efi", "efi/ubuntu/grubx64.efi", "efi/grub/grubx64.efi"],
        elsewhere: &["usr/lib/systemd/boot/efi/systemd-bootx64.efi", "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"],
    },
    Machine {
        word: "aa64",
        default: "EFI/BOOT/BOOTAA64.EFI",
        on_esp: &["efi/systemd/systemd-bootaa64.efi", "efi/debian/grubaa64.efi", "efi/fedora/grubaa64.efi", "efi/ubuntu/grubaa64.efi", "efi/grub/grubaa64.efi"],
        elsewhere: &["usr/lib/systemd/boot/efi/systemd-bootaa64.efi", "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"],
    },
];

pub(super) fn interest(path: &str) -> Interest {
    let lower = path.to_ascii_lowercase();
    if MACHINES.iter().any(|machine| machine.elsewhere.contains(&path)) || lower.ends_with(".efi") && lower.starts_with("efi/") {
        return Interest::Take;
    }
    if lower.starts_with("loader/") {
        return Interest::Note;
    }
    Interest::None
}

/// What the EFI system partition (the first of the two surveys) lacks.
pub(in crate::build) fn additions(
    esp: usize,
    surveys: &[Survey],
) -> Result<Additions> {
    let mut additions = Additions { files: vec![Vec::new(); surveys.len()], bios: None };
    let empty = Survey::default();
    let own = surveys.get(esp).unwrap_or(&empty);
    let there = |wanted: &str| own.found.keys().any(|path| path.eq_ignore_ascii_case(wanted));
    if MACHINES.iter().any(|machine| there(machine.default)) {
        return Ok(additions);
    }
    let Some((machine, bytes)) = MACHINES.iter().find_map(|m| Some((m, loader(m, own, surveys)?))) else {
        return Err(missing(
            "the EFI system partition has nothing to boot: neither EFI/BOOT/BOOTX64.EFI nor a boot loader or unified kernel image was found",
            "Put one into the tree below /boot/efi, or install the package systemd-boot-efi, whose boot loader is then used.",
        ));
    };
    if let Some(files) = additions.files.get_mut(esp) {
        files.push(ListedFile::new(machine.default, 0o755, bytes));
    }
    Ok(additions)
}

/// A boot loader for the machine.
fn loader(machine: &Machine, esp: &Survey, surveys: &[Survey]) -> Option<Vec<u8>> {
    let on_esp = |wanted: &str| {
        let found = esp.found.iter().find(|(path, _)| path.eq_ignore_ascii_case(wanted));
        found.and_then(|(_, bytes)| bytes.clone())
    };
    if let Some(bytes) = machine.on_esp.iter().find_map(|path| on_esp(path)) {
        return Some(bytes);
    }
    // A unified kernel image needs no loader, if there is just the one.
    let kernels: Vec<_> = esp
        .found
        .iter()
        .filter(|(path, _)| path.to_ascii_lowercase().starts_with("efi/linux/"))
        .collect();
    if let [(_, Some(bytes))] = kernels.as_slice()
        && machine.word == "x64"
        && !esp.found.keys().any(|path| path.to_ascii_lowercase().starts_with("loader/entries/"))
    {
        return Some(bytes.clone());
    }
    surveys.iter().find_map(|survey| find(survey, machine.elsewhere)).map(|found| found.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(files: &[(&str, &[u8])]) -> Survey {
        let found = files.iter().map(|(path, bytes)| (path.to_string(), Some(bytes.to_vec())));
        Survey { found: found.collect(), ..Survey::default() }
    }

    #[test]
    fn what_is_there_stays() {
        let surveys = [survey(&[("efi/boot/bootx64.efi", b"x")]), Survey::default()];
        assert!(additions(0, &surveys).unwrap().files[0].is_empty());
    }

    #[test]
    fn a_loader_or_a_kernel_of_the_tree_is_taken() {
        let surveys = [survey(&[("EFI/Linux/only.efi", b"kernel")]), Survey::default()];
        let added = additions(0, &surveys).unwrap();
        assert_eq!(added.files[0][0].file.path, b"EFI/BOOT/BOOTX64.EFI");
        let surveys = [
            survey(&[("EFI/Linux/only.efi", b"kernel"), ("EFI/systemd/systemd-bootx64.efi", b"loader")]),
            Survey::default(),
        ];
        let added = additions(0, &surveys).unwrap();
        let super::super::super::contents::Listed::Bytes(bytes) = &added.files[0][0].content else { panic!() };
        assert_eq!(&bytes[..], b"loader");
    }
}
