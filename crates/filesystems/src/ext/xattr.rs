//! Extended attributes: in the inode, in a block, and values in inodes of their own.

use disksmith_disk::Result;

use super::checksum::crc32c;
use super::core::{Core, corrupt};
use super::features::{Compat, Incompat};
use super::layout::inode::{GOOD_OLD_SIZE, flags};
use super::layout::{Inode, le16, le32, put, put16, put32};
use crate::errors;

pub(crate) const MAGIC: u32 = 0xEA02_0000;
pub(crate) const BLOCK_HEADER: usize = 32;
/// The longest value, as the kernel has it.
const VALUE_MAX: usize = 65536;
/// Values over this go to inodes of their own where the feature is there.
const LARGE: usize = 1024;

/// `e_name_index` and the name's beginning that it stands for.
const PREFIXES: &[(u8, &[u8])] = &[
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (8, b"system.richacl"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
    (10, b"gnu."),
];
/// Index and name of inline data.
pub(crate) const INLINE_DATA: (u8, &[u8]) = (7, b"data");

/// One attribute as stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attribute {
    pub(crate) index: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// The inode that holds the value, or 0.
    pub(crate) value_inode: u32,
}

impl Attribute {
    pub(crate) fn new(index: u8, name: &[u8], value: Vec<u8>) -> Self {
        Self { index, name: name.to_vec(), value, value_inode: 0 }
    }

    fn is(&self, index: u8, name: &[u8]) -> bool {
        self.index == index && self.name == name
    }

    /// Bytes of the entry without its value.
    fn entry_size(&self) -> usize {
        (16 + self.name.len()).next_multiple_of(4)
    }

    fn value_size(&self) -> usize {
        if self.value_inode != 0 { 0 } else { self.value.len().next_multiple_of(4) }
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value_size()
    }

    fn order(&self) -> (u8, usize, &[u8]) {
        (self.index, self.name.len(), &self.name)
    }

    /// The full name, as Linux has it; `None` for what is not shown.
    pub(crate) fn full_name(&self) -> Option<Vec<u8>> {
        if self.is(INLINE_DATA.0, INLINE_DATA.1) || self.index == 9 {
            return None;
        }
        let prefix = PREFIXES.iter().find(|(index, _)| *index == self.index)?.1;
        Some([prefix, &self.name].concat())
    }
}

/// Splits a full name: `EOPNOTSUPP` for unknown prefixes.
pub(crate) fn split_name(full: &[u8]) -> Result<(u8, &[u8])> {
    for (index, prefix) in PREFIXES {
        if let Some(rest) = full.strip_prefix(*prefix) {
            let whole = prefix.last() != Some(&b'.');
            if whole == rest.is_empty() && rest.len() <= 255 {
                return Ok((*index, rest));
            }
        }
    }
    Err(errors::not_supported())
}

pub(crate) fn hash_name(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, byte| hash.rotate_left(5) ^ u32::from(*byte))
}

