//! Image formats, one folder each, behind one interface.
//!
//! A format turns the bytes of its storage into a guest-visible [`Disk`](disksmith_disk::Disk).
//! It opens nothing by itself: storage, backing images and data files are handed to it by the
//! `open` crate, which decides what an image may refer to.
//!
//! Each folder has the same files: `layout.rs` (on-disk structures), `open.rs`, `map.rs`,
//! `read.rs`, `write.rs`, `allocate.rs`, `create.rs`, `check.rs`, `repair.rs` as far as the
//! format has them.

mod driver;
mod image;
pub mod luks;
mod options;
pub mod qcow2;
pub mod raw;

pub use driver::{
    Create, CreateRequest, Driver, Open, OpenMode, OpenRequest, driver, drivers, probe,
};
pub use image::{
    Backing, Bitmap, CheckFinding, CheckReport, Compression, Fact, Image, Preallocation, Repair,
    ResizeRequest, Snapshot,
};
pub use options::{OptionKind, OptionSpec, Options};
