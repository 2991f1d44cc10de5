//! Where the metadata of an image lies: the one list that all guards against overwriting use.

use super::layout::{BitmapsExtension, Header, L1Entry, SnapshotEntry};
use super::open::L1_MOST;

/// A kind of metadata.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum What {
    Header,
    ActiveL1,
    RefcountTable,
    BitmapDirectory,
    ActiveL2,
    RefcountBlock,
    InactiveL1,
    SnapshotTable,
}

impl What {
    /// As qemu-img calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "qcow2_header",
            Self::ActiveL1 => "active L1 table",
            Self::RefcountTable => "refcount table",
            Self::BitmapDirectory => "bitmap directory",
            Self::ActiveL2 => "active L2 table",
            Self::RefcountBlock => "refcount block",
            Self::InactiveL1 => "inactive L1 table",
            Self::SnapshotTable => "snapshot table",
        }
    }
}

/// A piece of metadata, in bytes of the storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub what: What,
    pub offset: u64,
    pub length: u64,
}

impl Place {
    /// Whether it shares a byte with `length` bytes at `offset`.
    pub(super) fn meets(&self, offset: u64, length: u64) -> bool {
        offset < self.offset.saturating_add(self.length)
            && self.offset < offset.saturating_add(length)
    }
}

/// What names the metadata of an image; tables that are not known are left empty.
pub(super) struct Places<'a> {
    pub header: &'a Header,
    pub bitmaps: Option<BitmapsExtension>,
    /// The active L1 table.
    pub l1: &'a [u64],
    /// The refcount table.
    pub table: &'a [u64],
    pub snapshots: &'a [SnapshotEntry],
    /// Bytes of the snapshot table.
    pub snapshots_length: u64,
}

impl Places<'_> {
    /// Everything, the few large tables first.
    pub(super) fn all(&self) -> impl Iterator<Item = Place> {
        let header = self.header;
        let cluster = 1u64 << header.cluster_bits;
        let table_bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        let directory = self.bitmaps.map_or((0, 0), |b| (b.directory_offset, b.directory_size));
        let place = |what, offset, length| Place { what, offset, length };
        let fixed = [
            place(What::Header, 0, cluster),
            place(What::ActiveL1, header.l1_table_offset, u64::from(header.l1_size) * 8),
            place(What::RefcountTable, header.refcount_table_offset, table_bytes),
            place(What::BitmapDirectory, directory.0, directory.1),
        ];
        let l2 = self.l1.iter().map(|entry| L1Entry(*entry).offset());
        let l2 = l2.map(move |offset| place(What::ActiveL2, offset, cluster));
        let blocks = self.table.iter().map(|entry| entry & !0x1ff);
        let blocks = blocks.map(move |offset| place(What::RefcountBlock, offset, cluster));
        let inactive = self.snapshots.iter().map(move |snapshot| {
            let length = u64::from(snapshot.l1_size) * 8;
            place(What::InactiveL1, snapshot.l1_table_offset, length)
        });
        let inactive = inactive.filter(|place| place.length <= L1_MOST);
        let table = place(What::SnapshotTable, header.snapshots_offset, self.snapshots_length);
        let tables = l2.chain(blocks).filter(|place| place.offset != 0);
        fixed
            .into_iter()
            .chain(tables)
            .chain(inactive)
            .chain([table])
            .filter(|place| place.length != 0)
    }
}
