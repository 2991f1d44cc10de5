//! Writing a source as a tar stream: ustar, with pax headers for what that cannot hold.

use std::io::Write;

use disksmith_disk::{Context as _, Result};

use super::{Node, Source, SourceFile};
use crate::FileKind;

const BLOCK: usize = 512;
/// The largest numbers of 7 and of 11 octal digits.
const ID_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;

/// Writes all of `source` to `out`. Holes are written as zeroes; sockets are left out, as tar has
/// none. Answers how many files were written.
pub fn write_tar(source: &mut dyn Source, out: &mut dyn Write) -> Result<u64> {
    let mut count = 0;
    while let Some(file) = source.next_file()? {
        if matches!(file.node, Node::Special(FileKind::Socket, _)) {
            continue;
        }
        write_file(&file, source, out).with_context(|| {
            format!("Could not write '{}'", String::from_utf8_lossy(&file.path))
        })?;
        count += 1;
    }
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(count)
}

fn write_file(file: &SourceFile, source: &mut dyn Source, out: &mut dyn Write) -> Result<()> {
    let mut name = if file.path.is_empty() { b".".to_vec() } else { file.path.clone() };
    if file.node == Node::Directory {
        name.push(b'/');
    }
    let (kind, link, size) = match &file.node {
        Node::Regular(size) => (b'0', &[][..], *size),
        Node::Directory => (b'5', &[][..], 0),
        Node::Symlink(target) => (b'2', target.as_slice(), 0),
        Node::HardLink(target) => (b'1', target.as_slice(), 0),
        Node::Special(FileKind::CharDevice, _) => (b'3', &[][..], 0),
        Node::Special(FileKind::BlockDevice, _) => (b'4', &[][..], 0),
        Node::Special(..) => (b'6', &[][..], 0),
    };
    let records = pax_records(file, &name, link, size);
    if !records.is_empty() {
        let header = header(file, b"././@PaxHeader", &[], b'x', records.len() as u64);
        out.write_all(&header)?;
        out.write_all(&records)?;
        out.write_all(&padding(records.len() as u64))?;
    }
    out.write_all(&header(file, &name, link, kind, size))?;
    if size == 0 {
        return Ok(());
    }
    let mut at = 0;
    source.content(&mut |offset, data| {
        write_zeroes(out, offset.saturating_sub(at))?;
        out.write_all(data)?;
        at = offset + data.len() as u64;
        Ok(())
    })?;
    write_zeroes(out, size.saturating_sub(at))?;
    out.write_all(&padding(size))?;
    Ok(())
}

fn write_zeroes(out: &mut dyn Write, mut count: u64) -> Result<()> {
    let zeroes = [0; 65536];
    while count > 0 {
        let step = count.min(zeroes.len() as u64) as usize;
        out.write_all(&zeroes[..step])?;
        count -= step as u64;
    }
    Ok(())
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; (size.wrapping_neg() % BLOCK as u64) as usize]
}

fn pax_records(file: &SourceFile, name: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        // The length counts its own digits.
        let base = key.len() + value.len() + 3;
        let mut length = base + 1;
        while length != base + length.to_string().len() {
            length = base + length.to_string().len();
        }
        records.extend(length.to_string().bytes());
        records.push(b' ');
        records.extend(key);
        records.push(b'=');
        records.extend(value);
        records.push(b'\n');
    };
    if name.len() > 100 {
        add(b"path", name);
    }
    if link.len() > 100 {
        add(b"linkpath", link);
    }
    if size > SIZE_MAX {
        add(b"size", size.to_string().as_bytes());
    }
    let time = file.modified;
    if time.nanoseconds != 0 || time.seconds < 0 || time.seconds > SIZE_MAX as i64 {
        add(b"mtime", time_text(time.seconds, time.nanoseconds).as_bytes());
    }
    for (key, id) in [(&b"uid"[..], file.uid), (&b"gid"[..], file.gid)] {
        if id > ID_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    if !matches!(file.node, Node::HardLink(_)) {
        for (key, value) in &file.xattrs {
            add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
        }
    }
    records
}

fn time_text(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let (whole, rest) = (seconds + 1, 1_000_000_000 - nanoseconds);
        let sign = if whole == 0 { "-" } else { "" };
        return format!("{sign}{whole}.{rest:09}");
    }
    format!("{seconds}.{nanoseconds:09}")
}

fn header(file: &SourceFile, name: &[u8], link: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
    let mut raw = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = raw.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, name.get(..100).unwrap_or(name));
    put(100, format!("{:07o}\0", file.mode).as_bytes());
    put(108, format!("{:07o}\0", file.uid.min(ID_MAX)).as_bytes());
    put(116, format!("{:07o}\0", file.gid.min(ID_MAX)).as_bytes());
    put(124, format!("{:011o}\0", size.min(SIZE_MAX)).as_bytes());
    let seconds = file.modified.seconds.clamp(0, SIZE_MAX as i64);
    put(136, format!("{seconds:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.get(..100).unwrap_or(link));
    put(257, b"ustar\x0000");
    if let Node::Special(special, device) = &file.node
        && special.is_device()
    {
        put(329, format!("{:07o}\0", device.major.min(ID_MAX)).as_bytes());
        put(337, format!("{:07o}\0", device.minor.min(ID_MAX)).as_bytes());
    }
    let sum: u32 = raw.iter().map(|byte| u32::from(*byte)).sum();
    let text = format!("{sum:06o}\0 ");
    raw[148..156].copy_from_slice(text.as_bytes());
    raw
}
