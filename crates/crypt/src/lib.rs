//! AES-XTS and CBC, key derivation, LUKS, the old qcow AES.
//!
//! ```
//! use disksmith_crypt::luks::{self, CreateOptions, UnlockOptions};
//! use disksmith_disk::MemoryDisk;
//!
//! # fn main() -> disksmith_disk::Result<()> {
//! let disk = MemoryDisk::new(8 << 20);
//! let options = CreateOptions { iter_time_ms: 1, ..CreateOptions::default() };
//! luks::create(&options, b"secret")?.write(&disk, 0)?;
//!
//! let unlocked = luks::unlock(&disk, 0, b"secret", &UnlockOptions::default())?;
//! let mut sector = [0x5a; 512];
//! unlocked.cipher.encrypt(0, &mut sector);
//! disk.write_at(&sector, unlocked.header.payload_offset())?;
//! # use disksmith_disk::Disk;
//! # Ok(())
//! # }
//! ```
//!
//! * [`SectorCipher`] turns whole sectors of plain data into encrypted ones and back.
//! * [`luks`] reads, makes and changes LUKS1 headers, in a file of their own or inside a qcow2.
//! * [`luks2`] unlocks LUKS2 volumes.
//! * [`legacy_aes`] is the cipher of the first qcow and of qcow2 before LUKS.
//! * [`CryptDisk`] shows an encrypted range of one disk as a disk of plain bytes.
//!
//! This crate knows nothing of image formats or files.

mod antiforensic;
mod disk;
mod hash;
mod iv;
mod kdf;
mod legacy;
pub mod luks;
pub mod luks2;
mod modes;
mod secret;
mod sector;
mod spec;
mod twofish;

pub use disk::CryptDisk;
pub use hash::HashAlgorithm;
pub use kdf::{iterations_for, pbkdf2};
pub use legacy::legacy_aes;
pub use secret::Secret;
pub use sector::SectorCipher;
pub use spec::{Cipher, CipherSpec, IvGenerator, Mode};

/// Bytes in the sectors that the ciphers of image formats count in.
pub const SECTOR: u64 = 512;
