//! Builds of workspaces.

use adit_rest::{BuildParameter, BuildReason, JobType, Time, Transition};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, Tx, json, micros};
use crate::jobs::{default_tags, insert_job, job};
use crate::model::{Build, Job, JobInput, PrebuildStage, Workspace};
use crate::users::MAX_PAGE;
use crate::workspaces::workspace_in;
use crate::{Error, Result};

/// What a new build needs.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewBuild {
    pub workspace_id: Uuid,
    pub template_version_id: Uuid,
    pub transition: Transition,
    pub initiator_id: Uuid,
    pub reason: BuildReason,
    /// All parameter values of the build.
    pub parameters: Vec<BuildParameter>,
    pub preset_id: Option<Uuid>,
    pub stage: PrebuildStage,
    /// With delete: forget the resources.
    pub orphan: bool,
    /// `debug` or empty.
    pub log_level: String,
    /// Provisioner state to start from (base64); `None` keeps that of the last
    /// build.
    pub state: Option<String>,
    /// Autostop of a start build.
    pub deadline: Option<Time>,
}

impl Default for NewBuild {
    fn default() -> Self {
        Self {
            workspace_id: Uuid::nil(),
            template_version_id: Uuid::nil(),
            transition: Transition::Start,
            initiator_id: Uuid::nil(),
            reason: BuildReason::Initiator,
            parameters: Vec::new(),
            preset_id: None,
            stage: PrebuildStage::None,
            orphan: false,
            log_level: String::new(),
            state: None,
            deadline: None,
        }
    }
}

