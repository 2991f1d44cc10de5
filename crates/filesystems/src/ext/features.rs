//! Feature bits: their names as `mke2fs -O` and `dumpe2fs` spell them, and what we do with each.

use bitflags::bitflags;
use disksmith_disk::{Error, Kind, Result};

bitflags! {
    /// `s_feature_compat`: may be ignored.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Compat: u32 {
        /// Directories are preallocated.
        const DIR_PREALLOC = 0x1;
        /// AFS inodes.
        const IMAGIC_INODES = 0x2;
        /// A journal.
        const HAS_JOURNAL = 0x4;
        /// Extended attributes.
        const EXT_ATTR = 0x8;
        /// Room for the descriptor table to grow into.
        const RESIZE_INODE = 0x10;
        /// Hashed directories.
        const DIR_INDEX = 0x20;
        /// Snapshots' exclude bitmap.
        const EXCLUDE_BITMAP = 0x100;
        /// At most two superblock backups.
        const SPARSE_SUPER2 = 0x200;
        /// A fast-commit area in the journal.
        const FAST_COMMIT = 0x400;
        /// Inode numbers and UUID never change.
        const STABLE_INODES = 0x800;
        /// Orphans are kept in a file.
        const ORPHAN_FILE = 0x1000;
    }
}

bitflags! {
    /// `s_feature_incompat`: who does not know one must not touch the filesystem.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Incompat: u32 {
        /// Compressed files.
        const COMPRESSION = 0x1;
        /// Directory entries tell the file type.
        const FILETYPE = 0x2;
        /// The journal must be replayed.
        const RECOVER = 0x4;
        /// This is a journal on a device of its own.
        const JOURNAL_DEV = 0x8;
        /// The descriptor table lies in pieces.
        const META_BG = 0x10;
        /// Extent trees.
        const EXTENTS = 0x40;
        /// 64-bit block numbers.
        const BITS64 = 0x80;
        /// Multiple mount protection.
        const MMP = 0x100;
        /// Bitmaps and tables of several groups lie together.
        const FLEX_BG = 0x200;
        /// Large attribute values in inodes.
        const EA_INODE = 0x400;
        /// Data in directory entries.
        const DIRDATA = 0x1000;
        /// The checksum seed is in the superblock.
        const CSUM_SEED = 0x2000;
        /// Directories over 2 GiB or with three index levels.
        const LARGEDIR = 0x4000;
        /// Small files inside their inodes.
        const INLINE_DATA = 0x8000;
        /// Encrypted files.
        const ENCRYPT = 0x1_0000;
        /// Directories that ignore case.
        const CASEFOLD = 0x2_0000;
    }
}

bitflags! {
    /// `s_feature_ro_compat`: who does not know one must not write.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct RoCompat: u32 {
        /// Superblock backups in few groups.
        const SPARSE_SUPER = 0x1;
        /// Files over 2 GiB.
        const LARGE_FILE = 0x2;
        /// Never used.
        const BTREE_DIR = 0x4;
        /// Files over 2 TiB: `i_blocks` may count blocks.
        const HUGE_FILE = 0x8;
        /// Descriptors have a CRC-16.
        const GDT_CSUM = 0x10;
        /// Directories with more than 64 998 subdirectories.
        const DIR_NLINK = 0x20;
        /// Inodes keep room for further fields.
        const EXTRA_ISIZE = 0x40;
        /// Snapshots.
        const HAS_SNAPSHOT = 0x80;
        /// Quota files are hidden inodes.
        const QUOTA = 0x100;
        /// Space is allocated in clusters of blocks.
        const BIGALLOC = 0x200;
        /// All metadata have checksums.
        const METADATA_CSUM = 0x400;
        /// Replicas.
        const REPLICA = 0x800;
        /// Never to be written.
        const READONLY = 0x1000;
        /// Project quota.
        const PROJECT = 0x2000;
        /// Blocks shared between files.
        const SHARED_BLOCKS = 0x4000;
        /// Files with Merkle trees.
        const VERITY = 0x8000;
        /// The orphan file has entries.
        const ORPHAN_PRESENT = 0x1_0000;
    }
}

/// One feature: its name and its bit.
#[derive(Clone, Copy, Debug)]
pub enum Feature {
    /// Of `s_feature_compat`.
    Compat(Compat),
    /// Of `s_feature_incompat`.
    Incompat(Incompat),
    /// Of `s_feature_ro_compat`.
    RoCompat(RoCompat),
}

bitflags! {
    /// What we do with filesystems that have a feature.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    struct Uses: u8 {
        /// Read them; of no account outside `s_feature_incompat`.
        const READ = 1;
        /// Write them; of no account outside `s_feature_ro_compat`, for others reading suffices.
        const WRITE = 2;
        /// Tell what is in use from what is not; who only reads or writes may ignore a compatible
        /// feature, a check must not. Of no account in `s_feature_incompat`.
        const CHECK = 4;
        /// Make them.
        const MAKE = 8;
    }
}

