//! Making volumes with files in them: FAT, and exFAT by the same rules.

use std::collections::HashMap;
use std::sync::Arc;

use disksmith_disk::{Context as _, Disk, Error, Kind, PageBuffer, Result};

use super::make::{FatOptions, make};
use super::name;
use super::{Fat, chain::FILE_MAX};
use crate::source::{Ahead, Node, Source, SourceFile};
use crate::{Changes, Device, FileKind, Filesystem, NewFile, Time, errors};

/// Copied at once when a hard link becomes a file of its own.
const STEP: usize = 1 << 20;
/// Names told one by one; of more only the number is kept.
const RENAMED_MAX: usize = 1000;

/// What came of filling a volume, and what FAT could not keep.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FatFilled {
    /// Files and directories made.
    pub files: u64,
    /// Files whose owner or group was not root.
    pub owners: u64,
    /// Files with extended attributes or access lists.
    pub xattrs: u64,
    /// Further names of a file: each became a copy.
    pub hard_links: u64,
    /// Symbolic links left out.
    pub symlinks: u64,
    /// Devices, pipes and sockets left out.
    pub specials: u64,
    /// Names that FAT cannot hold, and what they became.
    pub renamed: Vec<(Vec<u8>, Vec<u8>)>,
    /// All of them, also those that are not told.
    pub renamed_count: u64,
    /// The volume is exFAT.
    pub exfat: bool,
}

impl FatFilled {
    /// One line for each sort of loss; empty if nothing was lost.
    pub fn losses(&self) -> Vec<String> {
        let name = if self.exfat { "exFAT" } else { "FAT" };
        let counted = [
            (self.owners, format!("files lost their owner: {name} has none")),
            (
                self.xattrs,
                format!("files lost extended attributes or access lists: {name} has none"),
            ),
            (self.hard_links, format!("hard links became copies: {name} has none")),
            (self.symlinks, format!("symbolic links were left out: {name} has none")),
            (self.specials, format!("devices, pipes and sockets were left out: {name} has none")),
            (self.renamed_count, format!("names that {name} cannot hold were changed")),
        ];
        let lines = counted.iter().filter(|(count, _)| *count > 0);
        lines.map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// Makes a volume with the files of `source`.
pub fn make_from(
    disk: Arc<dyn Disk>,
    options: &FatOptions,
    source: &mut dyn Source,
) -> Result<FatFilled> {
    make(&*disk, options)?;
    let fat = Fat::open(disk, false)?;
    fat.set_clock(options.time);
    fat.commit_rarely();
    let rules =
        Rules { exfat: false, time: options.time, map_names: options.map_names, most: FILE_MAX };
    let filled = fill(&fat, rules, source)?;
    fat.close()?;
    Ok(filled)
}

/// How files are put into a volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) exfat: bool,
    /// No file is newer.
    pub(crate) time: Option<Time>,
    /// Names that cannot be held are changed.
    pub(crate) map_names: bool,
    /// Bytes of the longest file.
    pub(crate) most: u64,
}

impl Rules {
    fn name(self) -> &'static str {
        if self.exfat { "exFAT" } else { "FAT" }
    }
}

/// Puts the files of `source` into an empty volume.
pub(crate) fn fill(
    volume: &dyn Filesystem,
    rules: Rules,
    source: &mut dyn Source,
) -> Result<FatFilled> {
    let mut fill = Fill {
        volume,
        rules,
        paths: HashMap::from([(Vec::new(), volume.root())]),
        times: Vec::new(),
        filled: FatFilled { exfat: rules.exfat, ..FatFilled::default() },
    };
    std::thread::scope(|scope| fill.add_all(&mut Ahead::start(scope, source)?))?;
    // A directory's time changes with each name put into it: it is set at the end.
    for (inode, time) in std::mem::take(&mut fill.times) {
        volume.set_attributes(inode, &times(time))?;
    }
    Ok(fill.filled)
}

struct Fill<'a> {
    volume: &'a dyn Filesystem,
    rules: Rules,
    /// Inodes of what was put, by the source's paths.
    paths: HashMap<Vec<u8>, u64>,
    times: Vec<(u64, Time)>,
    filled: FatFilled,
}

