//! How large an image becomes. The numbers are qemu-img's, to the byte.

use disksmith_crypt::luks;
use disksmith_disk::{Error, Kind, Result};

use super::create::{LUKS, Plan, luks_options};
use super::layout::Shape;
use super::open::L1_MOST;
use crate::{Bitmap, Options, Preallocation};

/// What an image with given options will take, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measured {
    /// With the data that was counted.
    pub required: u64,
    /// With all guest bytes stored.
    pub fully_allocated: u64,
}

/// Counts data towards the size of a new image.
#[derive(Clone, Debug)]
pub struct Measure {
    shape: Shape,
    size: u64,
    all: bool,
    extra: u64,
    /// Bytes of data, in whole clusters.
    data: u64,
    /// Guest bytes before this are counted or known to be empty.
    counted: u64,
}

impl Measure {
    /// For an image of `size` bytes made with the `create` options `options`, with or without
    /// a backing image: with one, all of it may come to be stored.
    pub fn new(size: u64, options: &Options, backing: bool) -> Result<Self> {
        let data_file = options.text("data_file").is_some();
        let plan = Plan::new(options, backing, data_file)?;
        let shape = plan.shape;
        let too_large = || {
            Error::new(
                Kind::LimitExceeded,
                "The image size is too large (try using a larger cluster size)",
            )
        };
        let size = size.checked_next_multiple_of(shape.cluster_size()).ok_or_else(too_large)?;
        if shape.l1_entries(size).saturating_mul(8) > L1_MOST {
            return Err(too_large());
        }
        let extra = match plan.crypt_method {
            LUKS => {
                luks::header_length(&luks_options(options)?)?.next_multiple_of(shape.cluster_size())
            }
            _ => 0,
        };
        let reserved = matches!(plan.preallocation, Preallocation::Falloc | Preallocation::Full);
        Ok(Self { shape, size, all: backing || reserved, extra, data: 0, counted: 0 })
    }

    /// Bytes per cluster of the new image.
    pub fn cluster_size(&self) -> u64 {
        self.shape.cluster_size()
    }

    /// Whether all guest bytes count as stored, whatever is told.
    pub fn stores_all(&self) -> bool {
        self.all
    }

    /// Counts a run of data. Runs come in ascending order.
    pub fn add_data(&mut self, offset: u64, length: u64) {
        let cluster_size = self.shape.cluster_size();
        let end = offset.saturating_add(length).min(self.size).next_multiple_of(cluster_size);
        let start = self.shape.start(offset.max(self.counted));
        if start < end {
            self.data += end - start;
            self.counted = end;
        }
    }

    /// The result.
    pub fn finish(&self) -> Measured {
        let fully_allocated = full_size(&self.shape, self.size) + self.extra;
        let data = if self.all { self.size } else { self.data };
        Measured { required: fully_allocated - self.size + data, fully_allocated }
    }
}

/// What `bitmaps` of an image of `size` bytes take in an image with clusters of
/// `cluster_size` bytes.
pub fn bitmaps_size(bitmaps: &[Bitmap], size: u64, cluster_size: u64) -> u64 {
    const DIRECTORY_ENTRY: u64 = 24;
    let mut total = 0;
    let mut directory = 0;
    for bitmap in bitmaps.iter().filter(|bitmap| !bitmap.in_use) {
        let bytes = size.div_ceil(bitmap.granularity.max(1)).div_ceil(8);
        let clusters = bytes.div_ceil(cluster_size);
        total += clusters * cluster_size + (clusters * 8).next_multiple_of(cluster_size);
        directory += (DIRECTORY_ENTRY + bitmap.name.len() as u64).next_multiple_of(8);
    }
    total + directory.next_multiple_of(cluster_size)
}

/// An image with all of `size` (whole clusters) stored.
fn full_size(shape: &Shape, size: u64) -> u64 {
    let cluster_size = shape.cluster_size();
    let l2_clusters = shape.clusters(size).div_ceil(shape.l2_entries());
    let l1_clusters = shape.clusters(l2_clusters * 8);
    let clusters = 1 + l2_clusters + l1_clusters + shape.clusters(size);
    (clusters + refcount_clusters(shape, clusters)) * cluster_size
}

/// Clusters of refcount blocks and table for `clusters` others.
fn refcount_clusters(shape: &Shape, clusters: u64) -> u64 {
    let (mut blocks, mut table) = (0, 0);
    loop {
        let more_blocks = (clusters + blocks + table).div_ceil(shape.block_entries());
        let more_table = shape.clusters(more_blocks * 8);
        if (more_blocks, more_table) == (blocks, table) {
            return blocks + table;
        }
        (blocks, table) = (more_blocks, more_table);
    }
}
