//! Network block devices: what an NBD server exports, as a disk.
//!
//! [`wire`] has the protocol's numbers and the layout of its messages, without any I/O;
//! [`Client`] speaks it over a socket, one request at a time; [`NbdDisk`] is an export as a
//! [`Disk`](disksmith_disk::Disk). [`Address`] reads the names that QEMU gives to exports.
//!
//! Spoken: fixed newstyle, structured replies, block status with any one context besides
//! `base:allocation`. Not spoken: oldstyle servers, TLS, extended headers.

mod address;
mod client;
mod disk;
pub mod wire;

pub use address::{Address, Endpoint};
pub use client::{Client, Export};
pub use disk::NbdDisk;
