//! What every image format offers to the commands above it.

use std::any::Any;
use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use crate::Options;

/// An open image: a disk with a format's extras. What a format lacks answers with an error of
/// kind [`Kind::Unsupported`] in qemu-img's words.
///
/// As a [`Disk`], an image is what the guest sees, its backing layers included; but
/// [`Disk::map`] speaks of this layer alone and answers
/// [`State::Absent`](disksmith_disk::State::Absent) where the backing layer decides.
pub trait Image: Disk {
    /// The format's name as users write it: `raw`, `qcow2`.
    fn format(&self) -> &'static str;

    /// For access to a format's own methods.
    fn as_any(&self) -> &dyn Any;

    /// The storage this image lies on.
    fn storage(&self) -> &Arc<dyn Disk>;

    /// Writes everything that waits and leaves the image clean: nothing is done later, by
    /// dropping it, that could fail. The image is not to be written to afterwards.
    fn close(&self) -> Result<()> {
        self.flush()
    }

    /// Bytes per cluster, where the format has clusters.
    fn cluster_size(&self) -> Option<u64> {
        None
    }

    /// Bytes of guest data that get storage together: a cluster, or a part of one where the
    /// format can leave the others without content.
    fn allocation_unit(&self) -> Option<u64> {
        self.cluster_size()
    }

    /// Whether guest data is encrypted.
    fn encrypted(&self) -> bool {
        false
    }

    /// Whether the image says of itself that it was not closed cleanly; `None` if it cannot say.
    fn dirty(&self) -> Option<bool> {
        None
    }

    /// What the format has to say about this image, in the order in which qemu-img prints it
    /// below "Format specific information".
    fn facts(&self) -> Result<Option<Vec<(&'static str, Fact)>>> {
        Ok(None)
    }

    /// The backing image that this image names. Naming opens nothing.
    fn backing(&self) -> Option<Backing> {
        None
    }

    /// The external data file that this image names.
    fn data_file(&self) -> Option<String> {
        None
    }

    /// Puts a disk under this image: what is absent here is read from it. Its size may differ.
    fn attach_backing(&self, backing: Option<Arc<dyn Disk>>) -> Result<()> {
        match backing {
            None => Ok(()),
            Some(_) => Err(unsupported("this format has no backing images")),
        }
    }

    /// Provides the external data file named by [`data_file`](Self::data_file). Must come
    /// before any guest data is read or written.
    fn attach_data_file(&self, data: Arc<dyn Disk>) -> Result<()> {
        drop(data);
        Err(unsupported("this format has no external data file"))
    }

    /// Names another backing image (or none), without touching data.
    fn change_backing(&self, backing: Option<Backing>) -> Result<()> {
        drop(backing);
        Err(unsupported("The image format does not support backing files"))
    }

    /// Changes the guest-visible size.
    fn resize(&self, request: ResizeRequest) -> Result<()> {
        let _ = request;
        Err(unsupported("Image format driver does not support resize"))
    }

    /// Writes as [`Disk::write_at`] does, and calls `placed` once it is settled where the bytes
    /// go, before they are written where the format can tell by then. Writers whose order shall
    /// decide the layout let the next one begin at that moment. A write that fails may not have
    /// called it.
    fn write_in_turn(&self, data: &[u8], offset: u64, placed: &mut dyn FnMut()) -> Result<()> {
        self.write_at(data, offset)?;
        placed();
        Ok(())
    }

    /// Whether clusters of this format can be stored compressed, and how.
    fn compression(&self) -> Option<Compression> {
        None
    }

    /// Stores one whole cluster at guest `offset` in packed form. `packed` comes from a
    /// compressor of the algorithm that [`compression`](Self::compression) tells, and is
    /// shorter than a cluster.
    fn write_packed(&self, offset: u64, packed: &[u8]) -> Result<()> {
        let _ = (offset, packed);
        Err(unsupported("Compression not supported for this file format"))
    }

    /// Forgets all data of this layer, as after a commit.
    fn make_empty(&self) -> Result<()> {
        Err(unsupported("this format cannot be emptied"))
    }

    /// Looks for damage, and mends it as far as `repair` allows. Each finding is told as it is
    /// met. `None`: the format has no check.
    fn check(
        &self,
        repair: Repair,
        tell: &mut dyn FnMut(CheckFinding),
    ) -> Result<Option<CheckReport>> {
        let _ = (repair, tell);
        Ok(None)
    }

    /// What opening for writing had to mend, in the words of a check.
    fn mended_on_opening(&self) -> Vec<CheckFinding> {
        Vec::new()
    }

    /// Changes options of an existing image. `progress(done, total)` is called now and then.
    /// Options that name a secret (`…new-secret`, `…old-secret`) hold the passphrase itself here.
    fn amend(
        &self,
        options: &Options,
        force: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let _ = (options, force, progress);
        Err(unsupported(format!(
            "Format driver '{}' does not support option amendment",
            self.format()
        )))
    }

    /// The internal snapshots, oldest first.
    fn snapshots(&self) -> Vec<Snapshot> {
        Vec::new()
    }

    /// Takes an internal snapshot of the present content; `id` is chosen by the format.
    fn create_snapshot(&self, snapshot: Snapshot) -> Result<()> {
        let _ = snapshot;
        Err(unsupported("Operation not supported"))
    }

    /// Makes a snapshot's content the present content. Ids are tried before names.
    fn apply_snapshot(&self, id_or_name: &str) -> Result<()> {
        let _ = id_or_name;
        Err(unsupported("Operation not supported"))
    }

