//! The master boot record: four entries in sector 0, one of which may be an extended partition
//! that holds a chain of extended boot records (EBR), each with one logical partition.
//!
//! ```text
//! sector 0        440 boot code | 4 disk id | 2 | 4 × 16 entries | 55 AA
//! extended start  EBR: entry 1 = a logical partition, from this EBR on
//!                      entry 2 = the next EBR, from the start of the extended partition on
//! ```
//!
//! There is no standard; what Linux, Windows and the partition tools agree on is done here.

pub mod layout;
pub(crate) mod read;
pub(crate) mod write;

/// The chain of extended boot records is followed this far (Linux stops after 100 partitions).
pub const MAX_LOGICAL: usize = 256;
