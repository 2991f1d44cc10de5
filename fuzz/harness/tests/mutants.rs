//! The targets under the seeded mutator: so many mutants of the seeds each, past crashes first.
//! `DISKSMITH_FUZZ_INPUTS` sets how many; `DISKSMITH_FUZZ_ONLY` chooses one target;
//! `DISKSMITH_FUZZ_SEED` where the sequence starts; with `DISKSMITH_FUZZ_TRACE` each number is
//! told before it runs, to find the one that aborts or hangs.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use cap::Cap;
use disksmith_fuzz_harness::{TARGETS, Target, budget, mutate};
use disksmith_testkit::Rng;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Inputs per target in an ordinary test run.
const QUICK_INPUTS: u64 = 600;
/// One input must be done by then, on a busy machine in a debug build.
const MAX_TIME: Duration = Duration::from_secs(10);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_input_breaks_a_target() {
    let inputs = setting("DISKSMITH_FUZZ_INPUTS", QUICK_INPUTS);
    let seed = setting("DISKSMITH_FUZZ_SEED", 1);
    let only = std::env::var("DISKSMITH_FUZZ_ONLY").ok();
    let mut faults = Vec::new();
    for target in TARGETS.iter().filter(|t| only.as_deref().is_none_or(|o| o == t.name)) {
        let start = Instant::now();
        let before = faults.len();
        past_crashes(target, &mut faults);
        mutants(target, inputs, seed, &mut faults);
        println!(
            "{:20} {inputs} mutants in {:.1} s, {} faults",
            target.name,
            start.elapsed().as_secs_f64(),
            faults.len() - before
        );
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn past_crashes(target: &Target, faults: &mut Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../regressions").join(target.name);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let data = std::fs::read(entry.path()).unwrap();
        if let Err(why) = attempt(target, &data) {
            faults.push(format!("{}: {}: {why}", target.name, entry.path().display()));
        }
    }
}

fn mutants(target: &Target, inputs: u64, seed: u64, faults: &mut Vec<String>) {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    for data in &seeds {
        if let Err(why) = attempt(target, data) {
            faults.push(format!("{}: a valid input: {why}", target.name));
        }
    }
    let trace = std::env::var_os("DISKSMITH_FUZZ_TRACE").is_some();
    for number in 0..inputs {
        if trace {
            eprintln!("{} {number}", target.name);
        }
        let mut rng = Rng::new(seed << 32 | number);
        let seed_data: &Vec<u8> = rng.pick(&seeds);
        let mut data = mutate::mutant(seed_data, target.fields, &mut rng);
        if let (Some(fix), true) = (target.fix, rng.one_in(2)) {
            fix(&mut data);
        }
        if let Err(why) = attempt(target, &data) {
            let kept =
                std::env::temp_dir().join(format!("disksmith-{}-{seed}-{number}", target.name));
            let kept = std::fs::write(&kept, &data)
                .map_or_else(|e| e.to_string(), |()| kept.display().to_string());
            faults.push(format!(
                "{}: seed {seed} number {number}: {why} (kept as {kept})",
                target.name
            ));
            if faults.len() > 20 {
                return;
            }
        }
    }
}

/// Runs one input under the budgets.
fn attempt(target: &Target, data: &[u8]) -> Result<(), String> {
    let start = Instant::now();
    let before = ALLOCATOR.allocated();
    // The cap ends a runaway allocation at once; the peak is not reset between inputs, so the
    // finer budget is measured as what is allocated at the cap's border.
    ALLOCATOR.set_limit(before + data.len() * 4 + budget::MAX_MEMORY).map_err(|_| "the limit")?;
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(data)));
    ALLOCATOR.set_limit(usize::MAX).map_err(|_| "the limit")?;
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        return Err(text.unwrap_or_else(|| "panic".into()));
    }
    match start.elapsed() {
        spent if spent > MAX_TIME => Err(format!("took {spent:?}")),
        _ => Ok(()),
    }
}