    /// Removes a snapshot.
    fn delete_snapshot(&self, id_or_name: &str) -> Result<()> {
        let _ = id_or_name;
        Err(unsupported("Operation not supported"))
    }

    /// A read-only view of a snapshot, as an image of its own (same attached backing).
    fn open_snapshot(&self, id_or_name: &str) -> Result<Arc<dyn Image>> {
        let _ = id_or_name;
        Err(unsupported("Operation not supported"))
    }

    /// The persistent dirty bitmaps; none where the list of them is broken.
    fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        Ok(Vec::new())
    }

    /// Adds an empty persistent bitmap. `granularity` in bytes, a power of two; `None` = the
    /// format's default.
    fn add_bitmap(&self, name: &str, granularity: Option<u64>, enabled: bool) -> Result<()> {
        let _ = (name, granularity, enabled);
        Err(unsupported("this format has no persistent bitmaps"))
    }

    /// Removes a bitmap.
    fn remove_bitmap(&self, name: &str) -> Result<()> {
        let _ = name;
        Err(unsupported("this format has no persistent bitmaps"))
    }

    /// Marks everything clean in a bitmap.
    fn clear_bitmap(&self, name: &str) -> Result<()> {
        let _ = name;
        Err(unsupported("this format has no persistent bitmaps"))
    }

    /// Turns recording on or off.
    fn enable_bitmap(&self, name: &str, enabled: bool) -> Result<()> {
        let _ = (name, enabled);
        Err(unsupported("this format has no persistent bitmaps"))
    }

    /// Marks dirty in `target` what is dirty in `ranges` (offset, length), which another bitmap
    /// gave through [`dirty_ranges`](Self::dirty_ranges).
    fn merge_bitmap(&self, target: &str, ranges: &[(u64, u64)]) -> Result<()> {
        let _ = (target, ranges);
        Err(unsupported("this format has no persistent bitmaps"))
    }

    /// The dirty ranges of a bitmap, ascending, neighbours joined.
    fn dirty_ranges(&self, name: &str) -> Result<Vec<(u64, u64)>> {
        let _ = name;
        Err(unsupported("this format has no persistent bitmaps"))
    }
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(Kind::Unsupported, text)
}

/// The backing image that an image names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Backing {
    /// As stored, byte for byte (lossy only for display of invalid UTF-8).
    pub name: String,
    /// The format's name, if stored.
    pub format: Option<String>,
}

/// A value of format-specific information, for people and programs alike. Keys are in the JSON
/// form (`compression-type`); people see blanks for dashes.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// true, false.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Text.
    Text(String),
    /// Several values.
    List(Vec<Fact>),
    /// Named values in order.
    Map(Vec<(&'static str, Fact)>),
}

/// How storage is to be reserved for guest data that is not there yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preallocation {
    /// Nothing is reserved.
    #[default]
    Off,
    /// Tables are filled, data is not reserved.
    Metadata,
    /// Data is reserved by the host without writing it.
    Falloc,
    /// Zeroes are written.
    Full,
}

/// A change of size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResizeRequest {
    /// The new guest-visible size in bytes.
    pub size: u64,
    /// How to reserve what is added.
    pub preallocation: Preallocation,
}

/// What a compressor for an image must be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compression {
    /// The algorithm that the image's header states.
    pub algorithm: disksmith_codec::Algorithm,
    /// Bytes per cluster: each is compressed by itself, the last one padded with zeroes.
    pub cluster_size: u64,
}

/// How far a check may change the image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Repair {
    /// Nothing is written.
    #[default]
    None,
    /// Space that nothing uses is given back.
    Leaks,
    /// Everything that can be mended is.
    All,
}

/// One line of a check, to be shown when it is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckFinding {
    /// In qemu-img's words: `ERROR cluster 5 refcount=0 reference=1`.
    pub text: String,
}

/// The sum of a check. Counts are those that remain; `…_fixed` what was repaired.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// Places that break the format's rules.
    pub corruptions: u64,
    /// Storage units that nothing uses.
    pub leaks: u64,
    /// Problems that kept the check itself from looking.
    pub check_errors: u64,
    /// Repaired corruptions.
    pub corruptions_fixed: u64,
    /// Repaired leaks.
    pub leaks_fixed: u64,
    /// Guest clusters in all.
    pub total_clusters: u64,
    /// Guest clusters that have storage.
    pub allocated_clusters: u64,
    /// Allocated clusters that do not follow their predecessor on disk.
    pub fragmented_clusters: u64,
    /// Allocated clusters that are stored compressed.
    pub compressed_clusters: u64,
    /// Where the image ends in its storage, in bytes, if the format knows.
    pub image_end_offset: Option<u64>,
}

/// An internal snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Unique within the image; decimal by custom.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// Bytes of saved machine state.
    pub vm_state_size: u64,
    /// Seconds since 1970.
    pub date_seconds: u32,
    /// And nanoseconds.
    pub date_nanoseconds: u32,
    /// Time the guest had run, in nanoseconds.
    pub vm_clock_nanoseconds: u64,
    /// Instructions the guest had run, where known.
    pub instruction_count: Option<u64>,
    /// Guest-visible size at that time, where stored.
    pub disk_size: Option<u64>,
}

/// A persistent dirty bitmap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Bytes per bit.
    pub granularity: u64,
    /// Being recorded into.
    pub enabled: bool,
    /// Marked in use: its content cannot be trusted.
    pub in_use: bool,
}
