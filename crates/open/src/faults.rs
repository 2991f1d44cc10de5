//! A layer that makes requests fail where it is told to, with the options of QEMU's `blkdebug`:
//! for trying out what a program does when its storage fails.
//!
//! A rule waits for its event, and from then on the requests that it speaks of fail. Some events
//! are requests, which this layer sees by itself; others are steps of the format above, which
//! announces them. QEMU knows further steps, which the formats here do not take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Context, Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};
use disksmith_formats::Options;

const SECTOR: u64 = 512;
const EIO: i32 = 5;
/// Events by QEMU's names; `none`: the rule holds from the start.
const EVENTS: [&str; 17] = [
    "none",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "flush_to_os",
    "flush_to_disk",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "cow_read",
    "cow_write",
    "l1_update",
    "l2_update",
    "cluster_alloc",
    "cluster_free",
];
/// The kinds of request that fail when a rule does not say.
const USUAL: [&str; 5] = ["read", "write", "write-zeroes", "discard", "flush"];
/// Accepted, and without effect: how QEMU cuts requests.
const LIMITS: [&str; 9] = [
    "align",
    "max-transfer",
    "opt-write-zero",
    "max-write-zero",
    "opt-discard",
    "max-discard",
    "config",
    "x-image",
    "latency-ns",
];

/// A disk whose requests fail by rules.
#[derive(Debug)]
pub(crate) struct FaultDisk {
    below: Arc<dyn Disk>,
    rules: Mutex<Rules>,
}

#[derive(Debug)]
struct Rules {
    state: u64,
    faults: Vec<Fault>,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Fault {
    event: String,
    /// `None`: the usual ones.
    kind: Option<String>,
    /// The state in which the event counts; 0 = any.
    state: u64,
    errno: i32,
    /// `None`: everywhere.
    offset: Option<u64>,
    once: bool,
    active: bool,
}

/// An event leads from one state into another.
#[derive(Debug)]
struct Change {
    event: String,
    state: u64,
    new_state: u64,
}

impl FaultDisk {
    pub(crate) fn new(below: Arc<dyn Disk>, options: &Options) -> Result<Self> {
        let mut groups: BTreeMap<(String, String), Options> = BTreeMap::new();
        for (name, value) in options.iter() {
            let mut parts = name.splitn(3, '.');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(kind @ ("inject-error" | "set-state")), Some(number), Some(name)) => {
                    let key = (kind.to_string(), number.to_string());
                    groups.entry(key).or_default().set(name, value);
                }
                _ if LIMITS.contains(&name) || crate::storage::is_common(name) => {}
                _ => {
                    return Err(invalid(format!(
                        "Block protocol 'blkdebug' doesn't support the option '{name}'"
                    )));
                }
            }
        }
        let mut groups: Vec<_> = groups.into_iter().map(|((kind, _), o)| (kind, o)).collect();
        if let Some(path) = options.text("config") {
            let text =
                std::fs::read_to_string(path).context("Could not read blkdebug config file")?;
            groups.extend(parse_config(&text)?);
        }
        let mut rules = Rules { state: 1, faults: Vec::new(), changes: Vec::new() };
        for (kind, options) in groups {
            match kind.as_str() {
                "inject-error" => rules.faults.push(Fault::parse(&options)?),
                _ => rules.changes.push(Change::parse(&options)?),
            }
        }
        Ok(Self { below, rules: Mutex::new(rules) })
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events happen, then a request of that kind comes.
    fn request(&self, events: &[&str], kind: &str, offset: u64, length: u64) -> Result<()> {
        let mut rules = self.rules();
        for event in events {
            rules.happened(event);
        }
        rules.judge(kind, offset, length)
    }
}

impl Rules {
    fn happened(&mut self, event: &str) {
        let state = self.state;
        for fault in self.faults.iter_mut().filter(|fault| fault.event == event) {
            fault.active |= fault.state == 0 || fault.state == state;
        }
        let change = self
            .changes
            .iter()
            .find(|change| change.event == event && (change.state == 0 || change.state == state));
        if let Some(change) = change {
            self.state = change.new_state;
        }
    }

    fn judge(&mut self, kind: &str, offset: u64, length: u64) -> Result<()> {
        let hit = self.faults.iter().position(|fault| fault.hits(kind, offset, length));
        let Some(hit) = hit else { return Ok(()) };
        let errno = self.faults[hit].errno;
        if self.faults[hit].once {
            self.faults.remove(hit);
        }
        Err(std::io::Error::from_raw_os_error(errno).into())
    }
}

impl Fault {
    fn parse(options: &Options) -> Result<Self> {
        let number = |name: &str| options.number(name);
        let event = event(options)?;
        Ok(Self {
            active: event == "none",
            event,
            kind: options.text("iotype").map(str::to_string),
            state: number("state")?.unwrap_or(0),
            errno: number("errno")?.and_then(|n| i32::try_from(n).ok()).unwrap_or(EIO),
            offset: number("sector")?.and_then(|sector| sector.checked_mul(SECTOR)),
            once: options.flag("once")?.unwrap_or(false),
        })
    }

