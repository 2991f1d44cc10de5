//! The kinds of image that are cut.

use crate::workload::Op;

/// One kind of qcow2.
pub(crate) struct Kind {
    /// For messages and replay.
    pub(crate) name: &'static str,
    /// Creation options.
    pub(crate) options: &'static [(&'static str, &'static str)],
    /// Bytes per cluster.
    pub(crate) cluster: u64,
    /// Has an external data file.
    pub(crate) data_file: bool,
    /// That file alone is the disk, too.
    pub(crate) raw: bool,
    /// Version 2: no dirty bit, no zero flag.
    pub(crate) v2: bool,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "64k", options: &[], cluster: 65536, data_file: false, raw: false, v2: false },
    Kind {
        name: "4k",
        options: &[("cluster_size", "4k")],
        cluster: 4096,
        data_file: false,
        raw: false,
        v2: false,
    },
    Kind {
        name: "512",
        options: &[("cluster_size", "512")],
        cluster: 512,
        data_file: false,
        raw: false,
        v2: false,
    },
    Kind {
        name: "extended",
        options: &[("cluster_size", "16k"), ("extended_l2", "on")],
        cluster: 16384,
        data_file: false,
        raw: false,
        v2: false,
    },
    Kind {
        name: "lazy",
        options: &[("cluster_size", "4k"), ("lazy_refcounts", "on")],
        cluster: 4096,
        data_file: false,
        raw: false,
        v2: false,
    },
    Kind {
        name: "v2",
        options: &[("cluster_size", "4k"), ("compat", "0.10")],
        cluster: 4096,
        data_file: false,
        raw: false,
        v2: true,
    },
    Kind {
        name: "data-file",
        options: &[("cluster_size", "4k")],
        cluster: 4096,
        data_file: true,
        raw: false,
        v2: false,
    },
    Kind {
        name: "data-file-raw",
        options: &[("cluster_size", "4k"), ("data_file_raw", "on")],
        cluster: 4096,
        data_file: true,
        raw: true,
        v2: false,
    },
    Kind {
        name: "lazy-extended",
        options: &[("cluster_size", "16k"), ("extended_l2", "on"), ("lazy_refcounts", "on")],
        cluster: 16384,
        data_file: false,
        raw: false,
        v2: false,
    },
    Kind {
        name: "wide-counts",
        options: &[("cluster_size", "512"), ("refcount_bits", "64")],
        cluster: 512,
        data_file: false,
        raw: false,
        v2: false,
    },
];

impl Kind {
    /// Guest clusters of the image: enough for neighbours, few enough to read at each state.
    pub(crate) const CLUSTERS: u64 = 12;

    pub(crate) fn size(&self) -> u64 {
        self.cluster * Self::CLUSTERS
    }

    /// An external data file excludes compression and snapshots; version 2 with snapshots
    /// cannot be resized.
    pub(crate) fn allows(&self, op: Op) -> bool {
        match op {
            Op::Compressed | Op::SnapshotCreate | Op::SnapshotApply | Op::SnapshotDelete => {
                !self.data_file
            }
            Op::Grow | Op::Shrink => !self.v2,
            _ => true,
        }
    }
}
