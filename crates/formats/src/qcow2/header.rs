//! Changes of the header: features, names, and closing.

use disksmith_disk::{Disk, Error, Kind, Result};

use super::Qcow2;
use super::layout::{self, Extensions, Header, put};
use super::meta::{Meta, Stop};
use super::open::BACKING_NAME_MOST;
use super::util::{exclusive, lock};
use crate::{Backing, OpenMode};

/// Header, extensions and backing name, as they are put over older ones.
pub(super) struct Head {
    whole: Vec<u8>,
    /// What stands in the first sector, by itself, while the rest is being written.
    meanwhile: Option<Vec<u8>>,
}

impl Head {
    /// `header` is set to what will be written. `None`: it does not fit into the first cluster.
    pub(super) fn new(
        extensions: &Extensions,
        header: &mut Header,
        backing: Option<&[u8]>,
    ) -> Option<Self> {
        let mut small = header.clone();
        let without_names = extensions.encode_without_names(&mut small, backing);
        match (extensions.encode(header, backing), without_names) {
            (Some(whole), meanwhile) => {
                Some(Self { whole, meanwhile: meanwhile.filter(|it| it.len() <= layout::SECTOR) })
            }
            (None, Some(whole)) => {
                *header = small;
                Some(Self { whole, meanwhile: None })
            }
            (None, None) => None,
        }
    }

    /// A cut could leave a part of the old one and a part of the new one.
    fn is_torn_by_cuts(&self) -> bool {
        self.whole.len() > layout::SECTOR && self.meanwhile.is_none()
    }

    /// Writes it, durably. A sector is written whole or not at all: what is longer than one is
    /// first written without the names of the features, so that the first sector says nothing
    /// of the others until they are there.
    pub(super) fn write(self, storage: &dyn Disk, cluster_size: u64) -> Result<()> {
        let mut cluster = self.whole;
        let long = cluster.len() > layout::SECTOR;
        // A fresh file need not be a cluster long yet.
        cluster.resize(cluster_size as usize, 0);
        let Some(mut sector) = self.meanwhile.filter(|_| long) else {
            storage.write_at(&cluster, 0)?;
            return storage.flush();
        };
        sector.resize(layout::SECTOR, 0);
        storage.write_at(&sector, 0)?;
        storage.flush()?;
        let (first, others) = cluster.split_at(layout::SECTOR);
        storage.write_at(others, layout::SECTOR as u64)?;
        storage.flush()?;
        storage.write_at(first, 0)?;
        storage.flush()
    }
}

impl Meta {
    /// Writes header, extensions and backing name anew, durably. Unknown ones are kept. What was
    /// there before stays in force until the first sector, which is written whole or not at all,
    /// says otherwise: a torn write leaves no half of a name.
    pub(super) fn rewrite_header(&mut self) -> Result<()> {
        let mut header = self.header.clone();
        let head = Head::new(&self.extensions, &mut header, self.backing.as_deref())
            .ok_or_else(|| Error::new(Kind::OutOfSpace, "No space left in the file header"))?;
        if head.is_torn_by_cuts() && self.write_name_apart(&mut header)? {
            self.header = header;
            return Ok(());
        }
        head.write(&*self.storage, self.shape.cluster_size())?;
        self.header = header;
        Ok(())
    }

    /// A name too long for the first sector: it goes where nothing lies yet, durably, before the
    /// first sector points to it. `false`: there is no such place; nothing was written.
    fn write_name_apart(&mut self, header: &mut Header) -> Result<bool> {
        let Some(name) = self.backing.clone() else { return Ok(false) };
        let mut cluster = vec![0; self.shape.cluster_size() as usize];
        let there = (cluster.len() as u64).min(self.storage.size()) as usize;
        self.storage.read_at(&mut cluster[..there], 0)?;
        let used = cluster.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let place = used.next_multiple_of(layout::SECTOR).max(layout::SECTOR);
        let encoded = self.extensions.encode_with_name_at(header, &name, place as u64);
        let Some(sector) = encoded.filter(|_| place + name.len() <= cluster.len()) else {
            return Ok(false);
        };
        self.storage.write_at(&name, place as u64)?;
        self.storage.flush()?;
        self.storage.write_at(&sector, 0)?;
        self.storage.flush()?;
        Ok(true)
    }

