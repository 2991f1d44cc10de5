//! What a partition or a disk holds, by its superblock.
//!
//! Types and ids are written as `blkid` prints them. At most about 256 KiB are read, whatever the
//! superblocks claim.

mod apple;
mod containers;
mod ext;
mod fat;
mod linux;
mod ntfs;
mod optical;
mod swap;
mod window;

use disksmith_disk::{Context, Disk, Result};

use window::Window;

/// What sort of thing the content is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Usage {
    /// An encrypted container.
    Crypto,
    /// A tree of files.
    Filesystem,
    /// A part of a RAID or a volume group.
    Raid,
    /// Anything else: swap space.
    Other,
}

/// What was recognised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// As blkid's TYPE: `ext4`, `vfat`, `crypto_LUKS`, `LVM2_member`, `linux_raid_member` …
    pub kind: &'static str,
    /// What sort of thing that is.
    pub usage: Usage,
    /// As blkid's VERSION, where there is one: `FAT32`, `2`.
    pub version: Option<String>,
    /// The label, if it has one.
    pub label: Option<String>,
    /// The id as blkid prints it.
    pub uuid: Option<String>,
    /// The size that the superblock gives, in bytes.
    pub size: Option<u64>,
    /// The space in use, in bytes, where the superblock tells.
    pub used: Option<u64>,
    /// Offset and length of the bytes by which it was recognised; without them it is not.
    pub marks: Vec<(u64, u64)>,
}

impl Content {
    fn new(kind: &'static str, usage: Usage, mark: (u64, u64)) -> Self {
        Self {
            kind,
            usage,
            version: None,
            label: None,
            uuid: None,
            size: None,
            used: None,
            marks: vec![mark],
        }
    }
}

/// How a kind of content is told.
enum Probe {
    /// By what was read already.
    Start(fn(&Window<'_>) -> Option<Content>),
    /// By what may lie anywhere.
    Anywhere(fn(&Window<'_>) -> Result<Option<Content>>),
}

impl Probe {
    fn content(&self, window: &Window<'_>) -> Result<Option<Content>> {
        match self {
            Self::Start(probe) => Ok(probe(window)),
            Self::Anywhere(probe) => probe(window),
        }
    }
}

/// In blkid's order: what encloses comes before what it may enclose.
const PROBES: &[Probe] = &[
    Probe::Anywhere(containers::md),
    Probe::Start(containers::lvm),
    Probe::Start(containers::luks),
    Probe::Start(ext::probe),
    Probe::Start(linux::xfs),
    Probe::Start(linux::btrfs),
    Probe::Anywhere(linux::f2fs),
    Probe::Start(linux::squashfs),
    Probe::Start(linux::erofs),
    Probe::Anywhere(ntfs::probe),
    Probe::Anywhere(fat::exfat),
    Probe::Anywhere(fat::fat),
    Probe::Anywhere(apple::hfs_plus),
    Probe::Start(apple::apfs),
    Probe::Start(swap::probe),
    Probe::Start(optical::iso9660),
];

/// What the disk (a whole one, or the window of a partition) holds; `None` when nothing is
/// recognised. A partition table is not content.
pub fn probe(disk: &dyn Disk) -> Result<Option<Content>> {
    let window = Window::new(disk).context("Could not read what the disk holds")?;
    for probe in PROBES {
        if let Some(content) =
            probe.content(&window).context("Could not read what the disk holds")?
        {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

/// Everything that is recognised: a disk that was used for several things may bear the marks of
/// all.
pub fn probe_all(disk: &dyn Disk) -> Result<Vec<Content>> {
    let window = Window::new(disk).context("Could not read what the disk holds")?;
    let mut all = Vec::new();
    for probe in PROBES {
        all.extend(probe.content(&window).context("Could not read what the disk holds")?);
    }
    Ok(all)
}

/// Whether the first sector ends with 55 aa, which a PC's firmware wants of what it boots.
pub fn has_boot_signature(disk: &dyn Disk) -> Result<bool> {
    Ok(Window::new(disk)?.start(510, 2).is_some_and(|bytes| bytes == [0x55, 0xaa]))
}

/// Whether there is machine code in front of the partition entries of sector 0.
pub fn has_boot_code(disk: &dyn Disk) -> Result<bool> {
    let window = Window::new(disk)?;
    let code = window.start(0, 440);
    Ok(code.is_some_and(|bytes| bytes.iter().any(|b| *b != 0)))
}
