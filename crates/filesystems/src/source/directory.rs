//! A host folder.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use disksmith_disk::{Context as _, Error, PageBuffer, Result};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::{Node, Source, SourceFile};
use crate::{Device, FileKind, Time};

/// Read at once.
const BUFFER: usize = 1 << 20;

/// Reads a folder, names in byte order, so that the result does not depend on the host's order.
#[derive(Debug)]
pub struct DirectorySource {
    root: PathBuf,
    /// Paths still to be answered, last first.
    todo: Vec<Vec<u8>>,
    /// First path of files with several names, by device and inode.
    seen: HashMap<(u64, u64), Vec<u8>>,
    current: Option<(PathBuf, u64, u64)>,
    buffer: PageBuffer,
}

impl DirectorySource {
    /// The files below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            todo: vec![Vec::new()],
            seen: HashMap::new(),
            current: None,
            buffer: PageBuffer::default(),
        }
    }

    fn host_path(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(OsStr::from_bytes(path)) }
    }

    fn queue_children(&mut self, host: &Path, path: &[u8]) -> Result<()> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in fs::read_dir(host)? {
            names.push(entry?.file_name().into_vec());
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        for name in names {
            let child = if path.is_empty() { name } else { [path, b"/", name.as_slice()].concat() };
            self.todo.push(child);
        }
        Ok(())
    }

    fn describe(&mut self, path: Vec<u8>) -> Result<SourceFile> {
        let host = self.host_path(&path);
        let meta =
            if path.is_empty() { fs::metadata(&host)? } else { fs::symlink_metadata(&host)? };
        let mode = meta.mode();
        let kind = FileKind::from_mode((mode & 0xffff) as u16)
            .ok_or_else(|| Error::from(std::io::Error::from(std::io::ErrorKind::Unsupported)))?;
        self.current = None;
        let mut node = match kind {
            FileKind::Regular => {
                self.current = Some((host.clone(), meta.size(), meta.blocks()));
                Node::Regular(meta.size())
            }
            FileKind::Directory => Node::Directory,
            FileKind::Symlink => Node::Symlink(fs::read_link(&host)?.into_os_string().into_vec()),
            special => {
                let device = meta.rdev();
                let device = if special.is_device() {
                    Device { major: rustix::fs::major(device), minor: rustix::fs::minor(device) }
                } else {
                    Device::default()
                };
                Node::Special(special, device)
            }
        };
        if kind != FileKind::Directory && meta.nlink() > 1 {
            match self.seen.get(&(meta.dev(), meta.ino())) {
                Some(first) => {
                    node = Node::HardLink(first.clone());
                    self.current = None;
                }
                None => {
                    self.seen.insert((meta.dev(), meta.ino()), path.clone());
                }
            }
        }
        if kind == FileKind::Directory {
            self.queue_children(&host, &path)?;
        }
        Ok(SourceFile {
            xattrs: xattrs(&host)?,
            path,
            node,
            mode: (mode & 0o7777) as u16,
            uid: meta.uid(),
            gid: meta.gid(),
            modified: Time { seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() as u32 },
        })
    }
}

/// The names of all attributes, each with a zero behind it.
fn xattr_names(path: &Path) -> Result<Vec<u8>> {
    // Most files have none, or few; Linux lists at most 64 KiB.
    let mut small = [0; 512];
    let listed = match rustix::fs::llistxattr(path, &mut small) {
        Err(Errno::RANGE) => {
            let mut names = vec![0; 65536];
            let listed = rustix::fs::llistxattr(path, &mut names);
            listed.map(|length| {
                names.truncate(length);
                names
            })
        }
        listed => listed.map(|length| small.get(..length).unwrap_or(&[]).to_vec()),
    };
    match listed {
        Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => Ok(Vec::new()),
        listed => listed.map_err(|error| Error::from_errno(error.raw_os_error())),
    }
}

/// All attributes that may be read; files that cannot have any have none.
fn xattrs(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let listed = xattr_names(path)?;
    let mut all = Vec::new();
    for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        match rustix::fs::lgetxattr(path, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                all.push((name.to_vec(), value));
            }
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(Error::from_errno(error.raw_os_error())),
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// The runs of data of an open file.
fn data_runs(file: &File, size: u64, blocks: u64) -> Vec<(u64, u64)> {
    if blocks * 512 >= size {
        return vec![(0, size)];
    }
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = rustix::fs::seek(file, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size).min(size);
        if end <= start {
            break;
        }
        runs.push((start, end));
        at = end;
    }
    runs
}

impl Source for DirectorySource {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        let Some(path) = self.todo.pop() else { return Ok(None) };
        let shown = self.host_path(&path);
        self.describe(path)
            .map(Some)
            .with_context(|| format!("Could not read '{}'", shown.display()))
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let Some((path, size, blocks)) = &self.current else { return Ok(()) };
        if *size == 0 {
            return Ok(());
        }
        self.buffer.reach(BUFFER);
        let attempt = || format!("Could not read '{}'", path.display());
        let file = File::open(path).with_context(attempt)?;
        for (start, end) in data_runs(&file, *size, *blocks) {
            let mut at = start;
            while at < end {
                let want = (end - at).min(BUFFER as u64) as usize;
                let part = self.buffer.get_mut(..want).unwrap_or(&mut []);
                let count = file.read_at(part, at).with_context(attempt)?;
                if count == 0 {
                    // It became shorter meanwhile: the rest is a hole.
                    return Ok(());
                }
                sink(at, part.get(..count).unwrap_or(&[]))?;
                at += count as u64;
            }
        }
        Ok(())
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        let Some((path, size, blocks)) = &self.current else { return Ok(0) };
        if *blocks * 512 >= *size {
            return Ok(size.div_ceil(block_size));
        }
        let file = File::open(path)?;
        let runs = data_runs(&file, *size, *blocks);
        Ok(runs.iter().map(|(start, end)| end.div_ceil(block_size) - start / block_size).sum())
    }
}
