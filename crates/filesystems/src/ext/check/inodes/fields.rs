//! What an inode says of itself: flags that fit it, fields in their bounds.

use crate::FileKind;
use crate::ext::check::state::Fsck;
use crate::ext::extents::header;
use crate::ext::features::{Compat, Incompat, RoCompat};
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le32, put32};

/// `i_faddr`, of no use since ever.
const FADDR_AT: usize = 0x70;

impl Fsck {
    /// Flags that do not fit; false when the inode was cleared.
    pub(super) fn flags(&mut self, inode: &mut Inode, kind: FileKind) -> bool {
        let shape = self.core.shape;
        let number = inode.number;
        let tree = header(inode.block_area()).is_ok();
        let both = flags::EXTENTS | flags::INLINE_DATA;
        if inode.i_flags() & both == both
            && self.problem(format!("Inode {number} has both extents and inline data"))
        {
            inode.set_flag(if tree { flags::INLINE_DATA } else { flags::EXTENTS }, false);
        }
        if !inode.has_flag(flags::EXTENTS)
            && tree
            && matches!(kind, FileKind::Regular | FileKind::Directory)
            && self.core.sb.has_incompat(Incompat::EXTENTS)
            && !(inode.has_flag(flags::INLINE_DATA) && self.core.has_inline_attribute(inode))
            && self.problem(format!("Inode {number} has extents but does not say so"))
        {
            inode.set_flag(flags::INLINE_DATA, false);
            inode.set_flag(flags::EXTENTS, true);
        }
        if inode.has_flag(flags::EXTENTS)
            && !self.core.sb.has_incompat(Incompat::EXTENTS)
            && self.problem(format!("Inode {number} has extents, the filesystem has not"))
        {
            if !tree {
                self.clear(inode);
                return false;
            }
            self.core.super_mut().set_incompat(Incompat::EXTENTS, true);
        }
        if inode.has_flag(flags::INLINE_DATA) && !self.core.sb.has_incompat(Incompat::INLINE_DATA) {
            let stored = self.core.has_inline_attribute(inode);
            if self.problem(format!("Inode {number} has inline data, the filesystem has not")) {
                if !stored {
                    self.clear(inode);
                    return false;
                }
                self.core.super_mut().set_incompat(Incompat::INLINE_DATA, true);
            }
        }
        let special = !matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
        let folds = shape.has_incompat(Incompat::CASEFOLD);
        let link = kind == FileKind::Symlink;
        let compression = self.core.sb.has_incompat(Incompat::COMPRESSION);
        let misfits = [
            (flags::IMAGIC, !shape.has_compat(Compat::IMAGIC_INODES), "the flag imagic"),
            (flags::INDEX, kind != FileKind::Directory, "an index but is no directory"),
            (
                flags::INDEX,
                !shape.has_compat(Compat::DIR_INDEX),
                "an index, the filesystem has not",
            ),
            (flags::CASEFOLD, !folds || kind != FileKind::Directory, "the flag casefold"),
            (flags::COMPRESSED, !compression, "the flag of compressed files"),
            (flags::EXTENTS, special, "extents but is a special file"),
            (flags::INLINE_DATA, special, "inline data but is a special file"),
            (flags::IMMUTABLE | flags::APPEND, special || link, "flags that it cannot have"),
        ];
        for (flag, wrong, what) in misfits {
            if wrong && inode.has_flag(flag) && self.problem(format!("Inode {number} has {what}")) {
                inode.set_flag(flag, false);
            }
        }
        true
    }

    /// The length of the fields that not every inode has.
    pub(super) fn extra_size(&mut self, inode: &mut Inode) {
        let size = self.core.shape.inode_size;
        let extra = usize::from(inode.i_extra_isize());
        let bad = size > 128 && (extra % 4 != 0 || 128 + extra > size || (1..4).contains(&extra));
        if bad && self.problem(format!("Inode {} has a bad i_extra_isize", inode.number)) {
            inode.set_i_extra_isize(32.min(size - 128) as u16);
        }
    }

    /// Fields that have to be zero, or in bounds.
    pub(super) fn fields(&mut self, inode: &mut Inode, kind: FileKind) {
        let shape = self.core.shape;
        let number = inode.number;
        if self.is_foreign() {
            return;
        }
        if le32(&inode.raw, FADDR_AT) != 0
            && self.slip(format!("Inode {number} has an i_faddr that is not zero"))
        {
            put32(&mut inode.raw, FADDR_AT, 0);
        }
        if inode.i_blocks_high() != 0
            && !shape.has_ro(RoCompat::HUGE_FILE)
            && self.slip(format!("Inode {number} has an i_blocks_high that is not zero"))
        {
            inode.set_i_blocks_high(0);
        }
        if inode.i_file_acl_high() != 0
            && !shape.wide()
            && self.slip(format!("Inode {number} has an i_file_acl_high that is not zero"))
        {
            inode.set_i_file_acl_high(0);
        }
        if kind == FileKind::Directory
            && inode.i_size_high() != 0
            && !shape.has_incompat(Incompat::LARGEDIR)
            && self.slip(format!("Directory {number} has an i_size_high that is not zero"))
        {
            inode.set_i_size_high(0);
        }
    }
}
