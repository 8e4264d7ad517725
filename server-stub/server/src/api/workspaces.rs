//! Workspaces: finding and making them.

use adit_rest::{
    AgentStatus, AutomaticUpdates, CreateWorkspaceRequest, Time, Workspace, WorkspaceStatus,
    WorkspacesResponse, given,
};
use adit_store::model::{PREBUILDS_USER, Template, TemplateVersion, User};
use adit_store::{Error, NewBuild, NewWorkspace, WorkspaceFilter, WorkspaceTerm};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::StatusCode;
use uuid::Uuid;

use super::builds::{matching_preset, queued, queued_build};
use super::organizations::named;
use super::parameters;
use super::session::failed;
use super::users::is_name;
use super::workspace_settings::{check_ttl, schedule};
use crate::app::App;
use crate::auth::{Actor, scope::Objects};
use crate::error::{ApiError, ApiResult};
use crate::extract::{Body, Id, Json, Query, Two, uuid};
use crate::pubsub::{WorkspaceEvent, WorkspaceEventKind};
use crate::search::Term;
use crate::{access, convert, search};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces", get(list))
        .route("/workspaces/{workspace}", get(show))
        .route("/users/{user}/workspace/{name}", get(by_name))
        .route("/users/{user}/workspaces", post(create))
        .route(
            "/organizations/{organization}/members/{user}/workspaces",
            post(create_in_organization),
        )
}

async fn show(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    query: Query,
) -> ApiResult<Json<Workspace>> {
    let row = access::any_workspace(&app, &actor, id).await?;
    if row.deleted && !query.flag("include_deleted") {
        return Err(access::deleted(&row));
    }
    Ok(Json(convert::workspace(&app, actor.user.id, &row).await?))
}

async fn by_name(
    State(app): State<App>,
    actor: Actor,
    Path((user, name)): Two,
    query: Query,
) -> ApiResult<Json<Workspace>> {
    let owner = access::user(&app, &actor, &user).await?;
    let row = app
        .store
        .workspace_by_name(owner.id, &name, query.flag("include_deleted"))
        .await?;
    if !access::may_use(&actor, &row) {
        return Err(ApiError::not_found());
    }
    Ok(Json(convert::workspace(&app, actor.user.id, &row).await?))
}

async fn list(
    State(app): State<App>,
    actor: Actor,
    query: Query,
) -> ApiResult<Json<WorkspacesResponse>> {
    let (offset, limit) = page(&query)?;
    let terms = search::parse(query.get("q").unwrap_or_default())
        .map_err(|error| error.into_api("Invalid workspace search query."))?;
    check_terms(&terms)?;
    let mut filter = WorkspaceFilter {
        viewer: actor.user.id,
        own_only: !actor.is_owner(),
        agent_silence: convert::AGENT_SILENCE.as_micros() as i64,
        now: Time::now(),
        offset,
        limit,
        ..WorkspaceFilter::default()
    };
    if let Objects::Only(ids) = actor.workspaces() {
        filter.terms.push(WorkspaceTerm::Ids(ids));
    }
    for term in &terms {
        filter.terms.extend(conditions(&app, &actor, term).await?);
    }
    let (rows, count) = app.store.find_workspaces(&filter).await?;
    let mut workspaces = Vec::with_capacity(rows.len());
    for row in &rows {
        workspaces.push(convert::workspace(&app, actor.user.id, row).await?);
    }
    Ok(Json(WorkspacesResponse { workspaces, count }))
}

/// Offset and length of a page.
fn page(query: &Query) -> ApiResult<(i64, i64)> {
    let number = |name: &str| -> ApiResult<i64> {
        let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
            return Ok(0);
        };
        let reason = match text.parse::<i64>() {
            Ok(number) if number < 0 => "value is negative".to_owned(),
            Ok(number) if u32::try_from(number).is_err() => "value out of range".to_owned(),
            Ok(number) => return Ok(number),
            Err(error) => error.to_string(),
        };
        let detail =
            format!("Query param {name:?} must be a valid 32-bit positive integer: {reason}");
        Err(ApiError::bad_request("Query parameters have invalid values.").field(name, detail))
    };
    Ok((number("offset")?, number("limit")?))
}

