//! Memory for data on its way.

use std::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

const PAGE: usize = 4096;

#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// Bytes that begin at a page's beginning.
///
/// The kernel copies to such memory several times as fast as to what a vector of bytes usually
/// gets (16 bytes behind a page's beginning), and requests past the page cache need no copy.
#[derive(Clone, Default)]
pub struct PageBuffer {
    pages: Vec<Page>,
    length: usize,
}

impl PageBuffer {
    /// So many zero bytes.
    ///
    /// # Panics
    ///
    /// When there is no memory for them, as a vector does.
    pub fn zeroed(length: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(length);
        buffer
    }

    /// Makes it longer, by zeroes, or shorter.
    pub fn resize(&mut self, length: usize) {
        if length < self.length {
            let kept = length.next_multiple_of(PAGE);
            let end = self.length.min(kept);
            self[length..end].fill(0);
        }
        let pages = length.div_ceil(PAGE);
        self.pages.resize_with(pages, Page::new_zeroed);
        self.length = length;
    }

    /// Makes it at least so long.
    pub fn reach(&mut self, length: usize) {
        if self.length < length {
            self.resize(length);
        }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages.as_bytes()[..self.length]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages.as_mut_bytes()[..self.length]
    }
}

impl std::fmt::Debug for PageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageBuffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_and_what_comes_new_is_zero() {
        let mut buffer = PageBuffer::default();
        for (length, fill) in [(10, 1), (5000, 2), (3, 3), (9000, 4), (0, 5), (4096, 6)] {
            let before = buffer.len();
            buffer.resize(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr().align_offset(PAGE), 0);
            assert!(buffer.iter().skip(before).all(|&byte| byte == 0), "{length}");
            buffer.fill(fill);
        }
        buffer.reach(2);
        assert_eq!(buffer.len(), 4096);
    }
}
