//! The two boot regions (specification, section 3): 12 sectors each, the last one full of a
//! checksum over the others.

use disksmith_disk::{Disk, Result, first_difference};

use super::layout::{BOOT_SECTORS, Geometry, boot_checksum};
use super::pages::{Pages, Stage};
use crate::raw::{byte, le32, put};

/// Sectors that the checksum covers.
const COVERED: u64 = BOOT_SECTORS - 1;

/// A boot region in memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BootRegion {
    pub(crate) bytes: Vec<u8>,
    sector: u64,
}

impl BootRegion {
    /// Reads the region (0: the main one, 1: the backup), changes included.
    pub(crate) fn read(pages: &Pages, sector: u64, number: u64) -> Result<Self> {
        let mut bytes = vec![0; (BOOT_SECTORS * sector) as usize];
        pages.read(number * BOOT_SECTORS * sector, &mut bytes)?;
        Ok(Self { bytes, sector })
    }

    fn covered(&self) -> usize {
        (COVERED * self.sector) as usize
    }

    fn computed(&self) -> u32 {
        boot_checksum(self.bytes.get(..self.covered()).unwrap_or(&[]))
    }

    /// True if the checksum is right everywhere, and the sectors bear their signatures.
    pub(crate) fn is_sound(&self) -> bool {
        let sum = self.computed();
        let stored = self.bytes.get(self.covered()..).unwrap_or(&[]);
        byte(&self.bytes, 510) == 0x55
            && byte(&self.bytes, 511) == 0xAA
            && stored.chunks_exact(4).all(|word| le32(word, 0) == sum)
    }

    /// Makes the checksum right.
    pub(crate) fn seal(&mut self) {
        let (sum, from) = (self.computed(), self.covered());
        for word in self.bytes.get_mut(from..).unwrap_or(&mut []).chunks_exact_mut(4) {
            put(word, 0, &sum.to_le_bytes());
        }
        put(&mut self.bytes, 510, &[0x55, 0xAA]);
    }

    /// True if both say the same; marks and fill level do not count.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let plain = |region: &Self| {
            let mut bytes = region.bytes.clone();
            put(&mut bytes, 106, &[0, 0]);
            put(&mut bytes, 112, &[0]);
            bytes
        };
        first_difference(&plain(self), &plain(other)).is_none()
    }

    /// Stores it as the region of that number.
    pub(crate) fn store(&self, pages: &mut Pages, stage: Stage, number: u64) -> Result<()> {
        let at = number * BOOT_SECTORS * self.sector;
        let mut bytes = self.bytes.clone();
        // The marks are those of the main region; those of the backup mean nothing.
        let mut marks = [0; 7];
        pages.read(at + 106, &mut marks)?;
        put(&mut bytes, 106, marks.get(..2).unwrap_or(&[]));
        put(&mut bytes, 112, marks.get(6..).unwrap_or(&[]));
        pages.store(stage, at, &bytes)
    }
}

/// Puts the backup in the place of a main region that is not sound, if the backup is. Answers
/// whether it did.
pub(crate) fn restore(disk: &std::sync::Arc<dyn Disk>) -> Result<bool> {
    for shift in 9..=12 {
        let sector = 1_u64 << shift;
        if disk.size() < 2 * BOOT_SECTORS * sector {
            continue;
        }
        let mut pages = Pages::new(disk.clone(), sector);
        let backup = BootRegion::read(&pages, sector, 1)?;
        let fits = Geometry::parse(&backup.bytes).is_ok_and(|found| found.sector == sector);
        if !fits || !backup.is_sound() || BootRegion::read(&pages, sector, 0)?.is_sound() {
            continue;
        }
        // What is there may be anything: the marks, too.
        pages.store(Stage::Allocate, 0, &backup.bytes)?;
        pages.commit()?;
        return Ok(true);
    }
    Ok(false)
}
