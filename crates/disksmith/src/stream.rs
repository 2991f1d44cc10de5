//! Raw bytes to what can only be written from front to end: stdout, a pipe, `/dev/null`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use disksmith_disk::{Context, Disk, Error, Kind, PageBuffer, Result};
use disksmith_open::{Node, chain_map};

/// Bytes that are read and written at once.
const STEP: u64 = 1 << 20;

/// Whether a target called `name` takes bytes in their order only.
pub(crate) fn is_stream(name: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_sink = |kind: std::fs::FileType| kind.is_fifo() || kind.is_char_device();
    name == "-" || std::fs::metadata(name).is_ok_and(|status| is_sink(status.file_type()))
}

/// Writes what the sources show, one behind the other, to the target called `name`.
pub(crate) fn send(sources: &[Node], name: &str) -> Result<()> {
    let attempt = || format!("Could not write to '{name}'");
    if name == "-" {
        return send_to(sources, &mut std::io::stdout().lock()).with_context(attempt);
    }
    let mut target = OpenOptions::new().write(true).open(Path::new(name)).with_context(attempt)?;
    send_to(sources, &mut target).with_context(attempt)
}

fn send_to(sources: &[Node], target: &mut dyn Write) -> Result<()> {
    let mut buffer = PageBuffer::zeroed(STEP as usize);
    for node in sources {
        let size = node.image.size();
        let mut at = 0;
        while at < size {
            let run = chain_map(node, at, STEP.min(size - at))?;
            let piece = &mut buffer[..run.length as usize];
            match run.zero {
                true => piece.fill(0),
                false => node.image.read_at(piece, at)?,
            }
            target.write_all(piece)?;
            at += run.length;
        }
    }
    Ok(target.flush()?)
}

/// Refuses what a stream cannot hold.
pub(crate) fn check(format: &str, name: &str) -> Result<()> {
    if format == "raw" {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unsupported,
        format!(
            "'{name}' is written from front to end, which an image of format {format} cannot be"
        ),
    )
    .with_hint("Use -O raw, or name a file."))
}
