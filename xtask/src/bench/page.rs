//! The results as lines on the terminal, and as docs/performance.md with its plots.

use std::fmt::Write;

use super::case::{Case, Measure, Suite, Target};
use super::measure::Cost;
use super::plot::{self, Bar, Curve};
use super::results::Results;

/// Ends the part of the page that is made anew; what is below is other people's.
const END: &str = "\n<!-- end of what `cargo xtask bench --report` writes -->\n";

/// A case for the terminal.
pub(super) fn lines(case: &Case, costs: &[Cost]) -> String {
    let mut text = format!("{}\n", case.name);
    let first = costs.first().copied().unwrap_or_default();
    for (job, cost) in case.jobs.iter().zip(costs) {
        let _ = writeln!(
            text,
            "  {:18} {:>10} ({} to {})  CPU {:>10}  {:>9}  {:>9}  {:.2}",
            job.label,
            seconds(cost.wall),
            seconds(cost.range.0),
            seconds(cost.range.1),
            seconds(cost.cpu),
            bytes(cost.memory),
            if cost.size > 0 { bytes(cost.size) } else { String::new() },
            cost.wall / first.wall,
        );
    }
    let cost_of = |label: &str| {
        case.jobs.iter().zip(costs).find(|(job, _)| job.label == label).map(|(_, cost)| *cost)
    };
    for target in &case.targets {
        if let Some((value, kept)) = judge(target, &cost_of) {
            let _ = writeln!(
                text,
                "  {} {}",
                if kept { "kept:  " } else { "MISSED:" },
                promise(target, value)
            );
        }
    }
    text
}

/// What a target's value is, and whether it is kept.
fn judge(target: &Target, cost_of: &dyn Fn(&str) -> Option<Cost>) -> Option<(f64, bool)> {
    let value = |cost: Cost| match target.measure {
        Measure::Wall => cost.wall,
        Measure::Memory => cost.memory as f64,
        Measure::Size => cost.size as f64,
    };
    let own = value(cost_of(target.label)?);
    let value = match target.than {
        Some(than) => own / value(cost_of(than)?),
        None => own,
    };
    Some((value, value <= target.most))
}

/// `disksmith of qemu-img's time: 0.75, at most 0.8`.
fn promise(target: &Target, value: f64) -> String {
    let what = match target.measure {
        Measure::Wall => "time",
        Measure::Memory => "memory",
        Measure::Size => "size",
    };
    let shown = |value: f64| match (target.than, target.measure) {
        (Some(_), _) => format!("{value:.2}"),
        (None, Measure::Wall) => seconds(value),
        (None, _) => bytes(value as u64),
    };
    let of = target.than.map_or(String::new(), |than| format!(" of {than}"));
    let (value, most) = (shown(value), shown(target.most));
    format!("{}: {what}{of} {value}, at most {most}", target.label)
}

/// Makes the page and its plots from what is stored of all suites.
pub(super) fn write(suites: &mut [Suite]) -> crate::Outcome {
    let docs = crate::root().join("docs");
    let save = |name: &str, text: &str| {
        let path = docs.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut page = String::from(include_str!("head.md"));
    for suite in suites {
        let results = Results::load(suite);
        suite
            .cases
            .retain(|case| case.jobs.iter().any(|job| results.get(case, job.label).is_some()));
        if suite.cases.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n## {}\n\n{}\n", suite.title, suite.text);
        for note in &results.circumstances {
            let _ = writeln!(page, "- {note}");
        }
        for (heading, file, drawing) in drawings(suite, &results) {
            let _ = writeln!(page, "\n![{heading}]({file})");
            save(&file, &drawing)?;
        }
        page.push_str(&table(suite, &results));
    }
    let old = std::fs::read_to_string(docs.join("performance.md")).unwrap_or_default();
    let rest = old.split_once(END).map_or("", |(_, rest)| rest);
    save("performance.md", &format!("{page}{END}{rest}"))
}

fn table(suite: &Suite, results: &Results) -> String {
    let mut text = String::from(
        "\n| job | program | wall | CPU | memory | output | ratio | promise |\n|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for case in &suite.cases {
        let first = case.jobs.first().and_then(|job| results.get(case, job.label));
        for (index, job) in case.jobs.iter().enumerate() {
            let Some(cost) = results.get(case, job.label) else { continue };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                if index == 0 { &case.name } else { "" },
                job.label,
                seconds(cost.wall),
                seconds(cost.cpu),
                bytes(cost.memory),
                if cost.size > 0 { bytes(cost.size) } else { String::new() },
                first
                    .filter(|_| index > 0)
                    .map_or(String::new(), |first| format!("{:.2}", cost.wall / first.wall)),
                promises(case, job.label, results),
            );
        }
    }
    text
}

