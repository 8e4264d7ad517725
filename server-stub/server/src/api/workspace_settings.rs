//! Changing a workspace without building it.

use std::time::Duration;

use adit_rest::{
    AutomaticUpdates, PostUsageRequest, PutExtendRequest, Response as Message, Time, Transition,
    UpdateAutomaticUpdatesRequest, UpdateAutostartRequest, UpdateDormancy, UpdateTtlRequest,
    UpdateWorkspaceRequest,
};
use adit_store::model::{Template, Workspace};
use adit_store::{Error, WorkspaceUpdate};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post, put};
use http::StatusCode;
use serde_json::{Value, json};

use super::session::failed;
use super::users::is_name;
use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Id, Json, OptionalBody};
use crate::pubsub::WorkspaceEventKind;
use crate::{access, convert, schedule as cron};

const MIN_TTL: i64 = 60_000;
const MAX_TTL: i64 = 30 * 24 * 3_600_000;
/// An extension must reach at least this far.
const MIN_EXTENSION: Duration = Duration::from_secs(30 * 60);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{workspace}", patch(rename))
        .route("/workspaces/{workspace}/autostart", put(autostart))
        .route("/workspaces/{workspace}/ttl", put(ttl))
        .route("/workspaces/{workspace}/extend", put(extend))
        .route("/workspaces/{workspace}/dormant", put(dormant))
        .route(
            "/workspaces/{workspace}/autoupdates",
            put(automatic_updates),
        )
        .route(
            "/workspaces/{workspace}/favorite",
            put(favorite).delete(unfavorite),
        )
        .route("/workspaces/{workspace}/usage", post(usage))
        .route("/workspaces/{workspace}/acl", get(shared_with))
}

/// A field that was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    field: &'static str,
    detail: String,
}

impl Refused {
    pub(super) fn into_api(self, message: &str) -> ApiError {
        ApiError::bad_request(message).field(self.field, self.detail)
    }
}

/// A checked schedule and its next start; both empty for none.
pub(super) fn schedule(
    text: Option<&str>,
    template: &Template,
) -> Result<(Option<String>, Option<Time>), Refused> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok((None, None));
    };
    let refuse = |detail: String| Refused {
        field: "schedule",
        detail,
    };
    if !template.options.allow_user_autostart {
        return Err(refuse(
            "autostart is not allowed by the template".to_owned(),
        ));
    }
    let weekly = cron::parse(text).map_err(|error| refuse(error.to_string()))?;
    Ok((Some(text.to_owned()), weekly.next(Time::now())))
}

/// Checks a time until shutdown.
pub(super) fn check_ttl(ttl_ms: Option<i64>) -> Result<(), Refused> {
    let refuse = |detail: &str| Refused {
        field: "ttl_ms",
        detail: detail.to_owned(),
    };
    match ttl_ms {
        None | Some(0) => Ok(()),
        Some(ttl) if ttl < MIN_TTL => {
            Err(refuse("time until shutdown must be at least one minute"))
        }
        Some(ttl) if ttl > MAX_TTL => Err(refuse("time until shutdown must be less than 30 days")),
        Some(_) => Ok(()),
    }
}

fn not_for_prebuilds(workspace: &Workspace, what: &str) -> ApiResult<()> {
    if workspace.is_prebuild() {
        let message = format!("{what} not supported for prebuilt workspaces");
        return Err(ApiError::conflict(message));
    }
    Ok(())
}

fn changed(app: &App, workspace: &Workspace) {
    app.workspace_changed(workspace, WorkspaceEventKind::Metadata);
}

async fn rename(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<UpdateWorkspaceRequest>,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    if !request.name.is_empty() && !is_name(&request.name) {
        return Err(ApiError::invalid("name", failed("username", &request.name)));
    }
    if request.name.is_empty() || request.name == workspace.name {
        return Ok(StatusCode::NO_CONTENT);
    }
    if !app.config.allow_workspace_renames {
        return Err(ApiError::bad_request("Workspace renames are not allowed."));
    }
    let update = WorkspaceUpdate::Name(request.name.clone());
    match app.store.update_workspace(id, &update).await {
        Ok(()) => {
            changed(&app, &workspace);
            Ok(StatusCode::NO_CONTENT)
        }
        Err(Error::Taken(_)) => Err(ApiError::conflict(format!(
            "Workspace {:?} already exists.",
            request.name
        ))
        .field("name", "This value is already in use and should be unique.")),
        Err(error) => Err(error.into()),
    }
}

async fn autostart(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<UpdateAutostartRequest>,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    not_for_prebuilds(&workspace, "Autostart is")?;
    let template = app.store.template(workspace.template_id).await?;
    let (schedule, next_start_at) = schedule(request.schedule.as_deref(), &template)
        .map_err(|error| error.into_api("Invalid autostart schedule."))?;
    let update = WorkspaceUpdate::Autostart {
        schedule,
        next_start_at,
    };
    app.store.update_workspace(id, &update).await?;
    changed(&app, &workspace);
    Ok(StatusCode::NO_CONTENT)
}

