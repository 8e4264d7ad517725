//! Removing what is old, a little at a time.
//!
//! What there is to remove is found in an index, so that a step that finds
//! nothing costs next to nothing. One step is one transaction with a bounded
//! number of rows: others write in between.

use adit_rest::Time;
use uuid::Uuid;

use crate::Result;
use crate::engine::{Cols as _, Store, Tx};

/// The most rows one step removes, of what is not counted in owners.
const BATCH: i64 = 1000;

/// The most jobs or agents whose remains one step removes.
const OWNERS: i64 = 100;

const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// What is removed after some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Keys that expired seven days ago or longer.
    ApiKeys,
    /// Log lines and metadata of agents that a newer build replaced and that
    /// were not heard of for seven days.
    AgentRemains,
    /// Log lines of builds and other jobs that ended 30 days ago, except each
    /// workspace's newest build.
    JobLogs,
    /// Dry runs that ended 30 days ago: nothing refers to them. Builds and
    /// imports are the history of what they made, and stay.
    DryRuns,
    /// Statistics older than seven days.
    AgentStats,
    /// Reports of apps older than seven days, except each app's newest.
    AppStatuses,
    /// Connections that ended 90 days ago.
    Connections,
    /// Provisioners not heard of for seven days.
    Provisioners,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows it removed.
    pub rows: u64,
    /// Whether another step may find more.
    pub more: bool,
}

/// How a kind is removed.
enum Way {
    /// By one statement: at most `$2` rows that are older than `$1`.
    Rows(&'static str),
    /// By what rows belong to.
    Owned(Owned),
}

/// Rows that belong to jobs or agents.
struct Owned {
    /// Finds at most `$2` owners that are older than `$1`.
    owners: &'static str,
    /// Each removes at most `$2` rows of the owner `$1`; the next one runs when
    /// none are left.
    parts: &'static [&'static str],
    /// Says of the owner `$1` that nothing is left.
    done: &'static str,
}

impl Purge {
    /// Everything, in the order in which it should go.
    pub const ALL: [Self; 8] = [
        Self::ApiKeys,
        Self::AgentRemains,
        Self::JobLogs,
        Self::DryRuns,
        Self::AgentStats,
        Self::AppStatuses,
        Self::Connections,
        Self::Provisioners,
    ];

    /// How long rows are kept, in days.
    const fn days(self) -> i64 {
        match self {
            Self::ApiKeys
            | Self::AgentRemains
            | Self::AgentStats
            | Self::AppStatuses
            | Self::Provisioners => 7,
            Self::JobLogs | Self::DryRuns => 30,
            Self::Connections => 90,
        }
    }

