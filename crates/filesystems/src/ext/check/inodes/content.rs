//! What an inode maps: every block accounted for, and as many as it says.

use disksmith_disk::Result;

use super::LARGE_FILE;
use crate::FileKind;
use crate::ext::check::mapping::{Mapped, Piece};
use crate::ext::check::state::Fsck;
use crate::ext::core::ROOT;
use crate::ext::layout::Inode;
use crate::ext::layout::inode::flags;

impl Fsck {
    /// Accounts for everything that an inode has.
    pub(super) fn content(&mut self, inode: &mut Inode, kind: FileKind) -> Result<()> {
        let shape = self.core.shape;
        let number = inode.number;
        let mut clusters: u64 = 0;
        let per_cluster = 1_u64 << shape.cluster_bits;
        // Attributes first: a bad symlink or inline file is judged by them.
        let Some(attributes) = self.attributes(inode)? else {
            self.clear(inode);
            return Ok(());
        };
        if kind == FileKind::Symlink && !self.symlink(inode) {
            return Ok(());
        }
        if inode.has_flag(flags::INLINE_DATA) && !self.inline(inode, kind) {
            return Ok(());
        }
        if self.core.has_mapping(inode) {
            let mapped = self.mapping(inode)?;
            if kind == FileKind::Directory
                && mapped.pieces.is_empty()
                && number != ROOT
                && self.problem(format!("Directory {number} has no blocks"))
            {
                self.clear(inode);
                return Ok(());
            }
            clusters += self.claim_mapped(inode, &mapped);
            self.length(inode, kind, &mapped);
        }
        clusters += attributes;
        let expected = clusters * per_cluster * (shape.block_size as u64 / 512);
        let counted = self.core.sectors(inode);
        if counted != expected
            && self.slip(format!(
                "Inode {number} counts {counted} blocks of 512 bytes, it has {expected}"
            ))
        {
            inode.set_blocks_raw(0);
            inode.set_flag(flags::HUGE_FILE, expected >> 48 != 0);
            self.core.add_sectors(inode, clusters * per_cluster, true)?;
        }
        Ok(())
    }

    /// Claims what is mapped; the number of clusters.
    fn claim_mapped(&mut self, inode: &Inode, mapped: &Mapped) -> u64 {
        let shape = self.core.shape;
        let number = inode.number;
        let who = move || format!("inode {number}");
        let per_cluster = 1_u64 << shape.cluster_bits;
        let mut clusters = mapped.tree.len() as u64;
        let mut fine = true;
        for block in &mapped.tree {
            fine &= self.claim(*block, 1, &who);
        }
        self.cluster_rules(inode, mapped);
        let mut last = None;
        for piece in &mapped.pieces {
            let from = self.cluster(piece.place);
            let to = self.cluster(piece.place + piece.length - 1);
            // Neighbours share a cluster.
            let shared = u64::from(shape.cluster_bits > 0 && last == Some(from));
            let within = piece.place.saturating_sub(shape.first_block) % per_cluster;
            let skip = shared * (per_cluster - within).min(piece.length);
            if piece.length > skip {
                fine &= self.claim(piece.place + skip, piece.length - skip, &who);
            }
            clusters += to - from + 1 - shared;
            last = Some(to);
        }
        if !fine {
            self.mended += u64::from(self.repairing());
            self.waiting.copies.insert(number);
        }
        clusters
    }

    /// A file or directory inside its inode; false when it was cleared.
    fn inline(&mut self, inode: &mut Inode, kind: FileKind) -> bool {
        let number = inode.number;
        let text = match self.core.inline_content(inode) {
            Err(why) => format!("Inode {number} has bad inline data: {why}"),
            Ok(_) if !self.core.has_inline_attribute(inode) => {
                format!("Inode {number} has inline data but no attribute for it")
            }
            Ok(content) if kind != FileKind::Directory && inode.size() > content.len() as u64 => {
                format!("Inode {number} has {} bytes, inline are {}", inode.size(), content.len())
            }
            Ok(_) => return true,
        };
        if !self.problem(text) {
            return true;
        }
        if kind == FileKind::Directory {
            self.clear(inode);
            return false;
        }
        if inode.extra_size() > 0 {
            // What is in the inode itself stays.
            inode.set_size(inode.size().min(60));
            self.core.restart_inline(inode);
            return true;
        }
        inode.set_flag(flags::INLINE_DATA, false);
        inode.set_size(0);
        inode.set_block_area(&[]);
        if kind == FileKind::Symlink {
            self.clear(inode);
            return false;
        }
        true
    }

    fn length(&mut self, inode: &mut Inode, kind: FileKind, mapped: &Mapped) {
        let size = self.core.shape.block_size as u64;
        let number = inode.number;
        let end = mapped.end();
        if kind == FileKind::Directory {
            let wrong = !inode.size().is_multiple_of(size) || inode.size() / size != end;
            if wrong
                && self.problem(format!(
                    "Directory {number} has {} bytes in {end} blocks",
                    inode.size()
                ))
            {
                inode.set_size(end * size);
            }
            return;
        }
        if inode.size() > self.size_limit(inode)
            && self.problem(format!("Inode {number} has {} bytes", inode.size()))
        {
            inode.set_size(end * size);
        }
        self.large_files |= inode.size() > LARGE_FILE && kind == FileKind::Regular;
        let blocks = inode.size().div_ceil(size);
        // Within a cluster, blocks behind the end are no harm.
        let mask = (1_u64 << self.core.shape.cluster_bits) - 1;
        let most = (blocks + mask) & !mask;
        let written = mapped.written_end();
        // e2fsck lets the last block lie right behind the end; so does the kernel.
        if written > most
            && (written - 1).saturating_mul(size) > inode.size()
            && !inode.has_flag(flags::VERITY)
            && self
                .problem(format!("Inode {number} has {} bytes but {written} blocks", inode.size()))
        {
            inode.set_size(written * size);
        }
    }

    /// The most bytes that a file can have.
    fn size_limit(&self, inode: &Inode) -> u64 {
        let size = self.core.shape.block_size as u64;
        let pointers = size / 4;
        let blocks = match inode.has_flag(flags::EXTENTS) {
            true => (1 << 32) - 1,
            false => 12 + pointers + pointers.pow(2) + pointers.pow(3),
        };
        blocks.saturating_mul(size)
    }

    /// With bigalloc a block lies in its cluster where it lies in the file's.
    fn cluster_rules(&mut self, inode: &Inode, mapped: &Mapped) {
        let shape = self.core.shape;
        if shape.cluster_bits == 0 || inode.number < shape.first_inode {
            return;
        }
        let mask = (1_u64 << shape.cluster_bits) - 1;
        let number = inode.number;
        if !inode.has_flag(flags::EXTENTS) && !mapped.pieces.is_empty() {
            self.found(format!("Inode {number} is mapped by pointers in spite of bigalloc"));
        }
        let astray =
            |piece: &&Piece| (piece.place - shape.first_block) & mask != piece.start & mask;
        if let Some(piece) = mapped.pieces.iter().find(astray) {
            let place = piece.place;
            self.found(format!("Block {place} of inode {number} breaks the rules of clusters"));
        }
    }
}