const CHECK: Uses = Uses::CHECK;
const CHECK_MAKE: Uses = Uses::CHECK.union(Uses::MAKE);
const NONE: Uses = Uses::empty();
const READ: Uses = Uses::READ;
const READ_MAKE: Uses = Uses::READ.union(Uses::MAKE);
const WRITE: Uses = Uses::WRITE;
const WRITE_CHECK: Uses = Uses::WRITE.union(Uses::CHECK);
const WRITE_CHECK_MAKE: Uses = Uses::WRITE.union(Uses::CHECK).union(Uses::MAKE);

/// Every feature: its name, its bit, what we do with it.
const FEATURES: &[(&str, Feature, Uses)] = &[
    ("dir_prealloc", Feature::Compat(Compat::DIR_PREALLOC), CHECK),
    ("imagic_inodes", Feature::Compat(Compat::IMAGIC_INODES), CHECK),
    ("has_journal", Feature::Compat(Compat::HAS_JOURNAL), CHECK_MAKE),
    ("ext_attr", Feature::Compat(Compat::EXT_ATTR), CHECK_MAKE),
    ("resize_inode", Feature::Compat(Compat::RESIZE_INODE), CHECK_MAKE),
    ("dir_index", Feature::Compat(Compat::DIR_INDEX), CHECK_MAKE),
    ("snapshot_bitmap", Feature::Compat(Compat::EXCLUDE_BITMAP), NONE),
    ("sparse_super2", Feature::Compat(Compat::SPARSE_SUPER2), CHECK_MAKE),
    ("fast_commit", Feature::Compat(Compat::FAST_COMMIT), CHECK),
    ("stable_inodes", Feature::Compat(Compat::STABLE_INODES), CHECK_MAKE),
    ("orphan_file", Feature::Compat(Compat::ORPHAN_FILE), CHECK_MAKE),
    ("compression", Feature::Incompat(Incompat::COMPRESSION), NONE),
    ("filetype", Feature::Incompat(Incompat::FILETYPE), READ_MAKE),
    ("needs_recovery", Feature::Incompat(Incompat::RECOVER), READ),
    ("journal_dev", Feature::Incompat(Incompat::JOURNAL_DEV), NONE),
    ("meta_bg", Feature::Incompat(Incompat::META_BG), READ_MAKE),
    ("extent", Feature::Incompat(Incompat::EXTENTS), READ_MAKE),
    ("extents", Feature::Incompat(Incompat::EXTENTS), READ_MAKE),
    ("64bit", Feature::Incompat(Incompat::BITS64), READ_MAKE),
    ("mmp", Feature::Incompat(Incompat::MMP), READ),
    ("flex_bg", Feature::Incompat(Incompat::FLEX_BG), READ_MAKE),
    ("ea_inode", Feature::Incompat(Incompat::EA_INODE), READ_MAKE),
    ("dirdata", Feature::Incompat(Incompat::DIRDATA), NONE),
    ("metadata_csum_seed", Feature::Incompat(Incompat::CSUM_SEED), READ_MAKE),
    ("large_dir", Feature::Incompat(Incompat::LARGEDIR), READ_MAKE),
    ("inline_data", Feature::Incompat(Incompat::INLINE_DATA), READ_MAKE),
    ("encrypt", Feature::Incompat(Incompat::ENCRYPT), READ_MAKE),
    ("casefold", Feature::Incompat(Incompat::CASEFOLD), READ),
    ("sparse_super", Feature::RoCompat(RoCompat::SPARSE_SUPER), WRITE_CHECK_MAKE),
    ("large_file", Feature::RoCompat(RoCompat::LARGE_FILE), WRITE_CHECK_MAKE),
    ("FEATURE_R2", Feature::RoCompat(RoCompat::BTREE_DIR), WRITE),
    ("huge_file", Feature::RoCompat(RoCompat::HUGE_FILE), WRITE_CHECK_MAKE),
    ("uninit_bg", Feature::RoCompat(RoCompat::GDT_CSUM), WRITE_CHECK_MAKE),
    ("uninit_groups", Feature::RoCompat(RoCompat::GDT_CSUM), WRITE_CHECK_MAKE),
    ("dir_nlink", Feature::RoCompat(RoCompat::DIR_NLINK), WRITE_CHECK_MAKE),
    ("extra_isize", Feature::RoCompat(RoCompat::EXTRA_ISIZE), WRITE_CHECK_MAKE),
    ("snapshot", Feature::RoCompat(RoCompat::HAS_SNAPSHOT), NONE),
    ("quota", Feature::RoCompat(RoCompat::QUOTA), CHECK),
    ("bigalloc", Feature::RoCompat(RoCompat::BIGALLOC), WRITE_CHECK_MAKE),
    ("metadata_csum", Feature::RoCompat(RoCompat::METADATA_CSUM), WRITE_CHECK_MAKE),
    ("replica", Feature::RoCompat(RoCompat::REPLICA), NONE),
    ("read-only", Feature::RoCompat(RoCompat::READONLY), CHECK),
    ("project", Feature::RoCompat(RoCompat::PROJECT), WRITE_CHECK_MAKE),
    ("shared_blocks", Feature::RoCompat(RoCompat::SHARED_BLOCKS), CHECK),
    ("verity", Feature::RoCompat(RoCompat::VERITY), WRITE_CHECK_MAKE),
    ("orphan_present", Feature::RoCompat(RoCompat::ORPHAN_PRESENT), WRITE_CHECK),
];

