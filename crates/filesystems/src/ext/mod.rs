//! ext2, ext3 and ext4.
//!
//! The disk is an array of blocks, in groups. Each group has a bitmap of its blocks, a bitmap of
//! its inodes and a table of inodes; the superblock (byte 1024) and the table of group descriptors
//! tell where. An inode maps a file's blocks by pointers ([`indirect`]) or by a tree of extents
//! ([`extents`]). Directories are files of entries ([`dirent`]), large ones with an index over name
//! hashes ([`htree`]). Changes go through a transaction ([`core`]), written to the journal
//! ([`journal`]) where there is one.
//!
//! Reference: the kernel's "ext4 data structures and algorithms" document, whose field names
//! `layout` uses.

mod allocate;
mod attributes;
mod bitmap;
mod cache;
mod check;
mod checksum;
mod content;
mod core;
mod cut;
mod directory;
mod dirent;
mod extents;
mod features;
mod filesystem;
mod groups;
mod handle;
mod hash;
mod htree;
mod indirect;
mod inodes;
mod journal;
mod layout;
mod mapping;
mod mkfs;
mod namespace;
mod open;
mod order;
mod orphan;
mod resize;
mod shape;
mod transaction;
mod tune;
mod usage;
mod xattr;

pub use cache::limit_cache;
pub use check::{CheckReport, Repair, RepairReport, check, repair};
pub use features::{Compat, Feature, FeatureSet, Incompat, RoCompat};
pub use handle::Ext;
pub use mkfs::{
    Filled, MakeOptions, Need, Profile, make, make_and_open, make_from, measure, room_in, size_for,
};
pub use resize::{NewSize, Resized, minimum_size, resize};
pub use tune::{OnError, Tune, tune};
pub use usage::Place;
