//! An internal snapshot as the top of a stack.

use disksmith_disk::{Error, Kind, Result};
use disksmith_open::Node;

/// The stack as it was when the snapshot was taken: `node` with the snapshot's content in the
/// place of the present one, same backing.
///
/// # Errors
///
/// `Failed to load snapshot: …` when there is no such snapshot or it cannot be read.
pub fn snapshot_view(node: Node, id_or_name: &str) -> Result<Node> {
    let known = node.image.snapshots();
    if !known.iter().any(|s| s.id == id_or_name || s.name == id_or_name) {
        return Err(
            Error::new(Kind::NotFound, "Can't find snapshot").context("Failed to load snapshot")
        );
    }
    let image = node
        .image
        .open_snapshot(id_or_name)
        .map_err(|error| error.context("Failed to load snapshot"))?;
    Ok(Node { image, ..node })
}
