//! Raw images: the file is the disk.
//!
//! A size that is no multiple of 512 is rounded up; the bytes past the end read as zero. A
//! window (`offset`, `size`) makes a part of the file a disk.

use std::any::Any;
use std::sync::Arc;

use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

use crate::{
    CreateRequest, Driver, Image, OpenRequest, OptionKind, OptionSpec, Preallocation, ResizeRequest,
};

const SECTOR: u64 = 512;

/// The format's entry in the registry.
pub static DRIVER: Driver = Driver {
    name: "raw",
    probe: |_| 1,
    open: |storage, request| Ok(Arc::new(Raw::open(storage, &request)?)),
    create: Some(create),
    create_options: &[OptionSpec {
        name: "preallocation",
        kind: OptionKind::Text,
        help: "Preallocation mode (allowed values: off, falloc, full)",
        default: None,
    }],
    runtime_options: &[
        OptionSpec::named("offset", OptionKind::Size),
        OptionSpec::named("size", OptionKind::Size),
    ],
    amend_options: &[],
    backing: false,
};

/// A raw image.
#[derive(Debug)]
pub struct Raw {
    storage: Arc<dyn Disk>,
    writable: bool,
    /// Set when the format was guessed: sector 0 must not be made to look like another format.
    guarded: bool,
    window: Option<(u64, u64)>,
    /// Past the page cache there are whole sectors only.
    whole_sectors: bool,
}

impl Raw {
    /// Runtime options: `offset` and `size` (bytes) choose a window of the file; `guard=on`
    /// says that the format was guessed; `cache.direct=on` that requests are of whole sectors.
    pub fn open(storage: Arc<dyn Disk>, request: &OpenRequest) -> Result<Self> {
        let offset = request.options.size("offset")?;
        let size = request.options.size("size")?;
        let window = match (offset, size) {
            (None, None) => None,
            (offset, size) => Some(window(offset.unwrap_or(0), size, storage.size())?),
        };
        let guarded = request.options.flag("guard")?.unwrap_or(false);
        let whole_sectors = request.options.flag("cache.direct")?.unwrap_or(false);
        Ok(Self { storage, writable: request.mode.writes(), guarded, window, whole_sectors })
    }

    fn start(&self) -> u64 {
        self.window.map_or(0, |(start, _)| start)
    }

    /// Whether a request lies within the image.
    fn holds(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.size())
    }

    fn check_write(&self, offset: u64, length: u64) -> Result<()> {
        if !self.writable {
            return Err(Error::new(Kind::Refused, "Image is read-only"));
        }
        if !self.holds(offset, length) {
            return Err(Error::new(Kind::InvalidInput, "write past the end of the image"));
        }
        Ok(())
    }

    /// A guest that owns a raw disk must not be able to turn it into another format by what
    /// it writes to sector 0, or the next one to open it would follow references of its making.
    fn check_guard(&self, data: &[u8], offset: u64) -> Result<()> {
        if !self.guarded || offset >= SECTOR || data.is_empty() {
            return Ok(());
        }
        let mut sector = [0; SECTOR as usize];
        let have = SECTOR.min(self.storage.size()) as usize;
        self.storage.read_at(&mut sector[..have], 0)?;
        for (old, new) in sector.iter_mut().skip(offset as usize).zip(data) {
            *old = *new;
        }
        match crate::probe(&sector).first() {
            Some(best) if best.name != "raw" => Err(Error::new(
                Kind::Refused,
                format!("the write would make this raw image look like {}", best.name),
            )
            .with_hint("State the format (-f raw) to write it anyway.")),
            _ => Ok(()),
        }
    }
}

fn window(offset: u64, size: Option<u64>, file: u64) -> Result<(u64, u64)> {
    let invalid = |text: String| Error::new(Kind::InvalidInput, text);
    let left = file.checked_sub(offset).ok_or_else(|| {
        invalid(format!("The size of this file ({file}) is smaller than offset ({offset})"))
    })?;
    let size = size.unwrap_or(left / SECTOR * SECTOR);
    if size > left {
        return Err(invalid(format!(
            "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size of the containing file ({file})"
        )));
    }
    if !size.is_multiple_of(SECTOR) {
        return Err(invalid("Specified size is not multiple of 512".to_string()));
    }
    Ok((offset, size))
}

