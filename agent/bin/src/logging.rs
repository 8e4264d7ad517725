//! Where the agent writes its log.
//!
//! Always to a rotating file in the log directory, at debug level; and as the
//! options say to terminals or files, at info level unless verbose.

mod json;
mod rotate;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

pub(crate) use rotate::RotatingFile;

/// The agent's log file inside the log directory.
pub(crate) const FILE: &str = "coder-agent.log";

/// Where to log besides the file.
#[derive(Debug, Default)]
pub(crate) struct Sinks<'a> {
    pub(crate) human: &'a str,
    pub(crate) json: &'a str,
    pub(crate) stackdriver: &'a str,
    pub(crate) verbose: bool,
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Installs the log of this process.
pub(crate) fn install(log_dir: &Path, sinks: &Sinks<'_>) -> anyhow::Result<()> {
    let path = log_dir.join(FILE);
    let file = RotatingFile::open(&path)
        .with_context(|| format!("cannot open the log file {}; set --log-dir", path.display()))?;
    let level = if sinks.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let mut layers: Vec<Boxed> = vec![human(Sink::new(file), LevelFilter::DEBUG)];
    if let Some(sink) = Sink::at(sinks.human)? {
        layers.push(human(sink, level));
    }
    for (at, names) in [
        (sinks.json, json::PLAIN),
        (sinks.stackdriver, json::STACKDRIVER),
    ] {
        if let Some(sink) = Sink::at(at)? {
            layers.push(json::JsonLayer::new(sink, names).with_filter(level).boxed());
        }
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(())
}

fn human(sink: Sink, level: LevelFilter) -> Boxed {
    tracing_subscriber::fmt::layer()
        .with_writer(sink)
        .with_ansi(false)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .with_filter(level)
        .boxed()
}

/// A place to write lines to, shared by threads.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Mutex<dyn Write + Send>>);

impl Sink {
    fn new(write: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(write)))
    }

    /// `None` for the empty name.
    fn at(name: &str) -> anyhow::Result<Option<Self>> {
        Ok(Some(match name {
            "" => return Ok(None),
            "/dev/stderr" => Self::new(io::stderr()),
            "/dev/stdout" => Self::new(io::stdout()),
            path => {
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(path)
                    .with_context(|| format!("cannot open the log {path}"))?;
                Self::new(file)
            }
        }))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // A log that cannot be written must not stop the agent.
        let _ = inner.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
