//! From what a user named to a stack of open layers: names and option trees, probing, backing
//! chains, and the gates for what an image may refer to.
//!
//! This is the only crate that opens files on an image's behalf.

mod address;
mod chain;
mod extents;
mod faults;
mod filesystem;
mod name;
mod options;
mod part;
mod probe;
mod quorum;
mod secrets;
mod settings;
mod spec;
mod storage;
mod tree;

pub use address::Address;
pub use chain::{Node, open, open_file, open_plainly};
pub use extents::{
    ChainExtent, chain_extents, chain_extents_like_qemu, chain_map, chain_map_above,
};
pub use filesystem::open_filesystem;
pub use name::{Name, resolve};
pub use options::parse_options;
pub use part::{OpenedDisk, disk_node, open_disk, part_of, sibling};
pub use probe::{ProbeResult, probe_file};
pub use secrets::Secrets;
pub use settings::{Cache, Locking, Settings, Trust};
pub use spec::{BackingSpec, FileSpec, ImageSpec, StorageSpec};

/// Longest backing chain that is followed.
pub const MAX_CHAIN: usize = 64;
/// Longest file name taken from an image, in bytes.
pub const MAX_NAME: usize = 4096;