    fn hits(&self, kind: &str, offset: u64, length: u64) -> bool {
        let kind = match &self.kind {
            None => USUAL.contains(&kind),
            Some(own) => own == kind,
        };
        let here = |at: u64| at.checked_sub(offset).is_some_and(|within| within < length);
        self.active && kind && self.offset.is_none_or(here)
    }
}

impl Change {
    fn parse(options: &Options) -> Result<Self> {
        Ok(Self {
            event: event(options)?,
            state: options.number("state")?.unwrap_or(0),
            new_state: options.number("new_state")?.unwrap_or(0),
        })
    }
}

fn event(options: &Options) -> Result<String> {
    match options.text("event") {
        Some(event) if EVENTS.contains(&event) => Ok(event.to_string()),
        Some(event) => Err(Error::new(
            Kind::Unsupported,
            format!(
                "blkdebug: the event '{event}' is a step of QEMU's drivers that is not taken here"
            ),
        )),
        None => Err(invalid("Missing event name for rule".into())),
    }
}

/// A file of sections `[inject-error]` and `[set-state]` with lines `name = "value"`.
fn parse_config(text: &str) -> Result<Vec<(String, Options)>> {
    let mut groups: Vec<(String, Options)> = Vec::new();
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let section = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
        match (section, line.split_once('='), groups.last_mut()) {
            (Some(name @ ("inject-error" | "set-state")), _, _) => {
                groups.push((name.to_string(), Options::new()));
            }
            (None, Some((name, value)), Some((_, options))) => {
                options.set(name.trim(), value.trim().trim_matches('"'));
            }
            _ => return Err(invalid(format!("blkdebug: cannot read the line '{line}'"))),
        }
    }
    Ok(groups)
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

impl Disk for FaultDisk {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.request(&[], "read", offset, buffer.len() as u64)?;
        self.below.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.request(&["pwritev"], "write", offset, data.len() as u64)?;
        self.below.write_at(data, offset)?;
        self.rules().happened("pwritev_done");
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.request(&["pwritev_zero"], "write-zeroes", offset, length)?;
        self.below.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.request(&[], "discard", offset, length)?;
        self.below.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.request(&["flush_to_os", "flush_to_disk"], "flush", 0, self.size().max(1))?;
        self.below.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.request(&[], "block-status", offset, length)?;
        self.below.map(offset, length)
    }

    fn announce(&self, step: &'static str) {
        self.rules().happened(step);
        self.below.announce(step);
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.below.set_size(size)
    }

    fn read_only(&self) -> bool {
        self.below.read_only()
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    fn disk(pairs: &[(&str, &str)]) -> FaultDisk {
        let mut options = Options::new();
        for (name, value) in pairs {
            options.set(name, *value);
        }
        FaultDisk::new(Arc::new(MemoryDisk::new(1 << 20)), &options).unwrap()
    }

    #[test]
    fn a_rule_hits_its_sector_once() {
        let disk = disk(&[
            ("inject-error.0.event", "none"),
            ("inject-error.0.iotype", "write"),
            ("inject-error.0.sector", "8"),
            ("inject-error.0.errno", "28"),
            ("inject-error.0.once", "on"),
        ]);
        disk.read_at(&mut [0; 8192], 0).unwrap();
        disk.write_at(&[0; 4096], 0).unwrap();
        let error = disk.write_at(&[0; 4096], 1024).unwrap_err();
        assert_eq!(error.errno(), Some(28));
        disk.write_at(&[0; 4096], 1024).unwrap();
    }

    #[test]
    fn a_rule_waits_for_its_event_and_state() {
        let disk = disk(&[
            ("set-state.0.event", "flush_to_disk"),
            ("set-state.0.new_state", "2"),
            ("inject-error.0.event", "read_aio"),
            ("inject-error.0.state", "2"),
        ]);
        disk.read_at(&mut [0; 512], 0).unwrap();
        disk.announce("read_aio");
        disk.read_at(&mut [0; 512], 0).unwrap();
        disk.flush().unwrap();
        disk.read_at(&mut [0; 512], 0).unwrap();
        disk.announce("read_aio");
        assert!(disk.read_at(&mut [0; 512], 0).is_err());
        assert!(disk.write_at(&[0; 512], 0).is_err());
    }

    #[test]
    fn steps_that_nobody_takes_are_refused() {
        let mut options = Options::new();
        options.set("inject-error.0.event", "reftable_grow");
        let below = Arc::new(MemoryDisk::new(512));
        assert!(FaultDisk::new(below, &options).is_err());
        let groups = parse_config("# c\n[inject-error]\nevent = \"read_aio\"\n").unwrap();
        assert_eq!(groups[0].1.text("event"), Some("read_aio"));
        assert!(parse_config("event = 1").is_err());
    }
}
