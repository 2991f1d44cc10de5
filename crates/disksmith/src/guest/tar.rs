//! Trees to and from tar streams, in the pax form: with times to nanoseconds, extended
//! attributes, large numbers, any names.

use std::collections::HashMap;
use std::io::Write;

use disksmith_disk::{Context, Error, Kind, PageBuffer, Result};
use disksmith_filesystems::source::{Node, Source, SourceFile};
use disksmith_filesystems::{
    Attributes, Changes, Device, FileKind, Filesystem, NewFile, Seek, Time, errno, errors,
};

use super::walk::walk;

const BLOCK: usize = 512;
const STEP: usize = 1 << 20;
/// The largest number in a field of 12 bytes.
const OCTAL_MAX: u64 = 0o777_7777_7777;
/// Access control lists have names of their own in pax headers, and are text there.
const ACLS: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"SCHILY.acl.access"),
    (b"system.posix_acl_default", b"SCHILY.acl.default"),
];
/// `ENOENT`.
const NO_ENTRY: i32 = 2;

/// Writes everything below `start` as a tar stream. What cannot be read is told to `fail`.
pub(crate) fn export(
    tree: &dyn Filesystem,
    start: Attributes,
    out: &mut dyn Write,
    fail: &mut dyn FnMut(&[u8], Error),
) -> Result<()> {
    let mut export = Export { tree, out, seen: HashMap::new(), buffer: PageBuffer::zeroed(STEP) };
    walk(
        tree,
        start,
        &mut |met| {
            let mut path = b"./".to_vec();
            path.extend(met.path);
            export.file(&path, &met.found)?;
            Ok(true)
        },
        fail,
    )?;
    export.out.write_all(&[0; 2 * BLOCK]).context("Could not write the tar stream")?;
    export.out.flush().context("Could not write the tar stream")
}

struct Export<'a> {
    tree: &'a dyn Filesystem,
    out: &'a mut dyn Write,
    /// First path of files with several names.
    seen: HashMap<u64, Vec<u8>>,
    buffer: PageBuffer,
}

/// The fields of one header.
struct Header<'a> {
    path: &'a [u8],
    kind: u8,
    size: u64,
    link: &'a [u8],
}

