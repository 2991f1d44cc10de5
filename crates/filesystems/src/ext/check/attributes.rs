//! Extended attributes, in the inode and in a block.

use std::collections::BTreeMap;

use disksmith_disk::Result;

use super::state::Fsck;
use crate::ext::features::{Compat, Incompat};
use crate::ext::layout::inode::{GOOD_OLD_SIZE, flags};
use crate::ext::layout::{Inode, le16, le32, put32};
use crate::ext::xattr::{BLOCK_HEADER, MAGIC, hash_name, hash_words};

/// The longest value, as the kernel has it.
const VALUE_MAX: usize = 65536;

/// Index and name of the encryption context.
const ENCRYPTION: (u8, &[u8]) = (9, b"c");

/// Value inodes and their lengths.
type Values = Vec<(u32, u64)>;

impl Fsck {
    /// Checks all attributes of an inode. Answers the clusters that they take.
    /// `None` when the inode is of no use without what they should be.
    pub(super) fn attributes(&mut self, inode: &mut Inode) -> Result<Option<u64>> {
        let mut values = self.near(inode);
        let (clusters, more) = self.far(inode)?;
        values.extend(more);
        if inode.has_flag(flags::ENCRYPT) && !self.encryption(inode) {
            return Ok(None);
        }
        let per_cluster = 1_u64 << self.core.shape.cluster_bits;
        let mut sum = clusters;
        for (holder, length) in values {
            self.known.count_name(holder);
            sum += length.div_ceil(self.core.shape.block_size as u64).div_ceil(per_cluster);
        }
        Ok(Some(sum))
    }

    /// An encrypted file has a context that says how. False when the inode is to be cleared.
    fn encryption(&mut self, inode: &mut Inode) -> bool {
        let number = inode.number;
        let context = self
            .core
            .attributes_of(inode)
            .unwrap_or_default()
            .into_iter()
            .find(|a| (a.index, a.name.as_slice()) == ENCRYPTION);
        let Some(context) = context else {
            let text = format!("Inode {number} is said to be encrypted, but has no context");
            if self.problem(text) {
                inode.set_flag(flags::ENCRYPT, false);
            }
            return true;
        };
        // Versions 1 and 2 differ in length; both end with a nonce of 16 bytes.
        let value = context.value;
        match (value.first(), value.len()) {
            (Some(1), 28) | (Some(2), 40) => {
                self.policies.insert(number, value[..value.len() - 16].to_vec());
                true
            }
            _ => !self.problem(format!("Inode {number} has a bad encryption context")),
        }
    }

    fn near(&mut self, inode: &mut Inode) -> Values {
        let start = GOOD_OLD_SIZE + inode.extra_size();
        if inode.extra_size() == 0 || le32(&inode.raw, start) != MAGIC {
            return Vec::new();
        }
        let area = inode.raw.get(start + 4..).unwrap_or(&[]);
        match self.entries(area, area, 0) {
            Ok(values) => values,
            Err(why) => {
                let text = format!("The attributes in inode {} are bad: {why}", inode.number);
                if self.problem(text)
                    && let Some(area) = inode.raw.get_mut(start..)
                {
                    area.fill(0);
                }
                Vec::new()
            }
        }
    }

    fn far(&mut self, inode: &mut Inode) -> Result<(u64, Values)> {
        let block = match self.is_foreign() {
            true => inode.file_acl() & u64::from(u32::MAX),
            false => inode.file_acl(),
        };
        if block == 0 {
            return Ok((0, Vec::new()));
        }
        if !self.core.shape.has_compat(Compat::EXT_ATTR)
            && self
                .problem(format!("Inode {} has attributes, the filesystem has not", inode.number))
        {
            self.core.super_mut().set_compat(Compat::EXT_ATTR, true);
        }
        let checked = match self.core.shape.valid_range(block, 1) {
            true => self.attribute_block(block),
            false => Err(format!("block {block} is outside of the filesystem")),
        };
        let values = match checked {
            Ok(values) => values,
            Err(why) => {
                let text = format!("The attributes of inode {} are bad: {why}", inode.number);
                if self.problem(text) {
                    inode.set_file_acl(0);
                }
                return Ok((0, Vec::new()));
            }
        };
        self.reseal(block)?;
        let users = self.shared.entry(block).or_insert(0);
        *users += 1;
        if *users == 1 {
            let number = inode.number;
            if !self.claim(block, 1, &|| format!("the attributes of inode {number}")) {
                self.shared.remove(&block);
                if self.repairing() {
                    self.mended += 1;
                    self.waiting.copies.insert(number);
                }
            }
        }
        Ok((1, values))
    }

