//! The heart: the disk interface, extents, slices, memory disks, errors, sizes and units.
//!
//! Everything in Disksmith is a stack of layers, and below the files every layer is the same
//! thing: a [`Disk`], a fixed-size array of bytes read and written by position. A host file is
//! a disk, an image on it is a disk, one partition of that image is a disk.
//!
//! This crate knows nothing of files, formats or filesystems.

mod buffer;
pub mod bytes;
mod disk;
mod error;
mod extent;
mod flush;
mod memory;
pub mod names;
mod size;
mod slice;
mod zero;

pub use buffer::PageBuffer;
pub use disk::{Disk, Geometry, ZeroMode};
pub use error::{Context, Error, Kind, Result};
pub use extent::{Extent, State};
pub use flush::FailedFlush;
pub use memory::MemoryDisk;
pub use size::{human_size, parse_size};
pub use slice::Slice;
pub use zero::{first_difference, is_zero, zero_prefix};
