//! What is done to the seeds.

use disksmith_disk::{MemoryDisk, ZeroMode};
use disksmith_formats::{Image, Preallocation, ResizeRequest, Snapshot};

use crate::common::options;
use crate::{Action, Script, seeds};

fn scripts(row: &'static str, initial: &MemoryDisk, actions: &[(&str, Action)]) -> Vec<Script> {
    let script = |(name, action): &(&str, Action)| Script {
        name: (*name).to_string(),
        row,
        initial: initial.clone(),
        data: None,
        action: *action,
        damaged: false,
        passwords: &[],
    };
    actions.iter().map(script).collect()
}

fn amend(image: &dyn Image, text: &str) -> disksmith_disk::Result<()> {
    image.amend(&options(text), false, &mut |_, _| {})
}

fn resize(image: &dyn Image, size: u64, how: Preallocation) -> disksmith_disk::Result<()> {
    image.resize(ResizeRequest { size, preallocation: how })
}

pub(crate) fn amendments() -> Vec<Script> {
    let seed = seeds::from_qemu(false);
    let mut all = scripts(
        "amend: version",
        &seed,
        &[
            ("downgrade", |image| amend(image, "compat=0.10")),
            ("down and up", |image| {
                amend(image, "compat=0.10")?;
                amend(image, "compat=1.1,refcount_bits=8")
            }),
        ],
    );
    all.extend(scripts(
        "amend: refcount width",
        &seed,
        &[
            ("64 bits", |image| amend(image, "refcount_bits=64")),
            ("32 bits", |image| amend(image, "refcount_bits=32")),
            ("8 bits", |image| amend(image, "refcount_bits=8")),
            ("4 bits", |image| amend(image, "refcount_bits=4")),
            ("2 bits", |image| amend(image, "refcount_bits=2")),
        ],
    ));
    all.extend(scripts(
        "amend: lazy refcounts",
        &seed,
        &[
            ("lazy", |image| amend(image, "lazy_refcounts=on")),
            ("lazy and back", |image| {
                amend(image, "lazy_refcounts=on")?;
                image.write_at(&[5; 9000], 100_000)?;
                amend(image, "lazy_refcounts=off")
            }),
        ],
    ));
    all
}

/// With an external data file, on which the marks of the image say how to read it.
pub(crate) fn data_files() -> Vec<Script> {
    let of = |row, seed: &[MemoryDisk], actions: &[(&str, Action)]| {
        let mut all = scripts(row, &seed[0], actions);
        all.iter_mut().for_each(|script| script.data = seed.get(1).cloned());
        all
    };
    let raw = seeds::with_data_file("cluster_size=4k,data_file_raw=on");
    let mapped = seeds::with_data_file("cluster_size=4k");
    let marks: &[(&str, Action)] = &[
        ("raw: off", |image| amend(image, "data_file_raw=off")),
        ("raw: off, and written", |image| {
            amend(image, "data_file_raw=off")?;
            image.write_at(&[7; 20_000], 10_000)
        }),
        ("raw: the name", |image| amend(image, "data_file=data")),
        ("raw: counts", |image| amend(image, "refcount_bits=64")),
    ];
    let content: &[(&str, Action)] = &[
        ("write", |image| image.write_at(&[7; 20_000], 10_000)),
        ("zero", |image| image.write_zeroes(5000, 100_000, ZeroMode::Unmap)),
        ("grow", |image| {
            resize(image, 1 << 20, Preallocation::Off)?;
            image.write_at(&[3; 2000], (1 << 20) - 2000)
        }),
        ("shrink", |image| resize(image, 60 << 10, Preallocation::Off)),
    ];
    let mut all = of("amend: raw data file", &raw, marks);
    for (name, seed) in [("raw", &raw), ("mapped", &mapped)] {
        let mut scripts = of("data file: write, zero, resize", seed, content);
        scripts.iter_mut().for_each(|script| script.name = format!("{name}: {}", script.name));
        all.extend(scripts);
    }
    all
}

pub(crate) fn passwords() -> Vec<Script> {
    let initial = seeds::encrypted();
    let script = |name: &str, action: Action, passwords| Script {
        name: name.to_string(),
        row: "amend: LUKS keys",
        initial: initial.clone(),
        data: None,
        action,
        damaged: false,
        passwords,
    };
    const ADD: &str = "encrypt.state=active,encrypt.new-secret=second,encrypt.iter-time=1";
    vec![
        script("add a password", |image| amend(image, ADD), &["first", "second"]),
        script(
            "replace a password",
            |image| {
                amend(image, ADD)?;
                amend(image, "encrypt.state=inactive,encrypt.old-secret=first")
            },
            &["first", "second"],
        ),
    ]
}

pub(crate) fn bitmaps() -> Vec<Script> {
    scripts(
        "bitmaps",
        &seeds::from_qemu(true),
        &[
            ("bitmap: add", |image| image.add_bitmap("new", None, true)),
            ("bitmap: remove", |image| image.remove_bitmap("b")),
            ("bitmap: clear", |image| image.clear_bitmap("b")),
            ("bitmap: merge", |image| image.merge_bitmap("b", &[(0, 4096), (100_000, 5)])),
            ("bitmap: merge another", |image| {
                let ranges = image.dirty_ranges("other")?;
                image.merge_bitmap("b", &ranges)
            }),
            ("bitmap: enable", |image| {
                image.enable_bitmap("b", false)?;
                image.enable_bitmap("b", true)
            }),
            ("bitmap: write", |image| image.write_at(&[4; 5000], 150_000)),
        ],
    )
}

