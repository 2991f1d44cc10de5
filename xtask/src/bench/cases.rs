//! What is measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs and files of a run.
pub(super) struct Bench {
    /// Ours.
    pub(super) program: PathBuf,
    /// Scratch.
    pub(super) folder: PathBuf,
    /// The test disk.
    pub(super) source: PathBuf,
}

/// Who runs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Who {
    /// qemu-img itself.
    Theirs,
    /// Ours in its place: the same arguments, the same promises.
    Ours,
    /// Ours under its own name: the target is durable before it ends.
    Native,
    /// Two threads that copy.
    Bare,
}

/// One measurement.
pub(super) struct Case {
    /// As printed.
    pub(super) name: &'static str,
    /// Arguments after the program's name. `SRC` is the test disk, other words in capitals are
    /// files of the scratch folder.
    pub(super) arguments: &'static str,
    /// qemu-img commands that come before each run, unmeasured.
    pub(super) before: &'static [&'static str],
    /// The whole is run so many times and the mean taken: for what is too quick for one.
    pub(super) repeat: usize,
    /// The most that ours may take, as a part of qemu-img's wall time.
    pub(super) target: f64,
    /// Compare with a bare copy of this file too.
    pub(super) bare: Option<&'static str>,
    /// Measure the native face too.
    pub(super) native: bool,
    /// qemu-img takes minutes: half as many runs.
    pub(super) slow: bool,
    /// Compare the sizes of the results (the file OUT).
    pub(super) sized: bool,
}

const PLAIN: Case = Case {
    name: "",
    arguments: "",
    before: &[],
    repeat: 1,
    target: 1.0,
    bare: None,
    native: false,
    slow: false,
    sized: false,
};

/// All cases in the order of the page.
pub(super) fn all() -> Vec<Case> {
    let convert = Case { before: &["rm OUT"], native: true, sized: true, ..PLAIN };
    let quick = Case { repeat: 20, ..PLAIN };
    vec![
        Case {
            name: "convert raw to qcow2",
            arguments: "convert -f raw -O qcow2 SRC OUT",
            target: 0.8,
            bare: Some("SRC"),
            ..convert
        },
        Case {
            name: "convert qcow2 to raw",
            arguments: "convert -f qcow2 -O raw PLAIN OUT",
            target: 0.8,
            bare: Some("SRC"),
            ..convert
        },
        Case { name: "convert qcow2 to qcow2", arguments: "convert -O qcow2 PLAIN OUT", ..convert },
        Case { name: "convert raw to raw", arguments: "convert -f raw -O raw SRC OUT", ..convert },
        Case {
            name: "convert -c (zlib)",
            arguments: "convert -c -f raw -O qcow2 SRC OUT",
            target: 0.25,
            slow: true,
            native: false,
            ..convert
        },
        Case {
            name: "convert -c (zstd)",
            arguments: "convert -c -f raw -O qcow2 -o compression_type=zstd SRC OUT",
            target: 0.6,
            native: false,
            ..convert
        },
        Case {
            name: "zlib qcow2 to raw",
            arguments: "convert -O raw ZLIB OUT",
            target: 0.5,
            native: false,
            ..convert
        },
        Case {
            name: "zstd qcow2 to raw",
            arguments: "convert -O raw ZSTD OUT",
            target: 0.8,
            native: false,
            ..convert
        },
        Case {
            name: "compare raw with qcow2",
            arguments: "compare -f raw -F qcow2 SRC PLAIN",
            target: 0.7,
            ..PLAIN
        },
        Case {
            name: "compare raw with zlib qcow2",
            arguments: "compare -f raw -F qcow2 SRC ZLIB",
            target: 0.7,
            slow: true,
            ..PLAIN
        },
        Case { name: "info", arguments: "info PLAIN", target: 0.5, ..quick },
        Case {
            name: "create",
            arguments: "create -q -f qcow2 OUT 64G",
            target: 0.5,
            before: &["rm OUT"],
            ..quick
        },
        Case { name: "check", arguments: "check -q PLAIN", ..PLAIN },
        Case { name: "check (zlib)", arguments: "check -q ZLIB", ..PLAIN },
        Case { name: "map", arguments: "map --output json PLAIN", repeat: 5, ..PLAIN },
        Case { name: "map raw", arguments: "map --output json -f raw SRC", repeat: 5, ..PLAIN },
        Case { name: "measure", arguments: "measure -O qcow2 -f raw SRC", repeat: 5, ..PLAIN },
        Case { name: "commit", arguments: "commit -q -d SECOND", ..PLAIN },
        Case {
            name: "rebase",
            arguments: "rebase -b OTHER -F qcow2 OUT",
            before: &["cp OVERLAY OUT"],
            ..PLAIN
        },
        Case { name: "rebase -u", arguments: "rebase -u -b OTHER -F qcow2 SECOND", ..quick },
        Case {
            name: "snapshot -c",
            arguments: "snapshot -c one OUT",
            before: &["rm OUT", "cp OVERLAY OUT"],
            ..PLAIN
        },
        Case {
            name: "snapshot -a",
            arguments: "snapshot -a one OUT",
            before: &["rm OUT", "cp OVERLAY OUT", "snapshot -c one OUT"],
            ..PLAIN
        },
        Case {
            name: "snapshot -d",
            arguments: "snapshot -d one OUT",
            before: &["rm OUT", "cp OVERLAY OUT", "snapshot -c one OUT"],
            ..PLAIN
        },
        Case {
            name: "resize",
            arguments: "resize -q OUT 100G",
            before: &["rm OUT", "create -q -f qcow2 OUT 10G"],
            ..PLAIN
        },
        Case {
            name: "amend",
            arguments: "amend -o lazy_refcounts=on OUT",
            before: &["rm OUT", "create -q -f qcow2 OUT 10G"],
            ..PLAIN
        },
        Case {
            name: "bitmap --add",
            arguments: "bitmap --add OUT b0",
            before: &["rm OUT", "create -q -f qcow2 OUT 10G"],
            ..PLAIN
        },
        Case {
            name: "dd",
            arguments: "dd -f raw -O raw bs=1M count=1024 if=SRC of=OUT",
            before: &["rm OUT"],
            ..PLAIN
        },
        Case {
            name: "bench (reads)",
            arguments: "bench -f qcow2 -c 200000 -s 4096 PLAIN",
            ..PLAIN
        },
    ]
}

