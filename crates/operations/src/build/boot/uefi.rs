//! UEFI: firmware runs `EFI/BOOT/BOOTX64.EFI` of the EFI system partition (UEFI specification,
//! section 3.5.1.1). Where the tree has none, a boot loader is put there.

use disksmith_disk::{Error, Result};

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
        on_esp: &[
            "efi/systemd/systemd-bootx64.efi",
            "efi/debian/grubx64.efi",
            "efi/fedora/grubx64.efi",
            "efi/ubuntu/grubx64.efi",
            "efi/grub/grubx64.efi",
        ],
        elsewhere: &[
            "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
            "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
        ],
    },
    Machine {
        word: "aa64",
        default: "EFI/BOOT/BOOTAA64.EFI",
        on_esp: &[
            "efi/systemd/systemd-bootaa64.efi",
            "efi/debian/grubaa64.efi",
            "efi/fedora/grubaa64.efi",
            "efi/ubuntu/grubaa64.efi",
            "efi/grub/grubaa64.efi",
        ],
        elsewhere: &[
            "usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
            "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi",
        ],
    },
];

pub(super) fn interest(path: &str) -> Interest {
    let lower = path.to_ascii_lowercase();
    let elsewhere = MACHINES.iter().any(|machine| machine.elsewhere.contains(&path));
    let on_esp = lower.starts_with("efi/") && lower.ends_with(".efi");
    if elsewhere || on_esp || path == COMMAND_LINE || is_kernel(path) || is_initrd(path) {
        return Interest::Take;
    }
    if lower.starts_with("loader/") || lower.ends_with("grub.cfg") {
        return Interest::Note;
    }
    Interest::None
}

/// The options for the kernel, where the tree says them.
const COMMAND_LINE: &str = "etc/kernel/cmdline";

fn is_kernel(path: &str) -> bool {
    path.strip_prefix("boot/vmlinuz").is_some_and(|rest| !rest.contains('/'))
}

fn is_initrd(path: &str) -> bool {
    let rest = path.strip_prefix("boot/initrd").or(path.strip_prefix("boot/initramfs"));
    rest.is_some_and(|rest| !rest.contains('/'))
}

/// What the EFI system partition lacks. `root` is the root partition's id, for the kernel. Where
/// there is nothing to boot that is an error, unless it comes `later`.
pub(in crate::build) fn additions(
    esp: usize,
    surveys: &[Survey],
    root: &str,
    later: bool,
) -> Result<Additions> {
    let mut additions = Additions { files: vec![Vec::new(); surveys.len()], bios: None };
    let empty = Survey::default();
    let own = surveys.get(esp).unwrap_or(&empty);
    let there = |wanted: &str| own.found.keys().any(|path| path.eq_ignore_ascii_case(wanted));
    let mut files = entries(own, surveys, root);
    let kernel = !files.is_empty() || says(own) || surveys.iter().any(has_grub_menu);
    let complete = MACHINES.iter().any(|machine| there(machine.default));
    let found = match complete {
        true => None,
        // What the tree has comes before what this host has.
        false => MACHINES
            .iter()
            .find_map(|machine| Some((machine, loader(machine, own, surveys)?)))
            .or_else(|| MACHINES.iter().find_map(|machine| Some((machine, of_host(machine)?)))),
    };
    if let Some(error) = lack(complete || found.is_some(), kernel).filter(|_| !later) {
        return Err(error);
    }
    if let Some((machine, bytes)) = found {
        files.push(ListedFile::new(machine.default, 0o755, bytes));
    }
    if let Some(place) = additions.files.get_mut(esp) {
        *place = files;
    }
    Ok(additions)
}

/// What there must be, and is not.
fn lack(loader: bool, kernel: bool) -> Option<Error> {
    const KERNEL: &str =
        "no kernel (/boot/vmlinuz*), boot entry or unified kernel image in the tree";
    const LOADER: &str = "no boot loader, neither EFI/BOOT/BOOTX64.EFI nor one to put there";
    const LATER: &str = "With --boot-later the disk is made all the same.";
    let package = "or install the package systemd-boot-efi, whose boot loader is then used";
    let (what, remedy) = match (loader, kernel) {
        (true, true) => return None,
        (true, false) => (KERNEL.to_string(), "Put one there.".to_string()),
        (false, true) => (LOADER.to_string(), format!("Put one below /boot/efi, {package}.")),
        (false, false) => {
            (format!("{KERNEL}, and {LOADER}"), format!("Put both there, {package}."))
        }
    };
    Some(missing(&format!("there is nothing to boot: {what}"), &format!("{remedy} {LATER}")))
}

/// Whether something on the partition says what to boot.
fn says(esp: &Survey) -> bool {
    const FOLDERS: [&str; 3] = ["loader/entries/", "efi/linux/", "efi/boot/"];
    let lower = esp.found.keys().map(|path| path.to_ascii_lowercase());
    has_grub_menu(esp)
        || lower.into_iter().any(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)))
}

fn has_grub_menu(survey: &Survey) -> bool {
    survey.found.keys().any(|path| path.to_ascii_lowercase().ends_with("grub.cfg"))
}