/// A set of all three words.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FeatureSet {
    /// `s_feature_compat`.
    pub compat: Compat,
    /// `s_feature_incompat`.
    pub incompat: Incompat,
    /// `s_feature_ro_compat`.
    pub ro_compat: RoCompat,
}

impl FeatureSet {
    /// Switches a feature.
    pub fn set(&mut self, feature: Feature, on: bool) {
        match feature {
            Feature::Compat(bit) => self.compat.set(bit, on),
            Feature::Incompat(bit) => self.incompat.set(bit, on),
            Feature::RoCompat(bit) => self.ro_compat.set(bit, on),
        }
    }

    /// Applies a list such as `^64bit,bigalloc`; `none` clears all.
    pub fn apply(&mut self, list: &str) -> Result<()> {
        for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
            let (name, on) = match word.strip_prefix(['^', '-']) {
                Some(name) => (name, false),
                None => (word.strip_prefix('+').unwrap_or(word), true),
            };
            if name == "none" {
                *self = Self::default();
                continue;
            }
            let feature = FEATURES.iter().find(|(known, ..)| *known == name).ok_or_else(|| {
                Error::new(Kind::InvalidInput, format!("There is no ext feature '{name}'"))
            })?;
            self.set(feature.1, on);
        }
        Ok(())
    }

    /// The names, in `dumpe2fs`'s manner: `FEATURE_I31` for unknown bits.
    pub fn names(&self) -> Vec<String> {
        let words = [self.compat.bits(), self.incompat.bits(), self.ro_compat.bits()];
        let mut names = Vec::new();
        for (word, letter) in words.into_iter().zip(['C', 'I', 'R']) {
            for bit in (0..32).filter(|bit| word & (1 << bit) != 0) {
                let known = FEATURES.iter().find(|(_, feature, _)| match (feature, letter) {
                    (Feature::Compat(f), 'C') => f.bits() == 1 << bit,
                    (Feature::Incompat(f), 'I') => f.bits() == 1 << bit,
                    (Feature::RoCompat(f), 'R') => f.bits() == 1 << bit,
                    _ => false,
                });
                names.push(match known {
                    Some((name, ..)) => (*name).to_owned(),
                    None => format!("FEATURE_{letter}{bit}"),
                });
            }
        }
        names
    }

    /// Those of its features with which we do not do `uses`.
    fn outside(&self, uses: Uses) -> Self {
        let mut rest = *self;
        for (_, feature, known) in FEATURES {
            if known.contains(uses) {
                rest.set(*feature, false);
            }
        }
        rest
    }

    /// Refuses, by name, what cannot be read.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if self.incompat.contains(Incompat::JOURNAL_DEV) {
            return Err(Error::new(Kind::Unsupported, "This is the journal of another filesystem"));
        }
        Self { incompat: self.incompat, ..Self::default() }.outside(Uses::READ).refuse(|name| {
            format!("The filesystem has the feature '{name}', which is not supported")
        })
    }

    /// Refuses, by name, what a repair would not understand.
    pub(crate) fn check_repairable(&self) -> Result<()> {
        Self { incompat: Incompat::empty(), ..*self }
            .outside(Uses::CHECK)
            .refuse(|name| {
                format!("The filesystem has the feature '{name}', which a check does not know")
            })
            .map_err(|error| {
                error.with_hint(
                    "If a damaged superblock only claims it, clear the bit and check again",
                )
            })
    }

    /// Refuses, by name, what cannot be written.
    pub(crate) fn check_writable(&self) -> Result<()> {
        Self { ro_compat: self.ro_compat, ..Self::default() }.outside(Uses::WRITE).refuse(|name| {
            format!("The filesystem has the feature '{name}', with which it can only be read")
        })
    }

    /// Refuses, by name, what cannot be made.
    pub(crate) fn check_makeable(&self) -> Result<()> {
        self.outside(Uses::MAKE)
            .refuse(|name| format!("Filesystems with the feature '{name}' cannot be made"))
    }

    /// Fails with what `say` says of the first feature, if there is one.
    fn refuse(&self, say: impl FnOnce(&str) -> String) -> Result<()> {
        match self.names().first() {
            None => Ok(()),
            Some(name) => Err(Error::new(Kind::Unsupported, say(name))),
        }
    }
}