fn times(time: Time) -> Changes {
    Changes {
        accessed: Some(time),
        modified: Some(time),
        created: Some(time),
        ..Changes::default()
    }
}

fn new_file(kind: FileKind, mode: u16) -> NewFile {
    NewFile { kind, mode, uid: 0, gid: 0, device: Device::default() }
}

impl Fill<'_> {
    fn add_all(&mut self, source: &mut Ahead) -> Result<()> {
        while let Some(file) = source.next_file()? {
            self.add(&file, source).with_context(|| {
                format!("Could not put '{}'", String::from_utf8_lossy(&file.path))
            })?;
        }
        Ok(())
    }

    fn add(&mut self, file: &SourceFile, source: &mut Ahead) -> Result<()> {
        self.filled.owners += u64::from(file.uid != 0 || file.gid != 0);
        self.filled.xattrs += u64::from(!file.xattrs.is_empty());
        let made = match &file.node {
            Node::Directory => {
                let inode = self.folder(&file.path)?;
                let time = self.time(file);
                if inode != self.volume.root() {
                    self.times.push((inode, time));
                }
                return Ok(());
            }
            Node::Symlink(_) => {
                self.filled.symlinks += 1;
                return Ok(());
            }
            Node::Special(..) => {
                self.filled.specials += 1;
                return Ok(());
            }
            Node::HardLink(target) => {
                // A link to what was left out is left out.
                let Some(target) = self.paths.get(target).copied() else {
                    self.filled.hard_links += 1;
                    return Ok(());
                };
                self.filled.hard_links += 1;
                let inode = self.make(file)?;
                self.copy(target, inode)?;
                inode
            }
            Node::Regular(size) => {
                if *size > self.rules.most {
                    let (name, most) = (self.rules.name(), self.rules.most);
                    return Err(errors::too_big()
                        .context(format!("A file on {name} has at most {most} bytes")));
                }
                let inode = self.make(file)?;
                source.content(&mut |offset, data| self.volume.write(inode, offset, data))?;
                if self.volume.attributes(inode)?.size != *size {
                    let changes = Changes { size: Some(*size), ..Changes::default() };
                    self.volume.set_attributes(inode, &changes)?;
                }
                self.paths.insert(file.path.clone(), inode);
                inode
            }
        };
        self.volume.set_attributes(made, &times(self.time(file)))?;
        Ok(())
    }

    /// Files are not newer than the volume.
    fn time(&self, file: &SourceFile) -> Time {
        self.rules.time.map_or(file.modified, |most| file.modified.min(most))
    }

    fn make(&mut self, file: &SourceFile) -> Result<u64> {
        let (parent, name) = self.place(&file.path)?;
        self.make_named(parent, name, &new_file(FileKind::Regular, file.mode))
    }

    /// Makes a file under its name, or under the nearest that FAT can hold.
    fn make_named(&mut self, parent: u64, name: &[u8], file: &NewFile) -> Result<u64> {
        let error = match self.volume.create(parent, name, file) {
            Ok(made) => {
                self.filled.files += 1;
                return Ok(made.inode);
            }
            Err(error) => error,
        };
        let taken = error.kind() == Kind::AlreadyExists;
        let unnameable = matches!(error.kind(), Kind::InvalidInput | Kind::LimitExceeded);
        let error = match taken {
            true => error.context(format!(
                "{} does not tell upper from lower case, and such a name is there",
                self.rules.name()
            )),
            false => error,
        };
        if !taken && !unnameable || !self.rules.map_names {
            return Err(error.with_hint(
                "Say that names may be changed (mkfs --map-names), or change the names.",
            ));
        }
        let near = name::nearest(name);
        for number in 1..1000 {
            let candidate = if number == 1 { near.clone() } else { numbered(&near, number) };
            match self.volume.create(parent, &candidate, file) {
                Ok(made) => {
                    self.filled.files += 1;
                    self.filled.renamed_count += 1;
                    if self.filled.renamed.len() < RENAMED_MAX {
                        self.filled.renamed.push((name.to_vec(), candidate));
                    }
                    return Ok(made.inode);
                }
                Err(error) if error.kind() == Kind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(error)
    }

    fn copy(&self, from: u64, to: u64) -> Result<()> {
        let (mut buffer, mut at) = (PageBuffer::zeroed(STEP), 0);
        loop {
            let count = self.volume.read(from, at, &mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.volume.write(to, at, buffer.get(..count).unwrap_or(&[]))?;
            at += count as u64;
        }
    }

    /// The directory and the name that a path means.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(u64, &'p [u8])> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = match split {
            Some(at) => (path.get(..at).unwrap_or(&[]), path.get(at + 1..).unwrap_or(&[])),
            None => (&[][..], path),
        };
        if name.is_empty() {
            return Err(Error::new(Kind::InvalidInput, "a file has no name"));
        }
        Ok((self.folder(folder)?, name))
    }

    /// The inode of a directory; made when it is not there.
    fn folder(&mut self, path: &[u8]) -> Result<u64> {
        if let Some(inode) = self.paths.get(path) {
            return Ok(*inode);
        }
        let (parent, name) = self.place(path)?;
        let inode = self.make_named(parent, name, &new_file(FileKind::Directory, 0o755))?;
        self.paths.insert(path.to_vec(), inode);
        Ok(inode)
    }
}