    /// A block's entries, if it is one of attributes. Its checksum is judged in [`Self::reseal`].
    fn attribute_block(&self, number: u64) -> Result<Values, String> {
        let block = self.core.block(number).map_err(|error| error.to_string())?;
        if le32(&block, 0) != MAGIC || le32(&block, 8) != 1 {
            return Err(format!("block {number} has a bad header"));
        }
        self.entries(block.get(BLOCK_HEADER..).unwrap_or(&[]), &block, BLOCK_HEADER)
    }

    fn reseal(&mut self, number: u64) -> Result<()> {
        if self.shared.contains_key(&number) || self.core.attribute_block(number).is_ok() {
            return Ok(());
        }
        if self.problem(format!("Attribute block {number} has a wrong checksum")) {
            self.core.seal_attributes(number)?;
        }
        Ok(())
    }

    /// Checks the entries of `area`, which begins at byte `at` of `base`, where the values lie.
    fn entries(&self, area: &[u8], base: &[u8], at: usize) -> Result<Values, String> {
        let mut taken: BTreeMap<usize, usize> = BTreeMap::from([(0, at)]);
        let mut take = |start: usize, end: usize| {
            let before = taken.range(..end).next_back().is_none_or(|(_, stop)| *stop <= start);
            taken.insert(start, end);
            before && end <= base.len()
        };
        let mut values = Vec::new();
        let mut from = 0;
        while from + 16 <= area.len() && le32(area, from) != 0 {
            let name_length = usize::from(area[from]);
            let end = from + (16 + name_length).next_multiple_of(4);
            if end > area.len() && from + 16 + name_length > area.len()
                || !take(at + from, at + end)
            {
                return Err("an entry runs into something else".into());
            }
            let name = area.get(from + 16..from + 16 + name_length).unwrap_or(&[]);
            let (offset, holder) = (usize::from(le16(area, from + 2)), le32(area, from + 4));
            let size = le32(area, from + 8) as usize;
            // In a block every name is of some namespace.
            let nameless = area[from + 1] == 0 && (name_length == 0 || at > 0);
            if nameless || size > VALUE_MAX {
                return Err("an entry cannot be".into());
            }
            if holder != 0 {
                self.holder(holder, size as u64, name, le32(area, from + 12))?;
                values.push((holder, size as u64));
            } else {
                let value = base.get(offset..offset + size);
                let padded = offset + size.next_multiple_of(4);
                let Some(value) = value.filter(|_| size == 0 || take(offset, padded)) else {
                    return Err("a value runs into something else".into());
                };
                let hash = le32(area, from + 12);
                let signed = signed_hash(name);
                let hashes = [hash_words(hash_name(name), value), hash_words(signed, value), 0];
                if !hashes.contains(&hash) {
                    return Err("an entry has a wrong hash".into());
                }
            }
            from = end;
        }
        if from + 4 <= area.len() && !take(at + from, at + from + 4) {
            return Err("the end of the entries lies in a value".into());
        }
        if at > 0 && le32(area, from.min(area.len() - 4)) != 0 {
            return Err("the entries have no end".into());
        }
        Ok(values)
    }

    fn holder(&self, number: u32, size: u64, name: &[u8], hash: u32) -> Result<(), String> {
        if !self.core.shape.has_incompat(Incompat::EA_INODE) {
            return Err("a value lies in an inode, which the filesystem does not allow".into());
        }
        match self.core.inode_unchecked(number) {
            Ok(holder)
                if holder.has_flag(flags::EA_INODE)
                    && holder.is_regular()
                    && holder.size() == size =>
            {
                // The hash of the value is kept as the holder's time of access.
                let value = holder.i_atime().to_le_bytes();
                let right =
                    [hash_words(hash_name(name), &value), hash_words(signed_hash(name), &value)];
                match right.contains(&hash) {
                    true => Ok(()),
                    false => Err("an entry has a wrong hash".into()),
                }
            }
            _ => Err(format!("inode {number} does not hold a value")),
        }
    }

    /// User counts of attribute blocks.
    pub(super) fn attribute_users(&mut self) -> Result<()> {
        let mut shared: Vec<(u64, u32)> = self.shared.iter().map(|(b, n)| (*b, *n)).collect();
        shared.sort_unstable();
        for (block, users) in shared {
            let Ok(bytes) = self.core.block(block) else { continue };
            let counted = le32(&bytes, 4);
            drop(bytes);
            if counted != users
                && self
                    .slip(format!("Attribute block {block} counts {counted} users, it has {users}"))
            {
                put32(self.core.modify(block)?, 4, users);
                self.core.seal_attributes(block)?;
            }
        }
        Ok(())
    }
}

/// The hash of kernels where `char` has a sign.
fn signed_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, byte| hash.rotate_left(5) ^ (i32::from(*byte as i8) as u32))
}
