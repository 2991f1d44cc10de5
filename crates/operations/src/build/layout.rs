//! How long each partition is, and where it goes.

use disksmith_disk::{Error, Kind, MemoryDisk, Result, human_size, parse_size};
use disksmith_partitions::{
    AddRequest, Align, DiskId, Guid, Label, Length, PartitionType, Table, add, init_with_id,
    read_with_sector_size, types,
};

use super::ids::Ids;
use super::spec::{DiskSpec, PartSize, invalid};
use crate::kinds::FilesystemKind;

/// Bytes of the entries of a GPT.
const GPT_ENTRIES: u64 = 128 * 128;
/// An MBR has room for so many partitions of its own; with more, the last holds the others.
const MBR_PLACES: usize = 4;

/// What is known of a partition before it has a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) size: PartSize,
    /// What its files need; `None` if nobody can say.
    pub(super) need: Option<u64>,
    /// The length that holds them along with what the filesystem keeps for itself.
    pub(super) enough: Option<u64>,
    /// Its filesystem.
    pub(super) kind: Option<FilesystemKind>,
}

/// Where everything goes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Bytes of the disk.
    pub(super) size: u64,
    /// The table; without one the only filesystem has the whole disk.
    pub(super) table: Option<Table>,
    /// For each partition: its number, first byte and length.
    pub(super) places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) length: u64,
}

/// Finds room for all.
pub(super) fn lay_out(spec: &DiskSpec, wishes: &[Wish], ids: &Ids, label: Label) -> Result<Layout> {
    let sector = u64::from(spec.sector()?);
    let align = match spec.align.as_deref() {
        None => 1 << 20,
        Some(text) => parse_size(text)?.max(sector).next_multiple_of(sector),
    };
    let total = spec.bytes()?;
    if label == Label::None {
        return whole(wishes, total);
    }
    let logical = label == Label::Mbr && wishes.len() > MBR_PLACES;
    let room = Room { sector, align, total, label, logical };
    let lengths = room.lengths(wishes)?;
    let size = match total {
        Some(total) if !total.is_multiple_of(sector) && sector > 512 => {
            return Err(invalid(format!("{} is no multiple of the sector size", shown(total))));
        }
        Some(total) => total,
        None => room.around(&lengths).next_multiple_of(align.max(1 << 20)),
    };
    let table = table(spec, wishes, &lengths, ids, &room, size)?;
    let mut places = Vec::new();
    for partition in table.partitions.iter().filter(|p| !p.is_extended()) {
        places.push(Place {
            number: partition.number,
            start: partition.start_bytes(table.sector_size),
            length: partition.length_bytes(table.sector_size),
        });
    }
    places.sort_by_key(|place| place.start);
    Ok(Layout { size, table: Some(table), places })
}

fn whole(wishes: &[Wish], total: Option<u64>) -> Result<Layout> {
    let [wish] = wishes else {
        return Err(invalid(
            "without a partition table there is one filesystem on the disk, not several",
        ));
    };
    let size = match (total, wish.size, wish.need) {
        (Some(total), _, Some(need)) if need > total => return Err(too_small(0, wish, total)),
        (Some(total), ..) => total,
        (None, PartSize::Given(size), _) => size,
        (None, _, Some(need)) => need.next_multiple_of(1 << 20),
        (None, _, None) => return Err(no_size(0)),
    };
    Ok(Layout { size, table: None, places: vec![Place { number: 0, start: 0, length: size }] })
}

struct Room {
    sector: u64,
    align: u64,
    total: Option<u64>,
    label: Label,
    /// The fourth and later ones are logical.
    logical: bool,
}

impl Room {
    /// The length of each partition.
    fn lengths(&self, wishes: &[Wish]) -> Result<Vec<u64>> {
        let mut lengths = vec![0u64; wishes.len()];
        for (index, wish) in wishes.iter().enumerate() {
            lengths[index] = match wish.size {
                PartSize::Given(bytes) => bytes.next_multiple_of(self.sector),
                PartSize::Auto => {
                    wish.need.ok_or_else(|| no_size(index))?.next_multiple_of(self.align)
                }
                PartSize::Share(_) => 0,
            };
        }
        let weights: u64 = wishes.iter().map(weight).sum();
        if weights > 0 {
            self.share(wishes, weights, &mut lengths)?;
        }
        for (index, wish) in wishes.iter().enumerate() {
            if wish.need.is_some_and(|need| need > lengths[index]) {
                return Err(too_small(index, wish, lengths[index]));
            }
        }
        if let Some(total) = self.total
            && self.around(&lengths) > total
        {
            return Err(Error::new(
                Kind::OutOfSpace,
                format!(
                    "the partitions need {}, the disk has {}",
                    shown(self.around(&lengths)),
                    shown(total)
                ),
            ));
        }
        Ok(lengths)
    }

