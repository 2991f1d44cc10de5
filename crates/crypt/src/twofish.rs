//! Twofish (Schneier and others, 1998) with the key's S-boxes and the MDS matrix in four tables,
//! as the paper's section 7 proposes: sixty times as fast as working them out per byte.

use cipher::consts::{U1, U16, U32};
use cipher::{
    Block, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, InvalidLength, Key, KeyInit,
    KeySizeUser, ParBlocksSizeUser,
};
use zeroize::Zeroize;

/// A keyed Twofish.
pub(crate) struct Twofish {
    /// What each byte of g's input adds to its result.
    tables: Box<[[u32; 256]; 4]>,
    subkeys: [u32; 40],
}

impl KeySizeUser for Twofish {
    type KeySize = U32;
}

impl KeyInit for Twofish {
    fn new(key: &Key<Self>) -> Self {
        Self::keyed(key)
    }

    fn new_from_slice(key: &[u8]) -> Result<Self, InvalidLength> {
        match key.len() {
            16 | 24 | 32 => Ok(Self::keyed(key)),
            _ => Err(InvalidLength),
        }
    }
}

impl Twofish {
    /// For a key of 16, 24 or 32 bytes.
    fn keyed(key: &[u8]) -> Self {
        let words = || key.as_chunks::<4>().0.iter().copied();
        let even: Vec<[u8; 4]> = words().step_by(2).collect();
        let odd: Vec<[u8; 4]> = words().skip(1).step_by(2).collect();
        let mut boxes: Vec<[u8; 4]> =
            key.as_chunks::<8>().0.iter().rev().map(reed_solomon).collect();

        let mut tables = Box::new([[0; 256]; 4]);
        for (column, table) in tables.iter_mut().enumerate() {
            for (byte, entry) in (0..=u8::MAX).zip(table) {
                *entry = mds_column(column, substitute(column, byte, &boxes));
            }
        }
        boxes.zeroize();

        let h = |n: u8, list: &[[u8; 4]]| {
            (0..4).fold(0, |sum, column| sum ^ mds_column(column, substitute(column, n, list)))
        };
        let mut subkeys = [0; 40];
        for (n, pair) in (0u8..).zip(subkeys.as_chunks_mut::<2>().0) {
            let a = h(2 * n, &even);
            let b = h(2 * n + 1, &odd).rotate_left(8);
            *pair = [a.wrapping_add(b), a.wrapping_add(b).wrapping_add(b).rotate_left(9)];
        }
        Self { tables, subkeys }
    }

    #[inline(always)]
    fn g(&self, x: u32) -> u32 {
        let [a, b, c, d] = x.to_le_bytes();
        let [ta, tb, tc, td] = &*self.tables;
        ta[usize::from(a)] ^ tb[usize::from(b)] ^ tc[usize::from(c)] ^ td[usize::from(d)]
    }

    /// The two words that a round mixes into the other half.
    #[inline(always)]
    fn f(&self, r0: u32, r1: u32, keys: &[u32; 2]) -> (u32, u32) {
        let (t0, t1) = (self.g(r0), self.g(r1.rotate_left(8)));
        let sum = t0.wrapping_add(t1);
        (sum.wrapping_add(keys[0]), sum.wrapping_add(t1).wrapping_add(keys[1]))
    }

    fn whitening(&self) -> ([u32; 4], [u32; 4], &[[u32; 2]]) {
        let k = &self.subkeys;
        ([k[0], k[1], k[2], k[3]], [k[4], k[5], k[6], k[7]], k[8..].as_chunks().0)
    }
}

fn load(block: &[u8], key: [u32; 4]) -> [u32; 4] {
    let mut words = key;
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word ^= u32::from_le_bytes(*bytes);
    }
    words
}

fn store(block: &mut [u8], words: [u32; 4], key: [u32; 4]) {
    for ((bytes, word), key) in block.as_chunks_mut().0.iter_mut().zip(words).zip(key) {
        *bytes = (word ^ key).to_le_bytes();
    }
}

