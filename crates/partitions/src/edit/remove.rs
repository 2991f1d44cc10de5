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
        Role::Logical { .. } => renumber(&mut new.partitions),
        Role::Primary => {}
    }
    Ok(new)
}

fn renumber(partitions: &mut [Partition]) {
    for (number, p) in (5u32..).zip(partitions.iter_mut().filter(|p| p.is_logical())) {
        p.number = number;
    }
}
