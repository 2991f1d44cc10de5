//! Fuzz targets, one per parser and for sequences of operations.
//!
//! Each takes bytes and must come back: no panic, within the step and memory budgets of
//! [`budget`]. The same targets run under cargo-fuzz (`fuzz/fuzz_targets`) and, on the stable
//! toolchain, under the seeded mutator of [`mutate`] (`tests/mutants.rs`). A format joins by
//! adding its targets to [`TARGETS`] and its field list to [`fields`].

pub mod budget;
pub mod fields;
pub mod mutate;
mod targets;

pub use fields::Field;

/// One entry point for hostile bytes.
pub struct Target {
    /// As cargo-fuzz calls it.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Where the fields of those inputs lie, for the structure-aware mutator.
    pub fields: &'static [Field],
    /// Makes the checksums of a mutant right again; the mutator does so for every other one.
    pub fix: Option<fn(&mut [u8])>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    targets::text::SIZES,
    targets::text::OPTIONS,
    targets::text::NAMES,
    targets::text::ADDRESSES,
    targets::text::TAR,
    targets::tables::MBR,
    targets::tables::GPT,
    targets::tables::MBR_EDIT,
    targets::tables::GPT_EDIT,
    targets::tables::SCRIPT,
    targets::tables::PROBE,
    targets::ext::WALK,
    targets::ext::CHECK,
    targets::ext::JOURNAL,
    targets::ext::CHANGE,
    targets::ext::RESIZE,
    targets::codec::INFLATE,
    targets::codec::ZSTD,
    targets::luks::HEADER,
    targets::exfat::READ,
    targets::exfat::CHANGE,
    targets::exfat::REPAIR,
    targets::fat::READ,
    targets::fat::CHANGE,
    targets::fat::REPAIR,
    targets::qcow2::INSPECT,
    targets::qcow2::READ,
    targets::qcow2::CHECK,
    targets::qcow2::REPAIR,
    targets::qcow2::SNAPSHOTS,
    targets::qcow2::BITMAPS,
    targets::qcow2::OPERATIONS,
];

/// Runs the target of that name.
///
/// # Panics
/// When there is none, or when the target finds a fault.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|t| t.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(data);
}
