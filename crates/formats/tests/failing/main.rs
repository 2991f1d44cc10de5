//! Every request that work on an image makes to its storage fails once, with nothing or with half
//! of it done: whoever asked is told, by that error and no other; what is there is old or new; and
//! what is done after it is right.
//!
//! A sample of the requests in every test run, each of them with `DISKSMITH_LONG=1`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod kinds;
mod making;
mod others;
mod reading;
mod repairs;
mod sweep;
