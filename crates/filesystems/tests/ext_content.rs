//! One file, written, cut, punched, zeroed and reserved at random, beside a model in memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::{Changes, Device, Fallocate, FileKind, Filesystem, NewFile};
use disksmith_testkit::Rng;

const LENGTH_MAX: u64 = 256 << 10;

/// The file and what it must hold.
struct Twin {
    ours: Ext,
    inode: u64,
    model: Vec<u8>,
    rng: Rng,
}

impl Twin {
    fn range(&mut self, most: u64) -> (u64, u64) {
        let from = self.rng.below(most.max(1));
        (from, (1 + self.rng.below(65_536)).min(most.saturating_sub(from)))
    }

    fn grow(&mut self, size: u64) {
        if self.model.len() < size as usize {
            self.model.resize(size as usize, 0);
        }
    }

    fn step(&mut self, what: &str) {
        let size = self.model.len() as u64;
        match self.rng.below(12) {
            0..=3 => self.write(),
            4 => self.cut(),
            5 => self.fallocate(Fallocate::PunchHole, size),
            6 | 7 => {
                let keep_size = self.rng.one_in(2);
                self.fallocate(Fallocate::ZeroRange { keep_size }, LENGTH_MAX);
            }
            8 => {
                let keep_size = self.rng.one_in(2);
                self.fallocate(Fallocate::Allocate { keep_size }, LENGTH_MAX);
            }
            9 if self.rng.one_in(6) => self.ours.sync().unwrap(),
            _ => self.compare(what),
        }
        assert_eq!(self.ours.attributes(self.inode).unwrap().size, self.model.len() as u64);
    }

    fn write(&mut self) {
        let (from, length) = self.range(LENGTH_MAX);
        let data = self.rng.bytes(length as usize);
        self.ours.write(self.inode, from, &data).unwrap();
        self.grow(from + length);
        self.model[from as usize..][..data.len()].copy_from_slice(&data);
    }

    fn cut(&mut self) {
        let size = self.rng.below(LENGTH_MAX);
        let changes = Changes { size: Some(size), ..Changes::default() };
        self.ours.set_attributes(self.inode, &changes).unwrap();
        self.model.resize(size as usize, 0);
    }

    fn fallocate(&mut self, how: Fallocate, most: u64) {
        let (from, length) = self.range(most);
        if length == 0 {
            return;
        }
        self.ours.fallocate(self.inode, from, length, how).unwrap();
        let end = from + length;
        let grows = match how {
            Fallocate::Allocate { keep_size } | Fallocate::ZeroRange { keep_size } => !keep_size,
            _ => false,
        };
        if grows {
            self.grow(end);
        }
        if !matches!(how, Fallocate::Allocate { .. }) {
            let size = self.model.len();
            self.model[size.min(from as usize)..size.min(end as usize)].fill(0);
        }
    }

    fn compare(&mut self, what: &str) {
        let (from, length) = self.range(LENGTH_MAX);
        let mut seen = vec![9; length as usize];
        let count = self.ours.read(self.inode, from, &mut seen).unwrap();
        let size = self.model.len();
        let wanted = &self.model[size.min(from as usize)..size.min((from + length) as usize)];
        assert_eq!(count, wanted.len(), "{what}");
        let differs = seen.iter().zip(wanted).position(|(a, b)| a != b);
        assert!(differs.is_none(), "{what}: at {}", from + differs.unwrap_or(0) as u64);
    }
}

fn twin(disk: Arc<dyn Disk>, seed: u64) -> Twin {
    let ours = Ext::open(disk, false).unwrap();
    let file =
        NewFile { kind: FileKind::Regular, mode: 0o600, uid: 0, gid: 0, device: Device::default() };
    let inode = ours.create(ours.root(), b"x", &file).unwrap().inode;
    Twin { ours, inode, model: Vec::new(), rng: Rng::new(seed) }
}

#[test]
fn random_changes_of_content_agree_with_a_model() {
    let steps = if long() { 40_000 } else { 2500 };
    for (name, profile, block_size) in [
        ("ext2", Profile::Ext2, 1024),
        ("ext3", Profile::Ext3, 4096),
        ("ext4 1k", Profile::Ext4, 1024),
        ("ext4 4k", Profile::Ext4, 4096),
    ] {
        let options =
            MakeOptions { profile, block_size: Some(block_size), ..MakeOptions::default() };
        let memory = Arc::new(MemoryDisk::new(24 << 20));
        ext::make(memory.clone(), &options).unwrap();
        let mut twin = twin(memory.clone(), 7);
        for step in 0..steps {
            twin.step(&format!("{name}, step {step}"));
        }
        twin.ours.close().unwrap();
        // What is on the disk, too.
        twin.ours = Ext::open(memory.clone(), true).unwrap();
        for _ in 0..20 {
            twin.compare(name);
        }
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, memory.to_bytes()).unwrap();
        assert_clean(&image, name);
    }
}
