//! Whole disks: grown and shrunk with a power cut at every write, copied past what cannot be read.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Extent, MemoryDisk, Result, ZeroMode};
use disksmith_filesystems::source::{TreeSource, write_tar};
use disksmith_formats::raw::Raw;
use disksmith_formats::{Image, OpenMode, OpenRequest};
use disksmith_open::Node;
use disksmith_operations::build::{Build, BuildRequest, DiskSpec};
use disksmith_operations::clone::{
    CloneRequest, MapFile, Reader, Record, clone, free_space_of, verify,
};
use disksmith_operations::grow::{GrowPlan, GrowRequest};
use disksmith_operations::shrink::{ShrinkPlan, ShrinkRequest, ShrinkTo};
use disksmith_operations::{Silent, SizeChange};
use disksmith_testkit::oracle::{run, succeed};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states};

const MIB: u64 = 1 << 20;

/// A disk as a spec describes it. `TREE` in it is a folder with some files.
fn built(spec: &str) -> (MemoryDisk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7);
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for number in 0..20 {
        let length = rng.below(40_000) as usize;
        std::fs::write(folder.path().join(format!("sub/file-{number}")), rng.bytes(length))
            .unwrap();
    }
    let text = spec.replace("TREE", folder.path().to_str().unwrap());
    let spec = DiskSpec::parse(&text, folder.path()).unwrap();
    let build = Build::prepare(BuildRequest { spec, ..Default::default() }, &Silent).unwrap();
    let disk = Arc::new(MemoryDisk::new(build.size()));
    let shared: Arc<dyn Disk> = disk.clone();
    build.write(&shared, &Silent).unwrap();
    ((*disk).clone(), folder)
}

fn image(disk: Arc<dyn Disk>) -> Arc<dyn Image> {
    let request = OpenRequest { mode: OpenMode::Write, ..Default::default() };
    Arc::new(Raw::open(disk, &request).unwrap())
}

fn grow(disk: Arc<dyn Disk>, change: SizeChange) -> Result<GrowPlan> {
    let image = image(disk);
    let whole: Arc<dyn Disk> = image.clone();
    let request = GrowRequest { disk: whole.clone(), change, partition: None, force: false };
    let plan = GrowPlan::new(&request)?;
    plan.apply(&*image, &whole, &Silent)?;
    Ok(plan)
}

fn shrink(disk: Arc<dyn Disk>, to: ShrinkTo) -> Result<ShrinkPlan> {
    let image = image(disk);
    let whole: Arc<dyn Disk> = image.clone();
    let plan = ShrinkPlan::new(&ShrinkRequest { disk: whole.clone(), to, partition: None })?;
    plan.apply(&*image, &whole, &Silent)?;
    Ok(plan)
}

/// Changes a disk. Answers what was done, a line each; nothing when there was nothing to do.
type Work<'w> = &'w dyn Fn(Arc<dyn Disk>) -> Result<Vec<String>>;

fn growing(size: u64) -> impl Fn(Arc<dyn Disk>) -> Result<Vec<String>> {
    move |disk| grow(disk, SizeChange::To(size)).map(|plan| plan.describe())
}

fn shrinking(to: ShrinkTo) -> impl Fn(Arc<dyn Disk>) -> Result<Vec<String>> {
    move |disk| shrink(disk, to).map(|plan| plan.describe())
}

/// Everything in the last partition, as a tar.
fn files(disk: &MemoryDisk) -> Vec<u8> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let table = disksmith_partitions::read(&disk).unwrap();
    let last = table.partitions.iter().max_by_key(|p| p.start);
    let part: Arc<dyn Disk> = match last {
        Some(last) => Arc::new(table.slice(disk.clone(), last.number).unwrap()),
        None => disk.clone(),
    };
    let filesystem = disksmith_filesystems::open(part, true).unwrap();
    let mut source = TreeSource::new(&*filesystem, filesystem.root());
    let mut tar = Vec::new();
    write_tar(&mut source, &mut tar).unwrap();
    tar
}

