//! Running the workspace's scripts.

mod cron_loop;
mod output;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use adit_agent_exec::ContextProvider;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::manifest::Script;
use crate::metrics::Metrics;
use crate::shared::{Completions, Logs};

pub use cron_loop::run_cron;
pub(crate) use run::make_private_dir;

/// Why a script ran; numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// After the first manifest.
    Start,
    /// During shutdown.
    Stop,
    /// On its schedule.
    Cron,
}

/// How a script ended; numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Exit code 0.
    Ok,
    /// Any other exit code, a signal, or it never started.
    Failed,
    /// It ran into its time limit.
    TimedOut,
    /// It exited, but something it started kept its output open.
    PipesLeftOpen,
}

/// A finished run, to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Identifier of the script.
    pub script: [u8; 16],
    /// When it started.
    pub start: SystemTime,
    /// When it ended, not before it started.
    pub end: SystemTime,
    /// Its exit code, 255 without one, -1 for a signal.
    pub exit_code: i32,
    /// Why it ran.
    pub stage: Stage,
    /// How it ended.
    pub status: Status,
}

impl Stage {
    fn wire(self) -> i32 {
        match self {
            Self::Start => 0,
            Self::Stop => 1,
            Self::Cron => 2,
        }
    }
}

impl Completion {
    /// As the message the control plane takes.
    #[must_use]
    pub fn to_proto(&self) -> adit_messages::agent::Timing {
        use adit_messages::time::timestamp_to_proto;
        adit_messages::agent::Timing {
            script_id: adit_messages::uuid_to_bytes(self.script),
            start: Some(timestamp_to_proto(self.start)),
            end: Some(timestamp_to_proto(self.end)),
            exit_code: self.exit_code,
            stage: self.stage.wire(),
            status: match self.status {
                Status::Ok => 0,
                Status::Failed => 1,
                Status::TimedOut => 2,
                Status::PipesLeftOpen => 3,
            },
        }
    }
}

/// How a whole stage ended: the first script that failed decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageOutcome {
    /// All succeeded.
    Ok,
    /// The first failure was a time limit.
    TimedOut,
    /// The first failure was something else.
    Failed,
}

/// What every script run needs.
#[derive(Clone)]
pub struct Runner {
    /// Account, environment and directory of commands.
    pub context: Arc<dyn ContextProvider>,
    /// Where output goes.
    pub logs: Arc<Logs>,
    /// Where finished runs are reported.
    pub completions: Arc<Completions>,
    /// Counts runs.
    pub metrics: Arc<Metrics>,
    /// Directory of log files without an absolute path.
    pub log_dir: PathBuf,
    /// Directory that holds `bin` and one data directory per script.
    pub data_dir: PathBuf,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("log_dir", &self.log_dir)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Runs `scripts` at the same time and waits for all of them. `cancel`
    /// hangs them up.
    pub async fn run_stage(
        &self,
        scripts: Vec<Script>,
        stage: Stage,
        cancel: &CancellationToken,
    ) -> StageOutcome {
        let mut running = JoinSet::new();
        for script in scripts {
            let runner = self.clone();
            let cancel = cancel.clone();
            running.spawn(async move { runner.run(&script, stage, &cancel).await });
        }
        let mut outcome = StageOutcome::Ok;
        while let Some(ended) = running.join_next().await {
            let status = ended.unwrap_or(Status::Failed);
            if outcome == StageOutcome::Ok {
                outcome = match status {
                    Status::Ok => StageOutcome::Ok,
                    Status::TimedOut => StageOutcome::TimedOut,
                    Status::Failed | Status::PipesLeftOpen => StageOutcome::Failed,
                };
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
