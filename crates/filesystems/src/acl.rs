//! POSIX access control lists, in the form of the kernel's `system.posix_acl_*` attributes, and
//! how they and a file's mode depend on each other.
//!
//! The attribute holds a version (2, 32 bits) and entries of 8 bytes: tag and permissions (16
//! bits each), id (32 bits); all little-endian.

use disksmith_disk::Result;

use crate::{Changes, Filesystem, errno, errors};

/// The attribute that adds to a file's mode.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory from which new files in it get theirs.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = [2, 0, 0, 0];
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// `ENODATA`, `EOPNOTSUPP`.
const NO_DATA: i32 = 61;
const NOT_SUPPORTED: i32 = 95;

/// A list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccessList(Vec<Entry>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry {
    tag: u16,
    bits: u16,
    id: u32,
}

impl AccessList {
    /// Reads an attribute's value; `None` if it is no list.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let entries = value.strip_prefix(&VERSION)?;
        let entries = entries.chunks(8).map(|entry| match *entry {
            [a, b, c, d, e, f, g, h] => Some(Entry {
                tag: u16::from_le_bytes([a, b]),
                bits: u16::from_le_bytes([c, d]) & 7,
                id: u32::from_le_bytes([e, f, g, h]),
            }),
            _ => None,
        });
        entries.collect::<Option<Vec<_>>>().map(Self)
    }

    /// The attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_vec();
        for entry in &self.0 {
            value.extend(entry.tag.to_le_bytes());
            value.extend(entry.bits.to_le_bytes());
            value.extend(entry.id.to_le_bytes());
        }
        value
    }

    /// Whether a mode says as much: nobody is named.
    pub fn is_mode(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The permission bits of a file with this list: the mask stands for the group.
    pub fn mode(&self) -> u16 {
        let of = |tag: u16| self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.bits);
        let group = of(MASK).or(of(GROUP_OBJ)).unwrap_or(0);
        of(USER_OBJ).unwrap_or(0) << 6 | group << 3 | of(OTHER).unwrap_or(0)
    }

    /// Puts each class of `mode` in its entry, after `combine(old, new)`.
    fn with_mode(mut self, mode: u16, combine: fn(u16, u16) -> u16) -> Self {
        let group = if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ };
        for entry in &mut self.0 {
            let new = match entry.tag {
                USER_OBJ => mode >> 6 & 7,
                OTHER => mode & 7,
                tag if tag == group => mode >> 3 & 7,
                _ => continue,
            };
            entry.bits = combine(entry.bits, new);
        }
        self
    }

    /// The list after `chmod`.
    #[must_use]
    pub fn changed(self, mode: u16) -> Self {
        self.with_mode(mode, |_, new| new)
    }

    /// The list of a new file with this default list and mode.
    #[must_use]
    pub fn inherited(self, mode: u16) -> Self {
        self.with_mode(mode, |old, new| old & new)
    }
}

/// The list that an attribute of a file holds.
pub fn get(tree: &dyn Filesystem, inode: u64, which: &[u8]) -> Result<Option<AccessList>> {
    match tree.xattr(inode, which) {
        Ok(value) => Ok(AccessList::parse(&value)),
        Err(error) if matches!(errno(&error), NO_DATA | NOT_SUPPORTED) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a list as the kernel does: a file's mode follows, and a list that says no more than a
/// mode is not stored.
pub fn set(tree: &dyn Filesystem, inode: u64, which: &[u8], value: &[u8]) -> Result<()> {
    let list = AccessList::parse(value).ok_or_else(errors::invalid)?;
    if which == ACCESS {
        let mode = tree.attributes(inode)?.mode & 0o7000 | list.mode();
        tree.set_attributes(inode, &Changes { mode: Some(mode), ..Changes::default() })?;
    }
    let needless = list.0.is_empty() || which == ACCESS && list.is_mode();
    match needless {
        true => match tree.remove_xattr(inode, which) {
            Err(error) if errno(&error) != NO_DATA => Err(error),
            _ => Ok(()),
        },
        false => tree.set_xattr(inode, which, value, None),
    }
}

/// After a change of a file's mode: its list follows.
pub fn follow_mode(tree: &dyn Filesystem, inode: u64, mode: u16) -> Result<()> {
    match get(tree, inode, ACCESS)? {
        Some(list) => tree.set_xattr(inode, ACCESS, &list.changed(mode).encode(), None),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> AccessList {
        AccessList(entries.iter().map(|&(tag, bits, id)| Entry { tag, bits, id }).collect())
    }

    #[test]
    fn lists_and_modes_follow_each_other() {
        let plain = list(&[(1, 6, !0), (4, 4, !0), (0x20, 0, !0)]);
        assert!(plain.is_mode());
        assert_eq!(plain.mode(), 0o640);
        let named = list(&[(1, 7, !0), (2, 6, 12), (4, 4, !0), (0x10, 6, !0), (0x20, 4, !0)]);
        assert!(!named.is_mode());
        assert_eq!(named.mode(), 0o764);
        assert_eq!(named.clone().changed(0o710).mode(), 0o710);
        assert_eq!(named.clone().inherited(0o644).mode(), 0o644);
        assert_eq!(AccessList::parse(&named.encode()), Some(named));
        assert_eq!(AccessList::parse(&[2, 0, 0, 0, 1]), None);
    }
}
