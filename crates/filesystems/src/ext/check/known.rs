//! What is known of each inode, by number.

use crate::FileKind;

/// Inodes whose facts lie together; those of a stretch without any take no memory.
const PAGE: usize = 64;

/// What is known of one inode.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) kind: Option<FileKind>,
    /// Links that it counts, if it is in use.
    pub(super) links: Option<u16>,
    /// Names found of it.
    pub(super) names: u32,
}

/// The facts of all inodes of a filesystem.
#[derive(Debug)]
pub(super) struct KnownInodes(Vec<Option<Box<[Known; PAGE]>>>);

impl KnownInodes {
    pub(super) fn new(inodes: u32) -> Self {
        Self(vec![None; inodes as usize / PAGE + 1])
    }

    pub(super) fn get(&self, number: u32) -> Known {
        let page = self.0.get(number as usize / PAGE).and_then(Option::as_ref);
        page.map_or_else(Known::default, |page| page[number as usize % PAGE])
    }

    /// For a change; `None` where the filesystem has no such inode.
    fn get_mut(&mut self, number: u32) -> Option<&mut Known> {
        let page = self.0.get_mut(number as usize / PAGE)?;
        let page = page.get_or_insert_with(|| Box::new([Known::default(); PAGE]));
        page.get_mut(number as usize % PAGE)
    }

    pub(super) fn kind(&self, number: u32) -> Option<FileKind> {
        self.get(number).kind
    }

    pub(super) fn set_kind(&mut self, number: u32, kind: FileKind) {
        if let Some(known) = self.get_mut(number) {
            known.kind = Some(kind);
        }
    }

    pub(super) fn set_links(&mut self, number: u32, links: u16) {
        if let Some(known) = self.get_mut(number) {
            known.links = Some(links);
        }
    }

    pub(super) fn count_name(&mut self, number: u32) {
        if let Some(known) = self.get_mut(number) {
            known.names = known.names.saturating_add(1);
        }
    }

    /// The inode is not in use after all.
    pub(super) fn forget(&mut self, number: u32) {
        if let Some(known) = self.get_mut(number) {
            *known = Known { names: known.names, ..Known::default() };
        }
    }

    /// The numbers of those in use, ascending.
    pub(super) fn in_use(&self) -> Vec<u32> {
        let pages = self.0.iter().enumerate();
        let known = pages.filter_map(|(index, page)| Some((index * PAGE, page.as_ref()?)));
        let all = known.flat_map(|(first, page)| (first..).zip(page.iter()));
        all.filter(|(_, known)| known.links.is_some()).map(|(number, _)| number as u32).collect()
    }
}
