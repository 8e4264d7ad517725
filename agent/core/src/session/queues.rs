//! Routines that empty queues.

use std::time::Duration;

use adit_messages::time::timestamp_to_proto;
use adit_messages::{agent, uuid_to_bytes};

use super::{Ended, Session, call};

/// Time between two looks at the announcement banners.
const BANNERS: Duration = Duration::from_secs(120);

impl Session {
    /// Fetches the banners shown at login, now and from time to time.
    pub(super) async fn banners(&self) -> Ended {
        loop {
            let request = agent::GetAnnouncementBannersRequest {};
            let answer = self.rpc.get_announcement_banners(&request).await;
            let banners = call("GetAnnouncementBanners", answer)?
                .announcement_banners
                .into_iter()
                .filter(|b| b.enabled && !b.message.is_empty())
                .map(|b| b.message)
                .collect();
            self.agent.workspace.handle_banners(banners);
            tokio::time::sleep(BANNERS).await;
        }
    }

    /// Sends script output. Ends without an error when the control plane
    /// takes no more.
    pub(super) async fn logs(&self) -> Ended {
        let logs = &self.agent.logs;
        logs.with(|q| q.handle_lost());
        loop {
            let batch = logs.next_batch().await;
            let request = agent::BatchCreateLogsRequest {
                log_source_id: uuid_to_bytes(batch.source),
                logs: batch
                    .lines
                    .into_iter()
                    .map(|line| agent::Log {
                        created_at: Some(timestamp_to_proto(line.at)),
                        output: line.text,
                        level: line.level.wire(),
                    })
                    .collect(),
            };
            let answer = call(
                "BatchCreateLogs",
                self.rpc.batch_create_logs(&request).await,
            )?;
            if answer.log_limit_exceeded {
                tracing::warn!(
                    "the control plane takes no more script output from this agent; the log files go on"
                );
                logs.limit_exceeded();
                return Ok(());
            }
            logs.sent();
        }
    }

    /// Reports lifecycle transitions, those of earlier connections first.
    pub(super) async fn lifecycle(&self) -> Ended {
        let mut changed = self.agent.lifecycle.subscribe();
        loop {
            let next = changed.borrow_and_update().poll_report();
            let Some(report) = next else {
                if changed.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            let request = agent::UpdateLifecycleRequest {
                lifecycle: Some(agent::Lifecycle {
                    state: report.state.wire(),
                    changed_at: Some(timestamp_to_proto(report.changed_at)),
                }),
            };
            call("UpdateLifecycle", self.rpc.update_lifecycle(&request).await)?;
            tracing::debug!(state = ?report.state, "lifecycle state reported");
            self.agent
                .lifecycle
                .send_modify(|l| l.handle_reported(report.sequence));
        }
    }

    /// Reports connections of users. A report that fails is lost.
    pub(super) async fn connections(&self) -> Ended {
        loop {
            let connection = self.agent.reports.next().await;
            let request = agent::ReportConnectionRequest {
                connection: Some(connection),
            };
            if let Err(error) = self.rpc.report_connection(&request).await {
                tracing::debug!(%error, "a connection report was lost");
            }
        }
    }

    /// Reports finished scripts. One that is refused is lost, one whose
    /// connection breaks goes out on the next.
    pub(super) async fn completions(&self) -> Ended {
        let queue = &self.agent.completions;
        loop {
            let completion = queue.next().await;
            let request = agent::WorkspaceAgentScriptCompletedRequest {
                timing: Some(completion.to_proto()),
            };
            match self.rpc.script_completed(&request).await {
                Ok(_) => queue.pop(),
                Err(error) if error.status().is_some() => {
                    tracing::debug!(%error, "a script report was refused");
                    queue.pop();
                }
                Err(error) => {
                    tracing::debug!(%error, "a script report waits for the next connection");
                    return Ok(());
                }
            }
        }
    }
}
