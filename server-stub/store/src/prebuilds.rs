//! Workspaces built ahead of time.

use adit_rest::{JobStatus, LifecycleState, Time, Transition};
use uuid::Uuid;

use crate::engine::{Store, Tx, micros};
use crate::model::{Build, Job, PREBUILDS_USER, Preset, Template, Workspace};
use crate::workspaces::{NewWorkspace, workspace, workspace_in};
use crate::{Error, Result};

/// Hands a ready prebuilt workspace of a preset to its new owner. The caller
/// holds the only write transaction, so no second claim sees the same row.
pub(crate) async fn claim(
    tx: &mut Tx,
    new: &NewWorkspace,
    preset: Uuid,
    now: Time,
) -> Result<Option<Workspace>> {
    let row = sqlx::query(
        "SELECT w.* FROM workspaces w
         JOIN templates t ON t.id = w.template_id
         JOIN workspace_builds b ON b.workspace_id = w.id AND b.build_number = (
             SELECT max(build_number) FROM workspace_builds WHERE workspace_id = w.id)
         JOIN provisioner_jobs j ON j.id = b.job_id
         WHERE w.owner_id = $1 AND w.deleted = 0 AND t.deleted = 0 AND w.template_id = $2
           AND b.transition = 'start' AND b.preset_id = $3
           AND b.template_version_id = t.active_version_id
           AND j.completed_at IS NOT NULL AND j.error = '' AND j.canceled_at IS NULL
           AND EXISTS (SELECT 1 FROM agents a JOIN resources r ON r.id = a.resource_id
               WHERE r.job_id = j.id AND a.deleted = 0 AND a.parent_id IS NULL)
           AND NOT EXISTS (SELECT 1 FROM agents a JOIN resources r ON r.id = a.resource_id
               WHERE r.job_id = j.id AND a.deleted = 0 AND a.parent_id IS NULL
                 AND a.lifecycle_state <> 'ready')
         ORDER BY w.created_at LIMIT 1",
    )
    .bind(PREBUILDS_USER.to_string())
    .bind(new.template_id.to_string())
    .bind(preset.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let id = workspace(&row)?.id;
    sqlx::query(
        "UPDATE workspaces SET owner_id = $2, name = $3, updated_at = $4, last_used_at = $4,
             autostart_schedule = $5, next_start_at = $6, ttl_ms = $7,
             dormant_at = NULL, deleting_at = NULL
         WHERE id = $1 AND owner_id = $8",
    )
    .bind(id.to_string())
    .bind(new.owner_id.to_string())
    .bind(&new.name)
    .bind(now.as_micros())
    .bind(&new.autostart_schedule)
    .bind(micros(new.next_start_at))
    .bind(new.ttl_ms)
    .bind(PREBUILDS_USER.to_string())
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::unique(error, "workspace"))?;
    workspace_in(tx, id).await.map(Some)
}

/// An unclaimed workspace with the state of its newest build.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Prebuild {
    pub workspace: Workspace,
    pub build: Build,
    pub job: Job,
    /// Its build succeeded and all its agents are ready.
    pub ready: bool,
}

impl Prebuild {
    /// Whether it counts towards the wanted number: running or on its way.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.build.transition == Transition::Start
            && matches!(
                self.job.status(),
                JobStatus::Pending | JobStatus::Running | JobStatus::Succeeded
            )
    }
}

impl Store {
    /// Presets of active versions that want workspaces kept ready.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prebuild_presets(&self) -> Result<Vec<(Template, Preset)>> {
        let mut found = Vec::new();
        for template in self.templates().await? {
            for preset in self.presets(template.active_version_id).await? {
                if preset.desired_instances.is_some() {
                    found.push((template.clone(), preset));
                }
            }
        }
        Ok(found)
    }

    /// All unclaimed workspaces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prebuilds(&self) -> Result<Vec<Prebuild>> {
        let mut found = Vec::new();
        for workspace in self.workspaces(Some(PREBUILDS_USER)).await? {
            let build = self.latest_build(workspace.id).await?;
            let job = self.job(build.job_id).await?;
            let agents = self.agents_of_job(job.id).await?;
            let mut own = agents
                .iter()
                .filter(|agent| agent.parent_id.is_none())
                .peekable();
            let ready = job.status() == JobStatus::Succeeded
                && build.transition == Transition::Start
                && own.peek().is_some()
                && own.all(|agent| agent.lifecycle_state == LifecycleState::Ready);
            found.push(Prebuild {
                workspace,
                build,
                job,
                ready,
            });
        }
        Ok(found)
    }
}
