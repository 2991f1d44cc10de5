//! The bytes being compressed, in a buffer of fixed size that needs no bounds checks.

/// Bytes the window holds. Positions in it fit 16 bits.
pub(crate) const WINDOW_SIZE: usize = 1 << 16;

/// Zeros after the last byte: what a comparison may see from the last position on, so that no
/// bytes of an earlier cluster have a say.
const PADDING: usize = 16;

/// Up to 64 KiB of input.
pub(crate) struct Window {
    bytes: Box<[u8; WINDOW_SIZE + PADDING]>,
    end: usize,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { bytes: zeroed(), end: 0 }
    }

    /// Takes in `input` behind the last `history` bytes, which move to the front; returns where
    /// the new bytes begin.
    pub(crate) fn refill(&mut self, history: usize, input: &[u8]) -> usize {
        let history = history.min(self.end);
        let start = self.end - history;
        self.bytes.copy_within(start..self.end, 0);
        self.end = history + input.len().min(WINDOW_SIZE - history);
        for (slot, byte) in self.bytes[history..self.end].iter_mut().zip(input) {
            *slot = *byte;
        }
        self.bytes[self.end..self.end + PADDING].fill(0);
        history
    }

    /// One past the last byte.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// The bytes of a range, which is empty if it does not lie within the window.
    #[inline(always)]
    pub(crate) fn slice(&self, start: usize, end: usize) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Eight bytes at `position`, the first one lowest.
    #[inline(always)]
    pub(crate) fn load(&self, position: u16) -> u64 {
        let at = usize::from(position);
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    }

    /// Four bytes at `position`, the first one lowest.
    #[inline(always)]
    pub(crate) fn load4(&self, position: u16) -> u32 {
        let at = usize::from(position);
        let mut four = [0; 4];
        four.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(four)
    }

    /// How many bytes at `a` and `b`, with `b` behind `a`, are the same; at most `limit`, of
    /// which the first `known` need no look. `b + limit` must not pass the end.
    #[inline(always)]
    pub(crate) fn common(&self, a: u16, b: u16, known: usize, limit: usize) -> usize {
        let mut length = known;
        while length < limit {
            let step = length as u16;
            let difference = self.load(a.wrapping_add(step)) ^ self.load(b.wrapping_add(step));
            if difference != 0 {
                length += (difference.trailing_zeros() >> 3) as usize;
                break;
            }
            length += 8;
        }
        length.min(limit)
    }
}

/// A boxed array of zeros, made without passing over the stack.
pub(crate) fn zeroed<T: Clone + Default, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the slice was made with the array's length"),
    }
}
