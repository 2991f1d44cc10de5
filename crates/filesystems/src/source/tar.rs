//! A tar stream: ustar, GNU and pax, with times to nanoseconds, extended attributes with any bytes
//! in them, and sparse files in all of GNU tar's forms. One pass, nothing is kept.

use std::collections::HashMap;
use std::io::{ErrorKind, Read};

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::{Node, Source, SourceFile};
use crate::{Device, FileKind, Time};

const BLOCK: usize = 512;
/// Content is read at most so much at once.
const BUFFER: usize = 1 << 20;
/// The most bytes of extended headers and long names.
const HEADER_MAX: u64 = 16 << 20;
/// The most pieces of a sparse file.
const PIECES_MAX: usize = 1 << 22;
/// Where attributes are kept in pax headers.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const ACLS: [(&str, &[u8]); 2] = [
    ("SCHILY.acl.access", b"system.posix_acl_access"),
    ("SCHILY.acl.default", b"system.posix_acl_default"),
];

/// The files of a tar stream.
pub struct TarSource<R> {
    stream: R,
    global: HashMap<Vec<u8>, Vec<u8>>,
    current: Option<Content>,
    /// Padding after the current content.
    padding: u64,
    buffer: Vec<u8>,
}

/// Content that is still to be read.
#[derive(Debug)]
struct Content {
    left: u64,
    size: u64,
    /// (offset, length) of the pieces of a sparse file.
    map: Option<Vec<(u64, u64)>>,
}

impl<R> std::fmt::Debug for TarSource<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarSource").field("current", &self.current).finish_non_exhaustive()
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("The tar stream is corrupt: {what}"))
}

/// One header with what came before it.
#[derive(Debug, Default)]
struct Header {
    raw: Vec<u8>,
    pax: HashMap<Vec<u8>, Vec<u8>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> TarSource<R> {
    /// The files of `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, global: HashMap::new(), current: None, padding: 0, buffer: Vec::new() }
    }

    fn read_block(&mut self) -> Result<Option<Vec<u8>>> {
        let mut block = vec![0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(block.get_mut(filled..).unwrap_or(&mut [])) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(corrupt("it ends within a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("Could not read the tar stream"),
            }
        }
        Ok(Some(block))
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        self.buffer.resize(BUFFER, 0);
        while count > 0 {
            let want = count.min(BUFFER as u64) as usize;
            let part = self.buffer.get_mut(..want).unwrap_or(&mut []);
            self.stream.read_exact(part).context("Could not read the tar stream")?;
            count -= want as u64;
        }
        Ok(())
    }

    fn read_small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > HEADER_MAX {
            return Err(Error::new(Kind::LimitExceeded, "The tar stream has a huge header"));
        }
        let mut bytes = vec![0; size as usize];
        self.stream.read_exact(&mut bytes).context("Could not read the tar stream")?;
        self.skip(padding_of(size))?;
        Ok(bytes)
    }