/// A name with a number before its extension, cut to what FAT can hold.
fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    let text = String::from_utf8_lossy(name);
    let (base, extension) = match text.rfind('.') {
        Some(at) if at > 0 => text.split_at(at),
        _ => (&*text, ""),
    };
    let base: String = base.chars().take(100).collect();
    let extension: String = extension.chars().take(20).collect();
    format!("{base}_{number}{extension}").into_bytes()
}

/// Clusters of 512 bytes to 32 MiB.
pub(crate) const SIZES: usize = 17;

/// How many clusters of 512 bytes, 1 KiB … the files of `source` need. `per_entry`: units of a name
/// in one directory entry.
pub(crate) fn measure(source: &mut dyn Source, per_entry: u64) -> Result<[u64; SIZES]> {
    let mut needed = [0_u64; SIZES];
    let mut slots: HashMap<Vec<u8>, u64> = HashMap::from([(Vec::new(), 1)]);
    let mut lengths: HashMap<Vec<u8>, u64> = HashMap::new();
    while let Some(file) = source.next_file()? {
        let split = file.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let folder = file.path.get(..split).unwrap_or(&[]).to_vec();
        // Each name may leave a part of its sector unused.
        let name = file.path.len().saturating_sub(split);
        *slots.entry(folder).or_insert(2) += (name as u64).div_ceil(per_entry) + 2;
        let length = match &file.node {
            Node::Regular(length) => {
                lengths.insert(file.path.clone(), *length);
                *length
            }
            Node::HardLink(target) => lengths.get(target).copied().unwrap_or(0),
            Node::Directory => {
                slots.entry(file.path.clone()).or_insert(2);
                0
            }
            Node::Symlink(_) | Node::Special(..) => 0,
        };
        for (index, needed) in needed.iter_mut().enumerate() {
            *needed += length.div_ceil(512 << index);
        }
    }
    for slots in slots.values() {
        for (index, needed) in needed.iter_mut().enumerate() {
            *needed += (slots * 5 / 4 * 32).div_ceil(512 << index);
        }
    }
    Ok(needed)
}

/// The size in bytes of a volume that holds the files of `source` under these options, with a
/// little room. Reads names and lengths, not content.
pub fn size_for(options: &FatOptions, source: &mut dyn Source) -> Result<u64> {
    let needed = measure(source, 13)?;
    let bytes = needed[0] * 512;
    let mut size = (bytes + bytes / 50).max(64 << 10).next_multiple_of(1 << 16);
    for _ in 0..2000 {
        if let Ok(boot) = super::make::plan(options, &size, 512) {
            let shape = super::shape::Shape::parse(&boot)?;
            let index = (shape.cluster_size() / 512).max(1).trailing_zeros() as usize;
            let most = needed.get(index.min(SIZES - 1)).copied().unwrap_or(u64::MAX);
            if u64::from(shape.clusters) >= most + most / 100 + 8 {
                return Ok(size);
            }
        }
        size += (size / 100).next_multiple_of(1 << 16);
    }
    Err(Error::new(Kind::LimitExceeded, "No size was found that holds the files"))
}
