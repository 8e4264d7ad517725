//! Log lines of agents.

use adit_rest::{LogLevel, Time};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store};
use crate::model::AgentLog;
use crate::{Error, Result};

/// Bytes of output kept of one agent.
const MAX_BYTES: i64 = 1 << 20;
/// Characters kept of one line.
const MAX_LINE: usize = 1024;

/// A line to append to an agent's log.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewAgentLog {
    pub level: LogLevel,
    pub output: String,
}

/// What became of appended lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogsOutcome {
    /// Stored; `first` is the id of the first line, `was_empty` says that the
    /// agent had none before.
    Stored {
        /// Id of the first new line.
        first: i64,
        /// The agent had no lines before.
        was_empty: bool,
    },
    /// There was nothing to store.
    Nothing,
    /// The log is full; the whole batch was dropped.
    Overflowed,
}

fn log(row: &Row) -> Result<AgentLog> {
    Ok(AgentLog {
        id: row.int("id")?,
        created_at: row.time("created_at")?,
        level: row.word("level", LogLevel::parse)?,
        output: row.text("output")?,
        log_source_id: row.uuid("log_source_id")?,
    })
}

fn cut(output: &str) -> &str {
    match output.char_indices().nth(MAX_LINE) {
        Some((end, _)) => output.get(..end).unwrap_or(output),
        None => output,
    }
}

impl Store {
    /// Appends a batch of lines of one source, all or nothing. Lines are cut at
    /// 1024 characters; the full length counts towards the agent's limit.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an agent that is gone, or when the database
    /// fails.
    pub async fn append_agent_logs(
        &self,
        agent: Uuid,
        source: Uuid,
        lines: &[NewAgentLog],
    ) -> Result<LogsOutcome> {
        let now = Time::now().as_micros();
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "SELECT logs_length, logs_overflowed FROM agents WHERE id = $1 AND deleted = 0",
        )
        .bind(agent.to_string())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::NotFound)?;
        if row.flag("logs_overflowed")? {
            return Ok(LogsOutcome::Overflowed);
        }
        if lines.is_empty() {
            return Ok(LogsOutcome::Nothing);
        }
        let before = row.int("logs_length")?;
        let added: i64 = lines.iter().map(|line| line.output.len() as i64).sum();
        if before + added > MAX_BYTES {
            sqlx::query("UPDATE agents SET logs_overflowed = 1 WHERE id = $1")
                .bind(agent.to_string())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            return Ok(LogsOutcome::Overflowed);
        }
        let mut first = 0;
        for line in lines {
            let row = sqlx::query(
                "INSERT INTO agent_logs (agent_id, log_source_id, created_at, level, output)
                 VALUES ($1, $2, $3, $4, $5) RETURNING id",
            )
            .bind(agent.to_string())
            .bind(source.to_string())
            .bind(now)
            .bind(line.level.as_str())
            .bind(cut(&line.output))
            .fetch_one(&mut *tx)
            .await?;
            if first == 0 {
                first = row.int("id")?;
            }
        }
        sqlx::query("UPDATE agents SET logs_length = $2 WHERE id = $1")
            .bind(agent.to_string())
            .bind(before + added)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(LogsOutcome::Stored {
            first,
            was_empty: before == 0,
        })
    }

    /// Lines with `after < id` and, if given, `id < before`; oldest first, at
    /// most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_logs(
        &self,
        agent: Uuid,
        after: i64,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<AgentLog>> {
        let rows = sqlx::query(
            "SELECT * FROM agent_logs WHERE agent_id = $1 AND id > $2 AND id < $3
             ORDER BY id LIMIT $4",
        )
        .bind(agent.to_string())
        .bind(after)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(log).collect()
    }

    /// Adds a log source; says whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_log_source(
        &self,
        agent: Uuid,
        id: Uuid,
        display_name: &str,
        icon: &str,
    ) -> Result<bool> {
        let done = sqlx::query(
            "INSERT INTO agent_log_sources (agent_id, id, display_name, icon, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(agent.to_string())
        .bind(id.to_string())
        .bind(display_name)
        .bind(icon)
        .bind(Time::now().as_micros())
        .execute(self.writer())
        .await?;
        Ok(done.rows_affected() > 0)
    }
}
