//! Agents as their users see them.

use adit_rest::{AgentStatus, ListeningPortsResponse, WorkspaceAgent};
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Id, Json};
use crate::{access, convert};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaceagents/{id}", get(show))
        .route("/workspaceagents/{id}/listening-ports", get(ports))
        .route("/workspaceagents/{id}/containers", get(containers))
}

async fn load(app: &App, actor: &Actor, id: uuid::Uuid) -> ApiResult<WorkspaceAgent> {
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
async fn require_connected(app: &App, actor: &Actor, id: uuid::Uuid) -> ApiResult<()> {
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

/// Ports are asked of the agent itself by clients with a tunnel to it; this
/// server has none.
async fn ports(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
) -> ApiResult<Json<ListeningPortsResponse>> {
    require_connected(&app, &actor, id).await?;
    Ok(Json(ListeningPortsResponse::default()))
}

async fn containers(State(app): State<App>, actor: Actor, Id(id): Id) -> ApiResult<Response> {
    require_connected(&app, &actor, id).await?;
    Err(ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Could not get containers",
    )
    .detail("this server does not list containers"))
}
