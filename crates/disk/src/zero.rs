//! Looking for zeroes and differences in memory.

/// Compared in steps of this many bytes, which the compiler turns into vector code.
const STEP: usize = 128;

/// True when every byte is zero (also for an empty slice).
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    steps.iter().all(|step| step.iter().fold(0, |all, b| all | b) == 0)
        && rest.iter().all(|b| *b == 0)
}

/// How many bytes at the start are zero, rounded down to a multiple of `unit` (a power of two)
/// unless all are.
pub fn zero_prefix(bytes: &[u8], unit: usize) -> usize {
    bytes.chunks(unit).take_while(|chunk| is_zero(chunk)).map(<[u8]>::len).sum()
}

/// The position of the first byte in which two slices of one length differ.
pub fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    let same = a.chunks(STEP).zip(b.chunks(STEP)).take_while(|(x, y)| x == y).count() * STEP;
    let rest = a.iter().zip(b).skip(same).position(|(x, y)| x != y)?;
    Some(same + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_one_byte() {
        for at in 0..300 {
            let mut bytes = vec![0; 300];
            assert!(is_zero(&bytes));
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
            assert_eq!(zero_prefix(&bytes, 64), at / 64 * 64);
            assert_eq!(first_difference(&bytes, &[0; 300]), Some(at));
        }
        assert_eq!(zero_prefix(&[0; 100], 64), 100);
    }
}
