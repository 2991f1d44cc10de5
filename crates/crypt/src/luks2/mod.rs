//! LUKS2: unlocking volumes, and reading and writing their payload.
//!
//! A LUKS2 header is two equal copies of a binary header with metadata in JSON behind it, then an
//! area of key material. Headers are read, never changed: no key is added or erased.
//!
//! ```no_run
//! use disksmith_crypt::luks2;
//! use disksmith_disk::Disk;
//!
//! # fn example(disk: std::sync::Arc<dyn Disk>) -> disksmith_disk::Result<()> {
//! let volume = luks2::unlock(&disk, 0, b"secret", &luks2::UnlockOptions::default())?;
//! let plain = volume.open(disk)?;
//! let mut start = [0; 4096];
//! plain.read_at(&mut start, 0)?;
//! # Ok(())
//! # }
//! ```
//!
//! Not supported, each with its own message: volumes in the middle of re-encryption, several
//! segments, integrity protection, hardware encryption (OPAL), ciphers unknown to
//! [`CipherSpec`](crate::CipherSpec). Tokens are ignored.

mod header;
mod layout;
mod metadata;
mod segment;
mod unlock;

pub use header::{Copies, Header, Info};
pub use unlock::{DEFAULT_MAX_MEMORY_KIB, UnlockOptions, Unlocked, unlock};
