//! A partition less.

use disksmith_disk::Result;

use crate::{Partition, Role, Table};

/// Takes partition `number` out of the table. With the extended partition go the logical ones.
/// Logical partitions behind a logical one move up by one number, as Linux counts them.
pub fn remove(table: &Table, number: u32) -> Result<Table> {
    let gone = table.require(number)?.clone();
    let mut new = table.clone();
    new.partitions.retain(|p| p.number != number);
    match gone.role {
        Role::Extended => new.partitions.retain(|p| !p.is_logical()),
        Role::Logical { record } => {
            renumber(&mut new.partitions);
            inherit_first_record(&mut new, record);
        }
        Role::Primary => {}
    }
    Ok(new)
}

fn renumber(partitions: &mut [Partition]) {
    for (number, p) in (5u32..).zip(partitions.iter_mut().filter(|p| p.is_logical())) {
        p.number = number;
    }
}

/// The chain begins at the start of the extended partition. The partition that is now the first
/// takes that record over; one that lists nothing and links on makes other tools complain.
fn inherit_first_record(table: &mut Table, freed: u64) {
    let begins = table.extended().map(|p| p.start) == Some(freed);
    if let Some(first) = table.partitions.iter_mut().find(|p| p.is_logical()).filter(|_| begins) {
        first.role = Role::Logical { record: freed };
    }
}
