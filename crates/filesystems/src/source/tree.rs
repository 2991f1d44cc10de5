//! A filesystem, or a part of one, as a source.

use std::collections::HashMap;

use disksmith_disk::Result;

use super::{Node, Source, SourceFile};
use crate::{FileKind, Filesystem, Seek};

/// Read at once.
const BUFFER: usize = 1 << 20;
/// Directories nested deeper are taken for a loop.
const DEPTH_MAX: usize = 4096;

/// Reads what lies below an inode, names in byte order.
#[derive(Debug)]
pub struct TreeSource<'a> {
    filesystem: &'a dyn Filesystem,
    /// Still to be answered, last first: path and inode.
    todo: Vec<(Vec<u8>, u64)>,
    /// First path of files with several names.
    seen: HashMap<u64, Vec<u8>>,
    current: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

impl<'a> TreeSource<'a> {
    /// What lies at and below `inode`.
    pub fn new(filesystem: &'a dyn Filesystem, inode: u64) -> Self {
        Self {
            filesystem,
            todo: vec![(Vec::new(), inode)],
            seen: HashMap::new(),
            current: None,
            buffer: Vec::new(),
        }
    }

    fn queue_children(&mut self, inode: u64, path: &[u8]) -> Result<()> {
        if path.iter().filter(|byte| **byte == b'/').count() > DEPTH_MAX {
            return Err(crate::errors::too_many_symlinks());
        }
        let mut children = Vec::new();
        self.filesystem.read_directory(inode, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." && !entry.name.contains(&b'/') {
                children.push((entry.name, entry.inode));
            }
            true
        })?;
        children.sort_unstable_by(|a, b| b.cmp(a));
        for (name, inode) in children {
            let path = if path.is_empty() { name } else { [path, b"/", name.as_slice()].concat() };
            self.todo.push((path, inode));
        }
        Ok(())
    }
}

impl Source for TreeSource<'_> {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        self.current = None;
        let Some((path, inode)) = self.todo.pop() else { return Ok(None) };
        let at = self.filesystem.attributes(inode)?;
        let mut node = match at.kind {
            FileKind::Directory => Node::Directory,
            FileKind::Regular => Node::Regular(at.size),
            FileKind::Symlink => Node::Symlink(self.filesystem.read_link(inode)?),
            special => Node::Special(special, at.device),
        };
        if at.kind == FileKind::Directory {
            self.queue_children(inode, &path)?;
        } else if at.links > 1 {
            match self.seen.get(&inode) {
                Some(first) => node = Node::HardLink(first.clone()),
                None => {
                    self.seen.insert(inode, path.clone());
                }
            }
        }
        if matches!(node, Node::Regular(_)) {
            self.current = Some((inode, at.size));
        }
        let mut xattrs = Vec::new();
        for name in self.filesystem.xattrs(inode)? {
            let value = self.filesystem.xattr(inode, &name)?;
            xattrs.push((name, value));
        }
        xattrs.sort_unstable();
        Ok(Some(SourceFile {
            path,
            node,
            mode: at.mode,
            uid: at.uid,
            gid: at.gid,
            modified: at.modified,
            xattrs,
        }))
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let Some((inode, size)) = self.current else { return Ok(()) };
        self.buffer.resize(BUFFER, 0);
        let mut at = 0;
        while at < size {
            let Ok(start) = self.filesystem.seek(inode, at, Seek::Data) else { break };
            let end = self.filesystem.seek(inode, start, Seek::Hole)?;
            at = start;
            while at < end {
                let want = (end - at).min(BUFFER as u64) as usize;
                let part = self.buffer.get_mut(..want).unwrap_or(&mut []);
                let count = self.filesystem.read(inode, at, part)?;
                if count == 0 {
                    return Ok(());
                }
                sink(at, part.get(..count).unwrap_or(&[]))?;
                at += count as u64;
            }
        }
        Ok(())
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        let Some((inode, size)) = self.current else { return Ok(0) };
        let (mut at, mut blocks) = (0, 0);
        while at < size {
            let Ok(start) = self.filesystem.seek(inode, at, Seek::Data) else { break };
            let end = self.filesystem.seek(inode, start, Seek::Hole)?;
            blocks += end.div_ceil(block_size) - start / block_size;
            at = end;
        }
        Ok(blocks)
    }
}