async fn ttl(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<UpdateTtlRequest>,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    not_for_prebuilds(&workspace, "TTL updates are")?;
    check_ttl(request.ttl_ms)
        .map_err(|error| error.into_api("Error updating workspace time until shutdown."))?;
    let ttl = request.ttl_ms.filter(|ttl| *ttl > 0);
    app.store
        .update_workspace(id, &WorkspaceUpdate::Ttl(ttl))
        .await?;
    if ttl.is_none() {
        // A running workspace keeps running then.
        let build = app.store.latest_build(id).await?;
        if build.transition == Transition::Start && build.deadline.is_some() {
            app.store.set_deadline(build.id, None).await?;
        }
    }
    changed(&app, &workspace);
    Ok(StatusCode::NO_CONTENT)
}

async fn extend(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<PutExtendRequest>,
) -> ApiResult<Response> {
    let workspace = access::workspace(&app, &actor, id).await?;
    not_for_prebuilds(&workspace, "Deadline extension is")?;
    let build = app.store.latest_build(id).await?;
    let job = app.store.job(build.job_id).await?;
    if build.transition != Transition::Start {
        return Err(ApiError::conflict(
            "Workspace must be started, current status: stop",
        ));
    }
    if !job.is_done() {
        return Err(ApiError::conflict("Workspace is still building!"));
    }
    if build.deadline.is_none() {
        return Err(ApiError::conflict("Workspace shutdown is manual."));
    }
    let min = Time::now().plus_micros(MIN_EXTENSION.as_micros() as i64);
    if request.deadline < min {
        return Err(ApiError::bad_request(
            "Cannot extend workspace: new deadline must be at least 30 minutes in the future",
        ));
    }
    let deadline = build
        .max_deadline
        .map_or(request.deadline, |max| request.deadline.min(max));
    app.store.set_deadline(build.id, Some(deadline)).await?;
    changed(&app, &workspace);
    Ok(Json(Message::new(format!("Deadline updated to {deadline}."))).into_response())
}

async fn dormant(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<UpdateDormancy>,
) -> ApiResult<Response> {
    let workspace = access::workspace(&app, &actor, id).await?;
    not_for_prebuilds(&workspace, "Dormancy updates are")?;
    if workspace.dormant_at.is_some() == request.dormant {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let since = request.dormant.then(Time::now);
    app.store
        .update_workspace(id, &WorkspaceUpdate::Dormant(since))
        .await?;
    changed(&app, &workspace);
    let row = app.store.workspace(id).await?;
    Ok(Json(convert::workspace(&app, actor.user.id, &row).await?).into_response())
}

async fn automatic_updates(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    Body(request): Body<UpdateAutomaticUpdatesRequest>,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    let value = AutomaticUpdates::parse(&request.automatic_updates).ok_or_else(|| {
        ApiError::bad_request("Invalid request")
            .field("automatic_updates", "must be always or never")
    })?;
    app.store
        .update_workspace(id, &WorkspaceUpdate::AutomaticUpdates(value))
        .await?;
    changed(&app, &workspace);
    Ok(StatusCode::NO_CONTENT)
}

async fn favorite(app: State<App>, actor: Actor, id: Id) -> ApiResult<StatusCode> {
    set_favorite(app, actor, id, true).await
}

async fn unfavorite(app: State<App>, actor: Actor, id: Id) -> ApiResult<StatusCode> {
    set_favorite(app, actor, id, false).await
}

async fn set_favorite(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    on: bool,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    if workspace.owner_id != actor.user.id {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "You can only favorite workspaces that you own.",
        ));
    }
    app.store.set_favorite(actor.user.id, id, on).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Someone uses the workspace. Whatever the body says is fine.
async fn usage(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    body: Result<OptionalBody<PostUsageRequest>, ApiError>,
) -> ApiResult<StatusCode> {
    let workspace = access::workspace(&app, &actor, id).await?;
    if let Ok(OptionalBody(Some(request))) = body {
        tracing::trace!(workspace = %id, agent = %request.agent_id, app = request.app_name, "in use");
    }
    used(&app, &workspace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Notes the use of a workspace, and moves its autostop if that is near.
pub(crate) async fn used(app: &App, workspace: &Workspace) -> ApiResult<()> {
    if workspace.is_prebuild() {
        return Ok(());
    }
    let now = Time::now();
    app.store
        .update_workspace(workspace.id, &WorkspaceUpdate::LastUsed(now))
        .await?;
    let build = app.store.latest_build(workspace.id).await?;
    let template = app.store.template(workspace.template_id).await?;
    let bump = now.plus_micros(template.options.activity_bump_ms.saturating_mul(1000));
    if build.transition == Transition::Start
        && template.options.activity_bump_ms > 0
        && build.deadline.is_some_and(|deadline| deadline < bump)
    {
        let deadline = build.max_deadline.map_or(bump, |max| bump.min(max));
        app.store.set_deadline(build.id, Some(deadline)).await?;
        app.workspace_changed(workspace, WorkspaceEventKind::Stats);
    }
    Ok(())
}

/// With whom a workspace is shared: it cannot be.
async fn shared_with(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Json<Value>> {
    access::workspace(&app, &actor, id).await?;
    Ok(Json(json!({"users": [], "group": []})))
}
