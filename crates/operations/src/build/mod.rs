//! Making a whole disk from what is to be on it.
//!
//! [`Build::prepare`] reads names and attributes of all files (and the content of those that
//! booting depends on), finds out how long everything is, and refuses what cannot be. Nothing is
//! written. [`Build::write`] then fills an empty disk of [`Build::size`] in one pass.
//!
//! The same input gives the same disk, bit by bit: ids follow from the files' names and attributes
//! (and a seed), times from `SOURCE_DATE_EPOCH` or the newest file.

mod boot;
mod contents;
mod ids;
mod layout;
mod owners;
mod spec;
mod survey;

use std::fs::File;
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result, Slice};
use disksmith_filesystems::Time;
use disksmith_partitions::{Label, Plan, Table, gpt, types};

use crate::Observer;
use crate::kinds::{FilesNeed, FilesystemKind, MakeSettings};
use crate::observer::Meter;
use boot::{Additions, Boot};
use ids::Ids;
use layout::{Layout, Wish};
use spec::invalid;
use survey::{Counted, Interest, Survey, Watched};

pub use spec::{ContentSpec, DiskSpec, FileSpec, PartSize, PartitionSpec};

/// What to build.
#[derive(Debug, Default)]
pub struct BuildRequest {
    /// The disk.
    pub spec: DiskSpec,
    /// What `-` as a source means: a file, since it is read more than once.
    pub input: Option<File>,
    /// The time of everything that has none of its own, and that nothing is newer than.
    pub time: Option<Time>,
}

/// A disk ready to be written.
#[derive(Debug)]
pub struct Build {
    request: BuildRequest,
    layout: Layout,
    parts: Vec<Part>,
    additions: Additions,
}

#[derive(Debug)]
struct Part {
    settings: Option<MakeSettings>,
    survey: Survey,
}

impl Build {
    /// Looks at everything that is to be on the disk.
    pub fn prepare(request: BuildRequest, observer: &dyn Observer) -> Result<Self> {
        let boot = request.spec.boot.as_deref().map(Boot::parse).transpose()?;
        let label = label(&request.spec, boot)?;
        let sector = request.spec.sector()?;
        if boot == Some(Boot::Bios) && sector != 512 {
            return Err(Error::new(
                Kind::Unsupported,
                format!("BIOS boots from sectors of 512 bytes, not of {sector}"),
            ));
        }
        let (mut parts, mut needs) = (Vec::new(), Vec::new());
        for (index, spec) in request.spec.partitions.iter().enumerate() {
            let attempt = || format!("partition {}", index + 1);
            let (part, need) = look(&request, spec, boot, observer).with_context(attempt)?;
            parts.push(part);
            needs.push(need);
        }
        let fingerprints: Vec<_> = parts.iter().map(|part| part.survey.fingerprint()).collect();
        let ids = Ids::new(&fingerprints, request.spec.seed.as_deref());
        let time =
            request.time.or_else(|| parts.iter().filter_map(|part| part.survey.newest).max());
        let mut additions = additions(&request.spec, boot, label, &parts, &ids)?;
        for file in additions.files.iter_mut().flatten() {
            file.file.modified = time.unwrap_or_default();
        }
        let mut wishes = Vec::new();
        for (index, (part, need)) in parts.iter_mut().zip(&needs).enumerate() {
            let extra = additions.files.get(index).map_or(&[][..], |files| files);
            let spec = &request.spec.partitions[index];
            if let Some(settings) = &mut part.settings {
                settings.time = time.unwrap_or_default();
                settings.id = filesystem_id(spec, settings.kind, &ids, index)?;
            }
            let open_end = request.spec.bytes()?.is_none();
            wishes.push(wish(spec, part, need, extra, open_end)?);
        }
        let layout = layout::lay_out(&request.spec, &wishes, &ids, label)?;
        let layout = activate(layout, &additions, label);
        for (part, (place, need)) in parts.iter_mut().zip(layout.places.iter().zip(&needs)) {
            if let (Some(settings), Some(need)) = (&mut part.settings, need) {
                settings.provide(need, place.length);
                let sector = u64::from(settings.sector);
                settings.start_sector = u32::try_from(place.start / sector).unwrap_or(0);
            }
        }
        let all = parts.iter().zip(&needs).zip(&wishes).zip(&layout.places).enumerate();
        for (index, (((part, need), wish), place)) in all {
            let too_small =
                |(settings, need): (&MakeSettings, &FilesNeed)| !settings.holds(need, place.length);
            if part.settings.as_ref().zip(need.as_ref()).is_some_and(too_small) {
                return Err(layout::too_small(index, wish, place.length));
            }
        }
        Ok(Self { request, layout, parts, additions })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.layout.size
    }

    /// Its partition table, if it has one.
    pub fn table(&self) -> Option<&Table> {
        self.layout.table.as_ref()
    }

