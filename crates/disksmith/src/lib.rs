//! Inspect, make, convert, partition, format, fill, mount and repair virtual disks.
//!
//! This crate is the face of the library: it re-exports the layers below, each of which has
//! its own documentation, and holds the program `disksmith` with its `qemu-img` personality.
//!
//! ```
//! use disksmith::disk::Disk;
//! use disksmith::formats::{CreateRequest, OpenMode};
//! use disksmith::open::{ImageSpec, Settings};
//!
//! # fn main() -> disksmith::disk::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("disksmith-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let path = folder.join("disk.raw");
//! let file = disksmith::host::NewFile::create(&path, Default::default())?;
//! let raw = disksmith::formats::driver("raw").and_then(|d| d.create).unwrap();
//! let storage: std::sync::Arc<dyn Disk> = file.disk().clone();
//! raw(&storage, &CreateRequest { size: 1 << 20, ..Default::default() })?;
//! file.publish()?;
//!
//! let spec = ImageSpec::from_path(&path, "disk.raw", None);
//! let node = disksmith::open::open(&spec, &Settings::new(OpenMode::Read))?;
//! assert_eq!((node.image.format(), node.image.size()), ("raw", 1 << 20));
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! ```

pub use disksmith_crypt as crypt;
pub use disksmith_disk as disk;
pub use disksmith_export as export;
pub use disksmith_filesystems as filesystems;
pub use disksmith_formats as formats;
pub use disksmith_host as host;
pub use disksmith_open as open;
pub use disksmith_operations as operations;
pub use disksmith_partitions as partitions;

mod commands;
mod content;
mod face;
mod files;
mod guest;
mod making;
mod measuring;
mod native;
mod numbers;
mod progress;
mod qemu_img;
mod render;
mod signals;
mod stream;
mod tour;

pub mod program;