    /// The next header of a file.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::default();
        loop {
            let Some(raw) = self.read_block()? else { return Ok(None) };
            if disksmith_disk::is_zero(&raw) {
                // Two blocks of zeroes end the archive; what follows is padding.
                return Ok(None);
            }
            check_sum(&raw)?;
            let size = number(&raw[124..136])?;
            match raw[156] {
                b'x' => {
                    let bytes = self.read_small(size)?;
                    header.pax.extend(parse_pax(&bytes)?);
                }
                b'g' => {
                    let bytes = self.read_small(size)?;
                    self.global.extend(parse_pax(&bytes)?);
                }
                b'L' => header.long_name = Some(until_zero(&self.read_small(size)?)),
                b'K' => header.long_link = Some(until_zero(&self.read_small(size)?)),
                _ => {
                    header.raw = raw;
                    for (key, value) in &self.global {
                        header.pax.entry(key.clone()).or_insert_with(|| value.clone());
                    }
                    return Ok(Some(header));
                }
            }
        }
    }

    fn describe(&mut self, header: &Header) -> Result<Option<SourceFile>> {
        let raw = &header.raw;
        let stored = match header.text("size").and_then(|text| text.parse().ok()) {
            Some(size) => size,
            None => number(&raw[124..136])?,
        };
        let mut kind = raw[156];
        let name = header.name();
        if kind == 0 && name.last() == Some(&b'/') {
            kind = b'5';
        }
        let device =
            Device { major: number(&raw[329..337])? as u32, minor: number(&raw[337..345])? as u32 };
        let has_content = matches!(kind, 0 | b'0' | b'7' | b'S');
        let node = match kind {
            0 | b'0' | b'7' | b'S' => Node::Regular(stored),
            b'1' => Node::HardLink(clean(&header.link())?),
            b'2' => Node::Symlink(header.link()),
            b'3' => Node::Special(FileKind::CharDevice, device),
            b'4' => Node::Special(FileKind::BlockDevice, device),
            b'5' => Node::Directory,
            b'6' => Node::Special(FileKind::Fifo, Device::default()),
            _ => {
                // Volume labels and the like.
                self.skip(stored + padding_of(stored))?;
                return Ok(None);
            }
        };
        let mut file = SourceFile {
            path: clean(&name)?,
            node,
            mode: (number(&raw[100..108])? & 0o7777) as u16,
            uid: header.id("uid", &raw[108..116])?,
            gid: header.id("gid", &raw[116..124])?,
            modified: match header.text("mtime").and_then(parse_time) {
                Some(time) => time,
                None => Time::from_seconds(signed_number(&raw[136..148])?),
            },
            xattrs: header.xattrs(),
        };
        if has_content {
            let content = self.content_of(header, stored)?;
            file.node = Node::Regular(content.size);
            self.padding = padding_of(stored);
            self.current = Some(content);
        } else if kind != b'1' {
            self.skip(stored + padding_of(stored))?;
        }
        Ok(Some(file))
    }

    /// Reads the map of a sparse file, which lies in one of four places.
    fn content_of(&mut self, header: &Header, stored: u64) -> Result<Content> {
        let raw = &header.raw;
        let plain = Content { left: stored, size: stored, map: None };
        if raw[156] == b'S' {
            let mut map = Vec::new();
            read_pieces(&raw[386..482], &mut map)?;
            let mut more = raw[482] != 0;
            while more {
                let block = self.read_block()?.ok_or_else(|| corrupt("a sparse map is cut"))?;
                read_pieces(&block[..504], &mut map)?;
                more = block[504] != 0;
                if map.len() > PIECES_MAX {
                    return Err(Error::new(Kind::LimitExceeded, "A file has too many pieces"));
                }
            }
            let size = number(&raw[483..495])?;
            return Ok(Content { left: stored, size, map: Some(map) });
        }
        let size = ["GNU.sparse.realsize", "GNU.sparse.size"]
            .iter()
            .find_map(|key| header.text(key).and_then(|text| text.parse().ok()));
        let Some(size) = size else { return Ok(plain) };
        if header.text("GNU.sparse.major") == Some("1") {
            return self.read_map(stored, size);
        }
        let Some(text) = header.text("GNU.sparse.map") else { return Ok(plain) };
        let numbers: Vec<u64> = text.split(',').filter_map(|word| word.parse().ok()).collect();
        let map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Content { left: stored, size, map: Some(map) })
    }

    /// Form 1.0: decimal numbers, one a line, in whole blocks before the content.
    fn read_map(&mut self, stored: u64, size: u64) -> Result<Content> {
        let mut text = Vec::new();
        let mut used = 0;
        let mut numbers: Vec<u64> = Vec::new();
        loop {
            let block = self.read_block()?.ok_or_else(|| corrupt("a sparse map is cut"))?;
            used += BLOCK as u64;
            for byte in block {
                if byte == b'\n' {
                    let word = std::str::from_utf8(&text).ok().and_then(|word| word.parse().ok());
                    numbers.push(word.ok_or_else(|| corrupt("a sparse map is bad"))?);
                    text.clear();
                } else {
                    text.push(byte);
                }
                let count = numbers.first().copied().unwrap_or(u64::MAX >> 1);
                if count as usize > PIECES_MAX && !numbers.is_empty() {
                    return Err(Error::new(Kind::LimitExceeded, "A file has too many pieces"));
                }
                if numbers.len() as u64 == 1 + 2 * count {
                    let map = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                    let left =
                        stored.checked_sub(used).ok_or_else(|| corrupt("a sparse map is bad"))?;
                    return Ok(Content { left, size, map: Some(map) });
                }
            }
            if text.len() > 32 || used > stored {
                return Err(corrupt("a sparse map is bad"));
            }
        }
    }

    /// Leaves what was not read of the current file.
    fn finish_content(&mut self) -> Result<()> {
        if let Some(content) = self.current.take() {
            self.skip(content.left + self.padding)?;
        }
        Ok(())
    }
}

