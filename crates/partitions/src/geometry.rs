//! Cylinders, heads and sectors: the addresses of old.

/// The shape of a disk as MBR tools think of it. Without hardware to ask it is 255 heads of 63
/// sectors, as Linux answers for every disk that has no other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Geometry {
    /// Heads (tracks in a cylinder), 1 to 255.
    pub heads: u8,
    /// Sectors in a track, 1 to 63.
    pub sectors: u8,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { heads: 255, sectors: 63 }
    }
}

impl Geometry {
    /// Sectors in a cylinder: 16065 with 255 heads and 63 sectors.
    pub fn cylinder(self) -> u64 {
        u64::from(self.heads.max(1)) * u64::from(self.sectors.max(1))
    }

    /// Whole cylinders on a disk of so many sectors.
    pub fn cylinders(self, disk_sectors: u64) -> u64 {
        disk_sectors / self.cylinder()
    }

    /// Where a sector lies; past the last address that can be written, that last one
    /// (1023/254/63), which tells readers to use the sector number instead.
    pub fn chs(self, sector: u64) -> Chs {
        let (heads, sectors) = (u64::from(self.heads.max(1)), u64::from(self.sectors.max(1)));
        let cylinder = sector / (heads * sectors);
        if cylinder > u64::from(Chs::MAX_CYLINDER) {
            return Chs {
                cylinder: Chs::MAX_CYLINDER,
                head: self.heads.saturating_sub(1),
                sector: self.sectors,
            };
        }
        // Each is below 1024, 255 and 64 by the divisions.
        Chs {
            cylinder: cylinder as u16,
            head: (sector / sectors % heads) as u8,
            sector: (sector % sectors + 1) as u8,
        }
    }

    /// The sector at an address; `None` for addresses that this geometry does not have.
    pub fn sector(self, chs: Chs) -> Option<u64> {
        if chs.sector == 0 || chs.sector > self.sectors || chs.head >= self.heads {
            return None;
        }
        let track = u64::from(chs.cylinder) * u64::from(self.heads.max(1)) + u64::from(chs.head);
        Some(track * u64::from(self.sectors.max(1)) + u64::from(chs.sector) - 1)
    }
}

/// An address on a disk by cylinder (0 to 1023), head (0 to 254) and sector (1 to 63).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chs {
    /// Counted from 0; ten bits.
    pub cylinder: u16,
    /// Counted from 0.
    pub head: u8,
    /// Counted from 1; six bits.
    pub sector: u8,
}

impl Chs {
    /// The last cylinder that ten bits can name.
    pub const MAX_CYLINDER: u16 = 1023;

    /// From the three bytes of a partition entry: head, sector with the two top bits of the
    /// cylinder, the low byte of the cylinder.
    pub fn from_disk([head, sector, cylinder]: [u8; 3]) -> Self {
        Self {
            cylinder: u16::from(cylinder) | u16::from(sector & 0xc0) << 2,
            head,
            sector: sector & 0x3f,
        }
    }

    /// The three bytes of a partition entry.
    pub fn to_disk(self) -> [u8; 3] {
        let [low, high] = self.cylinder.to_le_bytes();
        [self.head, self.sector & 0x3f | (high & 3) << 6, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_partition() {
        let geometry = Geometry::default();
        assert_eq!(geometry.chs(63), Chs { cylinder: 0, head: 1, sector: 1 });
        assert_eq!(geometry.chs(2_088_449), Chs { cylinder: 129, head: 254, sector: 63 });
        assert_eq!(geometry.chs(63).to_disk(), [1, 1, 0]);
        assert_eq!(geometry.chs(2_088_449).to_disk(), [0xfe, 0x3f, 0x81]);
        assert_eq!(geometry.cylinders(2_097_152), 130);
    }

    #[test]
    fn there_and_back() {
        let geometry = Geometry::default();
        for sector in [0, 1, 62, 63, 16064, 16065, 8_388_607, 1024 * 16065 - 1] {
            let chs = geometry.chs(sector);
            assert_eq!(Chs::from_disk(chs.to_disk()), chs);
            assert_eq!(geometry.sector(chs), Some(sector));
        }
        assert_eq!(geometry.chs(1024 * 16065).to_disk(), [0xfe, 0xff, 0xff]);
    }
}
