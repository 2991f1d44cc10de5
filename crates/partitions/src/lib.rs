//! Partition tables: MBR with logical partitions, and GPT.
//!
//! ```
//! use disksmith_disk::MemoryDisk;
//! use disksmith_partitions::{AddRequest, Label, Plan, add, init, read};
//!
//! let disk = MemoryDisk::new(1 << 30);
//! let old = read(&disk)?;
//! let new = init(&old, Label::Gpt)?;
//! let (new, number) = add(&new, &AddRequest::default())?;
//! let plan = Plan::new(&disk, &old, &new)?;
//! plan.apply(&disk, false)?;
//! assert_eq!(read(&disk)?.partition(number).unwrap().start, 2048);
//! # Ok::<(), disksmith_disk::Error>(())
//! ```
//!
//! Three stages, so that every edit can be shown before it is done:
//! 1. [`read`] turns the bytes of a disk into a [`Table`], leniently: whatever is odd is in
//!    [`Table::oddities`], each with a name.
//! 2. [`init`], [`add`], [`remove`], [`resize`], [`set`], [`convert`] … turn a table into another
//!    table, without touching the disk.
//! 3. [`Plan::new`] finds the bytes to write, in an order that survives a crash at any write, and
//!    the recognised content that would be lost; [`Plan::apply`] does it.
//!
//! [`probe()`] tells what a partition or a disk holds. The crate knows nothing of files or image
//! formats: a disk is anything that implements [`disksmith_disk::Disk`].
//!
//! Positions and lengths are in sectors of [`Table::sector_size`] unless a name says bytes.

mod align;
mod edit;
mod geometry;
pub mod gpt;
mod guid;
pub mod mbr;
mod oddity;
mod plan;
pub mod probe;
mod read;
pub mod render;
mod script;
mod space;
mod table;
pub mod types;
mod verify;

pub use align::Align;
pub use edit::add::{AddRequest, Length, add};
pub use edit::convert::convert;
pub use edit::init::{init, init_with_id};
pub use edit::minimise::{minimise, room_from, shorten};
pub use edit::moving::{PendingMove, move_partition, pending_move, resume_move};
pub use edit::remove::remove;
pub use edit::repair::{Repair, Source, repair};
pub use edit::resize::resize;
pub use edit::set::{Change, set};
pub use geometry::{Chs, Geometry};
pub use guid::Guid;
pub use oddity::{Oddity, OddityKind, Severity};
pub use plan::{Loss, MoveStep, Plan, Progress, Step};
pub use probe::{Content, probe};
pub use read::{read, read_with_sector_size};
pub use script::{
    Amount, Dump, DumpPartition, attributes_text, dump_json, dump_script, parse_attributes,
    parse_dump, restore,
};
pub use space::{Region, free_space};
pub use table::{DiskId, Label, Partition, PartitionType, Role, Table, find};
pub use verify::verify;