pub(crate) fn sizes_and_tables() -> Vec<Script> {
    // 512-byte clusters, 64-bit counts: a block counts 64 clusters, a cluster of the table
    // names 64 blocks: 2 MiB. 64 entries of L1, too, name 2 MiB.
    let tiny = "cluster_size=512,refcount_bits=64";
    let mut all = scripts(
        "growth: refcount table",
        &seeds::filled(tiny, 4 << 20, 2_000_000),
        &[("refcount table", |image| image.write_at(&[3; 150_000], 2_000_000))],
    );
    let small = seeds::filled("cluster_size=512", 1 << 20, 100_000);
    all.extend(scripts(
        "growth: L1 table",
        &small,
        &[("L1 table", |image| {
            resize(image, 5 << 20, Preallocation::Off)?;
            image.write_at(&[3; 2000], (5 << 20) - 2000)
        })],
    ));
    let plain = seeds::filled("cluster_size=4k", 256 << 10, 200_000);
    all.extend(scripts(
        "grow",
        &plain,
        &[
            ("grow", |image| resize(image, 1 << 20, Preallocation::Off)),
            ("grow: metadata", |image| resize(image, 1 << 20, Preallocation::Metadata)),
            ("grow: falloc", |image| resize(image, 1 << 20, Preallocation::Falloc)),
            ("grow: full", |image| resize(image, 512 << 10, Preallocation::Full)),
            ("grow: metadata, over what was freed", |image| {
                image.discard(8192, 100_000)?;
                image.flush()?;
                resize(image, 1 << 20, Preallocation::Metadata)
            }),
        ],
    ));
    all.extend(scripts(
        "shrink",
        &plain,
        &[
            ("shrink", |image| resize(image, 60 << 10, Preallocation::Off)),
            ("shrink to little", |image| resize(image, 512, Preallocation::Off)),
        ],
    ));
    // Refcount blocks that count nothing any more go with what they counted.
    let blocks = seeds::filled("cluster_size=512,refcount_bits=64", 128 << 10, 120_000);
    let actions: &[(&str, Action)] =
        &[("shrink: blocks go", |image| resize(image, 4 << 10, Preallocation::Off))];
    all.extend(scripts("shrink", &blocks, actions));
    all.extend(scripts("empty (after commit)", &plain, &[("empty", |image| image.make_empty())]));
    all.extend(scripts(
        "discard and zero",
        &plain,
        &[
            ("discard", |image| image.discard(8192, 100_000)),
            ("zero", |image| image.write_zeroes(5000, 100_000, ZeroMode::Unmap)),
            ("zero, then write", |image| {
                image.write_zeroes(0, 65_536, ZeroMode::Unmap)?;
                image.write_at(&[5; 30_000], 210_000)
            }),
        ],
    ));
    all
}

/// Names as long as the format allows make the table of the snapshots long: there is no place for
/// it before there are new refcount blocks, and in the end a new refcount table.
fn snapshots_with_long_names() -> Vec<Script> {
    fn take(image: &dyn Image, letter: &str) -> disksmith_disk::Result<()> {
        let name = letter.repeat(60_000);
        image.create_snapshot(Snapshot { name, ..Snapshot::default() })
    }
    let text = "cluster_size=512,refcount_bits=64";
    let blocks = seeds::filled(text, 64 << 10, 20_000);
    let mut all =
        scripts("snapshot create", &blocks, &[("needs blocks", |image| take(image, "a"))]);
    if std::env::var_os("DISKSMITH_LONG").is_none() {
        return all;
    }
    // 64 blocks, which one cluster of the table can name, count 2 MiB.
    let table = seeds::filled(text, 1900 << 10, 1850 << 10);
    let actions: &[(&str, Action)] = &[("needs a table", |image| {
        take(image, "a")?;
        take(image, "b")
    })];
    all.extend(scripts("snapshot create", &table, actions));
    all
}

pub(crate) fn snapshots() -> Vec<Script> {
    let mut all = snapshots_with_long_names();
    for (name, text) in [("4k", "cluster_size=4k"), ("512", "cluster_size=512")] {
        let named = |mut scripts: Vec<Script>| {
            for script in &mut scripts {
                script.name = format!("{} {name}", script.name);
            }
            scripts
        };
        let seed = seeds::with_snapshots(text);
        all.extend(named(scripts(
            "snapshot create",
            &seed,
            &[("create", |image| {
                let snapshot = Snapshot { name: "third".into(), ..Snapshot::default() };
                image.create_snapshot(snapshot)
            })],
        )));
        all.extend(named(scripts(
            "snapshot delete",
            &seed,
            &[
                ("delete first", |image| image.delete_snapshot("first")),
                ("delete both", |image| {
                    image.delete_snapshot("second")?;
                    image.delete_snapshot("first")
                }),
            ],
        )));
        all.extend(named(scripts(
            "snapshot apply",
            &seed,
            &[("apply", |image| image.apply_snapshot("first"))],
        )));
        all.extend(named(scripts(
            "copy on write after a snapshot",
            &seed,
            &[("write", |image| image.write_at(&[9; 30_000], 7_000))],
        )));
    }
    all
}