pub(crate) fn build(row: &Row) -> Result<Build> {
    Ok(Build {
        id: row.uuid("id")?,
        workspace_id: row.uuid("workspace_id")?,
        build_number: row.int("build_number")?,
        template_version_id: row.uuid("template_version_id")?,
        transition: row.word("transition", Transition::parse)?,
        initiator_id: row.uuid("initiator_id")?,
        job_id: row.uuid("job_id")?,
        reason: row.word("reason", BuildReason::parse)?,
        deadline: row.opt_time("deadline")?,
        max_deadline: row.opt_time("max_deadline")?,
        preset_id: row.opt_uuid("preset_id")?,
        daily_cost: row.int("daily_cost")?,
        parameters: row.json("parameters")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(crate) async fn latest_in(tx: &mut Tx, workspace: Uuid) -> Result<Option<(Build, String)>> {
    let row = sqlx::query(
        "SELECT * FROM workspace_builds WHERE workspace_id = $1
         ORDER BY build_number DESC LIMIT 1",
    )
    .bind(workspace.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    row.map(|row| Ok((build(&row)?, row.text("provisioner_state")?)))
        .transpose()
}

/// Queues a build; the workspace's last one must have ended.
pub(crate) async fn insert_build(
    tx: &mut Tx,
    workspace: &Workspace,
    new: &NewBuild,
    now: Time,
) -> Result<(Build, Job)> {
    let last = latest_in(tx, workspace.id).await?;
    if let Some((last, _)) = &last {
        let row = sqlx::query("SELECT * FROM provisioner_jobs WHERE id = $1")
            .bind(last.job_id.to_string())
            .fetch_one(&mut **tx)
            .await?;
        if !job(&row)?.is_done() {
            return Err(Error::BuildActive);
        }
    }
    let (number, old_state) = last.map_or((1, String::new()), |(last, state)| {
        (last.build_number + 1, state)
    });
    let made = Build {
        id: Uuid::new_v4(),
        workspace_id: workspace.id,
        build_number: number,
        template_version_id: new.template_version_id,
        transition: new.transition,
        initiator_id: new.initiator_id,
        job_id: Uuid::new_v4(),
        reason: new.reason,
        deadline: new.deadline,
        preset_id: new.preset_id,
        parameters: new.parameters.clone(),
        created_at: now,
        updated_at: now,
        ..Build::default()
    };
    let file = sqlx::query(
        "SELECT j.file_id FROM template_versions v JOIN provisioner_jobs j ON j.id = v.job_id
         WHERE v.id = $1",
    )
    .bind(new.template_version_id.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let queued = Job {
        id: made.job_id,
        organization_id: workspace.organization_id,
        initiator_id: new.initiator_id,
        job_type: JobType::WorkspaceBuild,
        input: JobInput {
            workspace_build_id: Some(made.id),
            prebuilt_workspace_stage: match new.stage {
                PrebuildStage::None => 0,
                PrebuildStage::Create => 1,
                PrebuildStage::Claim => 2,
            },
            orphan: new.orphan,
            log_level: new.log_level.clone(),
            ..JobInput::default()
        },
        file_id: file
            .map(|row| row.uuid("file_id"))
            .transpose()?
            .unwrap_or_default(),
        tags: default_tags(),
        created_at: now,
        ..Job::default()
    };
    insert_job(tx, &queued).await?;
    sqlx::query(
        "INSERT INTO workspace_builds (id, workspace_id, build_number, template_version_id,
             transition, initiator_id, job_id, reason, deadline, max_deadline, preset_id,
             daily_cost, provisioner_state, parameters, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, $10, 0, $11, $12, $13, $13)",
    )
    .bind(made.id.to_string())
    .bind(made.workspace_id.to_string())
    .bind(made.build_number)
    .bind(made.template_version_id.to_string())
    .bind(made.transition.as_str())
    .bind(made.initiator_id.to_string())
    .bind(made.job_id.to_string())
    .bind(made.reason.as_str())
    .bind(micros(made.deadline))
    .bind(made.preset_id.map(|id| id.to_string()))
    .bind(new.state.as_ref().unwrap_or(&old_state))
    .bind(json(&made.parameters))
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::unique(error, "build"))?;
    Ok((made, queued))
}

impl Store {
    /// Queues a build of an existing workspace.
    ///
    /// # Errors
    /// [`Error::BuildActive`] while another one runs,
    /// [`Error::WorkspaceDeleted`], [`Error::NotFound`], or when the database
    /// fails.
    pub async fn create_build(&self, new: &NewBuild) -> Result<(Build, Job)> {
        let mut tx = self.begin().await?;
        let workspace = workspace_in(&mut tx, new.workspace_id).await?;
        if workspace.deleted {
            return Err(Error::WorkspaceDeleted);
        }
        let made = insert_build(&mut tx, &workspace, new, Time::now()).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// One build.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn build(&self, id: Uuid) -> Result<Build> {
        let row = sqlx::query("SELECT * FROM workspace_builds WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        build(&row.ok_or(Error::NotFound)?)
    }

    /// The build a job carries out.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn build_by_job(&self, job: Uuid) -> Result<Build> {
        let row = sqlx::query("SELECT * FROM workspace_builds WHERE job_id = $1")
            .bind(job.to_string())
            .fetch_optional(&self.read)
            .await?;
        build(&row.ok_or(Error::NotFound)?)
    }

    /// A build by its number.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn build_by_number(&self, workspace: Uuid, number: i64) -> Result<Build> {
        let row = sqlx::query(
            "SELECT * FROM workspace_builds WHERE workspace_id = $1 AND build_number = $2",
        )
        .bind(workspace.to_string())
        .bind(number)
        .fetch_optional(&self.read)
        .await?;
        build(&row.ok_or(Error::NotFound)?)
    }

    /// The newest build of a workspace.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn latest_build(&self, workspace: Uuid) -> Result<Build> {
        let row = sqlx::query(
            "SELECT * FROM workspace_builds WHERE workspace_id = $1
             ORDER BY build_number DESC LIMIT 1",
        )
        .bind(workspace.to_string())
        .fetch_optional(&self.read)
        .await?;
        build(&row.ok_or(Error::NotFound)?)
    }

    /// Builds of a workspace, newest first: those older than `after` and
    /// created later than `since`, at most `limit` of them after the first
    /// `offset`. A limit of 0 is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn builds(
        &self,
        workspace: Uuid,
        after: Option<Uuid>,
        since: Option<Time>,
        (offset, limit): (i64, i64),
    ) -> Result<Vec<Build>> {
        let rows = sqlx::query(
            "SELECT * FROM workspace_builds
             WHERE workspace_id = $1 AND created_at > $2 AND build_number < coalesce((
                 SELECT build_number FROM workspace_builds WHERE id = $3 AND workspace_id = $1),
                 $4)
             ORDER BY build_number DESC LIMIT $5 OFFSET $6",
        )
        .bind(workspace.to_string())
        .bind(since.map_or(i64::MIN, Time::as_micros))
        .bind(after.unwrap_or_default().to_string())
        .bind(i64::MAX)
        .bind(if limit > 0 { limit } else { MAX_PAGE })
        .bind(offset)
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(build).collect()
    }

    /// Provisioner state after a build, base64.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn build_state(&self, id: Uuid) -> Result<String> {
        let row = sqlx::query("SELECT provisioner_state FROM workspace_builds WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        row.ok_or(Error::NotFound)?.text("provisioner_state")
    }

    /// Replaces the provisioner state of a build, base64.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_build_state(&self, id: Uuid, state: &str) -> Result<()> {
        sqlx::query("UPDATE workspace_builds SET provisioner_state = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(state)
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Moves the autostop of a build.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_deadline(&self, id: Uuid, deadline: Option<Time>) -> Result<()> {
        sqlx::query("UPDATE workspace_builds SET deadline = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(micros(deadline))
            .bind(Time::now().as_micros())
            .execute(self.writer())
            .await?;
        Ok(())
    }
}
