//! The bit stream of RFC 1951, section 3.1.1: bytes fill from their least significant bit.

/// Packs bits into bytes.
///
/// Up to 63 bits wait in a word; [`flush`](Self::flush) moves the whole bytes among them out.
#[derive(Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Where the waiting bits go. `bytes` is as long as the output may become, and 8 more.
    position: usize,
    waiting: u64,
    waiting_count: u32,
}

impl BitWriter {
    /// Starts an empty stream that may become `capacity` bytes long.
    pub(crate) fn restart(&mut self, capacity: usize) {
        let size = capacity.saturating_add(8);
        if self.bytes.len() < size {
            self.bytes.resize(size, 0);
        }
        self.position = 0;
        self.waiting = 0;
        self.waiting_count = 0;
    }

    /// Adds the `count` low bits of `bits`; those above must be zero.
    #[inline(always)]
    pub(crate) fn add(&mut self, bits: u64, count: u32) {
        debug_assert!(self.waiting_count + count < 64 && bits >> count == 0);
        self.waiting |= bits << (self.waiting_count & 63);
        self.waiting_count = self.waiting_count.wrapping_add(count);
    }

    /// Moves whole bytes out, so that 56 bits
    /// can be added again: seven may be left over.
    #[inline(always)]
    pub(crate) fn flush(&mut self) {
        if let Some(room) = self.bytes.get_mut(self.position..).and_then(|b| b.first_chunk_mut()) {
            *room = self.waiting.to_le_bytes();
        }
        let whole = self.waiting_count & 0x38;
        self.position = self.position.wrapping_add((whole >> 3) as usize);
        self.waiting >>= whole;
        self.waiting_count &= 7;
    }

    /// Fills up the current byte with zero bits.
    pub(crate) fn align(&mut self) {
        self.flush();
        self.waiting_count = self.waiting_count.next_multiple_of(8);
        self.flush();
    }

    /// Copies whole bytes; the stream must be at a byte's edge.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.waiting_count, 0);
        let end = self.position.saturating_add(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.position..end) {
            room.copy_from_slice(bytes);
        }
        self.position = end;
    }

    /// Bits written so far.
    pub(crate) fn bit_length(&self) -> u64 {
        self.position as u64 * 8 + u64::from(self.waiting_count)
    }

    /// The stream, its last byte filled up with zero bits.
    pub(crate) fn finish(&mut self) -> Option<&[u8]> {
        self.align();
        self.bytes.get(..self.position)
    }
}
