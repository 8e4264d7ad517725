//! What agents report: metadata, script runs, statistics, connections, task
//! states and context.

use adit_rest::{AppState, ScriptStatus, Time};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, micros};
use crate::model::{AgentStats, AppStatusRow, Metadata, ScriptTiming};
use crate::{Error, Result};

/// A new value of a metadata item.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct MetadataValue {
    pub key: String,
    pub value: String,
    pub error: String,
}

/// Begin or end of a session in a workspace.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct ConnectionReport {
    pub connection_id: Uuid,
    pub agent_id: Uuid,
    /// `ssh`, `vscode`, `jetbrains` or `reconnecting_pty`.
    pub kind: String,
    pub ip: String,
    pub connected_at: Option<Time>,
    pub disconnected_at: Option<Time>,
    pub status_code: Option<i64>,
    pub reason: String,
}

fn metadata(row: &Row) -> Result<Metadata> {
    Ok(Metadata {
        agent_id: row.uuid("agent_id")?,
        key: row.text("key")?,
        display_name: row.text("display_name")?,
        script: row.text("script")?,
        interval_seconds: row.int("interval_seconds")?,
        timeout_seconds: row.int("timeout_seconds")?,
        value: row.text("value")?,
        error: row.text("error")?,
        collected_at: row.time("collected_at")?,
    })
}

fn app_status(row: &Row) -> Result<AppStatusRow> {
    Ok(AppStatusRow {
        id: row.uuid("id")?,
        workspace_id: row.uuid("workspace_id")?,
        agent_id: row.uuid("agent_id")?,
        app_id: row.uuid("app_id")?,
        state: row.word("state", AppState::parse)?,
        message: row.text("message")?,
        uri: row.text("uri")?,
        created_at: row.time("created_at")?,
    })
}

