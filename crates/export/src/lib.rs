//! Disks for other programs: FUSE files, kernel loop devices.
//!
//! A disk becomes a folder of files (`disk`, `p1`, `p2` …) without root; see [`DiskFolder`] and
//! [`mount`]. With root, a raw file becomes a loop device; see [`loops`].

mod folder;
pub mod loops;
mod session;

pub use folder::{DiskFile, DiskFolder};
pub use session::{MountOptions, Mounted, is_mounted, mount, unmount};