/// A change of size with a cut at every write: the state opens with the same files, and running
/// again completes it.
fn cut_everywhere(spec: &str, work: Work<'_>, check: &dyn Fn(&MemoryDisk)) {
    let (initial, _folder) = built(spec);
    let wanted = files(&initial);
    let recorder = Recorder::new();
    let disk = recorder.disk(0, initial.clone());
    work(disk.clone()).unwrap();
    let whole = disk.content();
    let size = whole.size();
    assert_eq!(files(&whole), wanted);
    check(&whole);
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let limits = CrashLimits {
        full_up_to: if long { 8 } else { 4 },
        random_subsets: if long { 64 } else { 8 },
        torn: if long { 8 } else { 2 },
        seed: 3,
    };
    let mut states = 0u64;
    let visited = crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        states += 1;
        let cut = &state.files[0];
        let again = Arc::new(cut.clone());
        let done = work(again.clone()).unwrap_or_else(|error| panic!("{}: {error}", state.name));
        let again = (*again).clone();
        assert_eq!(again.size(), size, "{}", state.name);
        assert_eq!(files(&again), wanted, "{}: {done:?}", state.name);
        if states.is_multiple_of(37) {
            check(&again);
        }
        let rest = work(Arc::new(again)).unwrap();
        assert!(rest.is_empty(), "{}: {rest:?} is left", state.name);
        true
    });
    assert!(visited > 20, "only {visited} states");
}

