//! What cipher, mode and sector numbering a volume uses, and their names.
//!
//! Two sets of names are in use: QEMU's options (`aes-256`, `xts`, `plain64`) and the strings of
//! LUKS headers (`aes` with a key length, `xts-plain64`, `cbc-essiv:sha256`).

use disksmith_disk::{Error, Kind, Result};

use crate::HashAlgorithm;

/// A block cipher with its key length.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cipher {
    /// AES with a 128-bit key.
    Aes128,
    /// AES with a 192-bit key.
    Aes192,
    /// AES with a 256-bit key.
    Aes256,
    /// CAST5 (CAST-128) with a 128-bit key; 8-byte blocks.
    Cast5,
    /// Serpent with a 128-bit key.
    Serpent128,
    /// Serpent with a 192-bit key.
    Serpent192,
    /// Serpent with a 256-bit key.
    Serpent256,
    /// Twofish with a 128-bit key.
    Twofish128,
    /// Twofish with a 192-bit key.
    Twofish192,
    /// Twofish with a 256-bit key.
    Twofish256,
}

/// Cipher, QEMU's name, name in headers, key bytes.
const CIPHERS: [(Cipher, &str, &str, usize); 10] = [
    (Cipher::Aes128, "aes-128", "aes", 16),
    (Cipher::Aes192, "aes-192", "aes", 24),
    (Cipher::Aes256, "aes-256", "aes", 32),
    (Cipher::Cast5, "cast5-128", "cast5", 16),
    (Cipher::Serpent128, "serpent-128", "serpent", 16),
    (Cipher::Serpent192, "serpent-192", "serpent", 24),
    (Cipher::Serpent256, "serpent-256", "serpent", 32),
    (Cipher::Twofish128, "twofish-128", "twofish", 16),
    (Cipher::Twofish192, "twofish-192", "twofish", 24),
    (Cipher::Twofish256, "twofish-256", "twofish", 32),
];

impl Cipher {
    /// Every cipher.
    pub const ALL: [Self; 10] = {
        let mut all = [Self::Aes128; 10];
        let mut n = 0;
        while n < all.len() {
            all[n] = CIPHERS[n].0;
            n += 1;
        }
        all
    };

    fn row(self) -> (Self, &'static str, &'static str, usize) {
        // The table has a row for every cipher, in the order of the declaration; a test says so.
        CIPHERS[self as usize]
    }

    /// The name in options: `aes-256`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The name in LUKS headers: `aes`.
    pub fn header_name(self) -> &'static str {
        self.row().2
    }

    /// Bytes of one key. XTS takes two.
    pub fn key_bytes(self) -> usize {
        self.row().3
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        if self == Self::Cast5 { 8 } else { 16 }
    }

    /// The cipher of that option name.
    pub fn from_name(name: &str) -> Result<Self> {
        CIPHERS
            .iter()
            .find(|row| row.1 == name)
            .map(|row| row.0)
            .ok_or_else(|| unsupported(format!("Algorithm '{name}' not supported")))
    }

    /// The cipher of that name in a header, for keys of `key_bytes` (one key, not two).
    pub fn from_header(name: &str, key_bytes: usize) -> Result<Self> {
        let found = CIPHERS.iter().find(|row| row.2 == name && row.3 == key_bytes);
        found.map(|row| row.0).ok_or_else(|| {
            unsupported(format!("Algorithm '{name}' with key size {key_bytes} bytes not supported"))
        })
    }

    /// The cipher of the same family for keys of `key_bytes`: ESSIV chooses it by its hash.
    fn sibling(self, key_bytes: usize) -> Result<Self> {
        let family = self.header_name();
        let found = CIPHERS.iter().find(|row| row.2 == family && row.3 == key_bytes);
        found.map(|row| row.0).ok_or_else(|| {
            let mut shown = family.to_string();
            let length = if family == "aes" { shown.len() } else { 1 };
            if let Some(start) = shown.get_mut(..length) {
                start.make_ascii_uppercase();
            }
            unsupported(format!("No {shown} cipher with key size {key_bytes} available"))
        })
    }
}

/// How blocks are chained within a sector.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// Each block for itself. Equal blocks show as equal; only for reading what others made.
    Ecb,
    /// Cipher block chaining.
    Cbc,
    /// XEX with a tweak per block (IEEE 1619); takes two keys.
    Xts,
    /// Counter mode, counting from the sector's IV. Only for reading what others made.
    Ctr,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Ecb, Self::Cbc, Self::Xts, Self::Ctr];

    /// The name in headers and options: `xts`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecb => "ecb",
            Self::Cbc => "cbc",
            Self::Xts => "xts",
            Self::Ctr => "ctr",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|m| m.name() == name)
            .ok_or_else(|| unsupported(format!("Cipher mode '{name}' not supported")))
    }
}

/// How a sector's number becomes its initialization vector.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum IvGenerator {
    /// The low 32 bits of the sector number, little-endian.
    Plain,
    /// The sector number in 64 bits, little-endian.
    Plain64,
    /// The sector number in 64 bits, encrypted with the hash of the key.
    Essiv,
}

impl IvGenerator {
    /// Every generator.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Plain64, Self::Essiv];

    /// The name in headers and options: `plain64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Essiv => "essiv",
        }
    }

    /// The generator of that name.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|g| g.name() == name)
            .ok_or_else(|| unsupported(format!("IV generator '{name}' not supported")))
    }
}

