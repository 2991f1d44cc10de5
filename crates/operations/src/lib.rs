//! Convert, compare, measure, commit, rebase and the like: everything that works on whole
//! images, with progress and cancellation.
//!
//! Operations take open stacks ([`Node`](disksmith_open::Node)) and images; they open and make
//! no files and print nothing. What they have to say on the way goes to an [`Observer`].
//!
//! The copying operations share one pipeline: *plan* (map the source in large steps; what is
//! absent or zero is never read), *read* and *transform* on several threads, *place* in guest
//! order, so that the result does not depend on the number of threads. Memory is bounded by
//! the pipeline's depth, not by the image.

mod bench;
mod bitmaps;
pub mod build;
pub mod clone;
mod commit;
mod compare;
mod convert;
mod dd;
pub mod grow;
mod kinds;
mod measure;
mod observer;
mod pipeline;
mod plan;
mod pool;
mod rate;
mod rebase;
mod resize;
mod resize_part;
pub mod shrink;
mod snapshot;
mod transfer;
mod writeback;

pub use bench::{BenchDirection, BenchRequest, bench};
pub use bitmaps::{copy_bitmaps, merge_bitmaps};
pub use commit::{CommitRequest, commit};
pub use compare::{CompareError, CompareRequest, CompareStage, Comparison, Verdict, compare};
pub use convert::{ConvertRequest, Offload, WriteOrder, convert};
pub use dd::{DdConv, DdPlan, DdRequest, DdStream, dd, dd_from_stream, dd_to_stream};
pub use disksmith_codec::DeflateWindow;
pub use kinds::FilesystemKind;
pub use measure::for_each_data;
pub use observer::{Observer, Silent};
pub use plan::data_ranges;
pub use rebase::{RebaseRequest, rebase, rebase_unsafe};
pub use resize::{Resizable, SizeChange, resize};
pub use resize_part::ResizePart;
pub use snapshot::snapshot_view;