impl Header {
    fn text(&self, key: &str) -> Option<&str> {
        self.pax.get(key.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn name(&self) -> Vec<u8> {
        let pax = self.pax.get(&b"GNU.sparse.name"[..]).or_else(|| self.pax.get(&b"path"[..]));
        if let Some(name) = pax.or(self.long_name.as_ref()) {
            return name.clone();
        }
        let name = until_zero(&self.raw[..100]);
        let prefix = until_zero(&self.raw[345..500]);
        // GNU's own format has other things where ustar has the prefix.
        if &self.raw[257..263] == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/".to_vec(), name].concat();
        }
        name
    }

    fn link(&self) -> Vec<u8> {
        match self.pax.get(&b"linkpath"[..]).or(self.long_link.as_ref()) {
            Some(link) => link.clone(),
            None => until_zero(&self.raw[157..257]),
        }
    }

    fn id(&self, key: &str, field: &[u8]) -> Result<u32> {
        let value = match self.text(key).and_then(|text| text.parse().ok()) {
            Some(value) => value,
            None => number(field)?,
        };
        u32::try_from(value).map_err(|_| corrupt("an owner's number is too large"))
    }

    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = self
            .pax
            .iter()
            .filter_map(|(key, value)| {
                key.strip_prefix(XATTR_PREFIX).map(|name| (name.to_vec(), value.clone()))
            })
            .collect();
        for (key, name) in ACLS {
            let known = all.iter().any(|(other, _)| other == name);
            if let Some(acl) = self.text(key).filter(|_| !known).and_then(parse_acl) {
                all.push((name.to_vec(), acl));
            }
        }
        all.sort_unstable();
        all
    }
}

fn padding_of(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn until_zero(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}

fn check_sum(raw: &[u8]) -> Result<()> {
    let sum: u64 = raw
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    if number(&raw[148..156])? == sum { Ok(()) } else { Err(corrupt("a header's sum is wrong")) }
}

/// Octal digits, or binary when the first byte's highest bit is set.
fn number(field: &[u8]) -> Result<u64> {
    u64::try_from(signed_number(field)?).map_err(|_| corrupt("a number is negative"))
}

fn signed_number(field: &[u8]) -> Result<i64> {
    let bad = || corrupt("a number is bad");
    let first = field.first().copied().unwrap_or(0);
    if first & 0x80 != 0 {
        let start = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let mut value = start << 6 | i64::from(first & 0x3f);
        for byte in field.get(1..).unwrap_or(&[]) {
            value = value.checked_mul(256).ok_or_else(bad)? | i64::from(*byte);
        }
        return Ok(value);
    }
    let mut value = 0_i64;
    for byte in field.iter().skip_while(|byte| **byte == b' ') {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8).ok_or_else(bad)? + i64::from(byte - b'0'),
            0 | b' ' => break,
            _ => return Err(bad()),
        }
    }
    Ok(value)
}

fn read_pieces(bytes: &[u8], map: &mut Vec<(u64, u64)>) -> Result<()> {
    for piece in bytes.chunks_exact(24).filter(|piece| piece[0] != 0) {
        map.push((number(&piece[..12])?, number(&piece[12..])?));
    }
    Ok(())
}

/// Records `LENGTH KEY=VALUE\n`; values may hold any bytes. Form 0.0 of sparse maps, with a key many
/// times, is brought into the form of one list.
fn parse_pax(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let bad = || corrupt("an extended header is bad");
    let mut records = Vec::new();
    let mut map: Vec<u8> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && rest[0] != 0 {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&rest[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(bad)?;
        let record = rest.get(space + 1..length.checked_sub(1).ok_or_else(bad)?).ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
            if !map.is_empty() {
                map.push(b',');
            }
            map.extend_from_slice(value);
        } else {
            records.push((key.to_vec(), value.to_vec()));
        }
        rest = rest.get(length..).ok_or_else(bad)?;
    }
    if !map.is_empty() {
        records.push((b"GNU.sparse.map".to_vec(), map));
    }
    Ok(records)
}