impl Bench {
    /// Makes the images that cases read.
    pub(super) fn prepare(&self) -> Result<(), String> {
        for command in [
            "convert -f raw -O qcow2 SRC PLAIN",
            "convert -c -f raw -O qcow2 SRC ZLIB",
            "convert -c -f raw -O qcow2 -o compression_type=zstd SRC ZSTD",
            "cp PLAIN OTHER",
            "create -q -f qcow2 -b PLAIN -F qcow2 OVERLAY",
            "create -q -f qcow2 -b OTHER -F qcow2 SECOND",
        ] {
            self.qemu_img(command)?;
        }
        // Every eighth MiB of the first 2 GiB is changed in the overlays, every 64th in OTHER.
        self.change("OTHER", 64, 2048)?;
        self.change("OVERLAY", 8, 2048)?;
        self.change("SECOND", 8, 2048)
    }

    fn change(&self, name: &str, step: u64, mebibytes: u64) -> Result<(), String> {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "qcow2"]).stdout(Stdio::null());
        for at in (0..mebibytes).step_by(step as usize) {
            command.arg("-c").arg(format!("write -q -P {} {at}M 1M", at % 255 + 1));
        }
        crate::succeed(command.arg(self.folder.join(name)))
    }

    /// Carries out a preparation: a qemu-img command, `rm FILE` or `cp FILE FILE`.
    pub(super) fn qemu_img(&self, command: &str) -> Result<(), String> {
        let words: Vec<String> = self.words(command);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["rm", file] => match std::fs::remove_file(file) {
                Err(error) if Path::new(file).exists() => Err(error.to_string()),
                _ => Ok(()),
            },
            ["cp", from, to] => {
                crate::succeed(Command::new("cp").args(["--sparse=always", from, to]))
            }
            _ => crate::succeed(Command::new("qemu-img").args(words).stdout(Stdio::null())),
        }
    }

    /// The command that is measured.
    pub(super) fn command(&self, case: &Case, who: Who) -> Result<Command, String> {
        let mut command = match who {
            Who::Theirs => Command::new("qemu-img"),
            Who::Ours | Who::Native => Command::new(&self.program),
            Who::Bare => Command::new(std::env::current_exe().map_err(|e| e.to_string())?),
        };
        match (who, case.bare) {
            (Who::Bare, Some(file)) => {
                command.args(["bare-copy".to_string(), self.place(file), self.place("OUT")]);
            }
            (Who::Ours, _) => {
                command.arg("qemu-img").args(self.words(case.arguments));
            }
            _ => {
                command.args(self.words(case.arguments));
            }
        }
        command.stdout(Stdio::null());
        Ok(command)
    }

    fn words(&self, text: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for word in text.split(' ') {
            words.push(match word.split_once('=') {
                Some((name @ ("if" | "of"), file)) => format!("{name}={}", self.place(file)),
                _ => self.place(word),
            });
        }
        words
    }

    fn place(&self, word: &str) -> String {
        let file = word.len() > 2
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        match word {
            "SRC" => self.source.to_string_lossy().into_owned(),
            _ if file => self.folder.join(word).to_string_lossy().into_owned(),
            _ => word.to_string(),
        }
    }
}
