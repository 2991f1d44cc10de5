//! The up-case table (specification, section 7.2): what each UTF-16 unit is in upper case.

use crate::raw::le16;

/// A table has at most so many bytes.
pub(crate) const BYTES_MAX: u64 = 2 * 65_536;
const UNITS: usize = 1 << 16;

/// A table, unpacked.
#[derive(Debug, Default)]
pub(crate) struct Upcase {
    table: Vec<u16>,
}

impl Upcase {
    /// Unpacks a table: runs of units that are their own upper case are stored as 0xFFFF and their
    /// number.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut table: Vec<u16> = Vec::with_capacity(UNITS);
        let mut units = bytes.chunks_exact(2).map(|pair| le16(pair, 0));
        while table.len() < UNITS
            && let Some(unit) = units.next()
        {
            match unit {
                0xFFFF => {
                    let count = usize::from(units.next().unwrap_or(0)).min(UNITS - table.len());
                    let from = table.len();
                    table.extend((from..from + count).map(|unit| unit as u16));
                }
                unit => table.push(unit),
            }
        }
        let from = table.len();
        table.extend((from..UNITS).map(|unit| unit as u16));
        Self { table }
    }

    /// A name in upper case.
    pub(crate) fn fold(&self, units: &[u16]) -> Vec<u16> {
        let upper = |unit: &u16| self.table.get(usize::from(*unit)).copied().unwrap_or(*unit);
        units.iter().map(upper).collect()
    }
}