    /// Deals out what is left, or what the hungriest needs in proportion.
    fn share(&self, wishes: &[Wish], weights: u64, lengths: &mut [u64]) -> Result<()> {
        let Some(total) = self.total else {
            let mut unit = 0u64;
            for (index, wish) in wishes.iter().enumerate().filter(|(_, wish)| weight(wish) > 0) {
                let need = wish.need.ok_or_else(|| no_size(index))?;
                unit = unit.max(need.div_ceil(weight(wish)));
            }
            for (length, wish) in lengths.iter_mut().zip(wishes).filter(|(_, w)| weight(w) > 0) {
                *length = unit.saturating_mul(weight(wish)).next_multiple_of(self.align);
            }
            return Ok(());
        };
        let rest = total.saturating_sub(self.around(lengths));
        let mut left = rest;
        let last = wishes.iter().rposition(|wish| weight(wish) > 0);
        for (index, wish) in wishes.iter().enumerate().filter(|(_, wish)| weight(wish) > 0) {
            let share = u128::from(rest) * u128::from(weight(wish)) / u128::from(weights);
            let share = u64::try_from(share).unwrap_or(left) / self.align * self.align;
            lengths[index] =
                if Some(index) == last { left / self.align * self.align } else { share };
            left = left.saturating_sub(lengths[index]);
            if lengths[index] == 0 {
                return Err(too_small(index, wish, 0));
            }
        }
        Ok(())
    }

    /// Bytes of a disk with partitions of these lengths.
    fn around(&self, lengths: &[u64]) -> u64 {
        // A GPT has its header and its entries behind sector 0, and both again at the end.
        let table = match self.label {
            Label::Gpt => GPT_ENTRIES.next_multiple_of(self.sector) + self.sector,
            _ => 0,
        };
        let head = self.align.max(self.sector + table);
        let mut end = head.next_multiple_of(self.align);
        for (index, length) in lengths.iter().enumerate() {
            if self.logical && index >= MBR_PLACES - 1 {
                end = end.next_multiple_of(self.align).saturating_add(self.align);
            }
            end = end.next_multiple_of(self.align).saturating_add(*length);
        }
        end.saturating_add(table)
    }
}

fn weight(wish: &Wish) -> u64 {
    match wish.size {
        PartSize::Share(weight) => weight.into(),
        _ => 0,
    }
}

fn table(
    spec: &DiskSpec,
    wishes: &[Wish],
    lengths: &[u64],
    ids: &Ids,
    room: &Room,
    size: u64,
) -> Result<Table> {
    let empty = read_with_sector_size(&MemoryDisk::new(size), spec.sector()?)?;
    let id = match &spec.id {
        Some(text) => DiskId::parse(text, room.label)?,
        None if room.label == Label::Gpt => {
            DiskId::Gpt(Guid::from_u128(u128::from_be_bytes(ids.uuid("disk"))))
        }
        None => DiskId::Mbr(ids.number("disk")),
    };
    let mut table = init_with_id(&empty, room.label, Some(id))?;
    for (index, part) in spec.partitions.iter().enumerate() {
        let attempt = |error: Error| error.context(format!("partition {}", index + 1));
        let logical = room.logical && index >= MBR_PLACES - 1;
        if logical && table.extended().is_none() {
            let request = AddRequest {
                kind: Some(PartitionType::Mbr(types::MBR_EXTENDED_LBA)),
                align: Align::Bytes(room.align),
                ..AddRequest::default()
            };
            table = add(&table, &request)?.0;
        }
        let wish = wishes.get(index).ok_or_else(|| invalid("a partition without a wish"))?;
        let word = part.kind.as_deref().or(wish.kind.map(FilesystemKind::partition_type));
        let gpt = room.label == Label::Gpt;
        let uuid = match &part.uuid {
            Some(text) => Some(text.parse::<Guid>().map_err(attempt)?),
            None => {
                Some(Guid::from_u128(u128::from_be_bytes(ids.uuid(&format!("partition {index}")))))
            }
        };
        let request = AddRequest {
            length: Length::Bytes(*lengths.get(index).unwrap_or(&0)),
            kind: Some(types::parse(word.unwrap_or("linux"), room.label).map_err(attempt)?),
            name: part.name.clone(),
            bootable: part.bootable,
            logical,
            uuid: uuid.filter(|_| gpt || part.uuid.is_some()),
            align: Align::Bytes(room.align),
            ..AddRequest::default()
        };
        table = add(&table, &request).map_err(attempt)?.0;
    }
    Ok(table)
}