    const fn way(self) -> Way {
        match self {
            Self::ApiKeys => Way::Rows(
                "DELETE FROM api_keys WHERE id IN (
                     SELECT id FROM api_keys WHERE expires_at < $1 LIMIT $2)",
            ),
            Self::AgentStats => Way::Rows(
                "DELETE FROM agent_stats WHERE id IN (
                     SELECT id FROM agent_stats WHERE created_at < $1 LIMIT $2)",
            ),
            Self::AppStatuses => Way::Rows(
                "DELETE FROM app_statuses WHERE id IN (
                     SELECT s.id FROM app_statuses s WHERE s.created_at < $1 AND EXISTS (
                         SELECT 1 FROM app_statuses n
                         WHERE n.app_id = s.app_id AND n.created_at > s.created_at)
                     LIMIT $2)",
            ),
            Self::Connections => Way::Rows(
                "DELETE FROM connection_logs WHERE (connection_id, agent_id) IN (
                     SELECT connection_id, agent_id FROM connection_logs
                     WHERE disconnected_at < $1 LIMIT $2)",
            ),
            Self::Provisioners => Way::Rows(
                "DELETE FROM provisioner_daemons WHERE id IN (
                     SELECT id FROM provisioner_daemons WHERE last_seen_at < $1 LIMIT $2)",
            ),
            Self::AgentRemains => Way::Owned(Owned {
                owners: "SELECT id FROM agents WHERE deleted = 1 AND remains_removed = 0
                         AND created_at < $1 AND coalesce(last_connected_at, 0) < $1 LIMIT $2",
                parts: &[
                    "DELETE FROM agent_logs WHERE id IN (
                         SELECT id FROM agent_logs WHERE agent_id = $1 LIMIT $2)",
                    "DELETE FROM agent_metadata WHERE (agent_id, key) IN (
                         SELECT agent_id, key FROM agent_metadata WHERE agent_id = $1 LIMIT $2)",
                ],
                done: "UPDATE agents SET remains_removed = 1 WHERE id = $1",
            }),
            Self::JobLogs => Way::Owned(Owned {
                owners: "SELECT j.id FROM provisioner_jobs j
                         WHERE j.logs_removed = 0 AND j.completed_at < $1 AND NOT EXISTS (
                             SELECT 1 FROM workspace_builds b WHERE b.job_id = j.id
                             AND b.build_number = (SELECT max(n.build_number)
                                 FROM workspace_builds n WHERE n.workspace_id = b.workspace_id))
                         LIMIT $2",
                parts: &["DELETE FROM provisioner_job_logs WHERE id IN (
                         SELECT id FROM provisioner_job_logs WHERE job_id = $1 LIMIT $2)"],
                done: "UPDATE provisioner_jobs SET logs_removed = 1 WHERE id = $1",
            }),
            // What a dry run would make goes with it. Nothing of that ever
            // runs, so there is no more than its template describes.
            Self::DryRuns => Way::Owned(Owned {
                owners: "SELECT id FROM provisioner_jobs
                         WHERE job_type = 'template_version_dry_run' AND completed_at < $1
                         AND logs_removed = 1 LIMIT $2",
                parts: &[
                    "DELETE FROM agent_apps WHERE id IN (
                         SELECT p.id FROM resources r JOIN agents a ON a.resource_id = r.id
                         JOIN agent_apps p ON p.agent_id = a.id WHERE r.job_id = $1 LIMIT $2)",
                    "DELETE FROM agent_log_sources WHERE (agent_id, id) IN (
                         SELECT s.agent_id, s.id
                         FROM resources r JOIN agents a ON a.resource_id = r.id
                         JOIN agent_log_sources s ON s.agent_id = a.id
                         WHERE r.job_id = $1 LIMIT $2)",
                    "DELETE FROM agent_scripts WHERE id IN (
                         SELECT s.id FROM resources r JOIN agents a ON a.resource_id = r.id
                         JOIN agent_scripts s ON s.agent_id = a.id WHERE r.job_id = $1 LIMIT $2)",
                    "DELETE FROM agent_metadata WHERE (agent_id, key) IN (
                         SELECT m.agent_id, m.key
                         FROM resources r JOIN agents a ON a.resource_id = r.id
                         JOIN agent_metadata m ON m.agent_id = a.id WHERE r.job_id = $1 LIMIT $2)",
                    "DELETE FROM agents WHERE id IN (
                         SELECT a.id FROM resources r JOIN agents a ON a.resource_id = r.id
                         WHERE r.job_id = $1 LIMIT $2)",
                    "DELETE FROM resources WHERE id IN (
                         SELECT id FROM resources WHERE job_id = $1 LIMIT $2)",
                ],
                done: "DELETE FROM provisioner_jobs WHERE id = $1",
            }),
        }
    }
}

impl Owned {
    /// Removes the rows of one owner, at most `room`; returns how many they
    /// were and whether that was all.
    async fn remove(&self, tx: &mut Tx, owner: Uuid, room: i64) -> Result<(i64, bool)> {
        let mut removed = 0;
        for part in self.parts {
            let rows = sqlx::query(*part)
                .bind(owner.to_string())
                .bind(room - removed)
                .execute(&mut **tx)
                .await?;
            removed += rows.rows_affected().cast_signed();
            if removed >= room {
                return Ok((removed, false));
            }
        }
        sqlx::query(self.done)
            .bind(owner.to_string())
            .execute(&mut **tx)
            .await?;
        Ok((removed, true))
    }
}

impl Store {
    /// Removes some of what is old.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge(&self, what: Purge, now: Time) -> Result<Purged> {
        let before = now.plus_micros(-what.days() * DAY_MICROS).as_micros();
        let owned = match what.way() {
            Way::Owned(owned) => owned,
            Way::Rows(statement) => {
                let removed = sqlx::query(statement)
                    .bind(before)
                    .bind(BATCH)
                    .execute(self.writer())
                    .await?;
                let rows = removed.rows_affected();
                let more = rows >= BATCH.unsigned_abs();
                return Ok(Purged { rows, more });
            }
        };
        // Whose time has come stays so: nobody has to wait for this.
        let owners = sqlx::query(owned.owners)
            .bind(before)
            .bind(OWNERS)
            .fetch_all(&self.read)
            .await?;
        if owners.is_empty() {
            return Ok(Purged::default());
        }
        let mut more = owners.len() >= OWNERS as usize;
        let mut tx = self.begin().await?;
        let mut removed = 0;
        for row in &owners {
            let (rows, all) = owned
                .remove(&mut tx, row.uuid("id")?, BATCH - removed)
                .await?;
            removed += rows;
            if !all {
                more = true;
                break;
            }
        }
        tx.commit().await?;
        let rows = removed.unsigned_abs();
        Ok(Purged { rows, more })
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