impl Export<'_> {
    fn file(&mut self, path: &[u8], found: &Attributes) -> Result<()> {
        if found.kind == FileKind::Socket {
            // Tar has none.
            return Ok(());
        }
        let mut pax = Vec::new();
        if found.kind != FileKind::Directory && found.links > 1 {
            if let Some(first) = self.seen.get(&found.inode).cloned() {
                let header = Header { path, kind: b'1', size: 0, link: &first };
                return self.header(&header, found, pax);
            }
            self.seen.insert(found.inode, path.to_vec());
        }
        for name in self.tree.xattrs(found.inode)? {
            let value = self.tree.xattr(found.inode, &name)?;
            let list = ACLS.iter().find(|(known, _)| *known == name.as_slice());
            match list.and_then(|(_, key)| Some((key, access_list(&value)?))) {
                Some((key, text)) => record(&mut pax, key, text.as_bytes()),
                None => record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), &value),
            }
        }
        let target = match found.kind {
            FileKind::Symlink => self.tree.read_link(found.inode)?,
            _ => Vec::new(),
        };
        let kind = match found.kind {
            FileKind::Symlink => b'2',
            FileKind::CharDevice => b'3',
            FileKind::BlockDevice => b'4',
            FileKind::Directory => b'5',
            FileKind::Fifo => b'6',
            FileKind::Regular | FileKind::Socket => b'0',
        };
        if found.kind != FileKind::Regular {
            let mut path = path.to_vec();
            if kind == b'5' && !path.ends_with(b"/") {
                path.push(b'/');
            }
            let header = Header { path: &path, kind, size: 0, link: &target };
            return self.header(&header, found, pax);
        }
        let pieces = self.pieces(found)?;
        let stored: u64 = pieces.iter().map(|(_, length)| length).sum();
        if stored == found.size {
            let header = Header { path, kind, size: found.size, link: b"" };
            self.header(&header, found, pax)?;
            return self.content(found, &pieces);
        }
        // GNU's sparse form 1.0: the map of the pieces precedes them.
        let mut map = format!("{}\n", pieces.len());
        for (offset, length) in &pieces {
            map += &format!("{offset}\n{length}\n");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        record(&mut pax, b"GNU.sparse.major", b"1");
        record(&mut pax, b"GNU.sparse.minor", b"0");
        record(&mut pax, b"GNU.sparse.name", path);
        record(&mut pax, b"GNU.sparse.realsize", found.size.to_string().as_bytes());
        let header = Header { path, kind, size: map.len() as u64 + stored, link: b"" };
        self.header(&header, found, pax)?;
        self.write(&map)?;
        self.content(found, &pieces)
    }

    /// Where the data of a file lies; a hole at its end is marked by an empty piece.
    fn pieces(&self, found: &Attributes) -> Result<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < found.size {
            let data = match self.tree.seek(found.inode, at, Seek::Data) {
                Ok(data) => data,
                Err(error) if errno(&error) == 6 => break,
                Err(error) => return Err(error),
            };
            let hole = self.tree.seek(found.inode, data, Seek::Hole)?.min(found.size);
            if hole <= data {
                break;
            }
            pieces.push((data, hole - data));
            at = hole;
        }
        if at < found.size {
            pieces.push((found.size, 0));
        }
        Ok(pieces)
    }

    fn content(&mut self, found: &Attributes, pieces: &[(u64, u64)]) -> Result<()> {
        let mut written = 0u64;
        for (offset, length) in pieces {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let want = STEP.min(usize::try_from(end - at).unwrap_or(STEP));
                let part = &mut self.buffer[..want];
                let count = self.tree.read(found.inode, at, part)?;
                // The header promised so many bytes.
                part[count..].fill(0);
                self.out.write_all(part).context("Could not write the tar stream")?;
                at += want as u64;
            }
            written += length;
        }
        let padding = (BLOCK as u64 - written % BLOCK as u64) % BLOCK as u64;
        self.write(&[0; BLOCK][..padding as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("Could not write the tar stream")
    }

    fn header(&mut self, header: &Header<'_>, found: &Attributes, mut pax: Vec<u8>) -> Result<()> {
        if header.path.len() > 100 {
            record(&mut pax, b"path", header.path);
        }
        if header.link.len() > 100 {
            record(&mut pax, b"linkpath", header.link);
        }
        for (key, value) in [(&b"uid"[..], found.uid), (b"gid", found.gid)] {
            if u64::from(value) > 0o777_7777 {
                record(&mut pax, key, value.to_string().as_bytes());
            }
        }
        if header.size > OCTAL_MAX {
            record(&mut pax, b"size", header.size.to_string().as_bytes());
        }
        let plain = found.modified.nanoseconds == 0
            && u64::try_from(found.modified.seconds).is_ok_and(|s| s <= OCTAL_MAX);
        if !plain {
            record(&mut pax, b"mtime", decimal(found.modified).as_bytes());
        }
        if !pax.is_empty() {
            let name = b"././@PaxHeader";
            let extended = Header { path: name, kind: b'x', size: pax.len() as u64, link: b"" };
            self.write(&raw(&extended, found))?;
            pax.resize(pax.len().next_multiple_of(BLOCK), 0);
            self.write(&pax)?;
        }
        self.write(&raw(header, found))
    }
}

