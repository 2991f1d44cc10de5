//! The sizes that `measure` tells, by format.

use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_formats::{luks, qcow2};
use disksmith_open::Node;
use disksmith_operations::for_each_data;

use crate::making::Plan;

/// What `measure` tells, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// The size of the file that a convert makes.
    pub(crate) required: u64,
    /// Its size once all guest data is stored.
    pub(crate) fully_allocated: u64,
    /// What persistent bitmaps add; `None` where source or target cannot have any.
    pub(crate) bitmaps: Option<u64>,
}

/// What an image made by `plan` of `size` bytes needs to hold what `source` holds. `None`: not
/// known for this format.
pub(crate) fn measure(plan: &Plan, source: Option<&Node>, size: u64) -> Result<Option<Measured>> {
    match plan.driver.name {
        "raw" => plain(size, 0).map(Some),
        "luks" if plan.options.text("key-secret").is_none() => {
            Err(Error::new(Kind::InvalidInput, "Parameter 'key-secret' is required for cipher"))
        }
        "luks" => plain(size, luks::header_length(&plan.options)?).map(Some),
        "qcow2" => measure_qcow2(plan, source, size).map(Some),
        _ => Ok(None),
    }
}

/// The guest's size in whole sectors behind a header.
fn plain(size: u64, header: u64) -> Result<Measured> {
    let size = size
        .checked_next_multiple_of(512)
        .and_then(|size| size.checked_add(header))
        .ok_or_else(|| Error::new(Kind::InvalidInput, "The image size is too large"))?;
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}

fn measure_qcow2(plan: &Plan, source: Option<&Node>, size: u64) -> Result<Measured> {
    // How much of a source lies in the backing image is not known; without a source, nothing does.
    let stands_on_backing = plan.backing().is_some() && source.is_some();
    let mut measure = qcow2::Measure::new(size, &plan.options, stands_on_backing)?;
    if let Some(source) = source.filter(|_| !measure.stores_all()) {
        for_each_data(source, &mut |offset, length| measure.add_data(offset, length))?;
    }
    let version_2 = matches!(plan.options.text("compat"), Some("0.10" | "v2"));
    let bitmaps = source
        .filter(|source| !version_2 && source.image.format() == "qcow2")
        .map(|source| &source.image)
        .map(|image| -> Result<u64> {
            Ok(qcow2::bitmaps_size(&image.bitmaps()?, image.size(), measure.cluster_size()))
        })
        .transpose()?;
    let qcow2::Measured { required, fully_allocated } = measure.finish();
    Ok(Measured { required, fully_allocated, bitmaps })
}