impl Store {
    /// Metadata items of an agent in display order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn metadata(&self, agent: Uuid) -> Result<Vec<Metadata>> {
        let rows =
            sqlx::query("SELECT * FROM agent_metadata WHERE agent_id = $1 ORDER BY position, key")
                .bind(agent.to_string())
                .fetch_all(&self.read)
                .await?;
        rows.iter().map(metadata).collect()
    }

    /// Stores new values; unknown keys are ignored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_metadata(
        &self,
        agent: Uuid,
        values: &[MetadataValue],
        now: Time,
    ) -> Result<()> {
        let mut tx = self.begin().await?;
        for item in values {
            sqlx::query(
                "UPDATE agent_metadata SET value = $3, error = $4, collected_at = $5
                 WHERE agent_id = $1 AND key = $2",
            )
            .bind(agent.to_string())
            .bind(&item.key)
            .bind(&item.value)
            .bind(&item.error)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Stores one run of a script of this agent.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a script of another agent, [`Error::Taken`] for
    /// a run already stored, or when the database fails.
    pub async fn insert_script_timing(&self, agent: Uuid, timing: &ScriptTiming) -> Result<()> {
        let done = sqlx::query(
            "INSERT INTO agent_script_timings
                 (script_id, started_at, ended_at, exit_code, stage, status)
             SELECT id, $3, $4, $5, $6, $7 FROM agent_scripts WHERE id = $2 AND agent_id = $1",
        )
        .bind(agent.to_string())
        .bind(timing.script_id.to_string())
        .bind(timing.started_at.as_micros())
        .bind(timing.ended_at.as_micros())
        .bind(timing.exit_code)
        .bind(&timing.stage)
        .bind(timing.status.as_str())
        .execute(self.writer())
        .await
        .map_err(|error| Error::unique(error, "script run"))?;
        if done.rows_affected() == 0 {
            return Err(Error::NotFound);
        }
        Ok(())
    }

    /// Runs of an agent's scripts with the scripts' names, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn script_timings(&self, agent: Uuid) -> Result<Vec<(String, ScriptTiming)>> {
        let rows = sqlx::query(
            "SELECT t.*, s.display_name FROM agent_script_timings t
             JOIN agent_scripts s ON s.id = t.script_id
             WHERE s.agent_id = $1 ORDER BY t.started_at",
        )
        .bind(agent.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let timing = ScriptTiming {
                    script_id: row.uuid("script_id")?,
                    started_at: row.time("started_at")?,
                    ended_at: row.time("ended_at")?,
                    exit_code: row.int("exit_code")?,
                    stage: row.text("stage")?,
                    status: row.word("status", ScriptStatus::parse)?,
                };
                Ok((row.text("display_name")?, timing))
            })
            .collect()
    }

    /// Stores a traffic report and drops those of the agent older than a day.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_stats(&self, stats: &AgentStats) -> Result<()> {
        const DAY: i64 = 86_400_000_000;
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO agent_stats (agent_id, workspace_id, user_id, created_at,
                 connection_count, rx_packets, rx_bytes, tx_packets, tx_bytes, sessions_vscode,
                 sessions_jetbrains, sessions_pty, sessions_ssh, latency_us)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(stats.agent_id.to_string())
        .bind(stats.workspace_id.to_string())
        .bind(stats.user_id.to_string())
        .bind(stats.created_at.as_micros())
        .bind(stats.connection_count)
        .bind(stats.rx_packets)
        .bind(stats.rx_bytes)
        .bind(stats.tx_packets)
        .bind(stats.tx_bytes)
        .bind(stats.sessions_vscode)
        .bind(stats.sessions_jetbrains)
        .bind(stats.sessions_pty)
        .bind(stats.sessions_ssh)
        .bind(stats.latency_us)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM agent_stats WHERE agent_id = $1 AND created_at < $2")
            .bind(stats.agent_id.to_string())
            .bind(stats.created_at.as_micros() - DAY)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The newest traffic report of an agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_stats(&self, agent: Uuid) -> Result<Option<AgentStats>> {
        let row = sqlx::query(
            "SELECT * FROM agent_stats WHERE agent_id = $1 ORDER BY created_at DESC LIMIT 1",
        )
        .bind(agent.to_string())
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| {
            Ok(AgentStats {
                agent_id: row.uuid("agent_id")?,
                workspace_id: row.uuid("workspace_id")?,
                user_id: row.uuid("user_id")?,
                created_at: row.time("created_at")?,
                connection_count: row.int("connection_count")?,
                rx_packets: row.int("rx_packets")?,
                rx_bytes: row.int("rx_bytes")?,
                tx_packets: row.int("tx_packets")?,
                tx_bytes: row.int("tx_bytes")?,
                sessions_vscode: row.int("sessions_vscode")?,
                sessions_jetbrains: row.int("sessions_jetbrains")?,
                sessions_pty: row.int("sessions_pty")?,
                sessions_ssh: row.int("sessions_ssh")?,
                latency_us: row.int("latency_us")?,
            })
        })
        .transpose()
    }

    /// Stores begin or end of a session; the two meet by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn report_connection(&self, report: &ConnectionReport) -> Result<()> {
        sqlx::query(
            "INSERT INTO connection_logs (connection_id, agent_id, kind, ip, connected_at,
                 disconnected_at, status_code, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (connection_id, agent_id) DO UPDATE SET
                 connected_at = coalesce(excluded.connected_at, connection_logs.connected_at),
                 disconnected_at = coalesce(excluded.disconnected_at,
                     connection_logs.disconnected_at),
                 status_code = coalesce(excluded.status_code, connection_logs.status_code),
                 reason = CASE WHEN excluded.reason <> '' THEN excluded.reason
                     ELSE connection_logs.reason END",
        )
        .bind(report.connection_id.to_string())
        .bind(report.agent_id.to_string())
        .bind(&report.kind)
        .bind(&report.ip)
        .bind(micros(report.connected_at))
        .bind(micros(report.disconnected_at))
        .bind(report.status_code)
        .bind(&report.reason)
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Stores a task's report.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_app_status(&self, status: &AppStatusRow) -> Result<()> {
        sqlx::query(
            "INSERT INTO app_statuses (id, workspace_id, agent_id, app_id, state, message, uri,
                 created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(status.id.to_string())
        .bind(status.workspace_id.to_string())
        .bind(status.agent_id.to_string())
        .bind(status.app_id.to_string())
        .bind(status.state.as_str())
        .bind(&status.message)
        .bind(&status.uri)
        .bind(status.created_at.as_micros())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Reports about an app, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn app_statuses(&self, app: Uuid) -> Result<Vec<AppStatusRow>> {
        let rows = sqlx::query(
            "SELECT * FROM app_statuses WHERE app_id = $1 ORDER BY created_at DESC LIMIT 20",
        )
        .bind(app.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(app_status).collect()
    }

    /// Newest report about any app of an agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_app_status(&self, workspace: Uuid) -> Result<Option<AppStatusRow>> {
        let row = sqlx::query(
            "SELECT * FROM app_statuses WHERE workspace_id = $1
             ORDER BY created_at DESC LIMIT 1",
        )
        .bind(workspace.to_string())
        .fetch_optional(&self.read)
        .await?;
        row.map(|row| app_status(&row)).transpose()
    }

    /// Stores an agent's context snapshot if it is the first of a connection
    /// (`initial`) or newer than the stored one; says whether it was stored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_agent_context(
        &self,
        agent: Uuid,
        version: i64,
        initial: bool,
        snapshot: &str,
    ) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO agent_context (agent_id, version, snapshot, received_at)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (agent_id) DO UPDATE SET version = excluded.version,
                 snapshot = excluded.snapshot, received_at = excluded.received_at
             WHERE $5 = 1 OR excluded.version > agent_context.version",
        )
        .bind(agent.to_string())
        .bind(version)
        .bind(snapshot)
        .bind(Time::now().as_micros())
        .bind(i64::from(initial))
        .execute(self.writer())
        .await?;
        Ok(done.rows_affected() > 0)
    }
}
