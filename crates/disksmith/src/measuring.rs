//! The sizes that `measure` tells, by format.

use disksmith_disk::Result;
use disksmith_open::Node;
use disksmith_operations::{Measured, measure_raw};

use crate::making::Plan;

/// What an image made by `plan` of `size` bytes needs to hold what `source` holds. `None`: not
/// known for this format.
pub(crate) fn measure(plan: &Plan, source: Option<&Node>, size: u64) -> Result<Option<Measured>> {
    let _ = source;
    match plan.driver.name {
        "raw" => measure_raw(size).map(Some),
        _ => Ok(None),
    }
}
