//! What a program does to files, read from its system calls.

use std::path::Path;
use std::process::Command;

use disksmith_testkit::Operation;

const WATCHED: &str = "trace=pwrite64,pwritev,pwritev2,write,writev,ftruncate,fallocate,\
                       copy_file_range,fsync,fdatasync";

/// Runs a command line in `folder`, which must succeed; answers what it did to the files of
/// these names, in order. `sizes` are their lengths before.
pub(crate) fn operations(
    folder: &Path,
    path: &str,
    command: &str,
    names: &[&str],
    sizes: &[u64],
) -> Vec<Operation> {
    let log = folder.join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-y", "-xx", "-s", "100000000", "-e", WATCHED, "-o"])
        .arg(&log)
        .args(["bash", "-c", &format!("exec {command}")])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .expect("strace (Debian package strace)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    let mut reader = Reader { folder, names, sizes: sizes.to_vec() };
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    text.lines().filter_map(|line| reader.operation(line)).collect()
}

struct Reader<'a> {
    folder: &'a Path,
    names: &'a [&'a str],
    sizes: Vec<u64>,
}

impl Reader<'_> {
    /// `13291 pwrite64(4<\x2f…>, "\x80…", 8, 122880) = 8`; with threads, a line may end with
    /// `<unfinished ...>`, and what follows is told later.
    fn operation(&mut self, line: &str) -> Option<Operation> {
        let (_, call) = line.split_once(' ')?;
        let (name, rest) = call.trim_start().split_once('(')?;
        let (_, rest) = rest.split_once('<')?;
        let (path, rest) = rest.split_once('>')?;
        if name.contains(' ') || rest.contains(") = -1 ") {
            return None;
        }
        let path = String::from_utf8(bytes(path)).ok()?;
        let file = self.names.iter().position(|n| Path::new(&path) == self.folder.join(n))?;
        let numbers = numbers(rest);
        let last = numbers.last().copied();
        let operation = match name {
            "pwrite64" | "pwritev" => {
                let data: Vec<u8> = rest.split('"').skip(1).step_by(2).flat_map(bytes).collect();
                Operation::Write { file, offset: last?, data: data.into() }
            }
            "ftruncate" => Operation::Resize { file, size: last? },
            "fsync" | "fdatasync" => Operation::Flush { file },
            "fallocate" => {
                let (offset, length) = (*numbers.get(numbers.len() - 2)?, last?);
                let size = self.sizes[file].max(offset + length);
                match (rest.contains("PUNCH_HOLE"), rest.contains("ZERO_RANGE")) {
                    (false, false) => Operation::Resize { file, size },
                    (false, true) if !rest.contains("KEEP_SIZE") => {
                        Operation::Zero { file, offset, length }
                    }
                    _ => Operation::Discard { file, offset, length },
                }
            }
            other => panic!("{other} of {path} is not understood"),
        };
        match &operation {
            Operation::Resize { size, .. } => self.sizes[file] = *size,
            Operation::Write { offset, data, .. } => {
                self.sizes[file] = self.sizes[file].max(offset + data.len() as u64);
            }
            Operation::Zero { offset, length, .. } => {
                self.sizes[file] = self.sizes[file].max(offset + length);
            }
            _ => {}
        }
        Some(operation)
    }
}

/// The arguments that are numbers, after the data.
fn numbers(rest: &str) -> Vec<u64> {
    let after = rest.rsplit('"').next().unwrap_or(rest);
    let arguments = after.split([')', '<']).next().unwrap_or(after);
    arguments.split([',', ' ', ']', '}']).filter_map(|word| word.parse().ok()).collect()
}

/// `\x2f\x74…`.
fn bytes(hex: &str) -> Vec<u8> {
    hex.split("\\x").filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}
