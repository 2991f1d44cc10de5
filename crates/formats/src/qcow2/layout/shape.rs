//! What follows from cluster size, entry width and refcount width (digest section 1).

/// The arithmetic of one image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shape {
    /// log2 of the cluster size: 9 to 21.
    pub cluster_bits: u32,
    /// log2 of the refcount width in bits: 0 to 6.
    pub refcount_order: u32,
    /// L2 entries are 16 bytes and describe 32 subclusters each.
    pub extended: bool,
    /// 2 or 3.
    pub version: u32,
}

impl Shape {
    /// Bytes per cluster.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes per L2 entry: 8, or 16 with extended L2.
    pub fn entry_size(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// log2 of the entries of one L2 table.
    pub fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended { 4 } else { 3 }
    }

    /// Entries of one L2 table.
    pub fn l2_entries(&self) -> u64 {
        1 << self.l2_bits()
    }

    /// log2 of the guest bytes that one L2 table covers.
    pub fn l1_shift(&self) -> u32 {
        self.cluster_bits + self.l2_bits()
    }

    /// Guest bytes that one L2 table covers.
    pub fn l2_coverage(&self) -> u64 {
        1 << self.l1_shift()
    }

    /// L1 entries that `size` guest bytes need.
    pub fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(self.l2_coverage())
    }

    /// The smallest piece that can be allocated or zeroed: a subcluster, or a cluster.
    pub fn unit_size(&self) -> u64 {
        if self.extended { self.cluster_size() / 32 } else { self.cluster_size() }
    }

    /// Units per cluster: 32 or 1.
    pub fn units(&self) -> u32 {
        if self.extended { 32 } else { 1 }
    }

    /// Bits per refcount.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.refcount_order
    }

    /// The largest refcount that fits.
    pub fn refcount_max(&self) -> u64 {
        u64::MAX >> (64 - self.refcount_bits())
    }

    /// log2 of the refcounts of one refcount block.
    pub fn block_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }

    /// Refcounts per refcount block: the clusters it describes.
    pub fn block_entries(&self) -> u64 {
        1 << self.block_bits()
    }

    /// The number of the cluster that holds byte `offset`.
    pub fn cluster(&self, offset: u64) -> u64 {
        offset >> self.cluster_bits
    }

    /// The place of `offset` within its cluster.
    pub fn within(&self, offset: u64) -> u64 {
        offset & (self.cluster_size() - 1)
    }

    /// `offset` is a multiple of the cluster size.
    pub fn aligned(&self, offset: u64) -> bool {
        self.within(offset) == 0
    }

    /// The start of the cluster that holds byte `offset`.
    pub fn start(&self, offset: u64) -> u64 {
        offset & !(self.cluster_size() - 1)
    }

    /// How many clusters hold `bytes`.
    pub fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }

    /// The L1 index for a guest offset.
    pub fn l1_index(&self, offset: u64) -> u64 {
        offset >> self.l1_shift()
    }

    /// The L2 index for a guest offset.
    pub fn l2_index(&self, offset: u64) -> u64 {
        (offset >> self.cluster_bits) & (self.l2_entries() - 1)
    }

    /// log2 of the sectors-beyond-the-first field's place in a compressed entry.
    pub fn compressed_shift(&self) -> u32 {
        62 - (self.cluster_bits - 8)
    }
}
