//! Making volumes with files in them.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::super::fill::{FatFilled, Rules, SIZES, fill, measure};
use super::Exfat;
use super::make::{ExfatOptions, make, plan};
use crate::Filesystem;
use crate::source::Source;

/// Makes a volume with the files of `source`.
pub fn make_from(
    disk: Arc<dyn Disk>,
    options: &ExfatOptions,
    source: &mut dyn Source,
) -> Result<FatFilled> {
    make(&*disk, options)?;
    let exfat = Exfat::open(disk, false)?;
    exfat.set_clock(options.time);
    exfat.commit_rarely();
    let rules = Rules {
        exfat: true,
        time: options.time,
        map_names: options.map_names,
        most: i64::MAX as u64,
    };
    let filled = fill(&exfat, rules, source)?;
    exfat.close()?;
    Ok(filled)
}

/// The size in bytes of a volume that holds the files of `source` under these options, with a
/// little room. Reads names and lengths, not content.
pub fn size_for(options: &ExfatOptions, source: &mut dyn Source) -> Result<u64> {
    let needed = measure(source, 15)?;
    let bytes = needed[0].saturating_mul(512);
    let mut size = (bytes + bytes / 50).max(1 << 20).next_multiple_of(1 << 16);
    for _ in 0..2000 {
        if let Ok((geometry, bitmap)) = plan(options, size, 512) {
            let index = (geometry.cluster / 512).max(1).trailing_zeros() as usize;
            let most = needed.get(index.min(SIZES - 1)).copied().unwrap_or(u64::MAX);
            // The bitmap and the up-case table.
            let own = [bitmap, 16 << 10].map(|bytes| bytes.div_ceil(geometry.cluster));
            let own = own.iter().sum::<u64>();
            if u64::from(geometry.clusters) >= most + most / 100 + own + 8 {
                return Ok(size);
            }
        }
        size += (size / 100).next_multiple_of(1 << 16);
    }
    Err(Error::new(Kind::LimitExceeded, "No size was found that holds the files"))
}
