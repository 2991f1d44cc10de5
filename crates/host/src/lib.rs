//! This machine: files and block devices, holes, reflinks, locks as QEMU takes them, safe
//! replacement of files. The only crate with raw system calls.
//!
//! It knows nothing of formats: it gives [`Disk`](disksmith_disk::Disk)s and takes bytes.

mod copy;
mod device;
mod direct;
mod file;
mod frozen;
mod holder;
mod lock;
mod mounted;
mod new_file;

pub use copy::{copy_in_kernel, shares_blocks};
pub use file::{FileDisk, FileId, OpenOptions};
pub use frozen::{Frozen, keep_frozen};
pub use lock::{LockSet, Permission};
pub use mounted::{Mount, mounts, refuse_mounted, used_by_kernel, writes_so_far};
pub use new_file::{NewFile, publish};
