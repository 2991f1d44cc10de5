//! What an image will have to store.

use disksmith_disk::{Disk, Result};
use disksmith_open::{Node, chain_extents_like_qemu};

/// Tells every run of guest data of `source` and what is below it, in ascending order, as offset
/// and length: what a target without backing image must store. Zero and absent ranges need none.
///
/// Holes of a file below an image that stores its own allocation count where qemu-img looks for
/// them: to look everywhere costs more than all the rest.
pub fn for_each_data(source: &Node, tell: &mut dyn FnMut(u64, u64)) -> Result<()> {
    for extent in chain_extents_like_qemu(source, 0, source.image.size()) {
        let extent = extent?;
        if extent.present && extent.data && !extent.zero {
            tell(extent.start, extent.length);
        }
    }
    Ok(())
}