/// Independent tools look at the disk.
fn checked(disk: &MemoryDisk) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, disk.to_bytes()).unwrap();
    let name = path.to_str().unwrap();
    let table = disksmith_partitions::read(disk).unwrap();
    if !table.partitions.is_empty() {
        succeed("sfdisk", &["--verify", name]);
    }
    let starts: Vec<u64> = match table.partitions.is_empty() {
        true => vec![0],
        false => {
            let ones = table.partitions.iter().filter(|p| !p.is_extended());
            ones.map(|p| p.start * 512).collect()
        }
    };
    for start in starts {
        let output = run("e2fsck", &["-fn", &format!("{name}?offset={start}")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

const EXT4_ON_GPT: &str =
    "size = '16M'\n[[partition]]\nfilesystem = 'ext4'\nsize = 'rest'\nfrom = 'TREE'\n";

#[test]
fn a_cut_while_growing_a_gpt_loses_nothing() {
    cut_everywhere(EXT4_ON_GPT, &growing(40 * MIB), &checked);
}

#[test]
fn a_cut_while_growing_an_mbr_loses_nothing() {
    let part = "[[partition]]\nfilesystem = 'ext2'\nsize = '2M'\n".repeat(4);
    let last = "[[partition]]\nfilesystem = 'ext3'\nsize = '8M'\nfrom = 'TREE'\n";
    cut_everywhere(&format!("table = 'mbr'\n{part}{last}"), &growing(48 * MIB), &checked);
}

#[test]
fn a_cut_while_growing_a_bare_filesystem_loses_nothing() {
    let spec = "table = 'none'\nsize = '12M'\n[[partition]]\nfilesystem = 'ext2'\nfrom = 'TREE'\n";
    cut_everywhere(spec, &growing(30 * MIB), &checked);
}

#[test]
fn a_growth_by_so_much_is_not_done_twice() {
    let (disk, _folder) = built(EXT4_ON_GPT);
    // As after a cut behind the first step.
    disk.set_size(disk.size() + 24 * MIB).unwrap();
    let disk = Arc::new(disk);
    let plan = grow(disk.clone(), SizeChange::Add(24 * MIB)).unwrap();
    assert!(plan.resumed);
    assert_eq!(disk.size(), 40 * MIB);
    let plan = grow(disk.clone(), SizeChange::Add(24 * MIB)).unwrap();
    assert!(!plan.resumed);
    assert_eq!(disk.size(), 64 * MIB);
    checked(&disk);
}

#[test]
fn a_cut_while_shrinking_a_gpt_loses_nothing() {
    let spec = EXT4_ON_GPT.replace("16M", "40M");
    let to = ShrinkTo::Size(SizeChange::To(16 * MIB));
    cut_everywhere(&spec, &shrinking(to), &checked);
}

#[test]
fn a_cut_while_shrinking_an_mbr_loses_nothing() {
    let part = "[[partition]]\nfilesystem = 'ext2'\nsize = '2M'\n".repeat(4);
    let last = "[[partition]]\nfilesystem = 'ext3'\nsize = '24M'\nfrom = 'TREE'\n";
    let spec = format!("table = 'mbr'\n{part}{last}");
    let to = ShrinkTo::Size(SizeChange::To(20 * MIB));
    cut_everywhere(&spec, &shrinking(to), &checked);
}

#[test]
fn a_cut_while_shrinking_a_bare_filesystem_loses_nothing() {
    let spec = "table = 'none'\nsize = '30M'\n[[partition]]\nfilesystem = 'ext4'\nfrom = 'TREE'\n";
    let to = ShrinkTo::Size(SizeChange::To(12 * MIB));
    cut_everywhere(spec, &shrinking(to), &checked);
}

#[test]
fn what_cannot_shrink_is_named_and_left() {
    let (disk, _folder) = built(
        "size = '20M'\n[[partition]]\nfilesystem = 'ext4'\nsize = '9M'\n[[partition]]\nsize = '4M'\n",
    );
    let before = disk.to_bytes();
    let disk = Arc::new(disk);
    let refused = |partition, size: u64, words: &str| {
        let to = ShrinkTo::Size(SizeChange::To(size));
        let disk: Arc<dyn Disk> = image(disk.clone());
        let error = ShrinkPlan::new(&ShrinkRequest { disk, to, partition }).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(None, 12 * MIB, "nothing that was recognised is in partition 2");
    refused(Some(1), 15 * MIB, "partition 2 lies behind it");
    refused(None, 8 * MIB, "partition 2 begins behind a disk of");
    refused(None, 30 * MIB, "less than");
    refused(Some(7), 15 * MIB, "7");
    assert!(disk.to_bytes() == before);
    // What lies behind it is free.
    let plan = shrink(disk.clone(), ShrinkTo::Minimum).unwrap();
    assert_eq!((plan.new_size, disk.size()), (15 * MIB, 15 * MIB), "{:?}", plan.describe());
    checked_first(&disk, disksmith_partitions::read(&disk).unwrap().partitions[0].start * 512);
}

#[test]
fn what_cannot_grow_is_named_and_left() {
    let (disk, _folder) =
        built("size = '20M'\n[[partition]]\nsize = '4M'\n[[partition]]\nsize = '8M'\n");
    let before = disk.to_bytes();
    let disk = Arc::new(disk);
    let error = grow(disk.clone(), SizeChange::To(40 * MIB)).unwrap_err();
    assert!(error.to_string().contains("nothing that was recognised is in partition 2"), "{error}");
    let whole: Arc<dyn Disk> = image(disk.clone());
    let request = GrowRequest {
        disk: whole,
        change: SizeChange::To(40 * MIB),
        partition: Some(1),
        force: false,
    };
    let error = GrowPlan::new(&request).unwrap_err();
    assert!(error.to_string().contains("partition 2 begins behind it"), "{error}");
    let error = grow(disk.clone(), SizeChange::To(10 * MIB)).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert!(disk.to_bytes() == before);
}

/// A disk of which some sectors cannot be read.
#[derive(Debug)]
struct Scratched {
    disk: MemoryDisk,
    bad: Vec<u64>,
}

impl Disk for Scratched {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let (first, last) = (offset / 512, (offset + buffer.len() as u64).div_ceil(512));
        if self.bad.iter().any(|sector| (first..last).contains(sector)) {
            return Err(Error::from_errno(5));
        }
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Err(Error::from_errno(30))
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroMode) -> Result<()> {
        Err(Error::from_errno(30))
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.disk.map(offset, length)
    }
}

fn node_of(disk: Arc<dyn Disk>) -> Arc<Node> {
    Arc::new(support::raw_on(disk))
}

#[test]
fn everything_readable_is_recovered_and_the_rest_listed() {
    let mut rng = Rng::new(11);
    for round in 0..6 {
        let size = 3 * MIB + round * 512;
        let bytes = rng.bytes(size as usize);
        let mut bad: Vec<u64> = (0..20).map(|_| rng.below(size / 512)).collect();
        bad.extend([0, 1, size / 512 - 1]);
        bad.sort_unstable();
        bad.dedup();
        let source: Arc<dyn Disk> =
            Arc::new(Scratched { disk: MemoryDisk::from_bytes(&bytes), bad: bad.clone() });
        let target_disk = Arc::new(MemoryDisk::new(size));
        let target = support::raw_on(target_disk.clone());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        let record = Record { path: path.clone(), identity: "test".into(), wanted: true };
        let reader =
            Arc::new(Reader::new(source.clone()).rescuing(source.clone(), Vec::new()).hashing());
        let request = CloneRequest {
            reader: reader.clone(),
            source: node_of(source.clone()),
            target: &target,
            target_is_zero: true,
            start: 0,
            record: Some(record),
        };
        clone(&request, &Silent).unwrap();
        verify(&reader, &*target_disk, 0, true, &Silent).unwrap();
        let copied = target_disk.to_bytes();
        for (sector, chunk) in bytes.chunks(512).enumerate() {
            let got = &copied[sector * 512..][..chunk.len()];
            match bad.contains(&(sector as u64)) {
                true => assert!(disksmith_disk::is_zero(got), "sector {sector}"),
                false => assert!(got == chunk, "sector {sector}"),
            }
        }
        let map = MapFile::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let listed: u64 = map.bad().iter().map(|range| range.end - range.start).sum();
        assert_eq!(listed, bad.len() as u64 * 512);
        let output = run("ddrescuelog", &["-t", path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("bad-sector"), "{said}");
    }
}

#[test]
fn without_rescue_what_cannot_be_read_ends_the_copy() {
    let source: Arc<dyn Disk> =
        Arc::new(Scratched { disk: MemoryDisk::from_bytes(&vec![1; 1 << 20]), bad: vec![700] });
    let target = support::raw_on(Arc::new(MemoryDisk::new(1 << 20)));
    let request = CloneRequest {
        reader: Arc::new(Reader::new(source.clone())),
        source: node_of(source),
        target: &target,
        target_is_zero: true,
        start: 0,
        record: None,
    };
    let error = clone(&request, &Silent).unwrap_err();
    assert!(error.to_string().contains("error while reading"), "{error}");
    assert!(error.hint().unwrap_or_default().contains("--rescue"), "{error:?}");
}

#[test]
fn a_copy_that_does_not_hold_what_was_written_is_found_out() {
    let source: Arc<dyn Disk> = Arc::new(MemoryDisk::from_bytes(&vec![3; 1 << 20]));
    let target_disk = Arc::new(MemoryDisk::new(1 << 20));
    let target = support::raw_on(target_disk.clone());
    let reader = Arc::new(Reader::new(source.clone()).hashing());
    let request = CloneRequest {
        reader: reader.clone(),
        source: node_of(source),
        target: &target,
        target_is_zero: true,
        start: 0,
        record: None,
    };
    clone(&request, &Silent).unwrap();
    verify(&reader, &*target_disk, 0, true, &Silent).unwrap();
    target_disk.write_at(&[4], 777_777).unwrap();
    let error = verify(&reader, &*target_disk, 0, true, &Silent).unwrap_err();
    assert!(error.to_string().contains("differs"), "{error}");
}

#[test]
fn only_what_is_used_is_read() {
    let spec = "size = '200M'\n[[partition]]\nfilesystem = 'ext4'\nsize = '64M'\nfrom = 'TREE'\n\
        [[partition]]\nfilesystem = 'fat32'\nsize = '64M'\nfrom = 'TREE'\n\
        [[partition]]\nfilesystem = 'swap'\nsize = '32M'\n[[partition]]\nsize = '8M'\n";
    let (disk, _folder) = built(spec);
    let table = disksmith_partitions::read(&disk).unwrap();
    // Noise where nothing is: in free blocks, in swap and in what nobody knows.
    let noisy = disk.clone();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (free, uses) = free_space_of(&shared).unwrap();
    for range in &free {
        noisy.write_at(&vec![0xAA; (range.end - range.start) as usize], range.start).unwrap();
    }
    let unknown = table.partition(4).unwrap().start * 512;
    noisy.write_at(&vec![0x55; 8 * MIB as usize], unknown).unwrap();
    noisy.write_at(b"gap", table.partition(4).unwrap().end() * 512 + 512).unwrap();
    let source: Arc<dyn Disk> = Arc::new(noisy.clone());
    let (free, _) = free_space_of(&source).unwrap();
    let reader = Arc::new(Reader::new(source.clone()).without(free.clone()));
    let target_disk = Arc::new(MemoryDisk::new(noisy.size()));
    let target = support::raw_on(target_disk.clone());
    let request = CloneRequest {
        reader: reader.clone(),
        source: node_of(source),
        target: &target,
        target_is_zero: true,
        start: 0,
        record: None,
    };
    clone(&request, &Silent).unwrap();
    let (copied, original) = (target_disk.to_bytes(), noisy.to_bytes());
    let mut at = 0usize;
    for range in free.iter().chain([&(noisy.size()..noisy.size())]) {
        assert!(
            copied[at..range.start as usize] == original[at..range.start as usize],
            "before {range:?}"
        );
        assert!(
            disksmith_disk::is_zero(&copied[range.start as usize..range.end as usize]),
            "{range:?}"
        );
        at = range.end as usize;
    }
    let used: u64 = uses.iter().take(3).map(|part| part.used).sum();
    assert!(used < 12 * MIB, "{uses:?}");
    checked_first(&target_disk, table.partition(1).unwrap().start * 512);
}

fn checked_first(disk: &MemoryDisk, start: u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, disk.to_bytes()).unwrap();
    let output = run("e2fsck", &["-fn", &format!("{}?offset={start}", path.display())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
