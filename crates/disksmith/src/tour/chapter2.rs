//! Disk concepts: a disk of 1 GiB from nothing to a filesystem.

use super::{Action, Chapter, Section, Step};

const DISK: &str = "disk1.raw";

const fn run(words: &'static [&'static str], remark: &'static str) -> Step {
    Step { action: Action::Run(words), remark }
}

const fn look(column: &'static str, remark: &'static str) -> Step {
    Step { action: Action::Look { image: DISK, column }, remark }
}

pub(super) static CHAPTER: Chapter = Chapter {
    title: "Chapter 2: Disk Concepts",
    sections: &[
        Section {
            title: "Example 2.2: a disk from zeroes",
            about: "A disk is a row of blocks. 2^30 bytes in blocks of 512 are 2097152 of them, and all of\nthem are zero. (With conv=sparse, zeroes that nobody wrote take no room here.)",
            steps: &[
                run(
                    &[
                        "dd",
                        "if=/dev/zero",
                        "of=disk1.raw",
                        "bs=512",
                        "count=2097152",
                        "conv=sparse",
                    ],
                    "1 GiB long, and empty",
                ),
                run(&["partition", "disk1.raw"], "nothing on it yet"),
                look("disk1.raw", "a file like any other, so far"),
            ],
        },
        Section {
            title: "2.2.4: a partition table",
            about: "The table is a few bytes in the first sector: an identifier of the disk, four places for\npartitions, and 55 aa at its end.",
            steps: &[
                run(
                    &["partition", "disk1.raw", "init", "mbr", "--id", "0x000e44e8", "--dry-run"],
                    "what would be done, and where",
                ),
                run(
                    &["partition", "disk1.raw", "init", "mbr", "--id", "0x000e44e8"],
                    "five bytes made a disk of it: the identifier, and the mark 55 aa",
                ),
                run(&["partition", "disk1.raw", "--cylinders"], "as fdisk showed it in those days"),
                look("labelled", "what the table changed"),
            ],
        },
        Section {
            title: "Example 2.3: the disk as a device, without root",
            about: "fdisk needed a loop device to know the cylinders, and root to make one. Any user can show\na disk to other programs as a file. (As root: disksmith attach --loop disk1.raw.)",
            steps: &[
                Step { action: Action::Folder("attached"), remark: "" },
                Step {
                    action: Action::Serve(&["attach", "disk1.raw", "attached"]),
                    remark: "attached/disk is the disk; partitions come as attached/p1, p2 …",
                },
                Step { action: Action::Serve(&["detach", "attached"]), remark: "" },
            ],
        },
        Section {
            title: "Example 2.4: a partition",
            about: "One partition over the whole disk, on cylinder boundaries as fdisk made it then: it starts\nat sector 63. (Today's default starts at 1 MiB, which suits the blocks of real disks better.)",
            steps: &[
                run(
                    &["partition", "disk1.raw", "add", "--type", "83", "--align", "cylinder"],
                    "one of the four places is taken",
                ),
                run(
                    &["partition", "disk1.raw", "--cylinders"],
                    "the + says that half a block of 1 KiB is left over",
                ),
                run(&["partition", "disk1.raw"], "the same in sectors: 63 to 2088449"),
                run(
                    &["partition", "disk1.raw", "verify"],
                    "a note, no fault: disks with sectors of 4 KiB would rather have 2048",
                ),
                run(&["info", "disk1.raw:1"], "a partition is a disk, too: nothing is in it yet"),
                look("partitioned", "what the partition changed"),
            ],
        },
        Section {
            title: "Example 2.5: a filesystem on the partition",
            about: "The guide computed an offset (63 * 512 = 32256), made a second loop device at it, and ran\nmkfs and mount as root. A partition has an address, and any user can do both.",
            steps: &[
                run(
                    &["mkfs", "disk1.raw:1", "--type", "ext3", "--label", "partition1"],
                    "superblocks, tables and a journal: next to nothing on the host",
                ),
                run(&["info", "disk1.raw:1"], "the partition is known by its label from now on"),
                look("formatted", "what the filesystem changed: nothing that concerns the table"),
                run(&["df", "disk1.raw"], "5 % are kept for root, as mke2fs does"),
                Step { action: Action::Folder("partition1"), remark: "" },
                Step {
                    action: Action::Serve(&["mount", "disk1.raw:partition1", "partition1"]),
                    remark: "for reading and writing; 'mount' and 'df' of this machine show it",
                },
                Step {
                    action: Action::Save("partition1/hello", "written like any file"),
                    remark: "",
                },
            ],
        },
        Section {
            title: "Example 2.6: cleaning up",
            about: "Unmounting writes everything back and ends the program that served the mount; there is no\nloop device to detach. What was written is in the image.",
            steps: &[
                Step { action: Action::Serve(&["umount", "partition1"]), remark: "" },
                run(&["ls", "-l", "disk1.raw:partition1:/"], "no mount is needed to look"),
                run(&["info", "disk1.raw"], "the disk from the outside"),
            ],
        },
    ],
};
