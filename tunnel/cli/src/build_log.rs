//! Watching a build until it is done.

use std::time::{Duration, Instant};

use adit_rest::{JobStatus, LogLevel, ProvisionerJob, ProvisionerJobLog, WorkspaceBuild};
use anyhow::{Result, bail};

use crate::api::Api;

/// How much of a build to show, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Stages and log lines on standard output: the build is the command's
    /// own work.
    All,
    /// Stages on standard error: the command needs the build for something
    /// else.
    Stages,
}

/// How long a log stream may stay silent after the job has ended.
const TAIL: Duration = Duration::from_secs(10);

/// Follows the logs of a build until its job ends.
///
/// # Errors
/// When the build fails or is cancelled, with the job's own error.
pub(crate) async fn wait(api: &Api, build: &WorkspaceBuild, show: Show) -> Result<()> {
    let resource = format!("/api/v2/workspacebuilds/{}", build.id);
    let mut printer = Printer::new(show);
    let mut socket = api
        .json_socket::<ProvisionerJobLog>(&format!("{resource}/logs?follow"))
        .await?;
    let mut ended: Option<Instant> = None;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), socket.next()).await;
        match next {
            Ok(Some(log)) => printer.log(&log?),
            Ok(None) => break,
            Err(_silent) => {
                let job = api.get::<WorkspaceBuild>(&resource).await?.job;
                let done = job.completed_at.is_some();
                let since = *ended.get_or_insert_with(Instant::now);
                if !done {
                    ended = None;
                } else if since.elapsed() > TAIL {
                    break;
                }
            }
        }
    }
    let job = api.get::<WorkspaceBuild>(&resource).await?.job;
    printer.finish(job.status == JobStatus::Succeeded);
    verdict(&job)
}

fn verdict(job: &ProvisionerJob) -> Result<()> {
    match job.status {
        JobStatus::Succeeded => Ok(()),
        JobStatus::Canceled => bail!("the build was canceled"),
        _ if job.error.is_empty() => bail!("the build ended as {} without a reason", job.status),
        _ => bail!("{}", job.error),
    }
}

struct Printer {
    show: Show,
    stage: Option<(String, Instant)>,
}

impl Printer {
    fn new(show: Show) -> Self {
        Self { show, stage: None }
    }

    fn line(&self, text: &str) {
        match self.show {
            Show::All => println!("{text}"),
            Show::Stages => eprintln!("{text}"),
        }
    }

    fn log(&mut self, log: &ProvisionerJobLog) {
        let new_stage = !log.stage.is_empty()
            && self
                .stage
                .as_ref()
                .is_none_or(|(stage, _)| *stage != log.stage);
        if new_stage {
            self.end_stage(true);
            self.line(&format!("==> ⧗ {}", log.stage));
            self.stage = Some((log.stage.clone(), Instant::now()));
            if log.output.is_empty() {
                return;
            }
        }
        let quiet =
            matches!(log.log_level, LogLevel::Trace | LogLevel::Debug) || self.show == Show::Stages;
        if !quiet {
            let when = log
                .created_at
                .timestamp()
                .strftime("%Y-%m-%d %H:%M:%S%.3fZ");
            self.line(&format!("{when} {}", log.output));
        }
    }

    fn end_stage(&mut self, good: bool) {
        if let Some((stage, began)) = self.stage.take() {
            let mark = if good { '✔' } else { '✘' };
            self.line(&format!(
                "=== {mark} {stage} [{}ms]",
                began.elapsed().as_millis()
            ));
        }
    }

    fn finish(&mut self, good: bool) {
        self.end_stage(good);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let job = |status, error: &str| ProvisionerJob {
            status,
            error: error.into(),
            ..ProvisionerJob::default()
        };
        assert!(verdict(&job(JobStatus::Succeeded, "")).is_ok());
        let text = |status, error| verdict(&job(status, error)).unwrap_err().to_string();
        assert_eq!(text(JobStatus::Failed, "no capacity"), "no capacity");
        assert!(text(JobStatus::Running, "").contains("ended as running"));
        assert!(text(JobStatus::Canceled, "").contains("canceled"));
    }
}