/// Refuses unknown keys and values.
fn check_terms(terms: &[Term]) -> ApiResult<()> {
    let mut refused: Option<ApiError> = None;
    let mut refuse = |key: &str, detail: String| {
        let error = refused
            .take()
            .unwrap_or_else(|| ApiError::bad_request("Invalid workspace search query."));
        refused = Some(error.field(key, detail));
    };
    for term in terms {
        let key = term.key.as_str();
        match key {
            "" | "owner" | "name" | "template" | "id" | "organization" | "shared"
            | "shared_with_user" | "shared_with_group" | "param" | "last_used_after"
            | "last_used_before" | "has-agent" => {}
            "status" => {
                if WorkspaceStatus::parse(&term.value).is_none() {
                    let detail = format!(
                        "Query param {key:?} has invalid value: {:?} is not a valid value",
                        term.value
                    );
                    refuse(key, detail);
                }
            }
            "healthy" | "dormant" | "outdated" | "has-ai-task" | "has_external_agent" => {
                if !matches!(term.value.as_str(), "true" | "false") {
                    let detail = format!(
                        "Query param {key:?} must be a valid boolean: {:?} is not one",
                        term.value
                    );
                    refuse(key, detail);
                }
            }
            _ => refuse(key, format!("{key:?} is not a valid query param")),
        }
    }
    match refused {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What a term asks of a workspace.
async fn conditions(app: &App, actor: &Actor, term: &Term) -> ApiResult<Vec<WorkspaceTerm>> {
    use WorkspaceTerm as W;
    let value = term.value.as_str();
    let yes = value == "true";
    let unless = |never: bool| if never { vec![W::Never] } else { Vec::new() };
    Ok(match term.key.as_str() {
        "" => match value.split_once('/') {
            Some((owner, part)) => vec![owned_by(app, actor, owner).await?, W::Name(part.into())],
            None => vec![W::Name(value.into())],
        },
        "owner" => vec![owned_by(app, actor, value).await?],
        "name" => vec![W::Name(value.into())],
        "template" => vec![W::TemplateName(value.into())],
        // What is no id is nobody's.
        "id" => vec![W::Ids(value.split(',').flat_map(Uuid::try_parse).collect())],
        "organization" => match named(app, value).await {
            Ok(organization) => vec![W::Organization(organization.id)],
            Err(_) => vec![W::Never],
        },
        "status" => vec![WorkspaceStatus::parse(value).map_or(W::Never, W::Status)],
        "has-agent" => vec![AgentStatus::parse(value).map_or(W::Never, W::HasAgent)],
        "healthy" => vec![W::Healthy(yes)],
        "dormant" => vec![W::Dormant(yes)],
        "outdated" => vec![W::Outdated(yes)],
        "shared" | "has-ai-task" | "has_external_agent" => unless(yes),
        "shared_with_user" | "shared_with_group" => vec![W::Never],
        "last_used_after" => vec![time(value).map_or(W::Never, W::UsedAfter)],
        "last_used_before" => vec![time(value).map_or(W::Never, W::UsedBefore)],
        "param" => vec![match value.split_once('=') {
            Some((name, value)) => W::Parameter(name.into(), Some(value.into())),
            None => W::Parameter(value.into(), None),
        }],
        _ => Vec::new(),
    })
}

/// The condition that a user, or `me`, is the owner.
async fn owned_by(app: &App, actor: &Actor, name: &str) -> ApiResult<WorkspaceTerm> {
    if name == "me" {
        return Ok(WorkspaceTerm::Owner(actor.user.id));
    }
    match app.store.user_by_name(name).await {
        Ok(user) => Ok(WorkspaceTerm::Owner(user.id)),
        Err(Error::NotFound) => Ok(WorkspaceTerm::Never),
        Err(error) => Err(error.into()),
    }
}

fn time(text: &str) -> Option<Time> {
    text.to_uppercase().parse().ok()
}

async fn create_in_organization(
    app: State<App>,
    actor: Actor,
    Path((_, user)): Two,
    body: Body<CreateWorkspaceRequest>,
) -> ApiResult<Response> {
    create(app, actor, Path(user), body).await
}

async fn create(
    State(app): State<App>,
    actor: Actor,
    Path(user): Path<String>,
    Body(request): Body<CreateWorkspaceRequest>,
) -> ApiResult<Response> {
    let owner = owner_of_new(&app, &actor, &user).await?;
    check_request(&request)?;
    let (template, version) = template_of(&app, &request).await?;
    if template.deleted {
        return Err(no_template(template.id));
    }
    if !template.options.deprecation_message.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Template {:?} has been deprecated, and cannot be used to create a new workspace.",
            template.name
        ))
        .detail(template.options.deprecation_message));
    }
    let mut new = settings(&request, &owner, &template)?;
    let taken = || {
        ApiError::conflict(format!("Workspace {:?} already exists.", request.name))
            .field("name", "This value is already in use and should be unique.")
    };
    match app
        .store
        .workspace_by_name(owner.id, &new.name, false)
        .await
    {
        Ok(_) => return Err(taken()),
        Err(Error::NotFound) => {}
        Err(error) => return Err(error.into()),
    }
    let asked = given(request.template_version_preset_id);
    let requested = with_preset(&app, &request, asked).await?;
    let values = parameters::resolve(&version, &requested, &[])?;
    let preset = match asked {
        Some(preset) => Some(preset),
        None => matching_preset(&app, version.id, &values).await?,
    };
    new.claim_preset = preset;
    let build = NewBuild {
        template_version_id: version.id,
        initiator_id: actor.user.id,
        parameters: values,
        preset_id: preset,
        ..NewBuild::default()
    };
    let created = match app.store.create_workspace(&new, &build).await {
        Ok(created) => created,
        Err(Error::Taken(_)) => return Err(taken()),
        Err(error) => return Err(error.into()),
    };
    if created.claimed {
        let event = WorkspaceEvent {
            workspace_id: created.workspace.id,
            kind: WorkspaceEventKind::Owner,
        };
        app.pubsub.workspaces.publish(&PREBUILDS_USER, event);
        app.pubsub.prebuilds.notify_one();
    }
    queued(&app, &created.workspace);
    let mut reply = convert::workspace(&app, actor.user.id, &created.workspace).await?;
    reply.latest_build =
        queued_build(&app, &created.build, &created.job, &created.workspace).await?;
    reply.health = adit_rest::WorkspaceHealth {
        healthy: true,
        ..adit_rest::WorkspaceHealth::default()
    };
    Ok((StatusCode::CREATED, Json(reply)).into_response())
}

