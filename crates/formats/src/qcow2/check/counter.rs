//! Counts references to clusters in as many bits as the image's own refcounts have.

use std::collections::HashMap;

use super::super::layout::Shape;

/// Counts are kept in pages of at most this many bytes, and only where there are any.
const PAGE_MOST: u64 = 4096;

/// Reference counts of clusters, encoded as in refcount blocks, so that whole pages compare
/// with what is on disk byte by byte. Sparse: a page nobody counted in takes no memory.
#[derive(Debug)]
pub(in super::super) struct Counter {
    order: u32,
    page_bits: u32,
    page_bytes: usize,
    /// The page counted in last lies here and not in `pages`.
    current: (u64, Box<[u8]>),
    pages: HashMap<u64, Box<[u8]>>,
}

/// The count is at its largest already.
#[derive(Debug)]
pub(in super::super) struct Saturated;

impl Counter {
    pub(in super::super) fn new(shape: &Shape) -> Self {
        let page_bytes = shape.cluster_size().min(PAGE_MOST);
        Self {
            order: shape.refcount_order,
            page_bits: page_bytes.trailing_zeros() + 3 - shape.refcount_order,
            page_bytes: page_bytes as usize,
            current: (0, vec![0; page_bytes as usize].into_boxed_slice()),
            pages: HashMap::new(),
        }
    }

    /// How many clusters one page counts.
    pub(in super::super) fn page_clusters(&self) -> u64 {
        1 << self.page_bits
    }

    pub(in super::super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(in super::super) fn get(&self, cluster: u64) -> u64 {
        self.page(cluster >> self.page_bits)
            .map_or(0, |page| get(page, self.order, self.slot(cluster)))
    }

    pub(in super::super) fn increment(&mut self, cluster: u64) -> Result<(), Saturated> {
        let order = self.order;
        let slot = self.slot(cluster);
        let page = self.page_mut(cluster >> self.page_bits);
        let count = get(page, order, slot);
        if count == max(order) {
            return Err(Saturated);
        }
        set(page, order, slot, count + 1);
        Ok(())
    }

    /// The counts of clusters `number * page_clusters()` and on; `None` = all zero.
    pub(in super::super) fn page(&self, number: u64) -> Option<&[u8]> {
        if self.current.0 == number {
            return Some(&self.current.1);
        }
        self.pages.get(&number).map(|page| &**page)
    }

    /// The numbers of all pages that may hold a count, ascending.
    pub(in super::super) fn page_numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.pages.keys().copied().collect();
        numbers.push(self.current.0);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    fn slot(&self, cluster: u64) -> usize {
        (cluster & (self.page_clusters() - 1)) as usize
    }

    fn page_mut(&mut self, number: u64) -> &mut [u8] {
        if self.current.0 != number {
            let blank = || vec![0; self.page_bytes].into_boxed_slice();
            let wanted = self.pages.remove(&number).unwrap_or_else(blank);
            let (old, page) = std::mem::replace(&mut self.current, (number, wanted));
            self.pages.insert(old, page);
        }
        &mut self.current.1
    }
}

/// The largest count in entries of 2^`order` bits.
fn max(order: u32) -> u64 {
    u64::MAX >> (64 - (1u32 << order))
}

/// Entry number `slot` of refcounts with 2^`order` bits each; zero if `counts` ends before.
pub(in super::super) fn get(counts: &[u8], order: u32, slot: usize) -> u64 {
    if order < 3 {
        let per_byte = 3 - order;
        let byte = u64::from(counts.get(slot >> per_byte).copied().unwrap_or(0));
        return byte >> ((slot & ((1 << per_byte) - 1)) << order) & max(order);
    }
    let width = 1 << (order - 3);
    let entry = counts.get(slot * width..(slot + 1) * width).unwrap_or_default();
    entry.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Sets entry number `slot`; nothing if `counts` ends before.
pub(in super::super) fn set(counts: &mut [u8], order: u32, slot: usize, value: u64) {
    if order < 3 {
        let per_byte = 3 - order;
        let shift = (slot & ((1 << per_byte) - 1)) << order;
        if let Some(byte) = counts.get_mut(slot >> per_byte) {
            let mask = (max(order) << shift) as u8;
            *byte = *byte & !mask | ((value << shift) as u8 & mask);
        }
        return;
    }
    let width = 1usize << (order - 3);
    if let Some(entry) = counts.get_mut(slot * width..(slot + 1) * width) {
        let bytes = value.to_be_bytes();
        entry.copy_from_slice(bytes.get(8 - width..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_width() {
        for order in 0..=6 {
            let mut counts = vec![0; 64];
            let entries = (64 * 8) >> order;
            for slot in 0..entries {
                set(&mut counts, order, slot, slot as u64 & max(order));
            }
            for slot in 0..entries {
                assert_eq!(get(&counts, order, slot), slot as u64 & max(order), "order {order}");
            }
        }
    }

    #[test]
    fn narrow_entries_start_at_the_low_bit() {
        let mut counts = [0; 2];
        set(&mut counts, 0, 0, 1);
        set(&mut counts, 0, 9, 1);
        assert_eq!(counts, [1, 2]);
        let mut counts = [0; 2];
        set(&mut counts, 2, 1, 0xa);
        assert_eq!(counts, [0xa0, 0]);
    }

    #[test]
    fn counts_saturate_and_stay_sparse() {
        let shape = Shape { cluster_bits: 16, refcount_order: 1, extended: false, version: 3 };
        let mut counter = Counter::new(&shape);
        for _ in 0..3 {
            counter.increment(1 << 40).unwrap();
        }
        counter.increment(5).unwrap();
        assert!(counter.increment(1 << 40).is_err());
        assert_eq!((counter.get(5), counter.get(6), counter.get(1 << 40)), (1, 0, 3));
        assert!(counter.page_numbers().len() <= 3);
    }
}
