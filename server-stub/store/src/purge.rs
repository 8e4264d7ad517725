//! Removing what is old, a little at a time.

use adit_rest::Time;

use crate::Result;
use crate::engine::Store;

/// The most rows one statement removes: others write in between.
pub const PURGE_BATCH: i64 = 1000;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// What is removed after some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Keys that expired seven days ago or longer.
    ApiKeys,
    /// Log lines, older than seven days, of agents that a newer build replaced.
    AgentLogs,
    /// Metadata of agents that were replaced, and not heard of for seven days.
    AgentMetadata,
    /// Log lines of builds and other jobs that ended 30 days ago, except each
    /// workspace's newest build.
    JobLogs,
    /// Statistics older than seven days.
    AgentStats,
    /// Reports of apps older than seven days, except each app's newest.
    AppStatuses,
    /// Connections that ended 90 days ago.
    Connections,
}

impl Purge {
    /// Everything, in the order in which it should go.
    pub const ALL: [Self; 7] = [
        Self::ApiKeys,
        Self::AgentLogs,
        Self::AgentMetadata,
        Self::JobLogs,
        Self::AgentStats,
        Self::AppStatuses,
        Self::Connections,
    ];

    /// How long rows are kept, in days.
    const fn days(self) -> i64 {
        match self {
            Self::ApiKeys
            | Self::AgentLogs
            | Self::AgentMetadata
            | Self::AgentStats
            | Self::AppStatuses => 7,
            Self::JobLogs => 30,
            Self::Connections => 90,
        }
    }

    /// Removes at most `$2` rows that are older than `$1`.
    const fn statement(self) -> &'static str {
        match self {
            Self::ApiKeys => {
                "DELETE FROM api_keys WHERE id IN (
                     SELECT id FROM api_keys WHERE expires_at < $1 LIMIT $2)"
            }
            Self::AgentLogs => {
                "DELETE FROM agent_logs WHERE id IN (
                     SELECT l.id FROM agents a JOIN agent_logs l ON l.agent_id = a.id
                     WHERE a.deleted = 1 AND l.created_at < $1 LIMIT $2)"
            }
            Self::AgentMetadata => {
                "DELETE FROM agent_metadata WHERE (agent_id, key) IN (
                     SELECT m.agent_id, m.key FROM agents a
                     JOIN agent_metadata m ON m.agent_id = a.id
                     WHERE a.deleted = 1 AND a.created_at < $1
                     AND coalesce(a.last_connected_at, 0) < $1 LIMIT $2)"
            }
            Self::JobLogs => {
                "DELETE FROM provisioner_job_logs WHERE id IN (
                     SELECT l.id FROM provisioner_jobs j
                     JOIN provisioner_job_logs l ON l.job_id = j.id
                     WHERE j.completed_at < $1 AND NOT EXISTS (
                         SELECT 1 FROM workspace_builds b WHERE b.job_id = j.id
                         AND b.build_number = (SELECT max(n.build_number)
                             FROM workspace_builds n WHERE n.workspace_id = b.workspace_id))
                     LIMIT $2)"
            }
            Self::AgentStats => {
                "DELETE FROM agent_stats WHERE id IN (
                     SELECT id FROM agent_stats WHERE created_at < $1 LIMIT $2)"
            }
            Self::AppStatuses => {
                "DELETE FROM app_statuses WHERE id IN (
                     SELECT s.id FROM app_statuses s WHERE s.created_at < $1 AND EXISTS (
                         SELECT 1 FROM app_statuses n
                         WHERE n.app_id = s.app_id AND n.created_at > s.created_at)
                     LIMIT $2)"
            }
            Self::Connections => {
                "DELETE FROM connection_logs WHERE (connection_id, agent_id) IN (
                     SELECT connection_id, agent_id FROM connection_logs
                     WHERE disconnected_at < $1 LIMIT $2)"
            }
        }
    }
}

impl Store {
    /// Removes at most [`PURGE_BATCH`] old rows, and says how many they were.
    /// Fewer than that: nothing old is left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge(&self, what: Purge, now: Time) -> Result<u64> {
        let removed = sqlx::query(what.statement())
            .bind(now.plus_micros(-what.days() * DAY_MICROS).as_micros())
            .bind(PURGE_BATCH)
            .execute(self.writer())
            .await?;
        Ok(removed.rows_affected())
    }

    /// Gives some of the room that removed rows took back to the file system.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn shrink(&self) -> Result<()> {
        self.release_pages().await
    }
}

#[cfg(test)]
mod tests;
