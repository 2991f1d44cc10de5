//! Power cuts: short workloads on ten kinds of qcow2, cut at every point, with every subset
//! of the unflushed operations (up to the limits of the simulator).
//!
//! By default a sample of the workloads; `DISKSMITH_LONG=1` takes all of them, for at least
//! `DISKSMITH_CRASH_STATES` states. `DISKSMITH_CRASH_ONLY='KIND:op,op'` replays one workload and
//! names each state. Every `DISKSMITH_CRASH_ORACLE`-th state is shown to qemu-img as well.

mod failures;
mod judge;
mod kinds;
mod workload;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use disksmith_testkit::{CrashLimits, Rng, Tally, crash_states};

use crate::judge::Judge;
use crate::kinds::{KINDS, Kind};
use crate::workload::{OPS, Op, Run, record};

/// States of the sample that runs with every test run.
const QUICK_STATES: u64 = 20_000;
/// Every so many workloads, a long run tells how far it is.
const PROGRESS: usize = 1000;
/// Violations shown before giving up.
const MAX_SHOWN: usize = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// All sequences of one to three operations, on each kind that can do them.
fn all_workloads() -> Vec<(&'static Kind, Vec<Op>)> {
    let mut found = Vec::new();
    for kind in KINDS {
        let ops: Vec<Op> = OPS.iter().copied().filter(|op| kind.allows(*op)).collect();
        for a in &ops {
            found.push((kind, vec![*a]));
            for b in &ops {
                found.push((kind, vec![*a, *b]));
                for c in &ops {
                    found.push((kind, vec![*a, *b, *c]));
                }
            }
        }
    }
    found
}

fn chosen_workloads() -> (Vec<(&'static Kind, Vec<Op>)>, u64) {
    if let Ok(only) = std::env::var("DISKSMITH_CRASH_ONLY") {
        let (kind, ops) = only.split_once(':').expect("KIND:op,op");
        let kind = KINDS.iter().find(|k| k.name == kind).expect("a kind");
        let ops = ops.split(',').map(|name| Op::named(name).expect("an operation")).collect();
        return (vec![(kind, ops)], u64::MAX);
    }
    let mut all = all_workloads();
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    // A fixed shuffle: the sample is the same in every run.
    let mut rng = Rng::new(7);
    for index in (1..all.len()).rev() {
        all.swap(index, rng.below(index as u64 + 1) as usize);
    }
    let states = setting("DISKSMITH_CRASH_STATES", if long { 1_000_000 } else { QUICK_STATES });
    (all, states)
}

#[test]
fn a_cut_leaves_old_or_new_never_a_third_thing() {
    let (workloads, wanted) = chosen_workloads();
    let every = setting("DISKSMITH_CRASH_ORACLE", 500);
    let limits = if wanted > QUICK_STATES {
        CrashLimits::default()
    } else {
        CrashLimits { full_up_to: 6, random_subsets: 12, torn: 4, seed: 1 }
    };
    let (next, states, asked) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let tally = Mutex::new(Tally::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while states.load(Ordering::Relaxed) < wanted {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, ops)) = workloads.get(index) else { break };
                    let run = record(kind, ops);
                    let judge = Judge::new(&run);
                    let mut verdicts = Tally::default();
                    crash_states(&run.initial, &run.log, limits, &mut |state| {
                        let number = states.fetch_add(1, Ordering::Relaxed);
                        let oracle = number % every == 0;
                        asked.fetch_add(u64::from(oracle), Ordering::Relaxed);
                        let why = match judge.judge(&state, oracle) {
                            Ok(verdict) => {
                                let op = run.ops.get(state.begun as usize);
                                verdicts.count(op.map_or("close", |op| op.name()), verdict);
                                return true;
                            }
                            Err(why) => why,
                        };
                        let mut failures = failures.lock().expect("not poisoned");
                        failures.push(describe(&run, &state.name, &why));
                        failures.len() < MAX_SHOWN
                            && std::env::var_os("DISKSMITH_CRASH_ONLY").is_some()
                    });
                    tally.lock().expect("not poisoned").add(&verdicts);
                    if index % PROGRESS == PROGRESS - 1 {
                        let count = states.load(Ordering::Relaxed);
                        let spent = start.elapsed().as_secs();
                        let wrong = failures.lock().expect("not poisoned").len();
                        println!(
                            "{count} states of {} workloads in {spent} s, {wrong} violations",
                            index + 1
                        );
                    }
                    if failures.lock().expect("not poisoned").len() >= MAX_SHOWN {
                        break;
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let count = states.into_inner();
    println!(
        "{count} states of {} workloads in {seconds:.1} s ({:.0}/s), {} also judged by qemu-img",
        next.into_inner().min(workloads.len()),
        count as f64 / seconds,
        asked.into_inner()
    );
    println!("{}", tally.into_inner().expect("not poisoned"));
    let failures = failures.into_inner().expect("not poisoned");
    assert!(failures.is_empty(), "{} violations:\n{}", failures.len(), failures.join("\n"));
}

fn describe(run: &Run, state: &str, why: &str) -> String {
    let ops: Vec<_> = run.ops.iter().map(|op| op.name()).collect();
    let replay = format!("{}:{}", run.kind.name, ops.join(","));
    format!("state {state}: {why}\n    replay with DISKSMITH_CRASH_ONLY='{replay}'")
}
