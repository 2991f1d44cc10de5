//! What is measured, as data: suites of cases, each a few command lines for the same job.

/// Cases that share prepared files and a chapter of the page.
pub(crate) struct Suite {
    /// Chosen by `--suite`; the results' file is named after it.
    pub(crate) name: &'static str,
    /// Heading on the page.
    pub(crate) title: &'static str,
    /// What the reader needs to know, below the heading.
    pub(crate) text: &'static str,
    /// Whether cases read `src.raw`, the filesystem filled from this machine's own /usr.
    pub(crate) disk: bool,
    /// A shell script that makes what cases read, run once in the scratch folder.
    pub(crate) prepare: String,
    pub(crate) cases: Vec<Case>,
}

/// One job and the programs that do it.
///
/// All commands run in the scratch folder, with `disksmith` (the release build) and `xtask` on
/// the path. A command with any of `|&;<>$'"` is given to the shell, the others are started
/// directly.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    /// As printed; unique within the suite.
    pub(crate) name: String,
    /// The programs, those to compare with first: ratios are to the first one.
    pub(crate) jobs: Vec<Job>,
    /// A shell script before each run, unmeasured; `$WHO` is the label of the job.
    pub(crate) before: String,
    /// A shell script after each run, unmeasured; it must succeed: the place to compare results.
    pub(crate) after: String,
    /// Each run repeats so often, and the mean counts: for what is too quick for one.
    pub(crate) repeat: usize,
    /// Takes minutes: half as many runs, no warming up.
    pub(crate) slow: bool,
    /// The file whose allocated size is noted.
    pub(crate) output: Option<&'static str>,
    pub(crate) targets: Vec<Target>,
    /// Where it stands in a plot.
    pub(crate) point: Option<Point>,
}

/// One program's way to do it.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Who: `qemu-img`, `disksmith`, …
    pub(crate) label: &'static str,
    pub(crate) line: String,
}

/// What is promised.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) label: &'static str,
    pub(crate) measure: Measure,
    pub(crate) most: f64,
    /// `most` is a part of what this one takes; `None`: of one (a second, a byte).
    pub(crate) than: Option<&'static str>,
}

/// What can be promised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Measure {
    /// Seconds.
    Wall,
    /// Most memory in use, bytes.
    Memory,
    /// What the output takes on the host, bytes.
    Size,
}

/// A place in a plot: cases of one suite with one plot's name make it up.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Heading of the plot.
    pub(crate) plot: &'static str,
    /// What the horizontal axis shows, with its unit.
    pub(crate) axis: &'static str,
    pub(crate) x: f64,
}

/// The label of the drop-in, and of Disksmith where it has no second face.
pub(crate) const OURS: &str = "disksmith";

impl Case {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), repeat: 1, ..Self::default() }
    }

    /// Adds a program.
    pub(crate) fn job(mut self, label: &'static str, line: impl Into<String>) -> Self {
        self.jobs.push(Job { label, line: line.into() });
        self
    }

    pub(crate) fn before(mut self, script: impl Into<String>) -> Self {
        self.before = script.into();
        self
    }

    pub(crate) fn after(mut self, script: impl Into<String>) -> Self {
        self.after = script.into();
        self
    }

    pub(crate) fn repeat(mut self, times: usize) -> Self {
        self.repeat = times;
        self
    }

    pub(crate) fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    pub(crate) fn output(mut self, file: &'static str) -> Self {
        self.output = Some(file);
        self
    }

    /// Ours may take at most this part of the first program's wall time.
    pub(crate) fn at_most(self, part: f64) -> Self {
        let than = self.jobs.first().map(|job| job.label);
        self.target(Target { label: OURS, measure: Measure::Wall, most: part, than })
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Puts it into a plot.
    pub(crate) fn point(mut self, plot: &'static str, axis: &'static str, x: f64) -> Self {
        self.point = Some(Point { plot, axis, x });
        self
    }
}
