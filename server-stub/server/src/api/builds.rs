//! Builds of workspaces.

use adit_rest::{
    BuildReason, CreateWorkspaceBuildRequest, JobStatus, Response as Message, Transition, given,
};
use adit_store::model::{Build, Job, Workspace};
use adit_store::{Error, NewBuild};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::parameters;
use super::session::failed;
use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Id, Json, Query};
use crate::pubsub::{JobEvent, WorkspaceEventKind};
use crate::{access, convert};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{workspace}/builds", get(list).post(create))
        .route(
            "/users/{user}/workspace/{name}/builds/{number}",
            get(by_number),
        )
        .route("/workspacebuilds/{build}", get(show))
        .route("/workspacebuilds/{build}/cancel", patch(cancel))
        .route("/workspacebuilds/{build}/parameters", get(values))
        .route("/workspacebuilds/{build}/resources", get(resources))
        .route("/workspacebuilds/{build}/state", get(state).put(set_state))
        .route("/workspacebuilds/{build}/timings", get(timings))
        .route("/workspaces/{workspace}/timings", get(latest_timings))
}

async fn list(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    query: Query,
) -> ApiResult<Response> {
    let workspace = access::any_workspace(&app, &actor, id).await?;
    let since = query
        .get("since")
        .map(str::parse::<adit_rest::Time>)
        .transpose()
        .map_err(|error| {
            ApiError::bad_request("bad `since` format, must be RFC3339").detail(error.to_string())
        })?;
    let after = query
        .get("after_id")
        .map(crate::extract::uuid)
        .transpose()?;
    let page = (
        query.number("offset")?.unwrap_or(0),
        query.number("limit")?.unwrap_or(0),
    );
    let rows = app.store.builds(workspace.id, after, since, page).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        all.push(convert::build(&app, row, &workspace).await?);
    }
    Ok(Json(all).into_response())
}

async fn by_number(
    State(app): State<App>,
    actor: Actor,
    Path((user, name, number)): Path<(String, String, String)>,
) -> ApiResult<Json<adit_rest::WorkspaceBuild>> {
    let owner = access::user(&app, &actor, &user).await?;
    let number: i64 = number.parse().map_err(|_| {
        ApiError::bad_request("Failed to parse build number as integer.")
            .detail(format!("{number:?} is not a number"))
    })?;
    let workspace = app.store.workspace_by_name(owner.id, &name, false).await?;
    if !access::may_use(&actor, &workspace) {
        return Err(ApiError::not_found());
    }
    match app.store.build_by_number(workspace.id, number).await {
        Ok(row) => Ok(Json(convert::build(&app, &row, &workspace).await?)),
        Err(Error::NotFound) => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "Workspace {:?} Build {number} does not exist.",
                workspace.name
            ),
        )),
        Err(error) => Err(error.into()),
    }
}

async fn show(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
) -> ApiResult<Json<adit_rest::WorkspaceBuild>> {
    let (build, workspace) = access::build(&app, &actor, id).await?;
    Ok(Json(convert::build(&app, &build, &workspace).await?))
}

/// Checks the words of a request.
fn words(request: &CreateWorkspaceBuildRequest) -> ApiResult<(Transition, BuildReason)> {
    let transition = Transition::parse(&request.transition)
        .ok_or_else(|| ApiError::invalid("transition", failed("oneof", &request.transition)))?;
    let reason = match request.reason.as_str() {
        "" => BuildReason::Initiator,
        text => BuildReason::parse(text)
            .ok_or_else(|| ApiError::invalid("reason", failed("oneof", text)))?,
    };
    if !matches!(request.log_level.as_str(), "" | "debug") {
        return Err(ApiError::invalid(
            "log_level",
            failed("oneof", &request.log_level),
        ));
    }
    Ok((transition, reason))
}