fn shown(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", human_size(bytes))
}

/// A partition of `have` bytes cannot hold what is wished.
pub(super) fn too_small(index: usize, wish: &Wish, have: u64) -> Error {
    let needs = match wish.need.max(wish.enough) {
        Some(need) => format!("its files need {}", shown(need)),
        None => "which is too little".to_string(),
    };
    Error::new(
        Kind::OutOfSpace,
        format!("partition {} would have {}, {needs}", index + 1, shown(have)),
    )
    .with_hint("Give more room, or let --size auto find out.")
}

fn no_size(index: usize) -> Error {
    invalid(format!("partition {} needs a size: there is nothing to tell it from", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::spec::PartitionSpec;

    fn layout(
        sizes: &[(PartSize, Option<u64>)],
        total: Option<&str>,
        label: Label,
    ) -> Result<Layout> {
        let wishes: Vec<Wish> = sizes
            .iter()
            .map(|(size, need)| Wish { size: *size, need: *need, enough: None, kind: None })
            .collect();
        let spec = DiskSpec {
            size: total.map(str::to_string),
            partitions: vec![PartitionSpec::default(); sizes.len()],
            ..DiskSpec::default()
        };
        lay_out(&spec, &wishes, &Ids::new(&[], None), label)
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_rest_is_dealt_out_in_proportion() {
        let sizes = [
            (PartSize::Given(10 * MIB), None),
            (PartSize::Share(1), Some(MIB)),
            (PartSize::Share(3), Some(MIB)),
        ];
        let layout = layout(&sizes, Some("100M"), Label::Gpt).unwrap();
        let lengths: Vec<u64> = layout.places.iter().map(|place| place.length / MIB).collect();
        assert_eq!(lengths, [10, 22, 66]);
        assert_eq!(layout.size, 100 * MIB);
    }

    #[test]
    fn a_disk_is_as_large_as_it_must_be() {
        let sizes = [(PartSize::Auto, Some(3 * MIB)), (PartSize::Share(1), Some(5 * MIB + 1))];
        let gpt = layout(&sizes, None, Label::Gpt).unwrap();
        assert_eq!((gpt.size, gpt.places[1].start), (11 * MIB, 4 * MIB));
        let mbr = layout(&sizes, None, Label::Mbr).unwrap();
        assert_eq!(mbr.size, 10 * MIB);
        let bare = layout(&sizes[..1], None, Label::None).unwrap();
        assert_eq!((bare.size, bare.table.is_none()), (3 * MIB, true));
    }

    #[test]
    fn many_partitions_of_an_mbr_become_logical() {
        let sizes = [(PartSize::Given(4 * MIB), None); 7];
        let layout = layout(&sizes, None, Label::Mbr).unwrap();
        let numbers: Vec<u32> = layout.places.iter().map(|place| place.number).collect();
        assert_eq!(numbers, [1, 2, 3, 5, 6, 7, 8]);
        assert!(layout.places.iter().all(|place| place.length == 4 * MIB));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let one = |size, need, total| layout(&[(size, need)], total, Label::Gpt).unwrap_err();
        let error = one(PartSize::Share(1), Some(50 * MIB), Some("20M"));
        assert!(error.to_string().starts_with("partition 1 would have 18 MiB"), "{error}");
        let error = one(PartSize::Given(50 * MIB), None, Some("20M"));
        assert!(error.to_string().starts_with("the partitions need"), "{error}");
        assert!(one(PartSize::Auto, None, None).to_string().contains("needs a size"));
    }
}
