//! Targets of symbolic links.

use crate::ext::check::state::Fsck;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le16};

/// Bytes of a target that `i_block` holds.
const FAST_LINK_MAX: usize = 60;

impl Fsck {
    pub(super) fn symlink(&mut self, inode: &mut Inode) -> bool {
        let text = match self.core.link_target(inode) {
            _ if self.link_is_bad(inode) => format!("Symlink {} is bad", inode.number),
            Err(error) if error.errno() == Some(126) => return true,
            Err(error) => format!("Symlink {} is bad: {error}", inode.number),
            Ok(target) if target.is_empty() || target.contains(&0) => {
                format!("Symlink {} is bad", inode.number)
            }
            Ok(_) => return true,
        };
        if self.problem(text) {
            self.clear(inode);
            return false;
        }
        true
    }

    /// A target that ends elsewhere than the length says.
    fn link_is_bad(&self, inode: &Inode) -> bool {
        if inode.size() == 0 {
            return true;
        }
        if inode.has_flag(flags::INLINE_DATA) {
            return self.core.inline_room(inode) != Some(inode.size());
        }
        if !self.core.is_fast_link(inode) {
            // The byte behind a target in clear is a zero.
            let place = self.core.map(inode, 0, 1).ok().and_then(|run| run.data());
            let block = place.and_then(|place| self.core.block(place).ok());
            return !block.is_some_and(|block| {
                if inode.has_flag(flags::ENCRYPT) {
                    return is_whole_secret(&block, inode.size());
                }
                block.get(inode.size() as usize) == Some(&0)
            });
        }
        let area = inode.block_area();
        if inode.has_flag(flags::ENCRYPT) {
            return !is_whole_secret(area, inode.size());
        }
        let end = area.iter().position(|byte| *byte == 0).unwrap_or(FAST_LINK_MAX);
        end as u64 != inode.size() || end == FAST_LINK_MAX
    }
}

/// An encrypted target is two bytes of length and that much ciphertext (the kernel's
/// `fscrypt_symlink_data`), together as long as the inode says, in a room that holds a zero more.
fn is_whole_secret(room: &[u8], size: u64) -> bool {
    size > 2 && size < room.len() as u64 && u64::from(le16(room, 0)) + 2 == size
}
