//! Converting into a part of an image.

use disksmith_formats::OpenMode;
use disksmith_open::{Address, Node, OpenedDisk, open_disk, sibling};

use super::Convert;
use crate::commands::common::{Purpose, Source};
use crate::face::{Face, Failure, refuse};

impl Convert {
    /// Where the target is a part of an image that sources lie in, too: that image is opened once,
    /// for writing.
    pub(super) fn open_parts(
        &self,
        face: &Face,
        target: &str,
    ) -> Result<Option<(Vec<Node>, Node)>, Failure> {
        let part = part_of_file(target).filter(|_| self.writes_in_place(face, target));
        let names = self.images.split_last().map(|(_, names)| names).unwrap_or_default();
        let file = |name: &str| std::fs::canonicalize(Address::parse(name).image).ok();
        let plain = !self.source.image_opts && self.source_snapshot.is_none();
        let Some(part) = part.filter(|_| plain && !self.target_image_opts) else { return Ok(None) };
        if !names.iter().any(|name| file(name).is_some() && file(name) == file(target)) {
            return Ok(None);
        }
        let opened = self.open_part(face, part)?;
        let mut sources = Vec::new();
        for name in names {
            let address = Address::parse(name).with_format(self.source.format.as_deref());
            let Some(source) = sibling(&opened.node, &address)? else {
                let purpose = Purpose::new(OpenMode::Read).shared(self.force_share);
                sources.push(self.source.open(face, name, purpose)?);
                continue;
            };
            let (first, second) = (source.start.min(opened.start), source.start.max(opened.start));
            let lower = if first == source.start { &source } else { &opened };
            if second - first < lower.disk.size() {
                return refuse(format!("'{name}' and '{target}' overlap"));
            }
            sources.push(source.into_node());
        }
        Ok(Some((sources, opened.into_node())))
    }

    pub(super) fn open_part(&self, face: &Face, address: Address) -> Result<OpenedDisk, Failure> {
        // The part itself is raw, so that is no word on the image's format.
        let format = self.target_format.clone().filter(|format| format != "raw");
        let source = Source { format, ..self.source.clone() };
        let purpose = Purpose { cache: self.cache(face)?, ..Purpose::new(OpenMode::Write) };
        let address = address.with_format(source.format.as_deref());
        Ok(open_disk(&address, &source.settings(purpose)?)?)
    }
}

/// The address that `name` is, if it names a part of an existing file.
pub(super) fn part_of_file(name: &str) -> Option<Address> {
    let address = Address::parse(name);
    (address.is_path && address.part.is_some() && address.path.is_none()).then_some(address)
}
