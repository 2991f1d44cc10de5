//! Free space, as `sfdisk --list-free` prints it.

use super::columns::{Column, right, table as columns};
use super::size::{long_size, short_size};
use crate::{Table, free_space};

/// The free regions of at least `least` sectors. Unlike sfdisk's they are not rounded: every
/// sector that a partition can have is there.
pub fn free(table: &Table, device: &str, least: u64) -> String {
    const COLUMNS: &[Column] =
        &[right("Start", 0), right("End", 0), right("Sectors", 0), right("Size", 0)];
    let unit = u64::from(table.sector_size);
    let regions: Vec<_> = free_space(table).into_iter().filter(|r| r.sectors >= least).collect();
    let sectors = regions.iter().fold(0u64, |sum, r| sum.saturating_add(r.sectors));
    let bytes = sectors.saturating_mul(unit);
    let mut text = format!(
        "Unpartitioned space {device}: {}, {bytes} bytes, {sectors} sectors\n",
        long_size(bytes)
    );
    if regions.is_empty() {
        return text;
    }
    let rows: Vec<Vec<String>> = regions
        .iter()
        .map(|r| {
            vec![
                r.start.to_string(),
                r.end().to_string(),
                r.sectors.to_string(),
                short_size(r.sectors.saturating_mul(unit)),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&columns(COLUMNS, &rows));
    text
}
