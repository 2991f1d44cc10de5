//! Dirty bits in memory: sparse, in pieces of one cluster of the stored bitmap each.

use std::collections::BTreeMap;

/// Bits that were set, to be added to what is stored.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    granularity_bits: u32,
    chunk_bytes: u64,
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl Marks {
    /// No bit, for bits of 2^`granularity_bits` bytes stored in clusters of `cluster_size`.
    pub(super) fn new(granularity_bits: u8, cluster_size: u64) -> Self {
        let granularity_bits = granularity_bits.into();
        Self { granularity_bits, chunk_bytes: cluster_size, chunks: BTreeMap::new() }
    }

    /// Marks what the range touches.
    pub(super) fn mark(&mut self, offset: u64, length: u64) {
        let Some(last) = length.checked_sub(1) else { return };
        let bits_per_chunk = self.chunk_bytes * 8;
        let last = offset.saturating_add(last) >> self.granularity_bits;
        let mut bit = offset >> self.granularity_bits;
        while bit <= last {
            let number = bit / bits_per_chunk;
            let end = last.min(number * bits_per_chunk + (bits_per_chunk - 1));
            let chunk_bytes = self.chunk_bytes as usize;
            let chunk = self
                .chunks
                .entry(number)
                .or_insert_with(|| vec![0; chunk_bytes].into_boxed_slice());
            set_bits(chunk, bit % bits_per_chunk, end % bits_per_chunk);
            bit = end + 1;
        }
    }

    /// The bits of the `number`th cluster of the stored bitmap, if any is set.
    pub(super) fn chunk(&self, number: u64) -> Option<&[u8]> {
        self.chunks.get(&number).map(|chunk| &**chunk)
    }
}

/// Sets bits `first` to `last`, the lowest bit of a byte first.
fn set_bits(bytes: &mut [u8], first: u64, last: u64) {
    let (start, end) = ((first / 8) as usize, (last / 8) as usize);
    let head = 0xffu8 << (first % 8);
    let tail = 0xffu8 >> (7 - last % 8);
    let Some(range) = bytes.get_mut(start..=end) else { return };
    if let [only] = range {
        *only |= head & tail;
    } else if let [one, middle @ .., other] = range {
        *one |= head;
        middle.fill(0xff);
        *other |= tail;
    }
}

/// Clears all bits from `from` on.
pub(super) fn clear_from(bytes: &mut [u8], from: u64) {
    let start = (from / 8) as usize;
    if let Some(first) = bytes.get_mut(start) {
        *first &= !(0xffu8 << (from % 8));
    }
    if let Some(rest) = bytes.get_mut(start + 1..) {
        rest.fill(0);
    }
}

/// Calls `found(first, count)` for each run of set bits.
pub(super) fn each_run(bytes: &[u8], mut found: impl FnMut(u64, u64)) {
    let mut open: Option<u64> = None;
    for (byte, at) in bytes.iter().zip((0u64..).step_by(8)) {
        match (byte, open) {
            (0, None) | (0xff, Some(_)) => continue,
            (0xff, None) => {
                open = Some(at);
                continue;
            }
            _ => {}
        }
        for bit in 0..8 {
            let set = byte >> bit & 1 != 0;
            match open {
                None if set => open = Some(at + bit),
                Some(first) if !set => {
                    found(first, at + bit - first);
                    open = None;
                }
                _ => {}
            }
        }
    }
    if let Some(first) = open {
        found(first, bytes.len() as u64 * 8 - first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_bits_and_runs() {
        let mut marks = Marks::new(9, 512);
        marks.mark(512 * 3, 1);
        marks.mark(512 * 8 - 1, 512 * 16);
        marks.mark(512 * 4096 - 1, 2);
        marks.mark(7, 0);
        let mut runs = Vec::new();
        each_run(marks.chunk(0).unwrap(), |first, count| runs.push((first, count)));
        assert_eq!(runs, [(3, 1), (7, 17), (4095, 1)]);
        assert_eq!(marks.chunk(1).unwrap()[0], 1);
        assert!(marks.chunk(2).is_none());
    }

    #[test]
    fn tails_are_cut() {
        let mut bytes = [0xff; 4];
        clear_from(&mut bytes, 11);
        assert_eq!(bytes, [0xff, 7, 0, 0]);
        clear_from(&mut bytes, 32);
        assert_eq!(bytes, [0xff, 7, 0, 0]);
    }
}
