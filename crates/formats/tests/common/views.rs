//! What an image shows, and whether that is as before or as after a change.

use disksmith_disk::{Disk, Result};
use disksmith_formats::Image;

/// The disk and its snapshots, by name.
pub type Views = Vec<(String, Vec<u8>)>;

pub fn views(image: &dyn Image) -> Result<Views> {
    let mut views = vec![(String::new(), bytes(image)?)];
    for snapshot in image.snapshots() {
        views.push((snapshot.name.clone(), bytes(&*image.open_snapshot(&snapshot.name)?)?));
    }
    Ok(views)
}

fn bytes(disk: &dyn Disk) -> Result<Vec<u8>> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Every sector is as before or as after.
pub fn allowed(views: &Views, before: &Views, after: &Views) -> Result<(), String> {
    for (name, content) in views {
        let of = |all: &'_ Views| all.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
        let (old, new) = (of(before), of(after));
        let lengths = [&old, &new].map(|c| c.as_ref().map(Vec::len));
        if !lengths.contains(&Some(content.len())) {
            return Err(format!("'{name}' has {} bytes", content.len()));
        }
        for (index, sector) in content.chunks(512).enumerate() {
            // Past the end of the shorter one: what a disk that grew shows there.
            let same = |c: &Option<Vec<u8>>| match c.as_ref().map(|c| c.chunks(512).nth(index)) {
                Some(Some(there)) => there == sector,
                Some(None) => sector.iter().all(|byte| *byte == 0),
                None => false,
            };
            if !same(&old) && !same(&new) {
                return Err(format!("'{name}': sector {index} is neither old nor new"));
            }
        }
    }
    let lost = before.iter().find(|(name, _)| {
        after.iter().any(|(n, _)| n == name) && !views.iter().any(|(n, _)| n == name)
    });
    lost.map_or(Ok(()), |(name, _)| Err(format!("snapshot '{name}' is lost")))
}