async fn create(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<CreateWorkspaceBuildRequest>,
) -> ApiResult<Response> {
    let workspace = access::any_workspace(&app, &actor, id).await?;
    let (transition, reason) = words(&request)?;
    actor.require_scope("workspace", &[transition.as_str()])?;
    if workspace.deleted {
        return Err(deleted());
    }
    if request.orphan && (transition != Transition::Delete || !request.state.is_empty()) {
        return Err(ApiError::bad_request(
            "Orphan is only permitted when deleting a workspace.",
        ));
    }
    let last = app.store.latest_build(workspace.id).await?;
    if !app.store.job(last.job_id).await?.is_done() {
        return Err(active());
    }
    let version_id = given(request.template_version_id).unwrap_or(last.template_version_id);
    let version = app.store.version(version_id).await.map_err(|_| {
        ApiError::bad_request("template version does not exist")
            .detail(format!("get template version {version_id}: no such row"))
    })?;
    if version.template_id != Some(workspace.template_id) {
        return Err(ApiError::bad_request(
            "Template version does not belong to the workspace's template.",
        ));
    }
    let template = app.store.template(workspace.template_id).await?;
    if template.options.require_active_version
        && transition == Transition::Start
        && version_id != template.active_version_id
        && !actor.is_owner()
    {
        return Err(ApiError::forbidden());
    }
    let values = if transition == Transition::Start {
        parameters::resolve(&version, &request.rich_parameter_values, &last.parameters)?
    } else {
        last.parameters.clone()
    };
    let preset_id = match given(request.template_version_preset_id) {
        Some(preset) => Some(preset),
        None => matching_preset(&app, version_id, &values).await?,
    };
    let new = NewBuild {
        workspace_id: workspace.id,
        template_version_id: version_id,
        transition,
        initiator_id: actor.user.id,
        reason,
        parameters: values,
        preset_id,
        orphan: request.orphan,
        log_level: request.log_level,
        state: (!request.state.is_empty()).then_some(request.state),
        ..NewBuild::default()
    };
    let (build, job) = match app.store.create_build(&new).await {
        Ok(made) => made,
        Err(Error::BuildActive) => return Err(active()),
        Err(Error::WorkspaceDeleted) => return Err(deleted()),
        Err(error) => return Err(error.into()),
    };
    queued(&app, &workspace);
    let reply = queued_build(&app, &build, &job, &workspace).await?;
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// The preset whose values are all among the given ones.
pub(super) async fn matching_preset(
    app: &App,
    version: uuid::Uuid,
    values: &[adit_rest::BuildParameter],
) -> ApiResult<Option<uuid::Uuid>> {
    let mut best: Option<adit_store::model::Preset> = None;
    for preset in app.store.presets(version).await? {
        let fits = preset.parameters.iter().all(|wanted| {
            values
                .iter()
                .any(|value| value.name == wanted.name && value.value == wanted.value)
        });
        let more = best
            .as_ref()
            .is_none_or(|best| preset.parameters.len() > best.parameters.len());
        if fits && more {
            best = Some(preset);
        }
    }
    Ok(best.map(|preset| preset.id))
}

/// Tells everyone about a new build.
pub(super) fn queued(app: &App, workspace: &Workspace) {
    app.pubsub.queue.notify_waiters();
    app.pubsub.queue.notify_one();
    app.pubsub.outdated.publish(&workspace.id, ());
    app.workspace_changed(workspace, WorkspaceEventKind::Build);
}

/// A new build as its creator sees it: waiting, whatever happened since.
pub(super) async fn queued_build(
    app: &App,
    build: &Build,
    job: &Job,
    workspace: &Workspace,
) -> ApiResult<adit_rest::WorkspaceBuild> {
    let mut reply = convert::build(app, build, workspace).await?;
    reply.job = convert::job(app, job).await?;
    reply.status = adit_rest::WorkspaceStatus::Pending;
    reply.resources = Vec::new();
    reply.has_ai_task = None;
    reply.has_external_agent = None;
    reply.matched_provisioners = Some(convert::matched());
    Ok(reply)
}

fn active() -> ApiError {
    let text = "A workspace build is already active.";
    ApiError::conflict(text).detail(text)
}

fn deleted() -> ApiError {
    ApiError::conflict("Cannot start a deleted workspace!")
        .detail("This workspace has been deleted and cannot be modified.")
}

async fn cancel(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    query: Query,
) -> ApiResult<Json<Message>> {
    let (build, workspace) = access::build(&app, &actor, id).await?;
    let template = app.store.template(workspace.template_id).await?;
    if !template.options.allow_user_cancel_workspace_jobs && !actor.is_owner() {
        return Err(ApiError::forbidden());
    }
    let job = app.store.job(build.job_id).await?;
    let expected = match query.get("expect_status") {
        None | Some("") => None,
        Some("running") => Some(JobStatus::Running),
        Some("pending") => Some(JobStatus::Pending),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "Invalid expect_status {other:?}. Only 'running' or 'pending' are allowed."
            )));
        }
    };
    if job.is_done() {
        return Err(ApiError::bad_request("Job has already completed!"));
    }
    if job.canceled_at.is_some() {
        return Err(ApiError::bad_request(
            "Job has already been marked as canceled!",
        ));
    }
    if expected.is_some_and(|expected| job.status() != expected) {
        return Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "Job is not in the expected state.",
        ));
    }
    match app.store.cancel_job(job.id).await {
        Ok(ended) => {
            let event = if ended {
                JobEvent::Done
            } else {
                JobEvent::Cancel
            };
            app.pubsub.jobs.publish(&job.id, event);
            app.workspace_changed(&workspace, WorkspaceEventKind::Build);
            Ok(Json(Message::new("Job has been marked as canceled...")))
        }
        Err(Error::Refused(_)) => Err(ApiError::bad_request("Job has already completed!")),
        Err(error) => Err(error.into()),
    }
}

