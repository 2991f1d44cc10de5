//! Finding out the format of a file.

use disksmith_disk::{Disk, Result};
use disksmith_formats::{Driver, probe};

/// Bytes looked at.
const PROBE_BYTES: u64 = 2048;

/// What the first bytes of a file tell.
pub struct ProbeResult {
    /// The best fit.
    pub driver: &'static Driver,
    /// Further formats (besides raw) that fit as well: the file is ambiguous.
    pub others: Vec<&'static str>,
}

/// Probes the first bytes of a file.
pub fn probe_file(file: &dyn Disk) -> Result<ProbeResult> {
    let mut start = vec![0; PROBE_BYTES.min(file.size()) as usize];
    file.read_at(&mut start, 0)?;
    let mut fits = probe(&start).into_iter();
    let driver = fits.next().unwrap_or(&disksmith_formats::raw::DRIVER);
    let others = fits.map(|d| d.name).filter(|name| *name != "raw").collect();
    Ok(ProbeResult { driver, others })
}
