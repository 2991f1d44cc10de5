//! LUKS1: a header with a master key under up to eight passwords, in front of the data.
//!
//! A volume is a header of 592 bytes, eight areas of key material, and the payload. Each area
//! holds the master key, spread over 4000 stripes and encrypted with a key derived from one
//! password. The payload is encrypted sector by sector with the master key.
//!
//! The header may lie at the start of a file (format `luks`), in a file of its own (detached), or
//! in clusters of a qcow2; all functions take the disk and the byte `base` where it starts.
//!
//! ```
//! use disksmith_crypt::luks::{self, AddKeyOptions, CreateOptions, UnlockOptions};
//! use disksmith_disk::MemoryDisk;
//!
//! # fn main() -> disksmith_disk::Result<()> {
//! let options = CreateOptions { iter_time_ms: 1, ..CreateOptions::default() };
//! let disk = MemoryDisk::new(luks::header_length(&options)? + (1 << 20));
//! luks::create(&options, b"old")?.write(&disk, 0)?;
//!
//! let mut volume = luks::unlock(&disk, 0, b"old", &UnlockOptions::default())?;
//! let cheap = AddKeyOptions { iter_time_ms: 1, ..AddKeyOptions::default() };
//! assert_eq!(luks::add_key(&disk, 0, &mut volume, b"new", &cheap)?, 1);
//! luks::erase_slot(&disk, 0, &mut volume.header, 0, false)?;
//!
//! assert!(luks::unlock(&disk, 0, b"old", &UnlockOptions::default()).is_err());
//! assert_eq!(luks::unlock(&disk, 0, b"new", &UnlockOptions::default())?.slot, 1);
//! assert_eq!(volume.header.info().cipher_alg, "aes-256");
//! # Ok(())
//! # }
//! ```

mod create;
mod header;
mod info;
mod keyslots;
mod layout;
mod unlock;

#[cfg(test)]
mod tests;

pub use create::{CreateOptions, Created, DEFAULT_ITER_TIME_MS, create, header_length};
pub use header::Header;
pub use info::{Info, SlotInfo};
pub use keyslots::{AddKeyOptions, add_key, erase_matching, erase_slot};
pub use unlock::{DEFAULT_MAX_ITERATIONS, UnlockOptions, Unlocked, unlock};
