//! LUKS1 header.

use super::{Field, be};

/// The fields of a LUKS1 header at offset 0.
pub const FIELDS: &[Field] = &[
    be("magic", 0, 4),
    be("version", 6, 2),
    be("cipher-name", 8, 8),
    be("cipher-mode", 40, 8),
    be("hash-spec", 72, 8),
    be("payload-offset", 104, 4),
    be("key-bytes", 108, 4),
    be("mk-digest-iter", 164, 4),
    be("slot 0 active", 208, 4),
    be("slot 0 iterations", 212, 4),
    be("slot 0 key-material-offset", 248, 4),
    be("slot 0 stripes", 252, 4),
    be("slot 1 active", 256, 4),
    be("slot 1 key-material-offset", 296, 4),
    be("slot 7 active", 544, 4),
];