    /// Writes the three feature words, durably.
    pub(super) fn write_features(&mut self) -> Result<()> {
        if self.shape.version < 3 {
            return Ok(());
        }
        let mut bytes = [0; 24];
        put(&mut bytes, 0, &self.header.incompatible_features.to_be_bytes());
        put(&mut bytes, 8, &self.header.compatible_features.to_be_bytes());
        put(&mut bytes, 16, &self.header.autoclear_features.to_be_bytes());
        self.storage.write_at(&bytes, 72)?;
        self.storage.flush()
    }

    /// Before the first change of guest data: with lazy refcounts, the image is marked dirty.
    pub(super) fn note_change(&mut self) -> Result<()> {
        let lazy = self.header.compatible_features & layout::COMPATIBLE_LAZY_REFCOUNTS != 0;
        match lazy && !self.header.has(layout::INCOMPATIBLE_DIRTY) {
            true => self.mark_dirty(),
            false => Ok(()),
        }
    }

    /// Marks the image as one to be repaired by the next writer, durably. Nothing in version 2.
    pub(super) fn mark_dirty(&mut self) -> Result<()> {
        if self.shape.version < 3 || self.header.has(layout::INCOMPATIBLE_DIRTY) {
            return Ok(());
        }
        self.header.incompatible_features |= layout::INCOMPATIBLE_DIRTY;
        self.write_features()
    }

    /// Takes the mark off, durably; everything else must have been written.
    pub(super) fn mark_clean(&mut self) -> Result<()> {
        if !self.header.has(layout::INCOMPATIBLE_DIRTY) {
            return Ok(());
        }
        self.header.incompatible_features &= !layout::INCOMPATIBLE_DIRTY;
        self.write_features()
    }
}

impl Qcow2 {
    /// Writes everything and leaves the image clean.
    pub(super) fn close_image(&self) -> Result<()> {
        if !self.mode.writes() {
            return Ok(());
        }
        if lock(&self.meta).stopped.is_some() {
            return self.close_stopped();
        }
        self.save_bitmaps()?;
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        let meta = &mut *meta;
        if meta.is_dirty() {
            self.write_back(meta)?;
        }
        // The last counts of freed clusters were written after the last flush.
        self.storage.flush()?;
        match self.mode {
            OpenMode::Write => meta.mark_clean(),
            // A repair takes the mark off itself, if nothing is left to mend.
            _ => Ok(()),
        }
    }

    /// Nothing can be written any more: whether all that was is there, is the question.
    fn close_stopped(&self) -> Result<()> {
        let meta = lock(&self.meta);
        let half_done = meta.stopped == Some(Stop::HalfDone);
        match half_done || meta.is_dirty() || lock(&self.tracker).is_waiting() {
            true => meta.check_writable(),
            false => Ok(()),
        }
    }

    /// Writes the name of another backing image into the header.
    pub(super) fn name_backing(&self, backing: Option<&Backing>) -> Result<()> {
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        meta.check_writable()?;
        if backing.is_some_and(|b| b.name.len() as u64 > BACKING_NAME_MOST) {
            return Err(Error::new(Kind::InvalidInput, "Backing file name too long"));
        }
        if backing.is_some() && meta.data_file_raw() {
            return Err(Error::new(
                Kind::InvalidInput,
                "Backing file and data-file-raw cannot be used at the same time",
            ));
        }
        let old = (meta.backing.clone(), meta.extensions.backing_format.clone());
        let bytes = |text: &String| text.clone().into_bytes();
        meta.backing = backing.map(|b| bytes(&b.name)).filter(|name| !name.is_empty());
        let format = backing.and_then(|b| b.format.as_ref()).map(bytes);
        meta.extensions.backing_format = format.filter(|name| !name.is_empty());
        let result = meta.rewrite_header();
        if result.is_err() {
            (meta.backing, meta.extensions.backing_format) = old;
        }
        result
    }
}
