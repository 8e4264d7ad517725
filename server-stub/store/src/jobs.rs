//! Provisioner jobs: the queue, their logs and their results.

use std::collections::BTreeMap;

use adit_rest::{JobType, LogLevel, LogSource, Time, Transition};
use uuid::Uuid;

use crate::builds::build;
use crate::engine::{Cols as _, Row, Store, Tx, json, micros};
use crate::model::{Build, Job, JobLog};
use crate::resources::{insert_preview, insert_resources};
use crate::spec::ResourceSpec;
use crate::{Error, Result};

/// Bytes of output kept of one job; more is dropped and marked.
const MAX_LOG_BYTES: i64 = 1 << 20;

/// A line to append to a job's log.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewJobLog {
    pub created_at: Time,
    pub source: LogSource,
    pub level: LogLevel,
    pub stage: String,
    /// Empty for the line that announces a stage.
    pub output: String,
}

/// What a build made.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct BuildResult {
    pub resources: Vec<ResourceSpec>,
    /// Provisioner state, base64; `None` keeps the old one.
    pub state: Option<String>,
}

pub(crate) fn job(row: &Row) -> Result<Job> {
    Ok(Job {
        id: row.uuid("id")?,
        organization_id: row.uuid("organization_id")?,
        initiator_id: row.uuid("initiator_id")?,
        job_type: row.word("job_type", JobType::parse)?,
        input: row.json("input")?,
        tags: row.json("tags")?,
        file_id: row.uuid("file_id")?,
        worker_id: row.opt_uuid("worker_id")?,
        error: row.text("error")?,
        error_code: row.text("error_code")?,
        logs_overflowed: row.flag("logs_overflowed")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        started_at: row.opt_time("started_at")?,
        canceled_at: row.opt_time("canceled_at")?,
        completed_at: row.opt_time("completed_at")?,
    })
}

fn log(row: &Row) -> Result<JobLog> {
    Ok(JobLog {
        id: row.int("id")?,
        created_at: row.time("created_at")?,
        source: row.word("source", LogSource::parse)?,
        level: row.word("level", LogLevel::parse)?,
        stage: row.text("stage")?,
        output: row.text("output")?,
    })
}

