//! Taking the time.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::cases::{Bench, Case, Who};

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Wall time in seconds.
    pub(super) wall: f64,
    /// Processor time in seconds, user and system; ticks of 10 ms.
    pub(super) cpu: f64,
    /// Most memory in use, in bytes.
    pub(super) memory: u64,
    /// Bytes that the file OUT takes on the host.
    pub(super) size: u64,
}

/// The medians of a case.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) arguments: &'static str,
    pub(super) target: f64,
    pub(super) sized: bool,
    pub(super) costs: HashMap<Who, Cost>,
}

/// Runs everybody in turn, so that a noisy moment hits all alike; takes medians.
pub(super) fn interleaved(bench: &Bench, case: &Case, runs: usize) -> Result<Measured, String> {
    let mut who = vec![Who::Theirs, Who::Ours];
    if case.native {
        who.push(Who::Native);
    }
    if case.bare.is_some() {
        who.push(Who::Bare);
    }
    if !case.slow {
        // Once unmeasured: the first to touch a page of memory waits for it to be found.
        for who in &who {
            one(bench, case, *who)?;
        }
    }
    let mut all: HashMap<Who, Vec<Cost>> = HashMap::new();
    for run in 0..runs {
        // Who goes first changes, too.
        for turn in 0..who.len() {
            let who = who[(run + turn) % who.len()];
            all.entry(who).or_default().push(one(bench, case, who)?);
        }
    }
    let costs = all.into_iter().map(|(who, costs)| (who, median(&costs))).collect();
    Ok(Measured {
        name: case.name,
        arguments: case.arguments,
        target: case.target,
        sized: case.sized,
        costs,
    })
}

fn one(bench: &Bench, case: &Case, who: Who) -> Result<Cost, String> {
    let mut sum = Cost::default();
    let before_all = children_cpu();
    for _ in 0..case.repeat {
        let unmeasured = children_cpu();
        for command in case.before {
            bench.qemu_img(command)?;
        }
        if case.repeat == 1 {
            // What was written before is not to be written back at this run's expense.
            let _ = Command::new("sync").arg("-f").arg(&bench.folder).status();
        }
        sum.cpu -= children_cpu() - unmeasured;
        let command = bench.command(case, who)?;
        let (wall, memory) = time(command)?;
        sum.wall += wall.as_secs_f64();
        sum.memory = sum.memory.max(memory);
    }
    sum.cpu += children_cpu() - before_all;
    let repeat = case.repeat as f64;
    let size = match case.sized {
        true => allocated(bench),
        false => 0,
    };
    Ok(Cost { wall: sum.wall / repeat, cpu: sum.cpu / repeat, size, ..sum })
}

fn allocated(bench: &Bench) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(bench.folder.join("OUT")).map_or(0, |metadata| metadata.blocks() * 512)
}

fn time(mut command: Command) -> Result<(Duration, u64), String> {
    let started = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let memory = watch(&mut child);
    let status = child.wait().map_err(|error| error.to_string())?;
    let wall = started.elapsed();
    match status.success() {
        true => Ok((wall, memory)),
        false => Err(format!("{command:?} ended with {status}")),
    }
}

/// Looks at the child's high-water mark now and then until it ends.
fn watch(child: &mut Child) -> u64 {
    let id = child.id();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let watcher = std::thread::spawn(move || {
        let mut most = 0;
        let mut pause = Duration::from_micros(500);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            most = high_water(id).unwrap_or(most).max(most);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        most
    });
    let _ = child.wait();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    watcher.join().unwrap_or(0)
}

fn high_water(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Processor time of all children that ended, in seconds.
fn children_cpu() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses; cutime and cstime are the 16th and 17th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |key: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(key).collect();
        values.sort_by(f64::total_cmp);
        let half = values.len() / 2;
        match values.len() {
            0 => 0.0,
            n if n % 2 == 1 => values[half],
            _ => (values[half - 1] + values[half]) / 2.0,
        }
    };
    Cost {
        wall: middle(|cost| cost.wall),
        cpu: middle(|cost| cost.cpu),
        memory: costs.iter().map(|cost| cost.memory).max().unwrap_or(0),
        size: middle(|cost| cost.size as f64) as u64,
    }
}
