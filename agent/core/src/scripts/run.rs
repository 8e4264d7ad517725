//! One run of one script.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use adit_agent_exec::{Child, ExitStatus, Invocation, Signal, Tally as _, expand_variables};
use tokio_util::sync::CancellationToken;

use super::output::{LogFile, Pump};
use super::{Completion, Runner, Stage, Status};
use crate::logs::Level;
use crate::manifest::Script;

/// How long a script that was asked to end may take before it is killed, and
/// how long its output may stay open after it ended.
const GRACE: Duration = Duration::from_secs(10);

/// Why a run ended.
enum End {
    Exit(ExitStatus),
    TimedOut,
    Cancelled,
}

impl Runner {
    /// Runs one script to its end and reports it.
    pub(super) async fn run(
        &self,
        script: &Script,
        stage: Stage,
        cancel: &CancellationToken,
    ) -> Status {
        let file = match self.open_log(script) {
            Ok(file) => file,
            Err(error) => {
                // Without its log file a script is not started, and there is
                // nothing to report.
                tracing::warn!(script = %script.id, %error, "cannot open the log file of a script");
                return Status::Failed;
            }
        };
        let start = SystemTime::now();
        let (exit_code, status) = self.execute(script, file, cancel).await;
        let source = script.log_source.into_bytes();
        self.logs.flush(source);
        self.completions.push(Completion {
            script: script.id.into_bytes(),
            start,
            end: SystemTime::now().max(start),
            exit_code,
            stage,
            status,
        });
        let success = if status == Status::Ok {
            "true"
        } else {
            "false"
        };
        self.metrics
            .count("agent_scripts_executed_total", &[("success", success)]);
        tracing::info!(script = %script.id, name = script.name, ?stage, exit_code, ?status, "script ended");
        status
    }

    async fn execute(
        &self,
        script: &Script,
        file: LogFile,
        cancel: &CancellationToken,
    ) -> (i32, Status) {
        const NO_CODE: i32 = 255;
        let mut spawned = match self.spawn(script) {
            Ok(spawned) => spawned,
            Err(error) => {
                tracing::warn!(script = %script.id, %error, "cannot start a script");
                let line = format!("cannot start the script: {error}");
                self.logs
                    .line(script.log_source.into_bytes(), Level::Error, line);
                return (NO_CODE, Status::Failed);
            }
        };
        drop(spawned.stdin.take());
        let source = script.log_source.into_bytes();
        let pump = Pump::new(&self.logs, source, file);
        let mut pumping = std::pin::pin!(pump.run(spawned.stdout.take(), spawned.stderr.take()));
        let mut open = true;
        let end = {
            let deadline = async {
                match script.timeout {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let mut deadline = std::pin::pin!(deadline);
            loop {
                tokio::select! {
                    () = &mut pumping, if open => open = false,
                    status = spawned.child.wait() => match status {
                        Ok(status) => break End::Exit(status),
                        Err(_) => break End::Cancelled,
                    },
                    () = &mut deadline => break End::TimedOut,
                    () = cancel.cancelled() => break End::Cancelled,
                }
            }
        };
        match end {
            End::Exit(status) => {
                if open && tokio::time::timeout(GRACE, pumping).await.is_err() {
                    let text = format!(
                        "WARNING: the script exited, but something it started kept its output open for {} s; redirect the output of background commands.",
                        GRACE.as_secs()
                    );
                    self.logs.line(source, Level::Error, text);
                    if status.success() {
                        return (NO_CODE, Status::PipesLeftOpen);
                    }
                }
                match status {
                    ExitStatus::Code(0) => (0, Status::Ok),
                    ExitStatus::Code(code) => (code, Status::Failed),
                    ExitStatus::Signal(_) => (-1, Status::Failed),
                }
            }
            End::TimedOut | End::Cancelled => {
                let status = if matches!(end, End::TimedOut) {
                    Status::TimedOut
                } else {
                    Status::Failed
                };
                let ending = hang_up(&mut spawned.child);
                if open {
                    // What it says while it ends still belongs to the log.
                    let both = async { tokio::join!(ending, &mut pumping).0 };
                    let limit = GRACE + Duration::from_secs(1);
                    let _ = tokio::time::timeout(limit, both).await;
                } else {
                    ending.await;
                }
                (NO_CODE, status)
            }
        }
    }

    fn spawn(&self, script: &Script) -> Result<adit_agent_exec::PipedChild, String> {
        let context = self.context.context().map_err(|e| e.to_string())?;
        let mut env = context.environment(&[], None);
        let data = self.data_dir.join(script.log_source.to_string());
        for dir in [&data, &self.data_dir.join("bin")] {
            make_private_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        env.set("CODER_SCRIPT_DATA_DIR", data);
        env.set("CODER_SCRIPT_BIN_DIR", self.data_dir.join("bin"));
        context
            .command(&Invocation::Script(script.text.as_bytes()), env)
            .spawn_piped()
            .map_err(|e| e.to_string())
    }

    fn open_log(&self, script: &Script) -> io::Result<LogFile> {
        let path = self.log_path(script);
        // Neither truncated nor appended to: a second run writes over the
        // beginning of the first one's output.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(LogFile::new(file))
    }

    fn log_path(&self, script: &Script) -> PathBuf {
        if script.log_path.is_empty() {
            let name = format!("coder-script-{}.log", script.log_source);
            return self.log_dir.join(name);
        }
        let mut raw = OsString::new();
        match script.log_path.strip_prefix('~') {
            Some(rest) => {
                let home = self.context.context().map(|c| c.user.home);
                raw.push(home.unwrap_or_default());
                raw.push(rest);
            }
            None => raw.push(&script.log_path),
        }
        self.log_dir
            .join(expand_variables(&raw, |name| std::env::var_os(name)))
    }
}

/// SIGHUP to the group; after the grace SIGKILL.
async fn hang_up(child: &mut Child) {
    if let Err(error) = child.terminate(Signal::SIGHUP, GRACE).await {
        tracing::warn!(%error, "a script did not end");
    }
}

/// Creates a directory and its parents, closed to others.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}