/// Tags of jobs any provisioner of the organization may take.
pub(crate) fn default_tags() -> BTreeMap<String, String> {
    let pairs = [("owner", ""), ("scope", "organization")];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

pub(crate) async fn insert_job(tx: &mut Tx, new: &Job) -> Result<()> {
    let tags = if new.tags.is_empty() {
        json(&default_tags())
    } else {
        json(&new.tags)
    };
    sqlx::query(
        "INSERT INTO provisioner_jobs (id, organization_id, initiator_id, job_type, input, tags,
             file_id, worker_id, error, error_code, logs_length, logs_overflowed, created_at,
             updated_at, started_at, canceled_at, completed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, $11, $11, $12, $13, $14)",
    )
    .bind(new.id.to_string())
    .bind(new.organization_id.to_string())
    .bind(new.initiator_id.to_string())
    .bind(new.job_type.as_str())
    .bind(json(&new.input))
    .bind(tags)
    .bind(new.file_id.to_string())
    .bind(new.worker_id.map(|id| id.to_string()))
    .bind(&new.error)
    .bind(&new.error_code)
    .bind(new.created_at.as_micros())
    .bind(micros(new.started_at))
    .bind(micros(new.canceled_at))
    .bind(micros(new.completed_at))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn open_job(tx: &mut Tx, id: Uuid) -> Result<Job> {
    let row = sqlx::query("SELECT * FROM provisioner_jobs WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    let found = job(&row.ok_or(Error::NotFound)?)?;
    if found.is_done() {
        return Err(Error::Refused("the job has ended"));
    }
    Ok(found)
}

impl Store {
    /// Stores a job that is not a build (dry runs).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_job(&self, new: &Job) -> Result<Job> {
        let mut tx = self.begin().await?;
        insert_job(&mut tx, new).await?;
        tx.commit().await?;
        self.job(new.id).await
    }

    /// One job.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn job(&self, id: Uuid) -> Result<Job> {
        let row = sqlx::query("SELECT * FROM provisioner_jobs WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        job(&row.ok_or(Error::NotFound)?)
    }

    /// Takes the oldest waiting job; it is running from then on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn acquire_job(&self, worker: Uuid) -> Result<Option<Job>> {
        // An empty queue is the rule; looking at it keeps no writer waiting.
        let waiting = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM provisioner_jobs WHERE completed_at IS NULL
                 AND started_at IS NULL AND canceled_at IS NULL) AS waiting",
        )
        .fetch_one(&self.read)
        .await?;
        if !waiting.flag("waiting")? {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let row = sqlx::query(
            "SELECT * FROM provisioner_jobs
             WHERE completed_at IS NULL AND started_at IS NULL AND canceled_at IS NULL
             ORDER BY created_at, id LIMIT 1",
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut taken = job(&row)?;
        let now = Time::now();
        taken.started_at = Some(now);
        taken.worker_id = Some(worker);
        sqlx::query(
            "UPDATE provisioner_jobs SET started_at = $2, updated_at = $2, worker_id = $3
             WHERE id = $1",
        )
        .bind(taken.id.to_string())
        .bind(now.as_micros())
        .bind(worker.to_string())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Some(taken))
    }

    /// Jobs that were running when an earlier process ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unfinished_jobs(&self) -> Result<Vec<Job>> {
        let rows = sqlx::query(
            "SELECT * FROM provisioner_jobs WHERE completed_at IS NULL AND started_at IS NOT NULL",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(job).collect()
    }

    /// Position of a waiting job (1 is next) and length of the queue; zeros for
    /// a job that does not wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_position(&self, of: &Job) -> Result<(i64, i64)> {
        if of.started_at.is_some() || of.is_done() || of.canceled_at.is_some() {
            return Ok((0, 0));
        }
        let row = sqlx::query(
            "SELECT count(*) AS size,
                 coalesce(sum(CASE WHEN created_at <= $1 THEN 1 ELSE 0 END), 0) AS position
             FROM provisioner_jobs
             WHERE completed_at IS NULL AND started_at IS NULL AND canceled_at IS NULL",
        )
        .bind(of.created_at.as_micros())
        .fetch_one(&self.read)
        .await?;
        Ok((row.int("position")?, row.int("size")?))
    }

    /// Appends lines; returns the id of the first one, or `None` if all were
    /// dropped because the log is full.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn append_job_logs(&self, id: Uuid, lines: &[NewJobLog]) -> Result<Option<i64>> {
        let mut tx = self.begin().await?;
        let row =
            sqlx::query("SELECT logs_length, logs_overflowed FROM provisioner_jobs WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or(Error::NotFound)?;
        let added: i64 = lines.iter().map(|line| line.output.len() as i64).sum();
        let length = row.int("logs_length")? + added;
        if row.flag("logs_overflowed")? || length > MAX_LOG_BYTES {
            sqlx::query("UPDATE provisioner_jobs SET logs_overflowed = 1 WHERE id = $1")
                .bind(id.to_string())
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            return Ok(None);
        }
        let mut first = None;
        for line in lines {
            let row = sqlx::query(
                "INSERT INTO provisioner_job_logs
                     (job_id, created_at, source, level, stage, output)
                 VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            )
            .bind(id.to_string())
            .bind(line.created_at.as_micros())
            .bind(line.source.as_str())
            .bind(line.level.as_str())
            .bind(&line.stage)
            .bind(&line.output)
            .fetch_one(&mut *tx)
            .await?;
            first = first.or(Some(row.int("id")?));
        }
        sqlx::query("UPDATE provisioner_jobs SET logs_length = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(length)
            .bind(Time::now().as_micros())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(first)
    }

    /// Lines with `after < id` and, if given, `id < before`; oldest first, at
    /// most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_logs(
        &self,
        id: Uuid,
        after: i64,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<JobLog>> {
        let rows = sqlx::query(
            "SELECT * FROM provisioner_job_logs WHERE job_id = $1 AND id > $2 AND id < $3
             ORDER BY id LIMIT $4",
        )
        .bind(id.to_string())
        .bind(after)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(log).collect()
    }

    /// Ends a build's job with success: stores what it made, retires agents of
    /// earlier builds, sets the autostop, and marks the workspace as deleted
    /// after a delete. [`Error::Refused`] if the job has ended.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn complete_build(&self, id: Uuid, result: &BuildResult) -> Result<Build> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        let open = open_job(&mut tx, id).await?;
        let row = sqlx::query("SELECT * FROM workspace_builds WHERE job_id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *tx)
            .await?;
        let done = build(&row.ok_or(Error::NotFound)?)?;
        if done.transition != Transition::Stop {
            sqlx::query(
                "UPDATE agents SET deleted = 1 WHERE deleted = 0 AND resource_id IN (
                     SELECT r.id FROM resources r JOIN workspace_builds b ON b.job_id = r.job_id
                     WHERE b.workspace_id = $1 AND b.build_number < $2)",
            )
            .bind(done.workspace_id.to_string())
            .bind(done.build_number)
            .execute(&mut *tx)
            .await?;
        }
        insert_resources(&mut tx, open.id, done.transition, &result.resources, now).await?;
        let cost: i64 = result.resources.iter().map(|item| item.daily_cost).sum();
        sqlx::query(
            "UPDATE workspace_builds SET updated_at = $2, daily_cost = $3,
                 provisioner_state = coalesce($4, provisioner_state),
                 deadline = CASE WHEN transition = 'start' THEN (
                     SELECT $2 + ttl_ms * 1000 FROM workspaces w
                     WHERE w.id = workspace_id AND ttl_ms > 0 AND owner_id <> $5)
                     ELSE NULL END
             WHERE id = $1",
        )
        .bind(done.id.to_string())
        .bind(now.as_micros())
        .bind(cost)
        .bind(&result.state)
        .bind(crate::model::PREBUILDS_USER.to_string())
        .execute(&mut *tx)
        .await?;
        if done.transition == Transition::Delete {
            sqlx::query("UPDATE workspaces SET deleted = 1, updated_at = $2 WHERE id = $1")
                .bind(done.workspace_id.to_string())
                .bind(now.as_micros())
                .execute(&mut *tx)
                .await?;
        }
        end(&mut tx, id, "", "", now).await?;
        tx.commit().await?;
        self.build(done.id).await
    }

    /// Ends a job that makes nothing persistent (a dry run) with success.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended, or when the database fails.
    pub async fn complete_job(&self, id: Uuid, resources: &[ResourceSpec]) -> Result<()> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        open_job(&mut tx, id).await?;
        insert_preview(&mut tx, id, Transition::Start, resources, now).await?;
        end(&mut tx, id, "", "", now).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Ends a job with an error. `state` replaces the provisioner state of its
    /// build, if it has one.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended, or when the database fails.
    pub async fn fail_job(
        &self,
        id: Uuid,
        error: &str,
        code: &str,
        state: Option<&str>,
    ) -> Result<()> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        open_job(&mut tx, id).await?;
        end(&mut tx, id, error, code, now).await?;
        sqlx::query(
            "UPDATE workspace_builds SET updated_at = $2,
                 provisioner_state = coalesce($3, provisioner_state) WHERE job_id = $1",
        )
        .bind(id.to_string())
        .bind(now.as_micros())
        .bind(state)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Asks for the end of a job. A waiting job ends at once; says whether it
    /// did.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended or is being cancelled, or when the
    /// database fails.
    pub async fn cancel_job(&self, id: Uuid) -> Result<bool> {
        let now = Time::now().as_micros();
        let mut tx = self.begin().await?;
        let open = open_job(&mut tx, id).await?;
        if open.canceled_at.is_some() {
            return Err(Error::Refused("the job is being cancelled"));
        }
        let waiting = open.started_at.is_none();
        sqlx::query(
            "UPDATE provisioner_jobs SET canceled_at = $2, updated_at = $2, completed_at = $3
             WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(now)
        .bind(waiting.then_some(now))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(waiting)
    }
}

async fn end(tx: &mut Tx, id: Uuid, error: &str, code: &str, now: Time) -> Result<()> {
    sqlx::query(
        "UPDATE provisioner_jobs SET completed_at = $2, updated_at = $2, error = $3,
             error_code = $4 WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(now.as_micros())
    .bind(error)
    .bind(code)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
