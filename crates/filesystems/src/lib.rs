//! Filesystems without a kernel: one interface, and behind it `ext` (ext2, ext3, ext4) and `fat`
//! (FAT12, FAT16, FAT32, exFAT). Swap areas hold no files, but are made alike.
//!
//! A [`Filesystem`] turns a [`Disk`](disksmith_disk::Disk) into a tree of files. It is addressed by
//! inode numbers and byte-string names, takes `&self` everywhere and is safe to share between
//! threads: fit to stand behind FUSE, a copy command or a reader in a test alike.
//!
//! This crate knows nothing of image formats, partitions or host paths (but for [`source`], which
//! reads a host folder to fill a new filesystem with).

pub mod acl;
pub mod ext;
pub mod fat;
mod interface;
mod raw;
pub mod source;
pub mod swap;
mod usage;
mod watched;

use std::sync::Arc;

use disksmith_disk::{Disk, Result};

/// Opens the filesystem on `disk`, whichever it is.
pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Arc<dyn Filesystem>> {
    if let Ok(fat) = fat::Fat::open(disk.clone(), read_only) {
        return Ok(Arc::new(fat));
    }
    match fat::exfat::Exfat::open(disk.clone(), read_only) {
        Ok(exfat) => Ok(Arc::new(exfat)),
        Err(error) if error.kind() != disksmith_disk::Kind::NotFound => Err(error),
        Err(_) => Ok(Arc::new(ext::Ext::open(disk, read_only)?)),
    }
}

pub use interface::{
    Attributes, Changes, Device, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek,
    Statistics, Time, errno, errors, resolve,
};
pub use usage::used_ranges;
