//! `bench`: how fast an image is read or written.

use disksmith_disk::{Error, Kind};
use disksmith_formats::OpenMode;
use disksmith_open::Cache;
use disksmith_operations::{BenchDirection, BenchRequest, Silent, bench};
use serde_json::json;

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, Face, Outcome, refuse};
use crate::numbers::{bounded, size};
use crate::render::json::pretty;

/// The arguments of `bench`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub source: Source,
    /// Cache mode
    #[arg(short = 't', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// How many requests (75000)
    #[arg(short, long, value_name = "N")]
    pub count: Option<String>,
    /// How many at once (64)
    #[arg(short, long, value_name = "N")]
    pub depth: Option<String>,
    /// Bytes per request (4096)
    #[arg(short = 's', long, value_name = "SIZE")]
    pub buffer_size: Option<String>,
    /// From one request to the next (the buffer size)
    #[arg(short = 'S', long, value_name = "SIZE")]
    pub step_size: Option<String>,
    /// Of the first request
    #[arg(short, long, value_name = "OFFSET")]
    pub offset: Option<String>,
    /// threads, native or io_uring; accepted for compatibility
    #[arg(short = 'i', long, value_name = "AIO")]
    pub aio: Option<String>,
    /// Accepted for compatibility
    #[arg(short, long)]
    pub native: bool,
    /// Write (what the image holds is lost)
    #[arg(short, long)]
    pub write: bool,
    /// The byte to write (0)
    #[arg(long, value_name = "BYTE")]
    pub pattern: Option<String>,
    /// Flush after so many requests
    #[arg(long, value_name = "N")]
    pub flush_interval: Option<String>,
    /// Do not wait for requests under way before a flush
    #[arg(long)]
    pub no_drain: bool,
    /// Print less
    #[arg(short, long)]
    pub quiet: bool,
    /// Read even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Bench {
    const NAME: &'static str = "bench";
    const ABOUT: &'static str = "Measure how fast an image is read or written";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let request = self.request(face)?;
        let cache = match self.cache.as_deref().map(Cache::parse) {
            None => Cache::default(),
            Some(Ok(cache)) => cache,
            Some(Err(_)) => return refuse("Invalid cache mode"),
        };
        let mode = if self.write { OpenMode::Write } else { OpenMode::Read };
        let purpose = Purpose { cache, ..Purpose::new(mode).shared(self.force_share) };
        let node = self.source.open(face, &self.image, purpose)?;
        if !json {
            face.print(&self.announced(&request));
        }
        let elapsed = bench(&*node.image, &request, &Silent).map_err(|error| match error.kind() {
            Kind::InvalidInput => Error::new(Kind::Io, "Failed request: Input/output error"),
            _ => error.context("Failed request"),
        })?;
        if self.write {
            node.close()?;
        }
        let seconds = elapsed.as_secs_f64();
        face.print(&match json {
            true => self.as_json(&request, seconds),
            false => format!("Run completed in {seconds:.3} seconds.\n"),
        });
        Ok(DONE)
    }
}

impl Bench {
    fn direction(&self) -> &'static str {
        if self.write { "write" } else { "read" }
    }

    fn announced(&self, request: &BenchRequest) -> String {
        let mut text = format!(
            "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n",
            request.count,
            self.direction(),
            request.buffer_size,
            request.depth,
            request.offset,
            request.step
        );
        if request.flush_interval > 0 {
            text += &format!("Sending flush every {} requests\n", request.flush_interval);
        }
        text
    }

    fn as_json(&self, request: &BenchRequest, seconds: f64) -> String {
        pretty(&json!({
            "direction": self.direction(),
            "requests": request.count,
            "buffer-size": request.buffer_size,
            "depth": request.depth,
            "offset": request.offset,
            "step-size": request.step,
            "flush-interval": request.flush_interval,
            "seconds": seconds,
            "bytes-per-second": (request.count * request.buffer_size) as f64 / seconds.max(1e-9),
        }))
    }

    fn request(&self, face: &Face) -> Result<BenchRequest, crate::face::Failure> {
        const INT: u64 = i32::MAX as u64;
        let number = |text: &Option<String>, what: &str, low: u64, high: u64, default: u64| {
            text.as_deref().map_or(Ok(default), |text| bounded(face, what, text, low, high))
        };
        let count = number(&self.count, "request count", 1, INT, 75_000)?;
        let depth = number(&self.depth, "queue depth", 1, INT, 64)?;
        let buffer_size = number(&self.buffer_size, "buffer size", 1, INT, 4096)?;
        let step = number(&self.step_size, "step size", 0, INT, 0)?;
        let pattern = number(&self.pattern, "pattern byte", 0, 255, 0)?;
        let flush_interval = number(&self.flush_interval, "flush interval", 0, INT, 0)?;
        let offset = self.offset.as_deref().map_or(Ok(0), |text| size(face, "offset", text))?;
        if let Some(other) = self.aio.as_deref().filter(|aio| !["threads", "native", "io_uring"].contains(aio)) {
            return refuse(format!("Invalid aio option: {other}"));
        }
        if flush_interval > 0 && !self.write {
            return refuse("--flush-interval is only available in write tests");
        }
        if flush_interval > 0 && flush_interval < depth {
            return refuse("Flush interval can't be smaller than depth");
        }
        Ok(BenchRequest {
            count,
            depth,
            buffer_size,
            step: if step == 0 { buffer_size } else { step },
            offset,
            direction: match self.write {
                true => BenchDirection::Write(u8::try_from(pattern).unwrap_or(0)),
                false => BenchDirection::Read,
            },
            flush_interval,
            drain_on_flush: !self.no_drain,
        })
    }
}