/// All that determines how sectors are encrypted, except the key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CipherSpec {
    /// The block cipher.
    pub cipher: Cipher,
    /// The chaining mode.
    pub mode: Mode,
    /// What makes the IV.
    pub iv: IvGenerator,
    /// The hash of ESSIV; carried along but of no effect with the other generators.
    pub iv_hash: Option<HashAlgorithm>,
}

impl Default for CipherSpec {
    /// `aes-256`, `xts`, `plain64`.
    fn default() -> Self {
        Self { cipher: Cipher::Aes256, mode: Mode::Xts, iv: IvGenerator::Plain64, iv_hash: None }
    }
}

impl CipherSpec {
    /// Bytes of the whole key: XTS takes two keys of the cipher.
    pub fn key_bytes(&self) -> usize {
        self.cipher.key_bytes() * if self.mode == Mode::Xts { 2 } else { 1 }
    }

    /// Reads the two strings of a LUKS header, for a key of `key_bytes` in all.
    ///
    /// A mode alone (`ecb`) means no use of the sector number.
    pub fn from_header(name: &str, mode: &str, key_bytes: usize) -> Result<Self> {
        let (mode, iv) = match mode.split_once('-') {
            Some(parts) => parts,
            None if mode == "ecb" => (mode, "plain"),
            None => {
                return Err(unsupported(format!("Unexpected cipher mode string format '{mode}'")));
            }
        };
        let (iv, hash) = match iv.split_once(':') {
            Some((iv, hash)) => (iv, Some(HashAlgorithm::from_name(hash)?)),
            None => (iv, None),
        };
        let mode = Mode::from_name(mode)?;
        let one_key = if mode == Mode::Xts { key_bytes / 2 } else { key_bytes };
        let cipher = Cipher::from_header(name, one_key)?;
        let spec = Self { cipher, mode, iv: IvGenerator::from_name(iv)?, iv_hash: hash };
        if spec.key_bytes() != key_bytes {
            return Err(unsupported(format!(
                "Algorithm '{name}' with key size {key_bytes} bytes not supported"
            )));
        }
        spec.check()?;
        Ok(spec)
    }

    /// The mode string of a LUKS header: `cbc-essiv:sha256`.
    pub fn header_mode(&self) -> String {
        let (mode, iv) = (self.mode.name(), self.iv.name());
        match self.iv_hash {
            Some(hash) => format!("{mode}-{iv}:{}", hash.name()),
            None => format!("{mode}-{iv}"),
        }
    }

    /// Refuses combinations that do not exist.
    pub fn check(&self) -> Result<()> {
        if self.mode == Mode::Xts && self.cipher.block_bytes() != 16 {
            return Err(unsupported("Unsupported cipher mode xts"));
        }
        if self.iv == IvGenerator::Essiv {
            self.essiv_cipher()?;
        }
        Ok(())
    }

    /// The cipher that ESSIV encrypts sector numbers with, and the hash that makes its key.
    pub(crate) fn essiv_cipher(&self) -> Result<(Cipher, HashAlgorithm)> {
        let hash =
            self.iv_hash.ok_or_else(|| unsupported("Missing IV generator hash specification"))?;
        Ok((self.cipher.sibling(hash.digest_bytes())?, hash))
    }
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Kind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (n, row) in CIPHERS.iter().enumerate() {
            assert_eq!(row.0 as usize, n);
            assert_eq!(Cipher::from_name(row.1).unwrap(), row.0);
            assert_eq!(Cipher::from_header(row.2, row.3).unwrap(), row.0);
        }
    }

    #[test]
    fn header_strings() {
        let spec = CipherSpec::from_header("aes", "xts-plain64", 64).unwrap();
        assert_eq!(spec, CipherSpec::default());
        assert_eq!(spec.header_mode(), "xts-plain64");
        let spec = CipherSpec::from_header("aes", "cbc-essiv:sha256", 16).unwrap();
        assert_eq!(spec.essiv_cipher().unwrap(), (Cipher::Aes256, HashAlgorithm::Sha256));
        assert_eq!(spec.header_mode(), "cbc-essiv:sha256");
        assert_eq!(CipherSpec::from_header("aes", "ecb", 16).unwrap().mode, Mode::Ecb);
    }

    #[test]
    fn refusals() {
        let text =
            |name, mode, bytes| CipherSpec::from_header(name, mode, bytes).unwrap_err().to_string();
        assert_eq!(text("aes", "xts", 64), "Unexpected cipher mode string format 'xts'");
        assert_eq!(text("aes", "lrw-benbi", 64), "Cipher mode 'lrw' not supported");
        assert_eq!(text("aes", "xts-null", 64), "IV generator 'null' not supported");
        assert_eq!(
            text("des", "xts-plain", 64),
            "Algorithm 'des' with key size 32 bytes not supported"
        );
        assert_eq!(
            text("aes", "xts-plain", 65),
            "Algorithm 'aes' with key size 65 bytes not supported"
        );
        assert_eq!(text("aes", "xts-essiv:sha512", 64), "No AES cipher with key size 64 available");
        assert_eq!(
            text("serpent", "cbc-essiv:sha1", 32),
            "No Serpent cipher with key size 20 available"
        );
        assert_eq!(text("aes", "cbc-essiv", 32), "Missing IV generator hash specification");
        assert_eq!(text("cast5", "xts-plain64", 32), "Unsupported cipher mode xts");
    }
}
