//! What the cuts of each kind of operation left, counted.

use std::collections::BTreeMap;
use std::fmt;

/// What a check says of one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing is wrong.
    Clean,
    /// Space is lost, nothing else.
    Leaks,
    /// Structures disagree, and the image says so of itself (dirty).
    Marked,
    /// Structures disagree, and the image does not say so.
    Corrupt,
}

/// Counts of verdicts by kind of operation.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<String, [u64; 4]>);

impl Tally {
    /// One state more.
    pub fn count(&mut self, operation: &str, verdict: Verdict) {
        if !self.0.contains_key(operation) {
            self.0.insert(operation.to_string(), [0; 4]);
        }
        if let Some(row) = self.0.get_mut(operation) {
            row[verdict as usize] += 1;
        }
    }

    /// Takes another tally's counts in.
    pub fn add(&mut self, other: &Self) {
        for (operation, counts) in &other.0 {
            let row = self.0.entry(operation.clone()).or_default();
            for (sum, count) in row.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }

    /// All states.
    pub fn states(&self) -> u64 {
        self.0.values().flatten().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| operation | states | clean | leaks only | marked dirty | corrupt |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for (operation, [clean, leaks, marked, corrupt]) in &self.0 {
            let states = clean + leaks + marked + corrupt;
            writeln!(f, "| {operation} | {states} | {clean} | {leaks} | {marked} | {corrupt} |")?;
        }
        Ok(())
    }
}
