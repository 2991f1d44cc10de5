//! The Virtual Disk Cookbook: query, convert, stack and create.

use super::{Action, Chapter, Section, Step};

const fn run(words: &'static [&'static str], remark: &'static str) -> Step {
    Step { action: Action::Run(words), remark }
}

pub(super) static CHAPTER: Chapter = Chapter {
    title: "Chapter 1: The Virtual Disk Cookbook",
    sections: &[
        Section {
            title: "Example 1.1: querying an image",
            about: "Two fresh disks of 10 GiB, one qcow2 and one raw. What is their format, how large does a\nguest see them, and how much room do they take here?",
            steps: &[
                run(
                    &["create", "image-qcow.qcow2", "10G"],
                    "the suffix of the name chose the format",
                ),
                run(&["create", "image-raw.raw", "10G"], ""),
                run(
                    &["info", "image-qcow.qcow2"],
                    "the guest sees 10 GiB; what is on disk are the tables of the format",
                ),
                run(
                    &["info", "image-raw.raw"],
                    "a raw file is the disk itself: 10 GiB long, all of it a hole",
                ),
                run(&["map", "image-raw.raw"], "no range holds data"),
            ],
        },
        Section {
            title: "Example 1.2: from raw to qcow2",
            about: "A guest leaves a trace on the raw disk, so that there is something to carry over.",
            steps: &[
                Step {
                    action: Action::Guest {
                        image: "image-raw.raw",
                        format: "raw",
                        offset: 1 << 20,
                        text: "hello from the guest",
                    },
                    remark: "one block of the host filesystem is taken now",
                },
                run(
                    &[
                        "convert",
                        "-f",
                        "raw",
                        "-O",
                        "qcow2",
                        "image-raw.raw",
                        "image-raw-converted.qcow",
                    ],
                    "only what holds data was read and stored",
                ),
                run(&["info", "image-raw-converted.qcow"], ""),
                run(
                    &["compare", "-f", "raw", "image-raw.raw", "image-raw-converted.qcow"],
                    "the guest sees no difference",
                ),
            ],
        },
        Section {
            title: "Example 1.3: from qcow2 to raw",
            about: "The way back. A raw file can take the whole size of the disk; holes keep it small.",
            steps: &[
                run(
                    &["convert", "-O", "raw", "image-raw-converted.qcow", "image-raw-again.raw"],
                    "",
                ),
                run(&["info", "image-raw-again.raw"], ""),
                run(
                    &["compare", "-f", "raw", "-F", "raw", "image-raw.raw", "image-raw-again.raw"],
                    "",
                ),
            ],
        },
        Section {
            title: "Example 1.4: a disk with a backing image",
            about: "A golden master, and a disk on top of it that holds only what differs. The size of the\nnew disk comes from its base.",
            steps: &[
                Step { action: Action::Folder("base-images"), remark: "" },
                Step { action: Action::Folder("webserver01"), remark: "" },
                run(&["create", "base-images/image-webserver-base.qcow2", "10G"], ""),
                run(
                    &[
                        "create",
                        "-b",
                        "../base-images/image-webserver-base.qcow2",
                        "webserver01/image-webserver-devel.qcow2",
                    ],
                    "the format of the base was recorded too: nobody will have to guess it",
                ),
                run(&["info", "webserver01/image-webserver-devel.qcow2"], ""),
                Step {
                    action: Action::Guest {
                        image: "webserver01/image-webserver-devel.qcow2",
                        format: "qcow2",
                        offset: 1 << 30,
                        text: "the latest updates",
                    },
                    remark: "it went to the top image; the base is as it was",
                },
                run(&["map", "webserver01/image-webserver-devel.qcow2"], ""),
                run(
                    &["commit", "webserver01/image-webserver-devel.qcow2"],
                    "what the top image held is now in the base",
                ),
                run(&["map", "webserver01/image-webserver-devel.qcow2"], ""),
                run(&["check", "base-images/image-webserver-base.qcow2"], ""),
            ],
        },
        Section {
            title: "Example 1.5: a simple image",
            about: "Without a suffix that says otherwise, an image is raw.",
            steps: &[run(&["create", "webserver.raw", "10G"], "")],
        },
    ],
};
