//! Workspaces, builds and jobs.

use adit_rest::{self as rest, JobStatus, Time, WorkspaceStatus};
use adit_store::model::{Build, Job, JobLog, User, Workspace};
use uuid::Uuid;

use super::agent::{Names, app_status, resources};
use crate::app::App;
use crate::error::ApiResult;

/// A workspace with its newest build, as `viewer` sees it.
pub(crate) async fn workspace(
    app: &App,
    viewer: Uuid,
    row: &Workspace,
) -> ApiResult<rest::Workspace> {
    let latest = app.store.latest_build(row.id).await?;
    let favorite = app.store.favorites(viewer).await?.contains(&row.id);
    workspace_with(app, row, &latest, favorite).await
}

async fn workspace_with(
    app: &App,
    row: &Workspace,
    latest: &Build,
    favorite: bool,
) -> ApiResult<rest::Workspace> {
    let owner = app.store.user(row.owner_id).await?;
    let template = app.store.template(row.template_id).await?;
    let organization = app.store.organization(row.organization_id).await?;
    let latest_build = build_of(app, latest, row, &owner).await?;
    let failing: Vec<Uuid> = latest_build
        .resources
        .iter()
        .flat_map(|resource| &resource.agents)
        .filter(|agent| agent.parent_id.is_none() && !agent.health.healthy)
        .map(|agent| agent.id)
        .collect();
    let status = app.store.latest_app_status(row.id).await?;
    Ok(rest::Workspace {
        id: row.id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        owner_id: row.owner_id,
        owner_name: owner.username,
        owner_avatar_url: owner.avatar_url,
        organization_id: row.organization_id,
        organization_name: organization.name,
        template_id: row.template_id,
        template_name: template.name,
        template_display_name: template.options.display_name,
        template_icon: template.options.icon,
        template_allow_user_cancel_workspace_jobs: template
            .options
            .allow_user_cancel_workspace_jobs,
        template_active_version_id: template.active_version_id,
        template_require_active_version: template.options.require_active_version,
        template_use_classic_parameter_flow: template.options.use_classic_parameter_flow,
        outdated: latest.template_version_id != template.active_version_id,
        latest_build,
        latest_app_status: status.map(app_status),
        name: row.name.clone(),
        autostart_schedule: row.autostart_schedule.clone(),
        ttl_ms: row.ttl_ms.filter(|ttl| *ttl > 0),
        last_used_at: row.last_used_at,
        deleting_at: row.deleting_at,
        dormant_at: row.dormant_at,
        health: rest::WorkspaceHealth {
            healthy: failing.is_empty(),
            failing_agents: failing,
        },
        automatic_updates: row.automatic_updates,
        allow_renames: app.config.allow_workspace_renames,
        favorite,
        next_start_at: row.next_start_at,
        is_prebuild: row.is_prebuild(),
        task_id: None,
    })
}

/// A build of a workspace.
pub(crate) async fn build(
    app: &App,
    row: &Build,
    workspace: &Workspace,
) -> ApiResult<rest::WorkspaceBuild> {
    let owner = app.store.user(workspace.owner_id).await?;
    build_of(app, row, workspace, &owner).await
}

async fn build_of(
    app: &App,
    row: &Build,
    workspace: &Workspace,
    owner: &User,
) -> ApiResult<rest::WorkspaceBuild> {
    let stored = app.store.job(row.job_id).await?;
    let status = stored.status();
    let names = Names {
        workspace: &workspace.name,
        owner: &owner.username,
    };
    let made = if status == JobStatus::Succeeded {
        resources(app, stored.id, Some(names)).await?
    } else {
        Vec::new()
    };
    let known = (status == JobStatus::Succeeded).then_some(false);
    let initiator = if row.initiator_id == owner.id {
        owner.username.clone()
    } else {
        app.store.user(row.initiator_id).await?.username
    };
    Ok(rest::WorkspaceBuild {
        id: row.id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        workspace_id: workspace.id,
        workspace_name: workspace.name.clone(),
        workspace_owner_id: owner.id,
        workspace_owner_name: owner.username.clone(),
        workspace_owner_avatar_url: owner.avatar_url.clone(),
        template_version_id: row.template_version_id,
        template_version_name: app.store.version_name(row.template_version_id).await?,
        build_number: row.build_number,
        transition: row.transition,
        initiator_id: row.initiator_id,
        initiator_name: initiator,
        job: job(app, &stored).await?,
        reason: row.reason,
        resources: made,
        deadline: row.deadline,
        max_deadline: row.max_deadline,
        status: WorkspaceStatus::derive(status, row.transition),
        daily_cost: row.daily_cost,
        matched_provisioners: Some(rest::MatchedProvisioners::default()),
        template_version_preset_id: row.preset_id,
        has_ai_task: known,
        has_external_agent: known,
    })
}

/// The provisioners a new job finds.
pub(crate) fn matched() -> rest::MatchedProvisioners {
    rest::MatchedProvisioners {
        count: 1,
        available: 1,
        most_recently_seen: Some(Time::now()),
    }
}

/// A job with its place in the queue.
pub(crate) async fn job(app: &App, row: &Job) -> ApiResult<rest::ProvisionerJob> {
    let (queue_position, queue_size) = app.store.queue_position(row).await?;
    Ok(rest::ProvisionerJob {
        id: row.id,
        created_at: row.created_at,
        started_at: row.started_at,
        completed_at: row.completed_at,
        canceled_at: row.canceled_at,
        error: row.error.clone(),
        error_code: row.error_code.clone(),
        status: row.status(),
        worker_id: row.worker_id,
        worker_name: String::new(),
        file_id: row.file_id,
        tags: row.tags.clone(),
        queue_position,
        queue_size,
        organization_id: row.organization_id,
        initiator_id: row.initiator_id,
        input: rest::ProvisionerJobInput {
            template_version_id: row.input.template_version_id,
            workspace_build_id: row.input.workspace_build_id,
            error: String::new(),
        },
        job_type: row.job_type,
        available_workers: Vec::new(),
        metadata: rest::ProvisionerJobMetadata::default(),
        logs_overflowed: row.logs_overflowed,
    })
}

pub(crate) fn job_log(row: JobLog) -> rest::ProvisionerJobLog {
    rest::ProvisionerJobLog {
        id: row.id,
        created_at: row.created_at,
        log_source: row.source,
        log_level: row.level,
        stage: row.stage,
        output: row.output,
    }
}
