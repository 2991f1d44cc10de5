//! Images of all kinds, with something of everything that their kind can have.

use std::sync::Arc;

use disksmith_codec::Compressor;
use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::{Backing, CreateRequest, Image, OpenMode, OpenRequest, Snapshot, driver};
use disksmith_testkit::tagged;

use crate::common::options;
use crate::sweep::Files;

/// Of the disk. With clusters of 512 bytes, ten L2 tables.
pub(crate) const SIZE: u64 = 300 << 10;
/// So little that tables are read again and again.
const SMALL_CACHES: &str = "l2-cache-size=1k,refcount-cache-size=1k";
pub(crate) const PASSWORD: &str = "first";

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) options: &'static str,
    pub(crate) locked: bool,
    pub(crate) data_file: bool,
    pub(crate) backing: bool,
    pub(crate) snapshots: bool,
    pub(crate) bitmaps: bool,
    pub(crate) packed: bool,
}

const NONE: Kind = Kind {
    name: "",
    options: "",
    locked: false,
    data_file: false,
    backing: false,
    snapshots: false,
    bitmaps: false,
    packed: false,
};

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "4k",
        options: "cluster_size=4k",
        backing: true,
        snapshots: true,
        packed: true,
        ..NONE
    },
    Kind {
        name: "512",
        options: "cluster_size=512,refcount_bits=64",
        snapshots: true,
        packed: true,
        ..NONE
    },
    Kind { name: "bitmaps", options: "cluster_size=512", snapshots: true, bitmaps: true, ..NONE },
    Kind {
        name: "subclusters",
        options: "cluster_size=16k,extended_l2=on,compression_type=zstd",
        backing: true,
        snapshots: true,
        packed: true,
        ..NONE
    },
    Kind {
        name: "version 2",
        options: "cluster_size=4k,compat=0.10",
        snapshots: true,
        packed: true,
        ..NONE
    },
    Kind { name: "1 bit", options: "cluster_size=512,refcount_bits=1", bitmaps: true, ..NONE },
    Kind {
        name: "luks",
        options: "cluster_size=4k,encrypt.format=luks,encrypt.iter-time=1",
        locked: true,
        snapshots: true,
        ..NONE
    },
    Kind { name: "aes", options: "cluster_size=4k,encryption=on", locked: true, ..NONE },
    Kind { name: "data file", options: "cluster_size=4k", data_file: true, bitmaps: true, ..NONE },
    Kind {
        name: "raw data file",
        options: "cluster_size=4k,data_file_raw=on",
        data_file: true,
        ..NONE
    },
    Kind { name: "lazy", options: "cluster_size=4k,lazy_refcounts=on", snapshots: true, ..NONE },
];

impl Kind {
    pub(crate) fn version_2(&self) -> bool {
        self.options.contains("0.10")
    }

    pub(crate) fn secret(&self) -> Option<Secret> {
        self.locked.then(|| Secret::new(PASSWORD.into()))
    }

    /// The image, the data file, the backing image.
    fn blank_files(&self) -> Vec<MemoryDisk> {
        let mut files = vec![MemoryDisk::new(0)];
        files.extend(self.data_file.then(|| MemoryDisk::new(0)));
        // Longer than the image: what is added to it must not show.
        files.extend(self.backing.then(|| MemoryDisk::from_bytes(&tagged(9, 0, SIZE + 50_000))));
        files
    }

    pub(crate) fn create(&self, files: Files<'_>, preallocation: &str) -> Result<()> {
        let mut options = options(self.options);
        options.set("preallocation", preallocation);
        let request = CreateRequest {
            size: SIZE,
            options,
            secret: self.secret(),
            data_file: self.data_file.then(|| ("data".into(), files[1].clone())),
            backing: self
                .backing
                .then(|| Backing { name: "base".into(), format: Some("raw".into()) }),
        };
        (driver("qcow2").unwrap().create.unwrap())(&files[0], &request)
    }

    pub(crate) fn open(&self, files: Files<'_>, mode: OpenMode) -> Result<Arc<dyn Image>> {
        self.unlock(files, mode, PASSWORD)
    }

    pub(crate) fn unlock(
        &self,
        files: Files<'_>,
        mode: OpenMode,
        password: &str,
    ) -> Result<Arc<dyn Image>> {
        let secret = self.locked.then(|| Secret::new(password.into()));
        let request = OpenRequest { mode, secret, options: options(SMALL_CACHES) };
        let image = (driver("qcow2").unwrap().open)(files[0].clone(), request)?;
        if self.data_file {
            image.attach_data_file(files[1].clone())?;
        }
        if self.backing {
            image.attach_backing(files.last().cloned())?;
        }
        Ok(image)
    }

    /// An image with everything.
    pub(crate) fn seed(&self) -> Vec<MemoryDisk> {
        let files: Vec<_> = self.blank_files().into_iter().map(Arc::new).collect();
        let disks: Vec<_> = files.iter().map(|file| file.clone() as Arc<dyn Disk>).collect();
        self.create(&disks, "off").unwrap();
        let image = self.open(&disks, OpenMode::Write).unwrap();
        self.fill(&*image).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        image.close().unwrap();
        drop(image);
        files.iter().map(|file| (**file).clone()).collect()
    }

    pub(crate) fn blanks(&self) -> Vec<MemoryDisk> {
        self.blank_files()
    }

    fn fill(&self, image: &dyn Image) -> Result<()> {
        image.write_at(&tagged(1, 1024, 60_000 / 512 * 512), 1024)?;
        if self.packed {
            for cluster in [20, 21, 22, 30] {
                pack(image, cluster)?;
            }
        }
        if self.snapshots {
            image.create_snapshot(Snapshot { name: "one".into(), ..Snapshot::default() })?;
        }
        image.write_at(&tagged(2, 30_208, 9728), 30_208)?;
        image.write_zeroes(8192, 9000, ZeroMode::Unmap)?;
        image.write_zeroes(200_000, 9000, ZeroMode::Keep)?;
        if self.bitmaps {
            image.add_bitmap("bits", Some(512), true)?;
            image.write_at(&tagged(3, 41_472, 2048), 41_472)?;
            image.add_bitmap("other", None, false)?;
        }
        if self.snapshots {
            image.create_snapshot(Snapshot { name: "two".into(), ..Snapshot::default() })?;
        }
        image.write_at(&tagged(4, 20_480, 3072), 20_480)?;
        image.write_at(&tagged(5, SIZE - 4608, 4608), SIZE - 4608)?;
        image.discard(49_152, 8192)
    }
}

/// Stores a cluster compressed.
pub(crate) fn pack(image: &dyn Image, cluster: u64) -> Result<()> {
    let compression = image.compression().unwrap();
    let size = compression.cluster_size;
    if (cluster + 1) * size > image.size() {
        return Ok(());
    }
    let mut data = vec![cluster as u8; size as usize];
    data[..64].copy_from_slice(&tagged(6, cluster * 64, 64));
    let mut compressor = Compressor::new(compression.algorithm, Default::default());
    let packed = compressor.compress(&data).expect("it is nearly all alike");
    image.write_packed(cluster * size, packed)
}
