//! Turns valid inputs into nearly valid ones.

use disksmith_testkit::Rng;

use crate::Field;

/// A mutant of `seed`: one to four fields set to boundary values, or bytes changed at random,
/// or the end cut off or doubled.
pub fn mutant(seed: &[u8], fields: &[Field], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        match rng.below(10) {
            0..=5 if !fields.is_empty() => set_field(&mut bytes, rng.pick(fields), fields, rng),
            6 => truncate(&mut bytes, rng),
            7 => copy_within(&mut bytes, rng),
            _ => flip(&mut bytes, rng),
        }
    }
    bytes
}

fn set_field(bytes: &mut [u8], field: &Field, fields: &[Field], rng: &mut Rng) {
    let value = value(bytes, field, fields, rng);
    let raw = if field.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let raw = if field.big_endian { &raw[8 - field.width..] } else { &raw[..field.width] };
    if let Some(target) = bytes.get_mut(field.offset..field.offset + field.width) {
        target.copy_from_slice(raw);
    }
}

/// Boundary values, neighbours of the present value, places inside the file, other fields'
/// places (so that structures point at themselves and each other).
fn value(bytes: &[u8], field: &Field, fields: &[Field], rng: &mut Rng) -> u64 {
    let bits = field.width as u32 * 8;
    let max = u64::MAX >> (64 - bits);
    let old = read(bytes, field);
    let length = bytes.len() as u64;
    let cluster = 1u64 << (9 + rng.below(13));
    match rng.below(16) {
        0 => 0,
        1 => 1,
        2 => max,
        3 => max / 2,
        4 => max / 2 + 1,
        5 => old.wrapping_add(1),
        6 => old.wrapping_sub(1),
        7 => old ^ 1u64.wrapping_shl(rng.below(u64::from(bits)) as u32),
        8 => length,
        9 => length.wrapping_sub(1).wrapping_add(rng.below(3)),
        10 => rng.below(length / cluster + 2) * cluster,
        11 => field.offset as u64 / cluster * cluster,
        12 => rng.pick(fields).offset as u64,
        13 => cluster.wrapping_sub(1).wrapping_add(rng.below(3)),
        14 => (1 << 63) | (rng.below(length / cluster + 2) * cluster),
        _ => rng.next_u64() >> rng.below(64),
    }
}

fn read(bytes: &[u8], field: &Field) -> u64 {
    let Some(raw) = bytes.get(field.offset..field.offset + field.width) else { return 0 };
    let order: Vec<u8> =
        if field.big_endian { raw.to_vec() } else { raw.iter().rev().copied().collect() };
    order.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn truncate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let keep = rng.below(bytes.len() as u64 + 1) as usize;
    bytes.truncate(keep);
}

fn copy_within(bytes: &mut [u8], rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let length = 1 + rng.below(bytes.len().min(512) as u64) as usize;
    let from = rng.below((bytes.len() - length + 1) as u64) as usize;
    let to = rng.below((bytes.len() - length + 1) as u64) as usize;
    bytes.copy_within(from..from + length, to);
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    // Most of what matters stands near the front.
    let reach = if rng.one_in(2) { bytes.len().min(512) } else { bytes.len() };
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(reach as u64) as usize;
        let value = rng.next_u64() as u8;
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
    }
}