impl BlockSizeUser for Twofish {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for Twofish {
    type ParBlocksSize = U1;
}

impl BlockCipherEncrypt for Twofish {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherDecrypt for Twofish {
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherEncBackend for Twofish {
    #[inline(always)]
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let (input, output, rounds) = self.whitening();
        let [mut a, mut b, mut c, mut d] = load(block.get_in(), input);
        for keys in rounds {
            let (f0, f1) = self.f(a, b, keys);
            let (next_a, next_b) = ((c ^ f0).rotate_right(1), d.rotate_left(1) ^ f1);
            (a, b, c, d) = (next_a, next_b, a, b);
        }
        store(block.get_out(), [c, d, a, b], output);
    }
}

impl BlockCipherDecBackend for Twofish {
    #[inline(always)]
    fn decrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let (input, output, rounds) = self.whitening();
        let [mut c, mut d, mut a, mut b] = load(block.get_in(), output);
        for keys in rounds.iter().rev() {
            let (f0, f1) = self.f(c, d, keys);
            let (last_c, last_d) = (a.rotate_left(1) ^ f0, (b ^ f1).rotate_right(1));
            (a, b, c, d) = (c, d, last_c, last_d);
        }
        store(block.get_out(), [a, b, c, d], input);
    }
}

impl Drop for Twofish {
    fn drop(&mut self) {
        self.tables.as_flattened_mut().zeroize();
        self.subkeys.zeroize();
    }
}

/// One byte of h's input through its permutations, up to the MDS matrix. `list` has two to four
/// words, the last of which is used first.
fn substitute(column: usize, byte: u8, list: &[[u8; 4]]) -> u8 {
    // Which of q0 and q1 a column uses: after all words, then after word 0, word 1 …
    const ORDER: [[usize; 5]; 4] =
        [[1, 0, 0, 1, 1], [0, 0, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 1]];
    let order = &ORDER[column];
    let mut y = byte;
    for (word, q) in list.iter().zip(&order[1..]).rev() {
        y = Q[*q][usize::from(y)] ^ word[column];
    }
    Q[order[0]][usize::from(y)]
}

/// What byte `y` at `column` of the MDS matrix adds to the product.
fn mds_column(column: usize, y: u8) -> u32 {
    const MDS: [[u8; 4]; 4] = [
        [0x01, 0x5b, 0xef, 0xef],
        [0xef, 0xef, 0x5b, 0x01],
        [0x5b, 0xef, 0x01, 0xef],
        [0x5b, 0x01, 0xef, 0x5b],
    ];
    u32::from_le_bytes(MDS[column].map(|factor| multiply(y, factor, 0x69)))
}

/// Eight bytes of the key as a word of the S-boxes' key.
fn reed_solomon(key: &[u8; 8]) -> [u8; 4] {
    const RS: [[u8; 8]; 4] = [
        [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
        [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
        [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
        [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
    ];
    RS.map(|row| row.iter().zip(key).fold(0, |sum, (m, k)| sum ^ multiply(*k, *m, 0x4d)))
}

/// The product in GF(2^8) modulo x^8 + `polynomial`.
fn multiply(a: u8, b: u8, polynomial: u8) -> u8 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { polynomial };
    }
    product
}

/// The permutations q0 and q1.
const Q: [[u8; 256]; 2] = [
    permutation(&[
        [8, 1, 7, 0xd, 6, 0xf, 3, 2, 0, 0xb, 5, 9, 0xe, 0xc, 0xa, 4],
        [0xe, 0xc, 0xb, 8, 1, 2, 3, 5, 0xf, 4, 0xa, 6, 7, 0, 9, 0xd],
        [0xb, 0xa, 5, 0xe, 6, 0xd, 9, 0, 0xc, 8, 0xf, 3, 2, 4, 7, 1],
        [0xd, 7, 0xf, 4, 1, 2, 6, 0xe, 9, 0xb, 3, 0, 8, 5, 0xc, 0xa],
    ]),
    permutation(&[
        [2, 8, 0xb, 0xd, 0xf, 7, 6, 0xe, 3, 1, 9, 4, 0, 0xa, 0xc, 5],
        [1, 0xe, 2, 0xb, 4, 0xc, 3, 7, 6, 0xd, 0xa, 5, 0xf, 9, 0, 8],
        [4, 0xc, 7, 5, 1, 6, 9, 0xa, 0, 0xe, 0xd, 8, 2, 0xb, 3, 0xf],
        [0xb, 9, 5, 1, 0xc, 3, 0xd, 0xe, 6, 4, 7, 0xf, 2, 0, 8, 0xa],
    ]),
];

const fn permutation(t: &[[u8; 16]; 4]) -> [u8; 256] {
    let mut q = [0; 256];
    let mut x = 0;
    while x < 256 {
        let (mut a, mut b) = (x as u8 >> 4, x as u8 & 15);
        let mut half = 0;
        while half < 4 {
            let (a1, b1) = (a ^ b, (a ^ (b >> 1 | b << 3) ^ (a << 3)) & 15);
            (a, b) = (t[half][a1 as usize], t[half + 1][b1 as usize]);
            half += 2;
        }
        q[x] = b << 4 | a;
        x += 1;
    }
    q
}

#[cfg(test)]
mod tests {
    use cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

    use super::Twofish;

    /// Against the `twofish` crate, which works everything out byte by byte.
    #[test]
    fn as_the_plain_implementation() {
        for length in [16, 24, 32] {
            for round in 0..40u8 {
                let key: Vec<u8> =
                    (0..length).map(|n: u8| n.wrapping_mul(round).rotate_left(3) ^ round).collect();
                let (ours, plain) = (
                    Twofish::new_from_slice(&key).unwrap(),
                    twofish::Twofish::new_from_slice(&key).unwrap(),
                );
                let block = Block::<Twofish>::from([round.wrapping_mul(37); 16]);
                let (mut a, mut b) = (block, block);
                ours.encrypt_block(&mut a);
                plain.encrypt_block(&mut b);
                assert_eq!(a, b, "{length} {round}");
                ours.decrypt_block(&mut a);
                assert_eq!(a, block);
            }
        }
        assert!(Twofish::new_from_slice(&[0; 17]).is_err());
    }
}