/// The owner of a new workspace: the caller, or anyone if the caller is an
/// owner. Members asking for others are told so, as workspaces are created by
/// name.
async fn owner_of_new(app: &App, actor: &Actor, user: &str) -> ApiResult<User> {
    match access::user(app, actor, user).await {
        Ok(owner) => Ok(owner),
        Err(error) if error.status() == StatusCode::NOT_FOUND && !actor.is_owner() => {
            let exists = match uuid(user) {
                Ok(id) => app.store.user(id).await.is_ok(),
                Err(_) => app.store.user_by_name(user).await.is_ok(),
            };
            let refused = ApiError::new(StatusCode::FORBIDDEN, "Unauthorized to create workspace.");
            let refused = refused.detail("only owners create workspaces for others");
            Err(if exists { refused } else { error })
        }
        Err(error) => Err(error),
    }
}

fn check_request(request: &CreateWorkspaceRequest) -> ApiResult<()> {
    let mut error = ApiError::bad_request("Validation failed.");
    let mut bad = false;
    let template = request.template_id.to_string();
    let version = request.template_version_id.to_string();
    let tag = match (
        given(request.template_id),
        given(request.template_version_id),
    ) {
        (None, None) => Some("required_without"),
        (Some(_), Some(_)) => Some("excluded_with"),
        _ => None,
    };
    if let Some(tag) = tag {
        error = error
            .field("template_id", failed(tag, &template))
            .field("template_version_id", failed(tag, &version));
        bad = true;
    }
    if !is_name(&request.name) {
        error = error.field("name", failed("workspace_name", &request.name));
        bad = true;
    }
    if bad { Err(error) } else { Ok(()) }
}

