//! What an image will have to store.

use disksmith_disk::{Disk, Result};
use disksmith_open::{Node, chain_map};

/// Tells every run of guest data of `source` and what is below it, in ascending order, as offset
/// and length: what a target without backing image must store. Zero and absent ranges need none.
pub fn for_each_data(source: &Node, tell: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let size = source.image.size();
    let mut at = 0;
    while at < size {
        let extent = chain_map(source, at, size - at)?;
        if extent.present && extent.data && !extent.zero {
            tell(at, extent.length);
        }
        at += extent.length;
    }
    Ok(())
}
