//! Both ways with qemu-img: what we make it reads and checks, what it makes we read.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::Disk;
use disksmith_formats::{Backing, CreateRequest, OpenMode, Options, driver};
use disksmith_host::{FileDisk, OpenOptions};
use disksmith_open::{ImageSpec, Locking, Node, Settings, open};
use disksmith_operations::{
    CommitRequest, CompareRequest, ConvertRequest, RebaseRequest, Silent, Verdict, commit, compare,
    convert, rebase,
};
use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{qemu_check, succeed};
use support::{content, patchwork};

const SIZE: u64 = 5 << 20;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// Runs a qemu-img command line; words in capitals are files here.
    fn qemu_img(&self, line: &str) -> String {
        let file = |word: &str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
        let words: Vec<String> = line
            .split(' ')
            .map(|word| if file(word) { self.text(word) } else { word.to_string() })
            .collect();
        succeed("qemu-img", &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn open(&self, name: &str, mode: OpenMode) -> Node {
        self.open_as(name, mode, "qcow2")
    }

    fn open_as(&self, name: &str, mode: OpenMode, format: &str) -> Node {
        let spec = ImageSpec::from_path(self.path(name), name, Some(format));
        let mut settings = Settings::new(mode);
        settings.locking = Locking::Off;
        open(&spec, &settings).unwrap()
    }

    /// Makes an image and opens it for writing.
    fn create(&self, name: &str, format: &str, size: u64, options: &[(&str, &str)]) -> Node {
        let mut given = Options::new();
        options.iter().for_each(|(name, value)| given.set(name, *value));
        let request = CreateRequest { size, options: given, ..Default::default() };
        let file = OpenOptions { write: true, create: true, ..Default::default() };
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&self.path(name), file).unwrap());
        (driver(format).unwrap().create.unwrap())(&disk, &request).unwrap();
        drop(disk);
        self.open_as(name, OpenMode::Write, format)
    }

    fn is_clean(&self, name: &str) {
        let (status, text) = qemu_check("qcow2", &self.path(name));
        assert_eq!(status, 0, "{name}: {text}");
    }

    /// What qemu-img reads.
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.qemu_img(&format!("convert -f qcow2 -O raw {name} BYTES"));
        std::fs::read(self.path("BYTES")).unwrap()
    }

    /// What lies where, without host offsets: (start, what) of each run.
    ///
    /// The first 4 KiB are left out: qemu-img allocates them in every raw file.
    fn map(&self, name: &str, format: &str) -> Vec<(u64, String)> {
        let text = self.qemu_img(&format!("map --output json -s 4096 -f {format} {name}"));
        let mut runs: Vec<(u64, String)> = Vec::new();
        for line in text.lines() {
            let start = line.split("\"start\": ").nth(1).unwrap().split(',').next().unwrap();
            let what = line.split("\"depth\"").nth(1).unwrap();
            let what = what.split(", \"offset\"").next().unwrap().trim_end_matches(['}', ',', ']']);
            if runs.last().is_none_or(|(_, last)| last != what) {
                runs.push((start.parse().unwrap(), what.to_string()));
            }
        }
        runs
    }
}

/// The first place in which two maps differ, for messages.
fn first_of(a: &[(u64, String)], b: &[(u64, String)]) -> String {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    format!("{:?} and {:?}", a.get(at), b.get(at))
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, piece) in bytes.chunks(4096).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            std::os::unix::fs::FileExt::write_all_at(&file, piece, index as u64 * 4096).unwrap();
        }
    }
}

/// The other program reads back what we wrote, finds it clean, and finds the same holes in it
/// as in what it makes of the same source.
#[test]
fn what_we_convert_they_read() {
    let scratch = Scratch::new();
    let sets: &[&[(&str, &str)]] = &[
        &[("cluster_size", "65536")],
        &[("cluster_size", "512")],
        &[("cluster_size", "2097152")],
        &[("compat", "0.10")],
        &[("extended_l2", "on")],
        &[("compression_type", "zstd")],
        &[("refcount_bits", "64"), ("lazy_refcounts", "on")],
    ];
    for (index, options) in sets.iter().enumerate() {
        for compress in [false, true] {
            let mut rng = Rng::new(index as u64);
            let bytes = patchwork(&mut rng, (SIZE + index as u64 * 1536) as usize);
            write_sparse(&scratch.path("SOURCE"), &bytes);
            let source = scratch.open_as("SOURCE", OpenMode::Read, "raw");
            let target = scratch.create("TARGET", "qcow2", bytes.len() as u64, options);
            let sources = [&source];
            let request = ConvertRequest { compress, ..ConvertRequest::new(&sources, &target) };
            convert(&request, &Silent).unwrap();
            drop(target);
            scratch.is_clean("TARGET");
            assert!(scratch.bytes("TARGET") == bytes, "{options:?} {compress}");
            let theirs: Vec<_> = options.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let flag = if compress { "-c " } else { "" };
            let options = theirs.join(",");
            scratch.qemu_img(&format!("convert {flag}-f raw -O qcow2 -o {options} SOURCE THEIRS"));
            let (ours, theirs) = (scratch.map("TARGET", "qcow2"), scratch.map("THEIRS", "qcow2"));
            assert!(ours == theirs, "{options} {compress}: {}", first_of(&ours, &theirs));
            std::fs::remove_file(scratch.path("TARGET")).unwrap();
        }
    }
}