async fn values(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    let (build, _) = access::build(&app, &actor, id).await?;
    Ok(Json(build.parameters).into_response())
}

async fn resources(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    let (build, _) = access::build(&app, &actor, id).await?;
    let all = convert::resources(&app, build.job_id, None).await?;
    Ok(Json(all).into_response())
}

/// The raw bytes, under a JSON content type as clients know it.
async fn state(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    let (build, workspace) = access::build(&app, &actor, id).await?;
    let template = app.store.template(workspace.template_id).await?;
    if !actor.is_owner() && template.created_by != actor.user.id {
        return Err(ApiError::forbidden());
    }
    let encoded = app.store.build_state(build.id).await?;
    let bytes = STANDARD.decode(encoded).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct NewState {
    state: String,
}

async fn set_state(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<NewState>,
) -> ApiResult<StatusCode> {
    let (build, _) = access::build(&app, &actor, id).await?;
    actor.require_owner()?;
    if STANDARD.decode(&request.state).is_err() {
        return Err(
            ApiError::bad_request("Request body must be valid JSON.").detail("state is not base64")
        );
    }
    app.store.set_build_state(build.id, &request.state).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn timings(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Json<Value>> {
    let (build, _) = access::build(&app, &actor, id).await?;
    timings_of(&app, &build).await
}

async fn latest_timings(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
) -> ApiResult<Json<Value>> {
    let workspace = access::any_workspace(&app, &actor, id).await?;
    let build = app.store.latest_build(workspace.id).await?;
    timings_of(&app, &build).await
}

async fn timings_of(app: &App, build: &Build) -> ApiResult<Json<Value>> {
    let mut scripts = Vec::new();
    let mut connections = Vec::new();
    for agent in app.store.agents_of_job(build.job_id).await? {
        for (name, run) in app.store.script_timings(agent.id).await? {
            scripts.push(json!({
                "started_at": run.started_at,
                "ended_at": run.ended_at,
                "exit_code": run.exit_code,
                "stage": run.stage,
                "status": run.status,
                "display_name": name,
                "workspace_agent_id": agent.id,
                "workspace_agent_name": agent.name,
            }));
        }
        if let Some(connected) = agent.first_connected_at {
            connections.push(json!({
                "started_at": agent.created_at,
                "ended_at": connected,
                "stage": "connect",
                "workspace_agent_id": agent.id,
                "workspace_agent_name": agent.name,
            }));
        }
    }
    Ok(Json(json!({
        "provisioner_timings": [],
        "agent_script_timings": scripts,
        "agent_connection_timings": connections,
    })))
}
