//! Changing the size of an image.

use disksmith_disk::{Disk, Error, Kind, Result, pass_on};
use disksmith_formats::{Image, Preallocation, ResizeRequest};

/// The new size of an image, as users give it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SizeChange {
    /// So many bytes more.
    Add(u64),
    /// So many bytes less.
    Subtract(u64),
    /// So many bytes.
    To(u64),
}

impl SizeChange {
    /// Reads `SIZE`, `+SIZE` or `-SIZE`.
    pub fn parse(text: &str) -> Result<Self> {
        let size = disksmith_disk::parse_size;
        Ok(match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => Self::Add(size(more)?),
            (None, Some(less)) => Self::Subtract(size(less)?),
            (None, None) => Self::To(size(text)?),
        })
    }

    /// The size that an image of `size` bytes shall have.
    pub fn apply(self, size: u64) -> Result<u64> {
        let new = match self {
            Self::Add(more) => size.checked_add(more),
            Self::Subtract(less) => size.checked_sub(less),
            Self::To(new) => Some(new),
        };
        new.filter(|new| *new > 0 || matches!(self, Self::To(0)) || size == 0)
            .ok_or_else(|| Error::new(Kind::InvalidInput, "New image size must be positive"))
    }
}

/// An image whose size can be changed through the disk interface.
#[derive(Debug)]
pub struct Resizable<'i>(pub &'i dyn Image);

impl Disk for Resizable<'_> {
    pass_on!(
        |own| own.0;
        size read_at write_at write_zeroes discard flush map read_only geometry announce
    );

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.resize(ResizeRequest { size, preallocation: Preallocation::Off })
    }
}

/// Gives `image` its new size and makes that durable. Making it smaller destroys what lies
/// past the new end and needs `shrink`.
pub fn resize(
    image: &dyn Image,
    change: SizeChange,
    preallocation: Preallocation,
    shrink: bool,
) -> Result<()> {
    let old = image.size();
    let size = change.apply(old)?;
    if size <= old && preallocation != Preallocation::Off {
        return Err(Error::new(
            Kind::InvalidInput,
            "Preallocation can only be used for growing images",
        ));
    }
    if size < old && !shrink {
        return Err(Error::new(
            Kind::Refused,
            "Use the --shrink option to perform a shrink operation.",
        )
        .with_hint(SHRINK_WARNING));
    }
    image.resize(ResizeRequest { size, preallocation })?;
    image.flush()
}

const SHRINK_WARNING: &str = "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.";