#[test]
fn what_they_convert_we_read() {
    let scratch = Scratch::new();
    for (index, options) in [
        "-o cluster_size=512",
        "-c",
        "-c -o compression_type=zstd",
        "-c -o cluster_size=2M",
        "-o extended_l2=on",
        "-o preallocation=metadata",
    ]
    .iter()
    .enumerate()
    {
        let mut rng = Rng::new(40 + index as u64);
        let bytes = patchwork(&mut rng, SIZE as usize);
        write_sparse(&scratch.path("SOURCE"), &bytes);
        scratch.qemu_img(&format!("convert -f raw -O qcow2 {options} SOURCE THEIRS"));
        let source = scratch.open("THEIRS", OpenMode::Read);
        let target = scratch.create("RAW", "raw", SIZE, &[]);
        convert(&ConvertRequest::new(&[&source], &target), &Silent).unwrap();
        assert!(std::fs::read(scratch.path("RAW")).unwrap() == bytes, "{options}");
        scratch.qemu_img("convert -f raw -O raw SOURCE PLAIN");
        let (ours, theirs) = (scratch.map("RAW", "raw"), scratch.map("PLAIN", "raw"));
        assert!(ours == theirs, "{options}: {}", first_of(&ours, &theirs));
        let request = CompareRequest { a: &source, b: &target, strict: false };
        assert_eq!(compare(&request, &Silent).unwrap().verdict, Verdict::Identical);
        std::fs::remove_file(scratch.path("RAW")).unwrap();
    }
}

/// An overlay of theirs, with random changes.
fn overlay(scratch: &Scratch, rng: &mut Rng, size: u64) -> (Vec<u8>, Vec<u8>) {
    let bytes = patchwork(rng, SIZE as usize);
    write_sparse(&scratch.path("SOURCE"), &bytes);
    scratch.qemu_img("convert -f raw -O qcow2 SOURCE BASE");
    scratch.qemu_img(&format!(
        "create -q -f qcow2 -o cluster_size=4k -b {} -F qcow2 TOP {size}",
        scratch.text("BASE")
    ));
    let mut shown = bytes.clone();
    shown.resize(size as usize, 0);
    let mut commands: Vec<String> = vec!["-f".into(), "qcow2".into()];
    for index in 0..12u64 {
        let length = (rng.below(60) + 1) * 512;
        let at = rng.below((size - length) / 512) * 512;
        let (command, byte) = match rng.below(3) {
            0 => ("write -z".to_string(), 0),
            _ => (format!("write -P {}", index + 1), index as u8 + 1),
        };
        commands.extend(["-c".into(), format!("{command} {at} {length}")]);
        shown[at as usize..(at + length) as usize].fill(byte);
    }
    commands.push(scratch.text("TOP"));
    succeed("qemu-io", &commands.iter().map(String::as_str).collect::<Vec<_>>());
    (bytes, shown)
}

#[test]
fn commit_into_their_base() {
    for seed in 0..6 {
        let scratch = Scratch::new();
        let mut rng = Rng::new(seed);
        let (_, shown) = overlay(&scratch, &mut rng, SIZE + (seed % 3) * (1 << 20));
        let top = scratch.open("TOP", OpenMode::Write);
        let base = scratch.open("BASE", OpenMode::Write);
        let keep = rng.one_in(2);
        let request = CommitRequest {
            top: &top,
            base: &*base.image,
            base_depth: 1,
            keep_overlay: keep,
            rate: None,
        };
        commit(&request, &Silent).unwrap();
        drop((top, base));
        scratch.is_clean("BASE");
        scratch.is_clean("TOP");
        assert!(scratch.bytes("BASE") == shown, "seed {seed}");
        assert!(scratch.bytes("TOP") == shown, "seed {seed}");
        if !keep {
            let map = scratch.map("TOP", "qcow2");
            let own = |(_, what): &(u64, String)| what.contains(": 0, \"present\": true");
            assert!(!map.iter().any(own), "seed {seed}: {map:?}");
        }
    }
}

#[test]
fn rebase_their_overlay() {
    for seed in 0..8 {
        let scratch = Scratch::new();
        let mut rng = Rng::new(seed);
        let (bytes, shown) = overlay(&scratch, &mut rng, SIZE + (seed % 2) * (1 << 20));
        let to_none = rng.one_in(3);
        let mut other = bytes;
        for _ in 0..5 {
            let at = rng.below(SIZE - 9000) as usize;
            other[at..at + 9000].fill(77);
        }
        write_sparse(&scratch.path("CHANGED"), &other);
        scratch.qemu_img("convert -f raw -O qcow2 CHANGED NEW");
        let top = scratch.open("TOP", OpenMode::Write);
        let new = (!to_none).then(|| scratch.open("NEW", OpenMode::Read));
        let record = Backing { name: scratch.text("NEW"), format: Some("qcow2".into()) };
        let request = RebaseRequest {
            image: &top,
            new: new.as_ref(),
            record: new.as_ref().map(|_| &record),
            compress: rng.one_in(2),
            store_zeroes: rng.one_in(2),
        };
        rebase(&request, &Silent).unwrap();
        assert!(content(&*top.image) == shown, "seed {seed}");
        drop((top, new));
        scratch.is_clean("TOP");
        assert!(scratch.bytes("TOP") == shown, "seed {seed}");
        let info = scratch.qemu_img("info TOP");
        assert_eq!(info.contains("backing file:"), !to_none, "{info}");
    }
}