pub(crate) fn hash_words(hash: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(hash, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// Parses entries from `area`; values lie at offsets from the start of `base`.
fn parse(area: &[u8], base: &[u8]) -> Result<Vec<Attribute>> {
    let bad = || corrupt("an extended attribute is bad");
    let mut attributes = Vec::new();
    let mut at = 0;
    while le32(area, at) != 0 {
        let name_length = usize::from(*area.get(at).ok_or_else(bad)?);
        let index = *area.get(at + 1).ok_or_else(bad)?;
        let (offset, inode) = (usize::from(le16(area, at + 2)), le32(area, at + 4));
        let size = le32(area, at + 8) as usize;
        let name = area.get(at + 16..at + 16 + name_length).ok_or_else(bad)?;
        if size > VALUE_MAX {
            return Err(bad());
        }
        let value = if inode != 0 {
            // The length is kept here until the value is read.
            vec![0; size]
        } else if size == 0 {
            Vec::new()
        } else {
            base.get(offset..offset + size).ok_or_else(bad)?.to_vec()
        };
        attributes.push(Attribute { index, name: name.to_vec(), value, value_inode: inode });
        at += (16 + name_length).next_multiple_of(4);
    }
    Ok(attributes)
}

/// Lays attributes out: entries from the start of `area`, values from its end. Offsets count
/// from `base` bytes before the area.
fn encode(area: &mut [u8], base: usize, attributes: &[Attribute]) {
    let mut at = 0;
    let mut end = area.len();
    for attribute in attributes {
        put(area, at, &[attribute.name.len() as u8, attribute.index]);
        put32(area, at + 4, attribute.value_inode);
        put32(area, at + 8, attribute.value.len() as u32);
        put(area, at + 16, &attribute.name);
        let mut hash = hash_name(&attribute.name);
        if attribute.value_inode == 0 {
            end -= attribute.value_size();
            put(area, end, &attribute.value);
            put16(area, at + 2, if attribute.value.is_empty() { 0 } else { (base + end) as u16 });
            hash = hash_words(hash, &attribute.value);
        } else {
            // Over the hash of the value, which the caller left in front of it.
            hash = 0;
        }
        put32(area, at + 12, hash);
        at += attribute.entry_size();
    }
}

impl Core {
    /// All attributes of an inode; values in inodes of their own are read.
    pub(crate) fn attributes_of(&self, inode: &Inode) -> Result<Vec<Attribute>> {
        let mut all = self.in_inode(inode)?;
        all.extend(self.in_block(inode)?);
        for attribute in all.iter_mut().filter(|attribute| attribute.value_inode != 0) {
            let holder = self.inode(attribute.value_inode)?;
            if !holder.has_flag(flags::EA_INODE) || holder.size() != attribute.value.len() as u64 {
                return Err(corrupt(format!("inode {} holds no attribute", holder.number)));
            }
            let mut value = vec![0; attribute.value.len()];
            self.read_content(&holder, 0, &mut value)?;
            attribute.value = value;
        }
        Ok(all)
    }

    fn in_inode(&self, inode: &Inode) -> Result<Vec<Attribute>> {
        let start = GOOD_OLD_SIZE + inode.extra_size();
        if inode.extra_size() == 0 || le32(&inode.raw, start) != MAGIC {
            return Ok(Vec::new());
        }
        let area = inode.raw.get(start + 4..).unwrap_or(&[]);
        parse(area, area)
    }

    fn in_block(&self, inode: &Inode) -> Result<Vec<Attribute>> {
        let number = inode.file_acl();
        if number == 0 {
            return Ok(Vec::new());
        }
        let block = self.attribute_block(number)?;
        parse(block.get(BLOCK_HEADER..).unwrap_or(&[]), &block)
    }

    /// Reads a block of attributes and checks its header.
    pub(crate) fn attribute_block(&self, number: u64) -> Result<super::cache::Block> {
        if !self.shape.valid_range(number, 1) {
            return Err(corrupt(format!("attribute block {number} is outside of the filesystem")));
        }
        let block = self.block(number)?;
        if le32(&block, 0) != MAGIC || le32(&block, 8) != 1 {
            return Err(corrupt(format!("attribute block {number} has a bad header")));
        }
        if self.shape.checksums && self.attribute_sum(number, &block) != le32(&block, 0x10) {
            return Err(corrupt(format!("attribute block {number} has a wrong checksum")));
        }
        Ok(block)
    }

    fn attribute_sum(&self, number: u64, block: &[u8]) -> u32 {
        let sum = crc32c(self.shape.seed, &number.to_le_bytes());
        let sum = crc32c(sum, block.get(..0x10).unwrap_or(&[]));
        let sum = crc32c(sum, &[0; 4]);
        crc32c(sum, block.get(0x14..).unwrap_or(&[]))
    }

    pub(crate) fn seal_attributes(&mut self, number: u64) -> Result<()> {
        if self.shape.checksums {
            let block = self.block(number)?;
            let sum = self.attribute_sum(number, &block);
            drop(block);
            put32(self.modify(number)?, 0x10, sum);
        }
        Ok(())
    }

    /// True when the inode has the attribute that inline data need.
    pub(crate) fn has_inline_attribute(&self, inode: &Inode) -> bool {
        self.in_inode(inode)
            .is_ok_and(|all| all.iter().any(|attribute| attribute.is(INLINE_DATA.0, INLINE_DATA.1)))
    }

    /// Bytes that the inode has for inline data; `None` without the attribute for it.
    pub(crate) fn inline_room(&self, inode: &Inode) -> Option<u64> {
        let all = self.in_inode(inode).ok()?;
        let data = all.iter().find(|attribute| attribute.is(INLINE_DATA.0, INLINE_DATA.1))?;
        Some((super::layout::inode::BLOCK_AREA + data.value.len()) as u64)
    }

    /// Replaces all attributes in the inode by an empty one for inline data.
    pub(crate) fn restart_inline(&self, inode: &mut Inode) {
        let start = GOOD_OLD_SIZE + inode.extra_size();
        if let Some(area) = inode.raw.get_mut(start..) {
            area.fill(0);
            put32(area, 0, MAGIC);
            let only = Attribute::new(INLINE_DATA.0, INLINE_DATA.1, Vec::new());
            encode(area.get_mut(4..).unwrap_or(&mut []), 0, &[only]);
        }
    }

    // ---- changes ---------------------------------------------------------------------------

    /// Sets (or with `None` removes) one attribute. The inode is changed but not stored.
    pub(crate) fn set_attribute(
        &mut self,
        inode: &mut Inode,
        index: u8,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let mut all = self.in_inode(inode)?;
        all.extend(self.in_block(inode)?);
        let old = all.iter().position(|attribute| attribute.is(index, name));
        let old = old.map(|at| all.remove(at));
        if let Some(value) = value {
            if value.len() > VALUE_MAX {
                return Err(errors::out_of_range());
            }
            all.push(Attribute::new(index, name, value.to_vec()));
        }
        self.store_attributes(inode, all)?;
        if let Some(holder) = old.filter(|old| old.value_inode != 0) {
            self.release_value(inode, holder.value_inode)?;
        }
        Ok(())
    }

    /// Lays all attributes out anew: in the inode what fits, the rest in a block.
    pub(crate) fn store_attributes(
        &mut self,
        inode: &mut Inode,
        mut all: Vec<Attribute>,
    ) -> Result<()> {
        all.sort_by(|a, b| {
            let inline = |x: &Attribute| !x.is(INLINE_DATA.0, INLINE_DATA.1);
            (inline(a), a.order()).cmp(&(inline(b), b.order()))
        });
        let start = GOOD_OLD_SIZE + inode.extra_size();
        let room =
            if inode.extra_size() == 0 { 0 } else { inode.raw.len().saturating_sub(start + 4) };
        let block_room = self.shape.block_size - BLOCK_HEADER - 4;
        let large = self.shape.has_incompat(Incompat::EA_INODE);
        let (mut near, mut far) = (Vec::new(), Vec::new());
        let (mut near_used, mut far_used) = (4, 0);
        for mut attribute in all {
            if near_used + attribute.size() <= room {
                near_used += attribute.size();
                near.push(attribute);
                continue;
            }
            let crowded = far_used + attribute.size() > block_room;
            if large && crowded && attribute.value.len() > LARGE && attribute.value_inode == 0 {
                attribute.value_inode = self.hold_value(inode, &attribute.value)?;
            }
            far_used += attribute.size();
            far.push(attribute);
        }
        if far_used > block_room {
            return Err(errors::no_space());
        }
        if inode.extra_size() > 0 {
            let hashes = self.value_hashes(&near)?;
            if let Some(area) = inode.raw.get_mut(start..) {
                area.fill(0);
                if !near.is_empty() {
                    put32(area, 0, MAGIC);
                    encode(&mut area[4..], 0, &near);
                    fix_hashes(&mut area[4..], &near, &hashes);
                }
            }
        }
        self.store_block(inode, &far)
    }

    fn store_block(&mut self, inode: &mut Inode, far: &[Attribute]) -> Result<()> {
        let old = inode.file_acl();
        if far.is_empty() {
            if old != 0 {
                self.release_attribute_block(inode)?;
            }
            return Ok(());
        }
        let shared = old != 0 && le32(&self.attribute_block(old)?, 4) > 1;
        let number = if old == 0 || shared {
            if shared {
                self.release_attribute_block(inode)?;
            }
            if !self.sb.has_compat(Compat::EXT_ATTR) {
                // As the kernel: without it such blocks are not counted as the inode's.
                self.super_mut().set_compat(Compat::EXT_ATTR, true);
            }
            let number = self.allocate_metadata(self.inode_goal(inode))?;
            self.fresh(number)?;
            self.add_sectors(inode, 1 << self.shape.cluster_bits, true)?;
            inode.set_file_acl(number);
            number
        } else {
            old
        };
        let hashes = self.value_hashes(far)?;
        let mut block = vec![0; self.shape.block_size];
        put32(&mut block, 0, MAGIC);
        put32(&mut block, 4, 1);
        put32(&mut block, 8, 1);
        encode(&mut block[BLOCK_HEADER..], BLOCK_HEADER, far);
        fix_hashes(&mut block[BLOCK_HEADER..], far, &hashes);
        let mut hash = 0_u32;
        let mut at = BLOCK_HEADER;
        for attribute in far {
            let entry = le32(&block, at + 12);
            if entry == 0 {
                hash = 0;
                break;
            }
            hash = hash.rotate_left(16) ^ entry;
            at += attribute.entry_size();
        }
        put32(&mut block, 12, hash);
        self.modify(number)?.copy_from_slice(&block);
        self.seal_attributes(number)
    }

    /// Takes the inode's block of attributes away; frees it if nobody else uses it.
    pub(crate) fn release_attribute_block(&mut self, inode: &mut Inode) -> Result<()> {
        let number = inode.file_acl();
        if number == 0 {
            return Ok(());
        }
        let users = le32(&self.attribute_block(number)?, 4);
        if users > 1 {
            put32(self.modify(number)?, 4, users - 1);
            self.seal_attributes(number)?;
        } else {
            self.free_metadata(number)?;
        }
        inode.set_file_acl(0);
        self.add_sectors(inode, 1 << self.shape.cluster_bits, false)
    }

    /// Releases everything that an inode's attributes hold; for an inode that goes away.
    pub(crate) fn drop_attributes(&mut self, inode: &mut Inode) -> Result<()> {
        let mut all = self.in_inode(inode)?;
        let shared = inode.file_acl() != 0 && le32(&self.attribute_block(inode.file_acl())?, 4) > 1;
        if !shared {
            all.extend(self.in_block(inode)?);
        }
        self.release_attribute_block(inode)?;
        for attribute in all.into_iter().filter(|attribute| attribute.value_inode != 0) {
            self.release_value(inode, attribute.value_inode)?;
        }
        Ok(())
    }

    // ---- values in inodes ------------------------------------------------------------------

    fn value_hash(&self, value: &[u8]) -> u32 {
        crc32c(self.shape.seed, value)
    }

    /// For each attribute whose value lies in an inode, the hash kept there.
    fn value_hashes(&self, attributes: &[Attribute]) -> Result<Vec<Option<u32>>> {
        attributes
            .iter()
            .map(|attribute| match attribute.value_inode {
                0 => Ok(None),
                number => Ok(Some(self.inode(number)?.i_atime())),
            })
            .collect()
    }

    /// Stores a value in a new inode.
    fn hold_value(&mut self, owner: &mut Inode, value: &[u8]) -> Result<u32> {
        let number = self.allocate_inode(owner.number, false)?;
        let mut holder = self.blank_inode(number, 0o100_600);
        holder.set_flag(flags::EA_INODE, true);
        holder.set_uid(owner.uid());
        holder.set_gid(owner.gid());
        holder.set_i_links_count(1);
        holder.set_i_atime(self.value_hash(value));
        holder.set_i_ctime(0);
        holder.set_i_version(1);
        holder.set_i_mtime(0);
        self.put_inode(&holder)?;
        self.write_content(&mut holder, 0, value)?;
        self.put_inode(&holder)?;
        let blocks = self.charged_blocks(value.len());
        self.add_sectors(owner, blocks, true)?;
        Ok(number)
    }

    /// The owner's `i_blocks` counts its values.
    fn charged_blocks(&self, length: usize) -> u64 {
        let mask = (1_u64 << self.shape.cluster_bits) - 1;
        ((length as u64).div_ceil(self.shape.block_size as u64) + mask) & !mask
    }

    fn release_value(&mut self, owner: &mut Inode, number: u32) -> Result<()> {
        let mut holder = self.inode(number)?;
        if !holder.has_flag(flags::EA_INODE) {
            return Err(corrupt(format!("inode {number} holds no attribute")));
        }
        let blocks = self.charged_blocks(holder.size() as usize);
        self.add_sectors(owner, blocks, false)?;
        let users = holder.i_version();
        if users > 1 {
            holder.set_i_version(users - 1);
            return self.put_inode(&holder);
        }
        holder.set_i_links_count(0);
        self.destroy_inode(&mut holder)
    }
}

fn fix_hashes(area: &mut [u8], attributes: &[Attribute], hashes: &[Option<u32>]) {
    let mut at = 0;
    for (attribute, hash) in attributes.iter().zip(hashes) {
        if let Some(hash) = hash {
            let value = hash_words(hash_name(&attribute.name), &hash.to_le_bytes());
            put32(area, at + 12, value);
        }
        at += attribute.entry_size();
    }
}

// ---- access control lists ----------------------------------------------------------------------

/// `a_version` on disk, and of the attribute that programs see.
const ACL_DISK: u32 = 1;
const ACL_LINUX: u32 = 2;
/// Tags of entries that name a user or a group.
const ACL_NAMED: [u16; 2] = [2, 8];

/// From the disk's encoding of an ACL to the one that programs see.
pub(crate) fn acl_to_linux(disk: &[u8]) -> Result<Vec<u8>> {
    let bad = || corrupt("an access control list is bad");
    if le32(disk, 0) != ACL_DISK {
        return Err(bad());
    }
    let mut linux = ACL_LINUX.to_le_bytes().to_vec();
    let mut at = 4;
    while at < disk.len() {
        let head = disk.get(at..at + 4).ok_or_else(bad)?;
        linux.extend_from_slice(head);
        at += 4;
        if ACL_NAMED.contains(&le16(head, 0)) {
            linux.extend_from_slice(disk.get(at..at + 4).ok_or_else(bad)?);
            at += 4;
        } else {
            linux.extend_from_slice(&u32::MAX.to_le_bytes());
        }
    }
    Ok(linux)
}

/// The other way.
pub(crate) fn acl_to_disk(linux: &[u8]) -> Result<Vec<u8>> {
    if le32(linux, 0) != ACL_LINUX || linux.len() % 8 != 4 {
        return Err(errors::invalid());
    }
    let mut disk = ACL_DISK.to_le_bytes().to_vec();
    for entry in linux[4..].chunks_exact(8) {
        let long = ACL_NAMED.contains(&le16(entry, 0));
        disk.extend_from_slice(&entry[..if long { 8 } else { 4 }]);
    }
    Ok(disk)
}

/// What programs see of an attribute's value.
pub(crate) fn to_linux(index: u8, value: Vec<u8>) -> Result<Vec<u8>> {
    if matches!(index, 2 | 3) { acl_to_linux(&value) } else { Ok(value) }
}

/// What is stored of a value that a program gives.
pub(crate) fn to_disk(index: u8, value: &[u8]) -> Result<Vec<u8>> {
    if matches!(index, 2 | 3) { acl_to_disk(value) } else { Ok(value.to_vec()) }
}