impl Disk for Raw {
    fn size(&self) -> u64 {
        match self.window {
            Some((_, size)) => size,
            None => self.storage.size().next_multiple_of(SECTOR),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if !self.holds(offset, buffer.len() as u64) {
            return Err(Error::new(Kind::InvalidInput, "read past the end of the image"));
        }
        self.storage.announce("read_aio");
        let place = self.start() + offset;
        let have = self.storage.size().saturating_sub(place);
        if have >= buffer.len() as u64 {
            return self.storage.read_at(buffer, place);
        }
        let (stored, past) = buffer.split_at_mut(have as usize);
        past.fill(0);
        self.storage.read_at(stored, place)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        self.check_guard(data, offset)?;
        self.storage.announce("write_aio");
        self.storage.write_at(data, self.start() + offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.check_write(offset, length)?;
        self.storage.write_zeroes(self.start() + offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.check_write(offset, length)?;
        self.storage.discard(self.start() + offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.storage.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        if offset >= self.size() {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the disk"));
        }
        let place = self.start() + offset;
        let length = length.min(self.size() - offset);
        if place >= self.storage.size() {
            return Ok(Extent { place: Some(place), ..Extent::zero(length) });
        }
        let below = self.storage.map(place, length)?;
        let ends = place + below.length == self.storage.size();
        let length = match self.whole_sectors && ends {
            true => length.min(below.length.next_multiple_of(SECTOR)),
            false => below.length,
        };
        Ok(Extent { place: Some(place), length, ..below })
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn geometry(&self) -> Geometry {
        self.storage.geometry()
    }

    fn host_window(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        let (file, start) = self.storage.host_window()?;
        Some((file, start + self.start()))
    }
}

impl Image for Raw {
    fn format(&self) -> &'static str {
        "raw"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn storage(&self) -> &Arc<dyn Disk> {
        &self.storage
    }

    /// Every byte has its place from the start.
    fn write_in_turn(&self, data: &[u8], offset: u64, placed: &mut dyn FnMut()) -> Result<()> {
        placed();
        self.write_at(data, offset)
    }

    fn resize(&self, request: ResizeRequest) -> Result<()> {
        if self.window.is_some_and(|(offset, _)| offset > 0) {
            return Err(Error::new(Kind::Unsupported, "Cannot resize a window on a file"));
        }
        if i64::try_from(request.size).is_err() {
            return Err(Error::new(Kind::InvalidInput, "The size is too large"));
        }
        let old = self.storage.size();
        if request.size < old && request.preallocation != Preallocation::Off {
            return Err(Error::new(
                Kind::Unsupported,
                "Preallocation can't be used for shrinking an image",
            ));
        }
        if request.preallocation == Preallocation::Metadata {
            return preallocate(&*self.storage, 0, 0, request.preallocation);
        }
        let fixed = || Error::new(Kind::Unsupported, "Cannot resize device files");
        match self.storage.set_size(request.size) {
            Err(error) if error.kind() == Kind::Unsupported => return Err(fixed()),
            other => other?,
        }
        // Devices take a smaller size without changing theirs.
        if self.storage.size() != request.size {
            return Err(fixed());
        }
        if request.size > old {
            preallocate(&*self.storage, old, request.size - old, request.preallocation)?;
        }
        Ok(())
    }
}

fn create(storage: &Arc<dyn Disk>, request: &CreateRequest) -> Result<()> {
    let mode = match request.options.text("preallocation") {
        None | Some("off") => Preallocation::Off,
        Some("falloc") => Preallocation::Falloc,
        Some("full") => Preallocation::Full,
        Some("metadata") => Preallocation::Metadata,
        Some(other) => {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("invalid parameter value: {other}"),
            ));
        }
    };
    let size = request.size.checked_next_multiple_of(SECTOR);
    let size = size.ok_or_else(|| Error::new(Kind::InvalidInput, "The size is too large"))?;
    storage.set_size(size)?;
    preallocate(&**storage, 0, size, mode)
}

fn preallocate(disk: &dyn Disk, offset: u64, length: u64, mode: Preallocation) -> Result<()> {
    match mode {
        Preallocation::Off => Ok(()),
        Preallocation::Metadata => {
            Err(Error::new(Kind::Unsupported, "Unsupported preallocation mode: metadata"))
        }
        Preallocation::Falloc => disk.write_zeroes(offset, length, ZeroMode::Keep),
        Preallocation::Full => write_out(disk, offset, length),
    }
}

/// Writes zeroes as data, so that every block is stored.
pub(crate) fn write_out(disk: &dyn Disk, offset: u64, length: u64) -> Result<()> {
    const STEP: u64 = 1 << 20;
    let zeroes = vec![0; STEP.min(length) as usize];
    let mut done = 0;
    while done < length {
        let step = STEP.min(length - done);
        disk.write_at(&zeroes[..step as usize], offset + done)?;
        done += step;
    }
    Ok(())
}
