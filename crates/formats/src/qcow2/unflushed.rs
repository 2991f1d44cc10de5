//! Storage whose flushes wait.

use std::sync::Arc;

use disksmith_disk::{Disk, Result, pass_on};

/// Passes everything on but flushes: while an image is being made, nobody relies on the order in
/// which its parts become durable. Whoever made it flushes once, at the end.
#[derive(Debug)]
pub(super) struct Unflushed(pub(super) Arc<dyn Disk>);

impl Disk for Unflushed {
    pass_on!(|own| own.0; size read_at write_at write_zeroes discard map set_size geometry announce);

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
