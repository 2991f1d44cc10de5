//! Advanced Operations: a disk made from a tree, copied, given more room, started.

use super::{Action, Chapter, Section, Step};

const fn run(words: &'static [&'static str], remark: &'static str) -> Step {
    Step { action: Action::Run(words), remark }
}

const fn file(name: &'static str, text: &'static str) -> Step {
    Step { action: Action::File { name, text }, remark: "" }
}

pub(super) static CHAPTER: Chapter = Chapter {
    title: "Chapter 3: Advanced Operations",
    sections: &[
        Section {
            title: "Example 3.1: creating a mountable disk",
            about: "A folder becomes a disk: partition table, filesystem and files in one command, without\nroot and without mounting anything.",
            steps: &[
                Step { action: Action::Folder("tree/etc"), remark: "" },
                Step { action: Action::Folder("tree/srv/www"), remark: "" },
                file("tree/etc/hostname", "webserver01\n"),
                file("tree/srv/www/index.html", "<h1>It works</h1>\n"),
                run(
                    &["build", "--from", "tree", "--size", "256M", "-o", "webserver.qcow2"],
                    "one partition with an ext4 filesystem; the same tree gives the same disk, bit by bit",
                ),
                run(&["partition", "webserver.qcow2"], ""),
                run(&["ls", "-l", "webserver.qcow2::/srv/www"], "the files are in it"),
                run(&["df", "webserver.qcow2:"], ""),
            ],
        },
        Section {
            title: "Example 3.2: several partitions",
            about: "What a disk is made of can be written down.",
            steps: &[
                file(
                    "disk.toml",
                    "format = \"qcow2\"\nsize = \"512M\"\n\n[[partition]]\ntype = \"esp\"\nfilesystem = \"fat32\"\nsize = \"64M\"\n\n[[partition]]\nfilesystem = \"swap\"\nsize = \"32M\"\n\n[[partition]]\nname = \"root\"\nfilesystem = \"ext4\"\nlabel = \"root\"\nsize = \"rest\"\nfrom = \"tree\"\nowner = \"0:0\"\n",
                ),
                run(&["build", "disk.toml", "-o", "described.qcow2"], ""),
                run(
                    &["info", "described.qcow2"],
                    "each filesystem with its label, its id and what is used",
                ),
            ],
        },
        Section {
            title: "Example 3.3: cloning a disk",
            about: "A disk is a file; so the copy of a physical disk (/dev/sda) is made by the same command.\nWhat the filesystems say is free need not be read.",
            steps: &[
                run(
                    &["clone", "webserver.qcow2", "copy.raw", "--used-only", "--verify"],
                    "only what is used was read, and the copy was read back",
                ),
                run(&["compare", "webserver.qcow2", "copy.raw"], ""),
                run(&["cat", "copy.raw:1:/etc/hostname"], ""),
            ],
        },
        Section {
            title: "Example 3.4: more room",
            about: "Disk, partition table, last partition and filesystem grow together.",
            steps: &[
                run(&["grow", "--dry-run", "webserver.qcow2", "+256M"], "nothing was changed yet"),
                run(&["grow", "webserver.qcow2", "+256M"], ""),
                run(&["df", "webserver.qcow2:"], "the filesystem reaches to the end"),
                run(&["partition", "webserver.qcow2", "verify"], ""),
                run(&["check", "webserver.qcow2"], ""),
            ],
        },
        Section {
            title: "Example 3.5: starting it",
            about: "A tree with a kernel becomes a disk that starts by itself: with --boot uefi its /boot/efi is\nthe EFI system partition, with --boot bios its /boot/extlinux/extlinux.conf is what boots. Then:\n  qemu-system-x86_64 -m 1G -drive file=disk.qcow2,if=virtio\n(for UEFI with -bios /usr/share/ovmf/OVMF.fd). Here there is no kernel to start, so the disk\nonly shows what would be made.",
            steps: &[
                Step { action: Action::Folder("tree/boot/efi/EFI/BOOT"), remark: "" },
                file("tree/boot/efi/EFI/BOOT/BOOTX64.EFI", "a boot loader would be here\n"),
                run(
                    &["build", "--from", "tree", "--boot", "uefi", "--size", "256M", "--dry-run"],
                    "the EFI system partition comes first, the root second",
                ),
            ],
        },
    ],
};
