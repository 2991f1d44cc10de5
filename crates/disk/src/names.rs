//! Names that need not be UTF-8, carried in text.
//!
//! Names of files are bytes, but nearly all are UTF-8, and text is what command lines, messages and
//! addresses are made of. Each byte that is no UTF-8 is carried as a letter of its own, from a part
//! of Unicode that is nobody's; whoever asks a filesystem for the name turns it back first. Letters
//! of that part which are in a name themselves are carried byte by byte, so that nothing is lost.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The letter of byte 0. Only those of 0x80 to 0xff are in use.
const FIRST: u32 = 0x10_FE00;

fn letter(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a letter carries.
pub fn carried(letter: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(letter).checked_sub(FIRST)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

/// The text that carries a name.
pub fn to_text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for plain in chunk.valid().chars() {
            match carried(plain) {
                None => text.push(plain),
                Some(_) => text.extend(plain.to_string().bytes().map(letter)),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(letter));
    }
    text
}

/// Whether text carries bytes that are no UTF-8.
pub fn carries_bytes(text: &str) -> bool {
    text.chars().any(|letter| carried(letter).is_some())
}

/// The name that text carries.
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !carries_bytes(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match carried(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(letter.to_string().bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// The path that text carries.
pub fn to_path(text: &str) -> Cow<'_, Path> {
    match to_bytes(text) {
        Cow::Borrowed(_) => Cow::Borrowed(Path::new(text)),
        Cow::Owned(bytes) => Cow::Owned(OsStr::from_bytes(&bytes).into()),
    }
}

/// The text that carries a path.
pub fn of_path(path: &Path) -> String {
    to_text(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        let odd = "a\u{10fee9}b".as_bytes();
        for name in
            [&b"plain"[..], b"caf\xe9", b"\xff\xfe", "größe".as_bytes(), odd, b"", b"\xf4\x8f"]
        {
            let text = to_text(name);
            assert_eq!(&*to_bytes(&text), name);
            assert_eq!(to_path(&text).as_os_str().as_bytes(), name);
        }
        assert_eq!(to_text("größe".as_bytes()), "größe");
        assert!(carries_bytes(&to_text(b"caf\xe9")));
        assert!(!carries_bytes("größe"));
    }
}