/// `1234.000000001`, also negative.
fn parse_time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut digits: String = fraction.chars().take(9).collect();
    while digits.len() < 9 {
        digits.push('0');
    }
    let nanoseconds: u32 = digits.parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time { seconds: seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

/// `user::rwx,user:name:r-x:1000,group::r--,mask::rwx,other::r--` to Linux's encoding. Names are
/// only understood with their number.
fn parse_acl(text: &str) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    for word in text.split([',', '\n']).map(str::trim).filter(|word| !word.is_empty()) {
        let mut parts = word.split(':');
        let (tag, name, bits) = (parts.next()?, parts.next()?, parts.next()?);
        let id = parts.next().unwrap_or(name).parse::<u32>();
        let (tag, id) = match (tag, name.is_empty()) {
            ("user" | "u", true) => (1_u16, u32::MAX),
            ("user" | "u", false) => (2, id.ok()?),
            ("group" | "g", true) => (4, u32::MAX),
            ("group" | "g", false) => (8, id.ok()?),
            ("mask" | "m", _) => (16, u32::MAX),
            ("other" | "o", _) => (32, u32::MAX),
            _ => return None,
        };
        let mut rights = 0_u16;
        for (letter, bit) in [('r', 4), ('w', 2), ('x', 1)] {
            rights |= if bits.contains(letter) { bit } else { 0 };
        }
        entries.push((tag, id, rights));
    }
    entries.sort_unstable();
    if entries.iter().all(|(tag, _, _)| matches!(tag, 1 | 4 | 32)) {
        // Nothing but what the mode says.
        return None;
    }
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, id, rights) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Some(bytes)
}

/// A path without leading `./`, `/` and empty components; `..` is refused.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(Error::new(Kind::Refused, "The tar stream has a path with '..'"));
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

impl<R: Read + Send> Source for TarSource<R> {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        self.finish_content()?;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            if let Some(file) = self.describe(&header)? {
                return Ok(Some(file));
            }
        }
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let Some(mut content) = self.current.take() else { return Ok(()) };
        let map = content.map.take().unwrap_or_else(|| vec![(0, content.left)]);
        self.buffer.resize(BUFFER, 0);
        for (start, length) in map {
            let mut at = start;
            let end = start.checked_add(length).filter(|end| *end <= content.size);
            let end = end.ok_or_else(|| corrupt("a sparse map leads outside of its file"))?;
            while at < end {
                let want = (end - at).min(BUFFER as u64) as usize;
                content.left = content
                    .left
                    .checked_sub(want as u64)
                    .ok_or_else(|| corrupt("a sparse map is longer than its file"))?;
                let part = self.buffer.get_mut(..want).unwrap_or(&mut []);
                self.stream.read_exact(part).context("Could not read the tar stream")?;
                sink(at, part)?;
                at += want as u64;
            }
        }
        self.skip(content.left + self.padding)
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        Ok(match &self.current {
            None => 0,
            Some(Content { map: Some(map), .. }) => map
                .iter()
                .map(|(start, length)| {
                    start.saturating_add(*length).div_ceil(block_size) - start / block_size
                })
                .sum(),
            Some(content) => content.left.div_ceil(block_size),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_any_bytes() {
        let records = parse_pax(b"12 a=\n\n=x\xff\n11 bb=1\n2\n\n").unwrap_err();
        assert_eq!(records.kind(), Kind::Corrupt);
        let records = parse_pax(b"11 a=\n\n=x\xff\n6 b=1\n").unwrap();
        assert_eq!(records[0], (b"a".to_vec(), b"\n\n=x\xff".to_vec()));
        assert_eq!(records[1], (b"b".to_vec(), b"1".to_vec()));
    }

    #[test]
    fn times_before_1970() {
        let time = Time { seconds: -2, nanoseconds: 500_000_000 };
        assert_eq!(parse_time("-1.5"), Some(time));
        assert_eq!(signed_number(b"\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap(), -2);
    }
}
