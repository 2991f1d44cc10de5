//! Where partitions may begin.

use disksmith_disk::{Disk, Error, Kind, Result, parse_size};

use crate::Geometry;

/// What the start (and, where the size is free, the end) of a partition is rounded to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Align {
    /// Multiples of so many bytes. 1 MiB suits every device and is what all tools do now.
    Bytes(u64),
    /// Cylinder boundaries as DOS wanted them: the first partition starts on the second track
    /// (sector 63), the others on a cylinder, and all end with one.
    Cylinder(Geometry),
    /// Any sector.
    None,
}

impl Default for Align {
    fn default() -> Self {
        Self::Bytes(1 << 20)
    }
}

impl Align {
    /// Reads `1MiB`, `cylinder`, `none` or `optimal`, which is what `disk` prefers but at least
    /// 1 MiB.
    pub fn parse(text: &str, disk: &dyn Disk) -> Result<Self> {
        Ok(match text {
            "cylinder" => Self::Cylinder(Geometry::default()),
            "none" => Self::None,
            "optimal" => {
                let optimal = u64::from(disk.geometry().optimal.max(1));
                Self::Bytes((1u64 << 20).div_ceil(optimal).saturating_mul(optimal))
            }
            size => Self::Bytes(match parse_size(size)? {
                0 => return Err(Error::new(Kind::InvalidInput, "an alignment of 0 bytes")),
                bytes => bytes,
            }),
        })
    }

    /// The first allowed start at or after `sector`.
    pub(crate) fn start(self, sector: u64, sector_size: u32) -> Option<u64> {
        match self {
            Self::Cylinder(g) if sector <= u64::from(g.sectors) => Some(u64::from(g.sectors)),
            _ => sector.checked_next_multiple_of(self.grain(sector_size)),
        }
    }

    /// The last allowed end (exclusive) at or before `sector`.
    pub(crate) fn end_before(self, sector: u64, sector_size: u32) -> u64 {
        let grain = self.grain(sector_size);
        sector / grain * grain
    }

    /// The first allowed end (exclusive) at or after `sector`. Only cylinders round a size that
    /// was asked for.
    pub(crate) fn end_after(self, sector: u64, sector_size: u32) -> u64 {
        match self {
            Self::Cylinder(_) => {
                sector.checked_next_multiple_of(self.grain(sector_size)).unwrap_or(sector)
            }
            _ => sector,
        }
    }

    /// How far before a logical partition its boot record lies.
    pub(crate) fn lead(self, sector_size: u32) -> u64 {
        match self {
            Self::Cylinder(geometry) => u64::from(geometry.sectors.max(1)),
            _ => self.grain(sector_size),
        }
    }

    /// The unit in sectors, at least 1.
    pub(crate) fn grain(self, sector_size: u32) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.div_ceil(u64::from(sector_size.max(1))).max(1),
            Self::Cylinder(geometry) => geometry.cylinder(),
            Self::None => 1,
        }
    }
}
