//! Group descriptors and the superblock.

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::checksum::{crc16, crc32c};
use super::core::{Core, corrupt};
use super::layout::superblock::SUPERBLOCK_SIZE;
use super::layout::{GroupDescriptor, Superblock};
use super::shape::Shape;

/// The most descriptors read: 2^32 blocks in groups of 8192 (1 KiB blocks) and some to spare.
const GROUPS_MAX: u32 = 1 << 24;

impl Core {
    /// Reads all descriptors.
    pub(super) fn load_groups(&mut self) -> Result<()> {
        let shape = self.shape;
        if shape.groups > GROUPS_MAX {
            return Err(Error::new(Kind::LimitExceeded, "The filesystem has too many groups"));
        }
        let mut groups = Vec::with_capacity(shape.groups as usize);
        for index in 0..shape.descriptor_blocks() {
            let number = shape.descriptor_block(index);
            let block = self.block(number).context("Could not read the group descriptors")?;
            for bytes in block.chunks_exact(shape.descriptor_size) {
                if groups.len() < shape.groups as usize {
                    let mut group = GroupDescriptor::parse(bytes);
                    group.wide = shape.wide();
                    groups.push(group);
                }
            }
        }
        self.groups = groups;
        Ok(())
    }

    pub(crate) fn group(&self, group: u32) -> Result<&GroupDescriptor> {
        self.groups.get(group as usize).ok_or_else(|| corrupt(format!("there is no group {group}")))
    }

    /// A descriptor to be changed.
    pub(crate) fn group_mut(&mut self, group: u32) -> Result<&mut GroupDescriptor> {
        let place = self
            .groups
            .get_mut(group as usize)
            .ok_or_else(|| corrupt(format!("there is no group {group}")))?;
        if let Some(undo) = &mut self.undo {
            undo.groups.entry(group).or_insert(*place);
        }
        self.transaction.dirty_groups.insert(group);
        Ok(place)
    }

    /// The superblock to be changed.
    pub(crate) fn super_mut(&mut self) -> &mut Superblock {
        self.transaction.superblock = true;
        &mut self.sb
    }

    /// Brings changed descriptors, bitmap checksums and the superblock into their blocks.
    pub(crate) fn write_back_groups(&mut self) -> Result<()> {
        let shape = self.shape;
        for group in std::mem::take(&mut self.transaction.dirty_groups) {
            self.refresh_bitmap_checksums(group)?;
            let index = u64::from(group) / shape.descriptors_per_block();
            let within = (u64::from(group) % shape.descriptors_per_block()) as usize;
            let number = shape.descriptor_block(index);
            let at = within * shape.descriptor_size;
            let mut descriptor = *self.group(group)?;
            let used = shape.descriptor_size.min(descriptor.raw.len());
            let uuid = self.sb.uuid();
            let bytes = self.modify(number)?;
            let Some(place) = bytes.get_mut(at..at + shape.descriptor_size) else {
                return Err(corrupt("a group descriptor lies outside of its block"));
            };
            let tail = place.get(used..).map(<[u8]>::to_vec);
            descriptor.set_bg_checksum(group_checksum(
                &shape,
                &uuid,
                group,
                &descriptor,
                tail.as_deref(),
            ));
            place[..used].copy_from_slice(&descriptor.raw[..used]);
            if let Some(kept) = self.groups.get_mut(group as usize) {
                *kept = descriptor;
            }
        }
        if std::mem::take(&mut self.transaction.superblock) {
            self.write_back_superblock()?;
        }
        Ok(())
    }

    fn write_back_superblock(&mut self) -> Result<()> {
        if self.shape.checksums {
            let value = crc32c(!0, &self.sb.raw[..SUPERBLOCK_SIZE - 4]);
            self.sb.set_s_checksum(value);
        }
        let raw = self.sb.raw;
        let number = 1024 >> self.shape.block_bits;
        let at = 1024 & (self.shape.block_size - 1);
        super::layout::put(self.modify(number)?, at, &raw);
        Ok(())
    }
}

/// The checksum of a group descriptor; `tail` are its bytes past the 64 that we keep.
pub(crate) fn group_checksum(
    shape: &Shape,
    uuid: &[u8; 16],
    group: u32,
    descriptor: &GroupDescriptor,
    tail: Option<&[u8]>,
) -> u16 {
    let mut raw = descriptor.raw;
    let size = shape.descriptor_size.min(raw.len());
    if shape.checksums {
        super::layout::put16(&mut raw, 0x1E, 0);
        let sum = crc32c(shape.seed, &group.to_le_bytes());
        let sum = crc32c(sum, &raw[..size]);
        return (crc32c(sum, tail.unwrap_or(&[])) & 0xffff) as u16;
    }
    if !shape.lazy_groups {
        return 0;
    }
    let sum = crc16(crc16(!0, uuid), &group.to_le_bytes());
    let sum = crc16(sum, &raw[..0x1E]);
    let sum = if size > 0x20 { crc16(sum, &raw[0x20..size]) } else { sum };
    crc16(sum, tail.unwrap_or(&[]))
}