/// The promises about one program, in bold where they are not kept.
fn promises(case: &Case, label: &str, results: &Results) -> String {
    let cost_of = |label: &str| results.get(case, label);
    let own = case.targets.iter().filter(|target| target.label == label);
    let texts = own.filter_map(|target| {
        let (value, kept) = judge(target, &cost_of)?;
        let text = promise(target, value);
        let text = text.split_once(": ").map_or(&*text, |(_, text)| text);
        Some(if kept { text.to_string() } else { format!("**{text}**") })
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// Heading, file name and text of each plot of a suite.
fn drawings(suite: &Suite, results: &Results) -> Vec<(String, String, String)> {
    let mut drawings = Vec::new();
    let bars: Vec<Bar> = suite.cases.iter().filter_map(|case| bar(case, results)).collect();
    if !bars.is_empty() {
        let heading = format!("{}: wall time, ours to theirs", suite.title);
        drawings.push((
            heading.clone(),
            format!("performance-{}.svg", suite.name),
            plot::bars(&heading, &bars),
        ));
    }
    let mut names: Vec<(&str, &str)> = suite
        .cases
        .iter()
        .filter_map(|case| case.point.as_ref())
        .map(|point| (point.plot, point.axis))
        .collect();
    names.dedup();
    for (name, axis) in names {
        let mut panels = Vec::new();
        for (what, key) in
            [("seconds", key_wall as fn(&Cost) -> f64), ("MiB of memory", key_memory)]
        {
            panels.push((what, curves(suite, results, name, key)));
        }
        let slug: String = name
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let file = format!("performance-{}-{slug}.svg", suite.name);
        drawings.push((name.to_string(), file, plot::curves(name, axis, &panels)));
    }
    drawings
}

fn key_wall(cost: &Cost) -> f64 {
    cost.wall
}

fn key_memory(cost: &Cost) -> f64 {
    cost.memory as f64 / f64::from(1 << 20)
}

/// The ratio of ours to the first program, with what was promised. Cases of plots have none.
fn bar(case: &Case, results: &Results) -> Option<Bar> {
    let [first, second, ..] = &case.jobs[..] else { return None };
    if case.point.is_some() {
        return None;
    }
    let (theirs, ours) = (results.get(case, first.label)?, results.get(case, second.label)?);
    let promised = case.targets.iter().find(|target| {
        target.measure == Measure::Wall
            && target.label == second.label
            && target.than == Some(first.label)
    });
    Some(Bar {
        label: case.name.clone(),
        value: ours.wall / theirs.wall,
        mark: promised.map(|target| target.most),
    })
}

fn curves(suite: &Suite, results: &Results, plot: &str, key: fn(&Cost) -> f64) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for case in &suite.cases {
        let Some(point) = case.point.as_ref().filter(|point| point.plot == plot) else { continue };
        for job in &case.jobs {
            let Some(cost) = results.get(case, job.label) else { continue };
            let place = (point.x, key(&cost));
            match curves.iter_mut().find(|curve| curve.label == job.label) {
                Some(curve) => curve.points.push(place),
                None => curves.push(Curve { label: job.label.to_string(), points: vec![place] }),
            }
        }
    }
    curves
}

fn seconds(value: f64) -> String {
    match value {
        v if v < 0.1 => format!("{:.1} ms", v * 1000.0),
        v => format!("{v:.2} s"),
    }
}

fn bytes(value: u64) -> String {
    match value {
        v if v < 10 << 20 => format!("{:.1} MiB", v as f64 / f64::from(1 << 20)),
        v => format!("{} MiB", v >> 20),
    }
}