/// An access control list as text, `user::rw-,user:1234:r--`; `None` if it is none.
///
/// Its bytes are those of the kernel's `system.posix_acl_*` attributes: the version 2, then
/// entries of tag, permissions and id.
fn access_list(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_at_checked(4)?;
    if version != [2, 0, 0, 0] || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = Vec::new();
    for entry in entries.chunks_exact(8) {
        let &[tag, 0, bits, 0, a, b, c, d] = entry else { return None };
        let id = u32::from_le_bytes([a, b, c, d]);
        let who = match tag {
            0x01 => "user:".to_string(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_string(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_string(),
            0x20 => "other:".to_string(),
            _ => return None,
        };
        let may = |bit: u8, letter: char| if bits & bit != 0 { letter } else { '-' };
        text.push(format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x')));
    }
    Some(text.join(","))
}

/// `length key=value\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if body + length.to_string().len() > length {
        length = body + length.to_string().len();
    }
    pax.extend(length.to_string().bytes());
    pax.push(b' ');
    pax.extend(key);
    pax.push(b'=');
    pax.extend(value);
    pax.push(b'\n');
}

fn decimal(time: Time) -> String {
    match (time.seconds < 0, time.nanoseconds) {
        (_, 0) => time.seconds.to_string(),
        (false, part) => format!("{}.{part:09}", time.seconds),
        // -1.2 s is -2 s and 0.8 s.
        (true, part) => {
            let seconds = time.seconds.saturating_add(1).unsigned_abs();
            format!("-{seconds}.{:09}", 1_000_000_000 - part)
        }
    }
}

fn raw(header: &Header<'_>, found: &Attributes) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8], room: usize| {
        let length = bytes.len().min(room);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}");
    let small = |value: u32| if value > 0o777_7777 { 0 } else { u64::from(value) };
    put(0, header.path, 100);
    put(100, octal(found.mode.into(), 7).as_bytes(), 8);
    put(108, octal(small(found.uid), 7).as_bytes(), 8);
    put(116, octal(small(found.gid), 7).as_bytes(), 8);
    put(124, octal(header.size.min(OCTAL_MAX), 11).as_bytes(), 12);
    let seconds = u64::try_from(found.modified.seconds).unwrap_or(0).min(OCTAL_MAX);
    put(136, octal(seconds, 11).as_bytes(), 12);
    put(148, b"        ", 8);
    put(156, &[header.kind], 1);
    put(157, header.link, 100);
    put(257, b"ustar\x0000", 8);
    if found.kind.is_device() && matches!(header.kind, b'3' | b'4') {
        put(329, octal(found.device.major.into(), 7).as_bytes(), 8);
        put(337, octal(found.device.minor.into(), 7).as_bytes(), 8);
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Puts the files of a source below `directory`. Paths cannot lead out of it: every component
/// is looked up, and only directories are entered.
/// What the filesystem cannot hold is told to `fail`, and the rest is put there.
pub(crate) fn import(
    source: &mut dyn Source,
    tree: &dyn Filesystem,
    directory: u64,
    fail: &mut dyn FnMut(&[u8], Error),
) -> Result<()> {
    let mut folders = Vec::new();
    let mut made = HashMap::new();
    while let Some(file) = source.next_file()? {
        let attempt = || super::show::name(&file.path);
        let inode = match place(tree, directory, &file, &mut made) {
            Ok(Some(inode)) => inode,
            Ok(None) => continue,
            Err(error) if ends_all(&error) => return Err(error.context(attempt())),
            Err(error) => {
                fail(&file.path, error);
                continue;
            }
        };
        if matches!(file.node, Node::Regular(_)) {
            source
                .content(&mut |offset, bytes| tree.write(inode, offset, bytes))
                .with_context(attempt)?;
        }
        finish(tree, inode, &file).with_context(attempt)?;
        if matches!(file.node, Node::Directory) {
            folders.push((inode, file.modified));
        }
    }
    // What was put into directories changed their times.
    for (inode, modified) in folders.into_iter().rev() {
        let changes = Changes { modified: Some(modified), ..Changes::default() };
        tree.set_attributes(inode, &changes)?;
    }
    Ok(())
}

/// Whether the next file would fail too.
fn ends_all(error: &Error) -> bool {
    matches!(error.kind(), Kind::OutOfSpace | Kind::Corrupt | Kind::Io)
}

/// Makes the file; `None` where there is nothing more to do. `made`: the paths of files that came from
/// the same stream, where two paths may be one name.
fn place(
    tree: &dyn Filesystem,
    root: u64,
    file: &SourceFile,
    made: &mut HashMap<u64, Vec<u8>>,
) -> Result<Option<u64>> {
    let names: Vec<&[u8]> = components(&file.path)?;
    let Some((last, above)) = names.split_last() else { return Ok(Some(root)) };
    let parent = above.iter().try_fold(root, |at, name| enter(tree, at, name))?;
    let there = match tree.lookup(parent, last) {
        Ok(there) => Some(there),
        Err(error) if errno(&error) == NO_ENTRY => None,
        Err(error) => return Err(error),
    };
    if let (Some(there), Node::Directory) = (&there, &file.node)
        && there.kind == FileKind::Directory
    {
        return Ok(Some(there.inode));
    }
    if let Some(there) = there {
        if there.kind == FileKind::Directory {
            return Err(errors::is_a_directory());
        }
        // The same path again is a later version of the file; another path is another file.
        if made.get(&there.inode).is_some_and(|path| *path != file.path) {
            return Err(Error::new(
                Kind::AlreadyExists,
                "another file was just put under this name, and would be overwritten",
            ));
        }
        tree.unlink(parent, last)?;
    }
    let new = |kind: FileKind, device: Device| {
        let mode = if kind == FileKind::Directory { 0o700 } else { 0o600 };
        let file = NewFile { kind, mode, uid: file.uid, gid: file.gid, device };
        tree.create(parent, last, &file).map(|made| Some(made.inode))
    };
    let placed = match &file.node {
        Node::Directory => new(FileKind::Directory, Device::default()),
        Node::Special(kind, device) => new(*kind, *device),
        Node::Symlink(target) => {
            Ok(Some(tree.symlink(parent, last, target, file.uid, file.gid)?.inode))
        }
        Node::HardLink(path) => {
            let mut at = root;
            for name in components(path)? {
                at = tree.lookup(at, name)?.inode;
            }
            if tree.posix() {
                tree.link(at, parent, last)?;
                return Ok(None);
            }
            let copy = new(FileKind::Regular, Device::default())?;
            copy.map_or(Ok(()), |copy| copy_within(tree, at, copy))?;
            Ok(copy)
        }
        Node::Regular(size) => {
            let made = new(FileKind::Regular, Device::default())?;
            if let Some(inode) = made {
                let size = Some(*size);
                tree.set_attributes(inode, &Changes { size, ..Changes::default() })?;
            }
            Ok(made)
        }
    }?;
    if let Some(inode) = placed.filter(|_| !tree.posix()) {
        made.insert(inode, file.path.clone());
    }
    Ok(placed)
}

/// Copies content from one file to an empty one.
fn copy_within(tree: &dyn Filesystem, from: u64, to: u64) -> Result<()> {
    let mut buffer = PageBuffer::zeroed(STEP);
    let mut at = 0;
    loop {
        let count = tree.read(from, at, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        tree.write(to, at, &buffer[..count])?;
        at += count as u64;
    }
}

fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let names: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    match names.iter().any(|name| *name == b"..") {
        true => Err(Error::new(Kind::Refused, "the path leads upwards")),
        false => Ok(names),
    }
}

/// The directory of that name, made if it is not there. Symlinks are not followed.
fn enter(tree: &dyn Filesystem, at: u64, name: &[u8]) -> Result<u64> {
    match tree.lookup(at, name) {
        Ok(there) if there.kind == FileKind::Directory => Ok(there.inode),
        Ok(_) => Err(errors::not_a_directory()),
        Err(error) if errno(&error) == NO_ENTRY => {
            let folder = NewFile {
                kind: FileKind::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                device: Device::default(),
            };
            Ok(tree.create(at, name, &folder)?.inode)
        }
        Err(error) => Err(error),
    }
}

fn finish(tree: &dyn Filesystem, inode: u64, file: &SourceFile) -> Result<()> {
    let link = matches!(file.node, Node::Symlink(_));
    let who = Changes {
        uid: tree.posix().then_some(file.uid),
        gid: tree.posix().then_some(file.gid),
        mode: (!link).then_some(file.mode),
        ..Changes::default()
    };
    tree.set_attributes(inode, &who)?;
    for (name, value) in file.xattrs.iter().filter(|_| tree.posix()) {
        tree.set_xattr(inode, name, value, None)?;
    }
    let times = Changes {
        accessed: Some(file.modified),
        modified: Some(file.modified),
        ..Changes::default()
    };
    tree.set_attributes(inode, &times).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for length in [1, 5, 85, 86, 87, 88, 950, 985, 986, 9_980] {
            let mut pax = Vec::new();
            record(&mut pax, b"key", &vec![b'v'; length]);
            let text = String::from_utf8(pax.clone()).unwrap();
            let told: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, pax.len(), "{length}");
        }
    }

    #[test]
    fn times_before_1970_are_decimals() {
        assert_eq!(decimal(Time { seconds: -2, nanoseconds: 800_000_000 }), "-1.200000000");
        assert_eq!(decimal(Time { seconds: 5, nanoseconds: 7 }), "5.000000007");
        assert_eq!(decimal(Time { seconds: -5, nanoseconds: 0 }), "-5");
    }
}
