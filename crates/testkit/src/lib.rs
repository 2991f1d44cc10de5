//! For tests: oracles, tagged guest data, and storage that records, crashes and fails.

mod crash;
mod failing;
mod model;
pub mod oracle;
mod record;
mod rng;
pub mod sweep;
mod tally;

pub use crash::{CrashLimits, CrashState, crash_states};
pub use failing::{FailingDisk, Fault, Injector};
pub use model::{SectorModel, Violation, tagged};
pub use record::{Operation, Recorder, RecordingDisk};
pub use rng::Rng;
pub use tally::{Tally, Verdict};
