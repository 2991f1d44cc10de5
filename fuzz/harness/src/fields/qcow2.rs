//! qcow2: header, extensions of a fresh image, tables at the places where creation puts them
//! (4 KiB clusters: refcount table 0x1000, refcount block 0x2000, L1 0x3000, first L2 0x4000).

use super::{Field, be};

/// The fields of the seeds of the qcow2 targets.
pub const FIELDS: &[Field] = &[
    be("magic", 0, 4),
    be("version", 4, 4),
    be("backing_file_offset", 8, 8),
    be("backing_file_size", 16, 4),
    be("cluster_bits", 20, 4),
    be("size", 24, 8),
    be("crypt_method", 32, 4),
    be("l1_size", 36, 4),
    be("l1_table_offset", 40, 8),
    be("refcount_table_offset", 48, 8),
    be("refcount_table_clusters", 56, 4),
    be("nb_snapshots", 60, 4),
    be("snapshots_offset", 64, 8),
    be("incompatible_features", 72, 8),
    be("compatible_features", 80, 8),
    be("autoclear_features", 88, 8),
    be("refcount_order", 96, 4),
    be("header_length", 100, 4),
    be("compression_type", 104, 1),
    be("extension type", 112, 4),
    be("extension length", 116, 4),
    be("refcount table entry 0", 0x1000, 8),
    be("refcount table entry 1", 0x1008, 8),
    be("refcount 0", 0x2000, 2),
    be("refcount 3", 0x2006, 2),
    be("refcount 5", 0x200a, 2),
    be("refcount 8", 0x2010, 2),
    be("L1 entry 0", 0x3000, 8),
    be("L1 entry 1", 0x3008, 8),
    be("L2 entry 0", 0x4000, 8),
    be("L2 entry 1", 0x4008, 8),
    be("L2 entry 2", 0x4010, 8),
    be("L2 entry 9", 0x4048, 8),
];
