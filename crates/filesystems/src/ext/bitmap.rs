//! Bits in a block: one per cluster or inode.

/// Whether bit `index` is set; bits past the end are.
pub(crate) fn get(bits: &[u8], index: u64) -> bool {
    bits.get((index / 8) as usize).is_none_or(|byte| byte & 1 << (index % 8) != 0)
}

/// Sets or clears bit `index`.
pub(crate) fn set(bits: &mut [u8], index: u64, on: bool) {
    if let Some(byte) = bits.get_mut((index / 8) as usize) {
        if on {
            *byte |= 1 << (index % 8);
        } else {
            *byte &= !(1 << (index % 8));
        }
    }
}

/// Sets or clears `count` bits from `start`; whole bytes at once.
pub(crate) fn set_range(bits: &mut [u8], start: u64, count: u64, on: bool) {
    let end = start.saturating_add(count);
    let mut at = start;
    while at < end {
        if at.is_multiple_of(8) && end - at >= 8 {
            let bytes = ((end - at) / 8) as usize;
            let first = (at / 8) as usize;
            let last = (first + bytes).min(bits.len());
            if let Some(run) = bits.get_mut(first..last) {
                run.fill(if on { 0xff } else { 0 });
            }
            at += bytes as u64 * 8;
        } else {
            set(bits, at, on);
            at += 1;
        }
    }
}

/// The first bit at or after `from`, before `end`, that is `wanted`.
pub(crate) fn find(bits: &[u8], from: u64, end: u64, wanted: bool) -> Option<u64> {
    let skip = if wanted { 0 } else { 0xff };
    let mut at = from;
    while at < end {
        if at.is_multiple_of(8) {
            let rest = bits.get((at / 8) as usize..)?;
            let within = ((end - at) / 8) as usize;
            let dull = rest.iter().take(within).take_while(|byte| **byte == skip).count();
            if dull > 0 {
                at += dull as u64 * 8;
                continue;
            }
        }
        if (at / 8) as usize >= bits.len() {
            return None;
        }
        if get(bits, at) == wanted {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// How many of the first `end` bits are clear.
pub(crate) fn count_clear(bits: &[u8], end: u64) -> u64 {
    let whole = (end / 8) as usize;
    let bytes = bits.get(..whole).unwrap_or(bits);
    let full: u64 = bytes.iter().map(|byte| u64::from(byte.count_zeros())).sum();
    full + (whole as u64 * 8..end).filter(|bit| !get(bits, *bit)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_searches() {
        for start in 0..20 {
            for count in 0..40 {
                let mut bits = vec![0; 8];
                set_range(&mut bits, start, count, true);
                assert!((0..64).all(|i| get(&bits, i) == (start..start + count).contains(&i)));
                assert_eq!(find(&bits, 0, 64, true), (count > 0).then_some(start));
                assert_eq!(find(&bits, start, 64, false), Some(start + count));
                assert_eq!(count_clear(&bits, 61), 61 - count.min(61 - start));
            }
        }
    }
}
