//! Agents as their users see them.

use adit_rest::{AgentStatus, ListeningPortsResponse, WorkspaceAgent};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use http::{Method, StatusCode, header};
use url::Url;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Id, JSON, Json, Two, uuid};
use crate::{access, convert, reach, upgrade};

/// Ports below this one are nobody's.
const MIN_PORT: u16 = 9;
/// Where agents serve what they know of containers.
const CONTAINERS: &str = "/api/v0/containers";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaceagents/{id}", get(show))
        .route("/workspaceagents/{id}/listening-ports", get(ports))
        .route("/workspaceagents/{id}/containers", get(containers))
        .route(
            "/workspaceagents/{id}/containers/watch",
            get(watch_containers),
        )
        .route(
            "/workspaceagents/{id}/containers/devcontainers/{container}",
            delete(delete_container),
        )
        .route(
            "/workspaceagents/{id}/containers/devcontainers/{container}/recreate",
            post(recreate_container),
        )
}

async fn load(app: &App, actor: &Actor, id: Uuid) -> ApiResult<WorkspaceAgent> {
    let context = access::agent(app, actor, id).await?;
    let names = convert::Names {
        workspace: &context.workspace.name,
        owner: &context.owner.username,
    };
    convert::agent(app, context.agent, Some(names)).await
}

async fn show(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Json<WorkspaceAgent>> {
    load(&app, &actor, id).await.map(Json)
}

/// Refuses unless the agent's control connection is up.
pub(super) async fn require_connected(app: &App, actor: &Actor, id: Uuid) -> ApiResult<()> {
    let agent = load(app, actor, id).await?;
    if agent.status == AgentStatus::Connected {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Agent state is {:?}, it must be in the {:?} state.",
        agent.status.as_str(),
        AgentStatus::Connected.as_str()
    )))
}

/// What the agent was asked for failed `doing` something.
fn internal(doing: &str, detail: String) -> ApiError {
    let text = format!("Internal error {doing}.");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text).detail(detail)
}

/// The ports programs in the workspace listen on, as far as a user may want to
/// open them.
async fn ports(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
) -> ApiResult<Json<ListeningPortsResponse>> {
    require_connected(&app, &actor, id).await?;
    let failed = |detail: String| internal("fetching listening ports", detail);
    let answer = reach::ask(&app, id, Method::GET, "/api/v0/listening-ports")
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut found: ListeningPortsResponse = serde_json::from_slice(&answer.body)
        .map_err(|error| failed(format!("read the agent's answer: {error}")))?;
    let taken: Vec<u16> = app
        .store
        .apps(id)
        .await?
        .iter()
        .filter_map(|app| Url::parse(&app.spec.url).ok()?.port_or_known_default())
        .collect();
    found.ports.retain(|port| {
        port.port >= MIN_PORT && !is_served_otherwise(port.port) && !taken.contains(&port.port)
    });
    Ok(Json(found))
}

/// Ports of services that are not for browsers.
fn is_served_otherwise(port: u16) -> bool {
    matches!(
        port,
        20..=23
            | 25
            | 53
            | 110
            | 143
            | 179
            | 389
            | 465
            | 587
            | 636
            | 989
            | 990
            | 993
            | 995
            | 3306
            | 3389
            | 5432
            | 27017..=27019
            | 28017
    )
}

/// What the agent knows of containers in its workspace.
async fn containers(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    request: Request,
) -> ApiResult<Response> {
    require_connected(&app, &actor, id).await?;
    let query = request.uri().query().unwrap_or_default();
    ask(&app, id, Method::GET, &format!("?{query}")).await
}

async fn watch_containers(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    mut request: Request,
) -> ApiResult<Response> {
    require_connected(&app, &actor, id).await?;
    if let Some(refusal) = upgrade::refusal(&request) {
        return Ok(refusal);
    }
    let failed = |detail: String| internal("watching agent's containers", detail);
    let path = format!("{CONTAINERS}/watch");
    match reach::relay(&app, &mut request, id, &path).await {
        Ok(Ok(upgraded)) => Ok(upgraded),
        Ok(Err(answer)) => Err(failed(format!("the agent answered {}", answer.status))),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn recreate_container(
    State(app): State<App>,
    actor: Actor,
    Path((id, container)): Two,
) -> ApiResult<Response> {
    devcontainer(&app, &actor, &id, Method::POST, &container, "/recreate").await
}

async fn delete_container(
    State(app): State<App>,
    actor: Actor,
    Path((id, container)): Two,
) -> ApiResult<Response> {
    devcontainer(&app, &actor, &id, Method::DELETE, &container, "").await
}

/// Has the agent do something with one development container.
async fn devcontainer(
    app: &App,
    actor: &Actor,
    id: &str,
    method: Method,
    container: &str,
    action: &str,
) -> ApiResult<Response> {
    let id = uuid(id)?;
    require_connected(app, actor, id).await?;
    let path = format!("/devcontainers/{}{action}", segment(container));
    ask(app, id, method, &path).await
}

/// A segment of a path, with what has a meaning in paths escaped.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// Hands the agent's answer about containers on.
async fn ask(app: &App, id: Uuid, method: Method, rest: &str) -> ApiResult<Response> {
    let answer = reach::ask(app, id, method, &format!("{CONTAINERS}{rest}"))
        .await
        .map_err(|error| internal("fetching containers", error.to_string()))?;
    if !answer.content_type.starts_with("application/json") && !answer.body.is_empty() {
        let text = format!("unexpected non-JSON response {:?}", answer.content_type);
        let body = String::from_utf8_lossy(&answer.body);
        return Err(ApiError::new(answer.status, text).detail(body));
    }
    Ok((answer.status, [(header::CONTENT_TYPE, JSON)], answer.body).into_response())
}
