//! The disk interface.

use std::fmt::Debug;
use std::sync::Arc;

use crate::{Error, Extent, Kind, Result};

/// How a range is to be made zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ZeroMode {
    /// The range reads as zero afterwards and its storage stays reserved where the layer can.
    Keep,
    /// The range reads as zero afterwards; its storage may be given back.
    Unmap,
}

/// What a layer prefers and demands of requests; all in bytes, all powers of two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// Logical sector size: 512 for files and images, the device's own for block devices.
    pub sector: u32,
    /// The size of request that costs least: a cluster of an image, a block of a filesystem.
    pub optimal: u32,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { sector: 512, optimal: 4096 }
    }
}

/// A fixed-size array of bytes, read and written by position.
///
/// All methods take `&self`: many threads may read and write one open disk at once. Requests
/// that overlap in time and range happen in some order per sector. Every request is carried
/// out whole or fails; there are no short reads or writes.
///
/// Durability: what [`write_at`](Self::write_at), [`write_zeroes`](Self::write_zeroes) and
/// [`discard`](Self::discard) did is on stable storage once a later [`flush`](Self::flush)
/// returned `Ok`. A failed flush is final: later flushes and changes of the same open disk fail
/// too, so that nothing is built on what may be lost.
pub trait Disk: Send + Sync + Debug {
    /// The size in bytes.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on. Reading past the end is an error of kind
    /// [`Kind::InvalidInput`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// Writes `data` at `offset`. Growable disks (see [`set_size`](Self::set_size)) grow when
    /// written past their end; others refuse.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Makes `length` bytes from `offset` read as zero. Growable disks grow when `offset +
    /// length` is past their end.
    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()>;

    /// Tells the layer that the content of the range is of no interest any more. What it reads
    /// as afterwards is the layer's choice (zero, or the old bytes). Never an error merely
    /// because the layer cannot discard.
    fn discard(&self, offset: u64, length: u64) -> Result<()>;

    /// Makes everything written so far durable.
    fn flush(&self) -> Result<()>;

    /// What is at `offset`: the longest run of one state, at most `length` bytes, at least one
    /// byte (for `length` > 0). The answer may split runs, never merge different ones, and may
    /// call data what happens to be zero.
    ///
    /// `offset` must be below the size; `length` is cut at the end of the disk.
    fn map(&self, offset: u64, length: u64) -> Result<Extent>;

    /// Changes the size; bytes added read as zero.
    fn set_size(&self, size: u64) -> Result<()> {
        let _ = size;
        Err(Error::new(Kind::Unsupported, "this disk cannot change its size"))
    }

    /// True when every write is refused.
    fn read_only(&self) -> bool {
        false
    }

    /// What requests suit this disk.
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }

    /// Tells the layers below which step of its work the layer above is about to take, by QEMU's
    /// name for it (`read_aio`, `cluster_free` …). Only layers that fail on purpose listen.
    fn announce(&self, step: &'static str) {
        let _ = step;
    }

    /// The descriptor and offset behind this disk, if it is a plain window on one host file:
    /// lets the host crate copy in the kernel or share blocks. What is written through it is
    /// covered by the next flush only if it is asked for again after the flush before.
    fn host_window(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        None
    }
}

/// Refuses a request that does not lie within `size`.
pub(crate) fn check_range(offset: u64, length: u64, size: u64) -> Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Error::new(
            Kind::InvalidInput,
            format!("request of {length} bytes at {offset} is outside of the disk of {size} bytes"),
        )),
    }
}

/// In an `impl Disk`: the named methods are those of another disk. For disks that pass everything
/// on but a thing or two.
///
/// ```
/// # use disksmith_disk::{Disk, Extent, MemoryDisk, Result, ZeroMode, pass_on};
/// #[derive(Debug)]
/// struct Unflushed(MemoryDisk);
///
/// impl Disk for Unflushed {
///     pass_on!(|own| own.0; size read_at write_at write_zeroes discard map);
///
///     fn flush(&self) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[macro_export]
macro_rules! pass_on {
    (|$own:ident| $disk:expr; $($method:ident)+) => {
        $($crate::pass_on!(@$method $own, $disk);)+
    };
    (@size $own:ident, $disk:expr) => {
        fn size(&self) -> u64 {
            let $own = self;
            $disk.size()
        }
    };
    (@read_at $own:ident, $disk:expr) => {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> $crate::Result<()> {
            let $own = self;
            $disk.read_at(buffer, offset)
        }
    };
    (@write_at $own:ident, $disk:expr) => {
        fn write_at(&self, data: &[u8], offset: u64) -> $crate::Result<()> {
            let $own = self;
            $disk.write_at(data, offset)
        }
    };
    (@write_zeroes $own:ident, $disk:expr) => {
        fn write_zeroes(
            &self,
            offset: u64,
            length: u64,
            mode: $crate::ZeroMode,
        ) -> $crate::Result<()> {
            let $own = self;
            $disk.write_zeroes(offset, length, mode)
        }
    };
    (@discard $own:ident, $disk:expr) => {
        fn discard(&self, offset: u64, length: u64) -> $crate::Result<()> {
            let $own = self;
            $disk.discard(offset, length)
        }
    };
    (@flush $own:ident, $disk:expr) => {
        fn flush(&self) -> $crate::Result<()> {
            let $own = self;
            $disk.flush()
        }
    };
    (@map $own:ident, $disk:expr) => {
        fn map(&self, offset: u64, length: u64) -> $crate::Result<$crate::Extent> {
            let $own = self;
            $disk.map(offset, length)
        }
    };
    (@set_size $own:ident, $disk:expr) => {
        fn set_size(&self, size: u64) -> $crate::Result<()> {
            let $own = self;
            $disk.set_size(size)
        }
    };
    (@read_only $own:ident, $disk:expr) => {
        fn read_only(&self) -> bool {
            let $own = self;
            $disk.read_only()
        }
    };
    (@geometry $own:ident, $disk:expr) => {
        fn geometry(&self) -> $crate::Geometry {
            let $own = self;
            $disk.geometry()
        }
    };
    (@announce $own:ident, $disk:expr) => {
        fn announce(&self, step: &'static str) {
            let $own = self;
            $disk.announce(step);
        }
    };
    (@host_window $own:ident, $disk:expr) => {
        fn host_window(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
            let $own = self;
            $disk.host_window()
        }
    };
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: Disk + ?Sized> Disk for $pointer {
            pass_on!(
                |own| (**own);
                size read_at write_at write_zeroes discard flush map set_size read_only geometry
                announce host_window
            );
        }
    )*};
}
forward!(Arc<D>, Box<D>, &D);
