//! Swap space: one page that says what the rest is for.
//!
//! Source of the layout: the kernel's `union swap_header` (include/linux/swap.h), version 1: after
//! 1024 bytes for a boot loader come version, last page, number of bad pages (32 bits each, in the
//! byte order of the machine), UUID and label (16 bytes each); the mark lies at the page's end.

use std::ops::Range;

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use crate::raw::{le32, put, put32};

/// Bytes in a page. Machines with other pages cannot use the space.
const PAGE: u64 = 4096;
const MARK: &[u8; 10] = b"SWAPSPACE2";
const MARK_AT: usize = 4086;
const VERSION_AT: usize = 1024;
const LAST_PAGE_AT: usize = 1028;
const UUID_AT: usize = 1036;
const LABEL_AT: usize = 1052;
const LABEL_LENGTH: usize = 16;
/// The kernel wants at least so many pages.
const PAGES_MIN: u64 = 10;

/// Makes swap space of the whole disk, as mkswap does: a label of at most 16 bytes (the last one is
/// kept zero by mkswap; so here), a random UUID when none is given.
pub fn make(disk: &dyn Disk, label: &[u8], uuid: Option<[u8; 16]>) -> Result<()> {
    if label.len() >= LABEL_LENGTH {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("A swap label has at most {} bytes", LABEL_LENGTH - 1),
        ));
    }
    let last = last_page(disk.size())?;
    let mut page = vec![0; PAGE as usize];
    // The first sectors stay for a boot loader, unless they say that something else is here.
    put32(&mut page, VERSION_AT, 1);
    put32(&mut page, LAST_PAGE_AT, last);
    put(&mut page, UUID_AT, &uuid.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes()));
    put(&mut page, LABEL_AT, label);
    put(&mut page, MARK_AT, MARK);
    disk.write_at(&page, 0).context("Could not write the swap header")?;
    disk.flush()
}

/// Lets swap space have another size: the pages of the first `size` bytes. What was swapped out
/// counts as lost.
pub fn resize(disk: &dyn Disk, size: u64) -> Result<()> {
    if size > disk.size() {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("The swap space cannot have {size} bytes: its disk has only {}", disk.size()),
        ));
    }
    let last = last_page(size)?;
    let mut page = header(disk)?;
    put32(&mut page, LAST_PAGE_AT, last);
    disk.write_at(&page, 0).context("Could not write the swap header")?;
    disk.flush()
}

/// Sets the label, at most 15 bytes, and the UUID; `None` leaves it as it is.
pub fn tune(disk: &dyn Disk, label: Option<&[u8]>, uuid: Option<[u8; 16]>) -> Result<()> {
    let mut page = header(disk)?;
    if let Some(label) = label {
        if label.len() >= LABEL_LENGTH {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("A swap label has at most {} bytes", LABEL_LENGTH - 1),
            ));
        }
        put(&mut page, LABEL_AT, &[0; LABEL_LENGTH]);
        put(&mut page, LABEL_AT, label);
    }
    if let Some(uuid) = uuid {
        put(&mut page, UUID_AT, &uuid);
    }
    disk.write_at(&page, 0).context("Could not write the swap header")?;
    disk.flush()
}

/// The ranges of `disk`, in bytes, that need to be copied: the header.
pub fn used_ranges(disk: &dyn Disk) -> Result<Vec<Range<u64>>> {
    header(disk)?;
    Ok(std::iter::once(0..PAGE).collect())
}

fn last_page(size: u64) -> Result<u32> {
    let pages = size / PAGE;
    if pages < PAGES_MIN {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("{size} bytes are too few for swap space: at least {}", PAGES_MIN * PAGE),
        ));
    }
    // The kernel counts pages in 32 bits.
    Ok(u32::try_from(pages - 1).unwrap_or(u32::MAX))
}

fn header(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut page = vec![0; PAGE as usize];
    let none = || Error::new(Kind::NotFound, "There is no swap space of pages of 4096 bytes");
    if disk.size() < PAGE {
        return Err(none());
    }
    disk.read_at(&mut page, 0).context("Could not read the swap header")?;
    let marked = page.get(MARK_AT..MARK_AT + MARK.len()) == Some(MARK);
    if !marked || le32(&page, VERSION_AT) != 1 {
        return Err(none());
    }
    Ok(page)
}
