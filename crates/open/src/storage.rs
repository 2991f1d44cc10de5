//! Storage that is no file: its drivers, by QEMU's names, and their options.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Error, Extent, Kind, Result, ZeroMode};
use disksmith_formats::Options;
use disksmith_nbd::{Address, Endpoint, NbdDisk};
use serde_json::Value;

use crate::StorageSpec;
use crate::faults::FaultDisk;
use crate::quorum::QuorumDisk;
use crate::tree::Tree;

/// What QEMU's null drivers show when no size is given.
const NULL_SIZE: u64 = 1 << 30;
/// What any layer accepts, here without effect: how QEMU caches, shares and names it.
const COMMON: &[&str] = &[
    "read-only",
    "auto-read-only",
    "discard",
    "detect-zeroes",
    "force-share",
    "node-name",
    "cache.direct",
    "cache.no-flush",
    "cache.writeback",
];
const FILE: &[&str] =
    &["aio", "aio-max-batch", "locking", "pr-manager", "drop-cache", "x-check-cache-dropped"];
const NBD: &[&str] = &[
    "server.type",
    "server.path",
    "server.host",
    "server.port",
    "path",
    "host",
    "port",
    "export",
    "x-dirty-bitmap",
    "reconnect-delay",
    "open-timeout",
];
const QUORUM: &[&str] = &["vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern"];
const NULL: &[&str] = &["size", "latency-ns", "read-zeroes"];

/// Whether the driver is QEMU's for plain files and devices.
pub(crate) fn is_file(driver: &str) -> bool {
    matches!(driver, "file" | "host_device" | "host_cdrom")
}

/// Whether storage of that driver can be opened.
pub(crate) fn is_storage(driver: &str) -> bool {
    matches!(driver, "null-co" | "null-aio" | "blkdebug" | "nbd" | "quorum")
}

/// Whether every layer accepts the option.
pub(crate) fn is_common(name: &str) -> bool {
    COMMON.contains(&name)
}

/// Refuses options that the driver does not have.
pub(crate) fn check_options(driver: &str, options: &Options) -> Result<()> {
    let known: &[&str] = match driver {
        "null-co" | "null-aio" => NULL,
        "nbd" => NBD,
        "quorum" => QUORUM,
        "blkdebug" => return Ok(()),
        _ => FILE,
    };
    match options.iter().find(|(name, _)| !known.contains(name) && !is_common(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let text = format!("Block protocol '{driver}' doesn't support the option '{name}'");
            Err(Error::new(Kind::InvalidInput, text))
        }
    }
}

/// The tree of options that a name with a protocol stands for.
pub(crate) fn named(protocol: &str, name: &str) -> Result<Tree> {
    let rest =
        name.strip_prefix(protocol).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    let pairs = match protocol {
        "null-co" | "null-aio" if rest == "//" => vec![("driver", protocol)],
        "blkdebug" => match rest.split_once(':') {
            Some(("", image)) => vec![("driver", protocol), ("x-image", image)],
            Some((config, image)) => {
                vec![("driver", protocol), ("config", config), ("x-image", image)]
            }
            None => {
                return Err(invalid("blkdebug requires both config file and image path".into()));
            }
        },
        "nbd" | "nbd+unix" | "nbds" | "nbds+unix" => return named_export(name),
        _ => return Err(Error::new(Kind::Unsupported, format!("Unknown protocol '{protocol}'"))),
    };
    Ok(pairs.into_iter().map(|(name, value)| (name.to_string(), Value::from(value))).collect())
}

fn named_export(name: &str) -> Result<Tree> {
    let address = Address::parse(name)?;
    let mut tree = Tree::new();
    let mut put = |name: &str, value: String| tree.insert(name.to_string(), Value::from(value));
    put("driver", "nbd".to_string());
    match &address.endpoint {
        Endpoint::Unix(path) => {
            put("server.type", "unix".to_string());
            put("server.path", path.to_string_lossy().into_owned());
        }
        Endpoint::Tcp(host, port) => {
            put("server.type", "inet".to_string());
            put("server.host", host.clone());
            put("server.port", port.to_string());
        }
    }
    if !address.export.is_empty() {
        put("export", address.export);
    }
    Ok(tree)
}

/// The export that options describe.
fn address(options: &Options) -> Result<Address> {
    let text = |name: &str, old: &str| options.text(name).or(options.text(old));
    let path = text("server.path", "path");
    let host = text("server.host", "host");
    let endpoint = match (options.text("server.type"), path, host) {
        (None | Some("unix"), Some(path), _) => Endpoint::Unix(path.into()),
        (None | Some("inet"), None, Some(host)) => {
            let port = text("server.port", "port").unwrap_or("10809").parse();
            let port =
                port.map_err(|_| invalid("Parameter 'server.port' expects a number".into()))?;
            Endpoint::Tcp(host.to_string(), port)
        }
        _ => return Err(invalid("NBD server address missing".into())),
    };
    Ok(Address { endpoint, export: options.text("export").unwrap_or_default().to_string() })
}

/// The name that says as much as the options do, if there is one.
pub(crate) fn exact_name(spec: &StorageSpec) -> Option<String> {
    match spec.driver.as_str() {
        "nbd" if spec.options.text("x-dirty-bitmap").is_none() => {
            address(&spec.options).ok().map(|address| address.to_string())
        }
        "null-co" | "null-aio" if spec.options.is_empty() => Some(format!("{}://", spec.driver)),
        _ => None,
    }
}

/// Storage, open.
pub(crate) struct Opened {
    pub(crate) disk: Arc<dyn Disk>,
    /// The same, if it is an export.
    pub(crate) export: Option<Arc<NbdDisk>>,
}

/// Opens storage; `below` is what a filter stands on, `children` what many copies are.
pub(crate) fn open(
    spec: &StorageSpec,
    below: Option<Arc<dyn Disk>>,
    children: Vec<Arc<dyn Disk>>,
    writable: bool,
) -> Result<Opened> {
    let disk: Arc<dyn Disk> = match (spec.driver.as_str(), below) {
        ("quorum", _) => Arc::new(QuorumDisk::new(children, &spec.options)?),
        ("nbd", _) => {
            let context = spec.options.text("x-dirty-bitmap");
            let address = address(&spec.options)?;
            let wait = Duration::from_secs(spec.options.number("open-timeout")?.unwrap_or(0));
            let export = patiently(wait, || NbdDisk::connect(&address, writable, context))?;
            let export = Arc::new(export);
            return Ok(Opened { disk: export.clone(), export: Some(export) });
        }
        ("blkdebug", Some(below)) => Arc::new(FaultDisk::new(below, &spec.options)?),
        ("blkdebug", None) => {
            return Err(invalid("A block device must be specified for \"image\"".into()));
        }
        _ => Arc::new(Null { size: spec.options.size("size")?.unwrap_or(NULL_SIZE) }),
    };
    Ok(Opened { disk, export: None })
}

/// Tries again until `wait` is over while the host says that there is nobody to connect to.
fn patiently<T>(wait: Duration, attempt: impl Fn() -> Result<T>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(100);
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.errno().is_some() && start.elapsed() < wait => sleep(PAUSE),
            other => return other,
        }
    }
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

/// Reads as zero, forgets what is written.
#[derive(Debug)]
struct Null {
    size: u64,
}

impl Disk for Null {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], _: u64) -> Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64, _: ZeroMode) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent {
            place: Some(offset),
            ..Extent::zero(length.min(self.size.saturating_sub(offset)))
        })
    }
}