    /// Bytes of content of all files.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.survey.bytes).sum()
    }

    /// Fills an empty disk. What it held before does not matter, but is not erased where nothing
    /// of the new content lies.
    pub fn write(&self, disk: &Arc<dyn Disk>, observer: &dyn Observer) -> Result<()> {
        if disk.size() < self.size() {
            return Err(Error::new(
                Kind::OutOfSpace,
                format!("the target has {} bytes, the disk needs {}", disk.size(), self.size()),
            ));
        }
        let meter = Meter::start(observer, self.bytes());
        self.write_table(disk)?;
        for (index, part) in self.parts.iter().enumerate() {
            let attempt = || format!("Could not make partition {}", index + 1);
            let lost = self.fill(disk, index, part, &meter).with_context(attempt)?;
            for what in lost {
                observer.warning(&format!("partition {}: {what}", index + 1));
            }
        }
        if let Some(loader) = &self.additions.bios {
            loader.write_code(disk)?;
            let place = self.layout.places[loader.partition];
            let part: Arc<dyn Disk> =
                Arc::new(Slice::new(disk.clone(), place.start, place.length)?);
            loader.install(&part, place.start)?;
        }
        disk.flush()?;
        meter.finish();
        Ok(())
    }

    fn write_table(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let Some(table) = &self.layout.table else { return Ok(()) };
        let attempt = "Could not write the partition table";
        let old = disksmith_partitions::read_with_sector_size(disk, table.sector_size)
            .context(attempt)?;
        let plan = Plan::new(disk, &old, table).context(attempt)?;
        plan.apply(disk, true).context(attempt)
    }

    /// Answers what the filesystem could not keep of its files.
    fn fill(
        &self,
        disk: &Arc<dyn Disk>,
        index: usize,
        part: &Part,
        meter: &Meter<'_>,
    ) -> Result<Vec<String>> {
        let Some(settings) = &part.settings else { return Ok(Vec::new()) };
        let place = self.layout.places[index];
        let slice: Arc<dyn Disk> = Arc::new(Slice::new(disk.clone(), place.start, place.length)?);
        let spec = &self.request.spec.partitions[index];
        let extra = self.additions.files.get(index).map_or(&[][..], |files| files);
        let mut source = contents::open(spec, self.request.input.as_ref(), extra)?;
        let mut source = Counted { source: &mut *source, meter };
        settings.make(slice, &mut source).map_err(|error| match error.kind() {
            Kind::OutOfSpace => {
                error.with_hint("Give the disk more room (--size), or make room on this host.")
            }
            _ => error,
        })
    }
}

fn label(spec: &DiskSpec, boot: Option<Boot>) -> Result<Label> {
    let label = match spec.table.as_deref() {
        Some("gpt") => Label::Gpt,
        Some("mbr" | "dos" | "msdos") => Label::Mbr,
        Some("none") => Label::None,
        Some(other) => {
            return Err(invalid(format!(
                "'{other}' is no sort of partition table: gpt, mbr and none are"
            )));
        }
        None if boot == Some(Boot::Bios) => Label::Mbr,
        None => Label::Gpt,
    };
    match (boot, label) {
        (Some(_), Label::None) => Err(invalid("a disk to boot from needs a partition table")),
        _ => Ok(label),
    }
}

/// Goes through the files of one partition.
fn look(
    request: &BuildRequest,
    spec: &PartitionSpec,
    boot: Option<Boot>,
    observer: &dyn Observer,
) -> Result<(Part, Option<FilesNeed>)> {
    let Some(name) = &spec.filesystem else {
        return Ok((Part { settings: None, survey: Survey::default() }, None));
    };
    let settings = MakeSettings {
        kind: FilesystemKind::parse(name)?,
        label: spec.label.clone(),
        id: [0; 16],
        features: spec.features.clone(),
        block_size: spec.block_size,
        inodes: spec.inodes,
        reserved: spec.reserved,
        time: request.time.unwrap_or_default(),
        start_sector: 0,
        sector: request.spec.sector()?,
    };
    let mut survey = Survey::default();
    let interest = |path: &str| boot.map_or(Interest::None, |boot| boot.interest(path));
    let mut source = contents::open(spec, request.input.as_ref(), &[])?;
    let mut watched = Watched::new(&mut *source, &mut survey, &interest, request.time, observer);
    let need = settings.measure(&mut watched)?;
    // Whatever measuring left of it.
    watched.run()?;
    Ok((Part { settings: Some(settings), survey }, Some(need)))
}

