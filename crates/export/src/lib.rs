//! Disks and filesystems for other programs: FUSE files and mounts, kernel loop devices.
//!
//! A disk becomes a folder of files (`disk`, `p1`, `p2` …) without root; see [`DiskFolder`] and
//! [`mount`]. A filesystem becomes a mount; see [`TreeMount`]. With root, a raw file becomes a
//! loop device; see [`loops`].

pub mod background;
mod buffer;
mod convert;
mod folder;
pub mod loops;
mod privileges;
mod reply;
mod session;
mod tree;
mod workers;

pub use fuser::Filesystem as FuseFilesystem;

pub use folder::{DiskFile, DiskFolder};
pub use session::{
    FOLDER_KIND, MountEntry, MountOptions, Mounted, MountedDisks, Stopper, TREE_KIND, is_mounted,
    mount, mount_entry, mounts, server, unmount,
};
pub use tree::TreeMount;
