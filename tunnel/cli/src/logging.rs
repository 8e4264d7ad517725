//! Log lines: on standard error when something is wrong or `--verbose` is
//! given, and in a file where one is asked for.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing_subscriber::{EnvFilter, Layer as _, filter::LevelFilter, fmt, prelude::*};

static FILE: OnceLock<Mutex<File>> = OnceLock::new();

/// Sets up logging. `ADIT_LOG` takes a filter such as `adit_mesh=trace`.
pub(crate) fn start(verbose: bool) {
    let default = if verbose {
        "debug,hyper=info,rustls=info"
    } else {
        "error"
    };
    let filter = std::env::var("ADIT_LOG")
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    let to_stderr = fmt::layer()
        .with_writer(io::stderr)
        .with_target(false)
        .with_filter(filter);
    let to_file = fmt::layer()
        .with_writer(|| ToFile)
        .with_ansi(false)
        .with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(to_stderr)
        .with(to_file)
        .init();
}

/// From now on, log lines also go to `file`.
pub(crate) fn also_to(file: File) {
    let _ = FILE.set(Mutex::new(file));
}

struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match FILE.get() {
            Some(file) => file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