fn no_template(id: Uuid) -> ApiError {
    ApiError::bad_request(format!("Template {:?} doesn't exist.", id.to_string()))
        .field("template_id", "template not found")
}

async fn template_of(
    app: &App,
    request: &CreateWorkspaceRequest,
) -> ApiResult<(Template, TemplateVersion)> {
    if let Some(id) = given(request.template_id) {
        let template = match app.store.template(id).await {
            Ok(template) => template,
            Err(Error::NotFound) => return Err(no_template(id)),
            Err(error) => return Err(error.into()),
        };
        let version = app.store.version(template.active_version_id).await?;
        return Ok((template, version));
    }
    let id = request.template_version_id;
    let missing = || {
        ApiError::bad_request(format!(
            "Template version {:?} doesn't exist.",
            id.to_string()
        ))
        .field("template_version_id", "template not found")
    };
    let version = match app.store.version(id).await {
        Ok(version) => version,
        Err(Error::NotFound) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let template = version.template_id.ok_or_else(missing)?;
    Ok((app.store.template(template).await?, version))
}

fn settings(
    request: &CreateWorkspaceRequest,
    owner: &User,
    template: &Template,
) -> ApiResult<NewWorkspace> {
    let (autostart_schedule, next_start_at) =
        schedule(request.autostart_schedule.as_deref(), template)
            .map_err(|error| error.into_api("Invalid Autostart Schedule."))?;
    check_ttl(request.ttl_ms)
        .map_err(|error| error.into_api("Invalid Workspace Time to Shutdown."))?;
    let default = (template.options.default_ttl_ms > 0).then_some(template.options.default_ttl_ms);
    let automatic_updates = match request.automatic_updates.as_str() {
        "" => AutomaticUpdates::Never,
        text => AutomaticUpdates::parse(text).ok_or_else(|| {
            ApiError::bad_request("Invalid Workspace Automatic Updates setting.")
                .field("automatic_updates", "must be always or never")
        })?,
    };
    Ok(NewWorkspace {
        owner_id: owner.id,
        organization_id: template.organization_id,
        template_id: template.id,
        name: request.name.clone(),
        autostart_schedule,
        ttl_ms: request.ttl_ms.filter(|ttl| *ttl > 0).or(default),
        automatic_updates,
        next_start_at,
        claim_preset: None,
    })
}

/// The values of a request, completed by those of its preset.
async fn with_preset(
    app: &App,
    request: &CreateWorkspaceRequest,
    preset: Option<Uuid>,
) -> ApiResult<Vec<adit_rest::BuildParameter>> {
    let mut values = request.rich_parameter_values.clone();
    if let Some(id) = preset {
        let preset = match app.store.preset(id).await {
            Ok(preset) => preset,
            Err(Error::NotFound) => {
                return Err(
                    ApiError::bad_request("Template version preset doesn't exist.")
                        .field("template_version_preset_id", "preset not found"),
                );
            }
            Err(error) => return Err(error.into()),
        };
        for parameter in preset.parameters {
            values.retain(|value| value.name != parameter.name);
            values.push(adit_rest::BuildParameter {
                name: parameter.name,
                value: parameter.value,
            });
        }
    }
    Ok(values)
}
