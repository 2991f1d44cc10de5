//! How far long work is, and what it has to say on the way.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use disksmith_operations::Observer;

use crate::face::Face;
use crate::signals;

/// How much a verb says of its work.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Telling {
    /// Show how far it is
    #[arg(short = 'p')]
    pub progress: bool,
    /// Show how far it is, as text or, one line a step on stderr, as JSON
    #[arg(
        long = "progress",
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub form: Option<ProgressForm>,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// The forms of `--progress`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ProgressForm {
    /// As qemu-img prints it.
    Text,
    /// A JSON object a line.
    Json,
}

impl Telling {
    /// Whether progress is to be told in qemu-img's form.
    pub(crate) fn in_lines(&self) -> bool {
        !self.quiet && (self.progress || self.form == Some(ProgressForm::Text))
    }

    /// The progress of one operation.
    pub(crate) fn progress(&self, face: &Face) -> Progress {
        let asked = self.progress || self.form.is_some();
        let mut progress = Progress::new(face, asked, self.quiet);
        if self.form == Some(ProgressForm::Json) && !self.quiet {
            progress.form = Form::Json;
        }
        progress
    }
}

/// Shows progress as `    (12.34/100%)`, in qemu-img's form.
#[derive(Debug)]
pub(crate) struct Progress {
    form: Form,
    shown: f64,
    any: bool,
    face: Face,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Silent,
    /// On stdout, as scripts read it.
    Lines,
    /// On stderr, for somebody who looks on.
    Terminal,
    /// On stderr, for a program.
    Json,
}

impl Progress {
    /// Shown when `asked` for; by the native face also where somebody looks at stderr. SIGUSR1
    /// is answered in any case.
    pub(crate) fn new(face: &Face, asked: bool, quiet: bool) -> Self {
        let form = match (quiet, asked, face.drop_in) {
            (true, ..) => Form::Silent,
            (_, true, _) => Form::Lines,
            (_, _, false) if std::io::stderr().is_terminal() => Form::Terminal,
            _ => Form::Silent,
        };
        Self { form, shown: f64::NEG_INFINITY, any: false, face: face.clone() }
    }

    /// `done` of `total` are done. Printed when a per cent more is.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let percent = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
        let asked = signals::progress_asked();
        if asked && self.form == Form::Silent {
            self.face.note(&format!("    ({percent:.2}/100%)\n"));
        }
        if percent - self.shown <= 1.0 && done < total && done > 0 {
            return;
        }
        self.shown = percent;
        match self.form {
            Form::Silent => return,
            Form::Lines => self.face.print(&format!("    ({percent:.2}/100%)\r")),
            Form::Terminal => {
                let bar = "#".repeat((percent / 2.5) as usize);
                self.face.draw(&format!("\r[{bar:<40}] {percent:5.1} %"));
            }
            Form::Json => self.face.note(&format!(
                "{{\"done\": {done}, \"total\": {total}, \"percent\": {percent:.2}}}\n"
            )),
        }
        self.any = true;
    }

    /// Ends the line.
    pub(crate) fn finish(&mut self) {
        match (self.form, std::mem::take(&mut self.any)) {
            (Form::Lines, true) => self.face.print("\n"),
            (Form::Terminal, true) => self.face.draw("\r\x1b[K"),
            _ => {}
        }
    }
}

/// Watches an operation of several threads.
#[derive(Debug)]
pub(crate) struct Watch {
    face: Face,
    progress: Mutex<Progress>,
    done: AtomicU64,
    /// The ranges that take time; empty = all.
    data: Vec<(u64, u64)>,
}

/// qemu-img copies at most this at once, and tells progress for each such piece.
const PIECE: u64 = 2 << 20;

impl Watch {
    /// With this progress.
    pub(crate) fn new(face: &Face, progress: Progress) -> Self {
        Self {
            face: face.clone(),
            progress: Mutex::new(progress),
            done: AtomicU64::new(0),
            data: Vec::new(),
        }
    }

    /// Counts only these ranges (start, end; ascending), piece by piece.
    pub(crate) fn counting(mut self, ranges: impl Iterator<Item = (u64, u64)>) -> Self {
        for (mut start, end) in ranges {
            while start < end {
                let piece = PIECE.min(end - start);
                self.data.push((start, piece));
                start += piece;
            }
        }
        self
    }

    /// Tells all pieces that begin between two positions.
    fn pieces(&self, from: u64, to: u64) {
        let total = self.data.iter().map(|(_, length)| length).sum();
        let mut done = 0u64;
        for (start, length) in &self.data {
            done += length;
            if (from..to).contains(start) {
                self.with(|progress| progress.show(done, total));
            }
        }
    }

    /// The operation is over.
    pub(crate) fn finish(&self) {
        self.with(Progress::finish);
    }

    fn with(&self, act: impl FnOnce(&mut Progress)) {
        act(&mut self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Observer for Watch {
    fn progress(&self, done: u64, total: u64) {
        // Threads may tell in another order than they counted.
        let before = self.done.fetch_max(done, Ordering::AcqRel);
        if before > done {
            return;
        }
        if done > 0 {
            self.pieces(before, done);
        }
        if self.data.is_empty() || done == 0 || done == total {
            self.with(|progress| progress.show(done, total));
        }
    }

    fn warning(&self, text: &str) {
        self.face.warn(text);
    }
}
