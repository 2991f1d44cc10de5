//! From a disk to the tree of files on it.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_filesystems::Filesystem;
use disksmith_partitions::probe;

/// Opens the filesystem on a disk.
pub fn open_filesystem(
    disk: &Arc<dyn Disk>,
    shown: &str,
    read_only: bool,
) -> Result<Arc<dyn Filesystem>> {
    let attempt = || format!("Could not open the filesystem of '{shown}'");
    let Some(content) = probe(disk).with_context(attempt)? else {
        return Err(Error::new(Kind::NotFound, "no filesystem was recognised")
            .context(attempt())
            .with_hint("Partitions are named by number after a colon: disk.img:1."));
    };
    match content.kind {
        "ext2" | "ext3" | "ext4" => {
            let open = disksmith_filesystems::ext::Ext::open(disk.clone(), read_only);
            Ok(Arc::new(open.with_context(attempt)?))
        }
        "vfat" => {
            let open = disksmith_filesystems::fat::Fat::open(disk.clone(), read_only);
            Ok(Arc::new(open.with_context(attempt)?))
        }
        "exfat" => {
            let open = disksmith_filesystems::fat::exfat::Exfat::open(disk.clone(), read_only);
            Ok(Arc::new(open.with_context(attempt)?))
        }
        kind => Err(Error::new(
            Kind::Unsupported,
            format!("it holds {kind}, whose files cannot be read yet"),
        )
        .context(attempt())),
    }
}
