//! The filesystems under test, behind one face.

use std::sync::Arc;

use disksmith_disk::{Disk, Result};
use disksmith_filesystems::ext::{self, Ext, MakeOptions, NewSize, Profile, Tune};
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions, Lost, Mend};
use disksmith_filesystems::{Filesystem, Time, source::Source};

type Open = fn(Arc<dyn Disk>, bool) -> Result<Arc<dyn Filesystem>>;
type Change = fn(Arc<dyn Disk>, &Tune) -> Result<()>;
type Resize = fn(Arc<dyn Disk>, u64) -> Result<()>;

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) size: u64,
    pub(crate) make: fn(Arc<dyn Disk>) -> Result<()>,
    /// With what an archive holds.
    pub(crate) fill: fn(Arc<dyn Disk>, &mut dyn Source) -> Result<()>,
    pub(crate) open: Open,
    /// What a check finds.
    pub(crate) check: fn(Arc<dyn Disk>) -> Result<Vec<String>>,
    /// What is left after a repair.
    pub(crate) repair: fn(Arc<dyn Disk>) -> Result<Vec<String>>,
    /// To so many bytes; the disk is long enough.
    pub(crate) resize: Option<Resize>,
    pub(crate) tune: Option<Change>,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "ext4", size: 6 << 20, make: |disk| make_ext(disk, Profile::Ext4, ""), ..EXT },
    Kind { name: "ext2", size: 3 << 20, ..EXT },
    Kind { name: "ext3", size: 6 << 20, make: |disk| make_ext(disk, Profile::Ext3, ""), ..EXT },
    Kind {
        name: "ext4 with small files inside",
        size: 6 << 20,
        make: |disk| make_ext(disk, Profile::Ext4, "inline_data,ea_inode"),
        ..EXT
    },
    Kind { name: "fat12", size: 1 << 20, ..FAT },
    Kind { name: "fat16", size: 5 << 20, make: |disk| make_fat(&*disk, FatKind::Fat16), ..FAT },
    Kind { name: "fat32", size: 40 << 20, make: |disk| make_fat(&*disk, FatKind::Fat32), ..FAT },
    Kind {
        name: "exfat",
        size: 4 << 20,
        make: |disk| exfat::make(&*disk, &exfat_options()),
        fill: |disk, source| exfat::make_from(disk, &exfat_options(), source).map(drop),
        open: |disk, read_only| Ok(Arc::new(Exfat::open(disk, read_only)?)),
        check: |disk| Ok(exfat::check(disk)?.findings),
        repair: |disk| Ok(exfat::repair(disk, Mend::All(Lost::Free))?.last.findings),
        resize: None,
        tune: None,
    },
];

const EXT: Kind = Kind {
    name: "",
    size: 0,
    make: |disk| make_ext(disk, Profile::Ext2, ""),
    fill: |disk, source| ext::make_from(disk, &ext_options(Profile::Ext4, ""), source).map(drop),
    open: |disk, read_only| Ok(Arc::new(Ext::open(disk, read_only)?)),
    check: |disk| Ok(ext::check(disk)?.findings),
    repair: |disk| Ok(ext::repair(disk, ext::Repair::All)?.last.findings),
    resize: Some(|disk, size| ext::resize(&disk, NewSize::Bytes(size)).map(drop)),
    tune: Some(|disk, changes| ext::tune(&disk, changes)),
};

const FAT: Kind = Kind {
    name: "",
    size: 0,
    make: |disk| make_fat(&*disk, FatKind::Fat12),
    fill: |disk, source| fat::make_from(disk, &FatOptions::default(), source).map(drop),
    open: |disk, read_only| Ok(Arc::new(Fat::open(disk, read_only)?)),
    check: |disk| Ok(fat::check(disk)?.findings),
    repair: |disk| Ok(fat::repair(disk, Mend::All(Lost::Free))?.last.findings),
    resize: Some(|disk, size| fat::resize(disk, size).map(drop)),
    tune: None,
};

fn exfat_options() -> ExfatOptions {
    ExfatOptions { serial: Some(7), map_names: true, ..ExfatOptions::default() }
}

fn make_ext(disk: Arc<dyn Disk>, profile: Profile, features: &str) -> Result<()> {
    ext::make(disk, &ext_options(profile, features))
}

fn ext_options(profile: Profile, features: &str) -> MakeOptions {
    MakeOptions {
        profile,
        features: features.into(),
        block_size: Some(1024),
        journal_blocks: (profile != Profile::Ext2).then_some(1024),
        inodes: Some(200),
        uuid: Some([7; 16]),
        hash_seed: Some([9; 16]),
        time: Some(Time::from_seconds(1_700_000_000)),
        ..MakeOptions::default()
    }
}

fn make_fat(disk: &dyn Disk, kind: FatKind) -> Result<()> {
    fat::make(disk, &fat_options(kind))
}

fn fat_options(kind: FatKind) -> FatOptions {
    FatOptions {
        kind: Some(kind),
        cluster_size: Some(512),
        serial: Some(7),
        ..FatOptions::default()
    }
}
