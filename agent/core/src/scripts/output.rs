//! What a script prints: to its log file and to the control plane.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};

use crate::logs::{Level, LineSplitter};
use crate::shared::Logs;

/// The log file of one run; a full disk does not stop the script.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Mutex<Option<File>>,
}

impl LogFile {
    pub(super) fn new(file: File) -> Self {
        Self {
            file: Mutex::new(Some(file)),
        }
    }

    fn write(&self, bytes: &[u8]) {
        let mut slot = self
            .file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(file) = slot.as_mut()
            && let Err(error) = file.write_all(bytes)
        {
            tracing::warn!(%error, "cannot write to a script's log file");
            *slot = None;
        }
    }
}

/// Copies both outputs of a script until they end.
#[derive(Debug)]
pub(super) struct Pump<'a> {
    logs: &'a Logs,
    source: [u8; 16],
    file: LogFile,
}

impl<'a> Pump<'a> {
    pub(super) fn new(logs: &'a Logs, source: [u8; 16], file: LogFile) -> Self {
        Self { logs, source, file }
    }

    pub(super) async fn run(self, stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) {
        tokio::join!(
            self.copy(stdout, Level::Info),
            self.copy(stderr, Level::Error)
        );
    }

    async fn copy(&self, from: Option<impl AsyncRead + Unpin>, level: Level) {
        let Some(mut from) = from else { return };
        let mut lines = LineSplitter::default();
        let mut buffer = vec![0; 8 * 1_024];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    self.file.write(&buffer[..n]);
                    lines.handle_bytes(&buffer[..n], |l| self.logs.line(self.source, level, l));
                }
            }
        }
        lines.handle_end(|l| self.logs.line(self.source, level, l));
    }
}
