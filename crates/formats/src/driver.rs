//! The list of formats, and how each is recognised, opened and made.

use std::sync::Arc;

use disksmith_crypt::Secret;
use disksmith_disk::{Disk, Result};

use crate::{Backing, Image, OptionSpec, Options};

/// How an image is to be opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OpenMode {
    /// For looking at metadata only: no secret and no data file is needed, guest data cannot
    /// be read.
    Inspect,
    /// For reading.
    #[default]
    Read,
    /// For reading and writing. Opening may repair a dirty image and mark it in use.
    Write,
    /// For check: as read, but broken tables do not keep it from opening.
    Check,
    /// For check with repair: as write, but broken tables do not keep it from opening.
    Repair,
}

impl OpenMode {
    /// Whether the storage will be written.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Repair)
    }
}

/// What a format needs to open an image.
#[derive(Debug, Default)]
pub struct OpenRequest {
    /// What for.
    pub mode: OpenMode,
    /// The key for encrypted guest data.
    pub secret: Option<Secret>,
    /// Runtime options of the format (`lazy-refcounts`, `l2-cache-size` …), by name.
    pub options: Options,
}

/// What a format needs to make an image.
#[derive(Debug, Default)]
pub struct CreateRequest {
    /// Guest-visible size in bytes.
    pub size: u64,
    /// Checked against [`Driver::create_options`]; without size and backing names.
    pub options: Options,
    /// The backing image to name.
    pub backing: Option<Backing>,
    /// The external data file: its name as it shall be stored, and the file, opened and empty.
    pub data_file: Option<(String, Arc<dyn Disk>)>,
    /// The key for encrypted guest data.
    pub secret: Option<Secret>,
}

/// Opens an image of one format.
pub type Open = fn(Arc<dyn Disk>, OpenRequest) -> Result<Arc<dyn Image>>;

/// Makes an image of one format.
pub type Create = fn(&Arc<dyn Disk>, &CreateRequest) -> Result<()>;

/// A format as an entry of the registry.
pub struct Driver {
    /// As users write it.
    pub name: &'static str,
    /// How sure the first bytes of a file (512, fewer if the file is shorter) make that it is of
    /// this format: 0 not at all, 100 certainly, raw always 1.
    pub probe: fn(&[u8]) -> u8,
    /// Opens an image on `storage`.
    pub open: Open,
    /// Makes an image on empty `storage`; durable when it returns.
    pub create: Option<Create>,
    /// What `create -o` knows, in the order of qemu-img's `Formatting` line.
    pub create_options: &'static [OptionSpec],
    /// What can be said when an image is opened (`encrypt.key-secret`, `offset` …).
    pub runtime_options: &'static [OptionSpec],
    /// What `amend -o` knows.
    pub amend_options: &'static [OptionSpec],
    /// Whether images of this format can have a backing image.
    pub backing: bool,
}

static DRIVERS: [&Driver; 3] = [&crate::qcow2::DRIVER, &crate::luks::DRIVER, &crate::raw::DRIVER];

/// All formats.
pub fn drivers() -> &'static [&'static Driver] {
    &DRIVERS
}

/// The format of that name.
pub fn driver(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// The formats that the first bytes of a file fit, best first; raw is always the last. Several
/// before raw make the file ambiguous.
pub fn probe(start: &[u8]) -> Vec<&'static Driver> {
    let mut fits: Vec<_> = DRIVERS.iter().map(|d| ((d.probe)(start), *d)).collect();
    fits.retain(|(score, _)| *score > 0);
    fits.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    fits.into_iter().map(|(_, driver)| driver).collect()
}
