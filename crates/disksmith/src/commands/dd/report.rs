//! What dd tells of its work, on stderr.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use disksmith_disk::human_size;
use disksmith_operations::Observer;

use super::operands::{Operands, Status};
use crate::face::Face;
use crate::progress::{Progress, Watch};
use crate::signals;

/// `status=progress` tells this often.
const EVERY: Duration = Duration::from_secs(1);

/// Tells how far the copy is, and at its end how much it was.
pub(super) struct Report<'f> {
    face: &'f Face,
    status: Status,
    blocks: (u64, u64),
    start: Instant,
    told: Mutex<Instant>,
    watch: Watch,
}

impl<'f> Report<'f> {
    /// Starts the clock.
    pub(super) fn start(face: &'f Face, operands: &Operands) -> Self {
        let quiet = operands.status != Status::Default || operands.output.is_none();
        Self {
            face,
            status: operands.status,
            blocks: (operands.input_block, operands.output_block),
            start: Instant::now(),
            told: Mutex::new(Instant::now()),
            watch: Watch::new(face, Progress::new(face, false, quiet)),
        }
    }

    /// Tells what was read and what was written.
    pub(super) fn finish(&self, read: u64, bytes: u64) {
        self.watch.finish();
        if self.status == Status::None {
            return;
        }
        let mut text = match self.status {
            Status::Progress => "\r".to_string(),
            _ => String::new(),
        };
        text += &format!("{} records in\n", records(read, self.blocks.0));
        text += &format!("{} records out\n", records(bytes, self.blocks.1));
        if self.status != Status::NoTransfer {
            text += &format!("{}\n", self.amount(bytes));
        }
        self.face.note(&text);
    }

    fn amount(&self, bytes: u64) -> String {
        amount(bytes, self.start.elapsed().as_secs_f64())
    }
}

impl Observer for Report<'_> {
    fn progress(&self, done: u64, total: u64) {
        match self.status {
            Status::Default if total > 0 => self.watch.progress(done, total),
            Status::Progress => {
                let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if told.elapsed() >= EVERY {
                    *told = Instant::now();
                    self.face.draw(&format!("\r{}", self.amount(done)));
                }
            }
            // As dd answers SIGUSR1.
            _ if signals::progress_asked() => self.face.note(&format!("{}\n", self.amount(done))),
            _ => {}
        }
    }

    fn warning(&self, text: &str) {
        self.face.warn(text);
    }
}

/// Whole blocks and partial ones.
fn records(bytes: u64, block: u64) -> String {
    format!("{}+{}", bytes / block, u8::from(!bytes.is_multiple_of(block)))
}

/// `1073741824 bytes (1.1 GB, 1.0 GiB) copied, 10.8062 s, 99.4 MB/s`
fn amount(bytes: u64, seconds: f64) -> String {
    let decimal = |value: f64| {
        const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
        let (mut value, mut unit) = (value, 0);
        while value >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        match value < 10.0 && unit > 0 {
            true => format!("{value:.1} {}", UNITS[unit]),
            false => format!("{value:.0} {}", UNITS[unit]),
        }
    };
    let size = match bytes {
        0..1000 => String::new(),
        1000..1024 => format!(" ({})", decimal(bytes as f64)),
        _ => format!(" ({}, {})", decimal(bytes as f64), human_size(bytes)),
    };
    let rate = decimal(bytes as f64 / seconds.max(1e-6));
    let plural = if bytes == 1 { "" } else { "s" };
    format!("{bytes} byte{plural}{size} copied, {seconds:.3} s, {rate}/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_as_dd_tells_them() {
        assert_eq!(
            amount(1 << 30, 10.8062),
            "1073741824 bytes (1.1 GB, 1 GiB) copied, 10.806 s, 99 MB/s"
        );
        assert_eq!(amount(1, 0.5), "1 byte copied, 0.500 s, 2 B/s");
        assert_eq!(records(1025, 512), "2+1");
    }
}