fn additions(
    spec: &DiskSpec,
    boot: Option<Boot>,
    label: Label,
    parts: &[Part],
    ids: &Ids,
) -> Result<Additions> {
    let surveys: Vec<Survey> = parts.iter().map(|part| part.survey.clone()).collect();
    match boot {
        None => Ok(Additions::default()),
        Some(Boot::Bios) => boot::bios::additions(&surveys, label),
        Some(Boot::Uefi) => {
            let is_esp = |part: &PartitionSpec| {
                let wanted = types::parse("esp", label).ok();
                part.kind.as_deref().and_then(|kind| types::parse(kind, label).ok()) == wanted
            };
            let esp =
                spec.partitions.iter().position(is_esp).ok_or_else(|| {
                    invalid("to boot with UEFI, a partition of type 'esp' is needed")
                })?;
            let root = spec.partitions.iter().enumerate().find(|(index, part)| {
                *index != esp && part.filesystem.as_deref().is_some_and(|name| name != "swap")
            });
            let root = root.map(|(index, part)| match (&part.uuid, label) {
                (Some(uuid), _) => uuid.to_lowercase(),
                (None, Label::Gpt) => {
                    uuid::Uuid::from_bytes(ids.uuid(&format!("partition {index}"))).to_string()
                }
                (None, _) => format!("{:08x}-{:02x}", ids.number("disk"), index + 1),
            });
            boot::uefi::additions(esp, &surveys, &root.unwrap_or_default(), spec.boot_later)
        }
    }
}

/// How long the partition may be.
fn wish(
    spec: &PartitionSpec,
    part: &mut Part,
    need: &Option<FilesNeed>,
    extra: &[contents::ListedFile],
    open_end: bool,
) -> Result<Wish> {
    let size = spec.length()?;
    let kind = part.settings.as_ref().map(|settings| settings.kind);
    let fitted = match size {
        PartSize::Auto => true,
        PartSize::Share(_) => open_end,
        PartSize::Given(_) => false,
    };
    let added: u64 = extra.iter().map(|file| file.length().next_multiple_of(65536)).sum();
    let (need, enough) = match (&mut part.settings, need) {
        (Some(settings), Some(need)) if fitted => {
            let slack = spec.slack(need.least())?.saturating_add(added);
            let enough = Some(settings.fit(need, slack)?);
            (enough, enough)
        }
        (Some(settings), Some(need)) => {
            let enough = settings.clone().fit(need, added).ok();
            (Some(need.least().saturating_add(added)), enough)
        }
        _ => (None, None),
    };
    Ok(Wish { size, need, enough, kind })
}

fn filesystem_id(
    spec: &PartitionSpec,
    kind: FilesystemKind,
    ids: &Ids,
    index: usize,
) -> Result<[u8; 16]> {
    let Some(text) = &spec.filesystem_uuid else {
        return Ok(ids.uuid(&format!("filesystem {index}")));
    };
    kind.parse_id(text).ok_or_else(|| {
        invalid(format!("partition {}: '{text}' is no id of this filesystem", index + 1))
    })
}

/// Marks the partition that firmware's boot code is to start.
fn activate(mut layout: Layout, additions: &Additions, label: Label) -> Layout {
    let Some(loader) = &additions.bios else { return layout };
    let number = layout.places.get(loader.partition).map(|place| place.number);
    for partition in layout.table.iter_mut().flat_map(|table| &mut table.partitions) {
        let active = Some(partition.number) == number;
        match label {
            Label::Gpt if active => partition.attributes |= gpt::ATTRIBUTE_LEGACY_BOOT,
            Label::Mbr => partition.bootable = active,
            _ => {}
        }
    }
    layout
}

/// A disk from one tree, as the short form of the command describes it.
#[derive(Clone, Debug, Default)]
pub struct TreeRequest {
    /// The directory or tar file.
    pub from: String,
    /// Bytes, or `auto`.
    pub size: Option<String>,
    /// The partition table.
    pub table: Option<String>,
    /// The filesystem's type.
    pub kind: String,
    /// The filesystem's label.
    pub label: String,
    /// How to boot.
    pub boot: Option<String>,
    /// Owner of all files.
    pub owner: Option<String>,
    /// Goes into all ids.
    pub seed: Option<String>,
}

impl TreeRequest {
    /// The disk: one partition with the tree, and before it, to boot with UEFI, one with what the
    /// tree has below `/boot/efi`.
    pub fn spec(&self) -> DiskSpec {
        const ESP: &str = "boot/efi";
        let uefi = matches!(self.boot.as_deref(), Some("uefi" | "efi"));
        let mut partitions = Vec::new();
        let from = self.from.clone();
        if uefi {
            let below = Some(ESP.to_string());
            partitions.push(PartitionSpec {
                kind: Some("esp".into()),
                filesystem: Some("fat32".into()),
                label: "ESP".into(),
                size: Some("auto".into()),
                slack: Some("16M".into()),
                content: vec![ContentSpec { from: from.clone(), below, ..Default::default() }],
                ..Default::default()
            });
        }
        let except = if uefi { vec![ESP.to_string()] } else { Vec::new() };
        partitions.push(PartitionSpec {
            filesystem: Some(self.kind.clone()),
            label: self.label.clone(),
            size: Some("rest".into()),
            owner: self.owner.clone(),
            content: vec![ContentSpec { from, except, ..Default::default() }],
            ..Default::default()
        });
        DiskSpec {
            size: self.size.clone(),
            table: self.table.clone(),
            boot: self.boot.clone(),
            seed: self.seed.clone(),
            partitions,
            ..Default::default()
        }
    }
}