/// Where nothing on the partition says what to boot: the tree's newest kernel, with an entry for
/// it (UAPI group, boot loader specification, type 1).
fn entries(esp: &Survey, surveys: &[Survey], root: &str) -> Vec<ListedFile> {
    if says(esp) {
        return Vec::new();
    }
    let all = || surveys.iter().flat_map(|survey| &survey.found);
    let newest = |wanted: &dyn Fn(&str) -> bool| {
        let fits = all().filter(|(path, bytes)| wanted(path) && bytes.is_some());
        fits.max_by(|a, b| a.0.cmp(b.0))
    };
    let Some((name, Some(kernel))) = newest(&is_kernel) else { return Vec::new() };
    let version = name.trim_start_matches("boot/vmlinuz");
    let initrd = newest(&|path| is_initrd(path) && path.ends_with(version))
        .or_else(|| newest(&is_initrd))
        .and_then(|(_, bytes)| bytes.clone());
    let line = all().find(|(path, _)| *path == COMMAND_LINE).and_then(|(_, bytes)| bytes.clone());
    let options = line.map_or_else(
        || format!("root=PARTUUID={root} rw"),
        |line| String::from_utf8_lossy(&line).trim().to_string(),
    );
    let second = if initrd.is_some() { "initrd /initrd.img\n" } else { "" };
    let entry = format!("title Linux\nlinux /vmlinuz\n{second}options {options}\n");
    let mut files = vec![
        ListedFile::new("vmlinuz", 0o644, kernel.clone()),
        ListedFile::new("loader/entries/linux.conf", 0o644, entry.into_bytes()),
    ];
    files.extend(initrd.map(|bytes| ListedFile::new("initrd.img", 0o644, bytes)));
    if !esp.found.keys().any(|path| path.eq_ignore_ascii_case("loader/loader.conf")) {
        let configuration = b"timeout 0\ndefault linux.conf\n".to_vec();
        files.push(ListedFile::new("loader/loader.conf", 0o644, configuration));
    }
    files
}

/// A boot loader for the machine among the files.
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
    let mut all = machine.elsewhere.iter().flat_map(|path| surveys.iter().map(move |s| (s, path)));
    all.find_map(|(survey, path)| survey.found.get(*path)?.clone())
}

/// A boot loader for the machine that is installed here.
fn of_host(machine: &Machine) -> Option<Vec<u8>> {
    find(&Survey::default(), machine.elsewhere).map(|found| found.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(files: &[(&str, &[u8])]) -> Survey {
        let found = files.iter().map(|(path, bytes)| (path.to_string(), Some(bytes.to_vec())));
        let mut survey = Survey::default();
        survey.found = found.collect();
        survey
    }

    #[test]
    fn what_is_there_stays() {
        let surveys = [survey(&[("efi/boot/bootx64.efi", b"x")]), Survey::default()];
        assert!(additions(0, &surveys, "x", false).unwrap().files[0].is_empty());
    }

    #[test]
    fn a_kernel_without_an_entry_gets_one() {
        let tree = survey(&[
            ("boot/vmlinuz-1", b"old"),
            ("boot/vmlinuz-2", b"new"),
            ("boot/initrd.img-1", b"old"),
            ("boot/initrd.img-2", b"new"),
            ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", b"loader"),
        ]);
        let added = additions(0, &[Survey::default(), tree], "abcd", false).unwrap();
        let names: Vec<_> = added.files[0].iter().map(|file| file.file.path.clone()).collect();
        let wanted = [
            "vmlinuz",
            "loader/entries/linux.conf",
            "initrd.img",
            "loader/loader.conf",
            "EFI/BOOT/BOOTX64.EFI",
        ];
        assert_eq!(names, wanted.map(|name| name.as_bytes().to_vec()));
        let super::super::super::contents::Listed::Bytes(entry) = &added.files[0][1].content else {
            panic!()
        };
        let entry = String::from_utf8_lossy(entry);
        let super::super::super::contents::Listed::Bytes(program) = &added.files[0][4].content
        else {
            panic!()
        };
        assert_eq!(&program[..], b"loader", "the tree's, not this host's");
        assert!(
            entry.contains("root=PARTUUID=abcd rw") && entry.contains("initrd /initrd.img"),
            "{entry}"
        );
    }

    #[test]
    fn nothing_to_boot_is_told_unless_it_comes_later() {
        let loader = ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", &b"loader"[..]);
        let surveys = [Survey::default(), survey(&[loader])];
        let error = additions(0, &surveys, "x", false).unwrap_err();
        assert!(error.to_string().starts_with("there is nothing to boot: no kernel"), "{error}");
        let added = additions(0, &surveys, "x", true).unwrap();
        assert_eq!(added.files[0].len(), 1);
        let menu = [Survey::default(), survey(&[loader, ("boot/grub/grub.cfg", b"menu")])];
        assert!(additions(0, &menu, "x", false).is_ok());
        let both = lack(false, false).unwrap().to_string();
        assert!(both.contains("no kernel") && both.contains("no boot loader"), "{both}");
        assert!(!lack(false, true).unwrap().to_string().contains("kernel (/boot"));
    }

    #[test]
    fn a_loader_or_a_kernel_of_the_tree_is_taken() {
        let surveys = [survey(&[("EFI/Linux/only.efi", b"kernel")]), Survey::default()];
        let added = additions(0, &surveys, "x", false).unwrap();
        assert_eq!(added.files[0][0].file.path, b"EFI/BOOT/BOOTX64.EFI");
        let surveys = [
            survey(&[
                ("EFI/Linux/only.efi", b"kernel"),
                ("EFI/systemd/systemd-bootx64.efi", b"loader"),
            ]),
            Survey::default(),
        ];
        let added = additions(0, &surveys, "x", false).unwrap();
        let super::super::super::contents::Listed::Bytes(bytes) = &added.files[0][0].content else {
            panic!()
        };
        assert_eq!(&bytes[..], b"loader");
    }
}
