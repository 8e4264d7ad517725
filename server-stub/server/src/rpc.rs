//! Agents: their control sessions, and the routes for what runs beside them.

mod agent;
mod manifest;
mod reinit;
mod report;
mod rest;
mod session;
mod stored;
mod subagent;
mod usage;

use adit_rpc::Version;
use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{get, patch, post},
};

use crate::{
    app::App, auth::AgentActor, coord, error::ApiResult, extract::Query, upgrade::websocket,
};

/// Routes of this part.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/workspaceagents/me/rpc", get(rpc))
        .route("/api/v2/workspaceagents/me/reinit", get(reinit::reinit))
        .route(
            "/api/v2/workspaceagents/me/gitsshkey",
            get(rest::git_ssh_key),
        )
        .route(
            "/api/v2/workspaceagents/me/external-auth",
            get(rest::external_auth),
        )
        .route(
            "/api/v2/workspaceagents/me/gitauth",
            get(rest::external_auth),
        )
        .route(
            "/api/v2/workspaceagents/me/log-source",
            post(rest::log_source),
        )
        .route("/api/v2/workspaceagents/me/logs", patch(rest::logs))
        .route(
            "/api/v2/workspaceagents/me/app-status",
            patch(rest::app_status),
        )
        .route(
            "/api/v2/workspaceagents/me/experimental/chat-context/refresh",
            post(rest::refresh_chat_context),
        )
}

/// The control session of an agent, or of a tool that shares its token.
async fn rpc(
    State(app): State<App>,
    AgentActor(context): AgentActor,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    let text = query
        .get("version")
        .filter(|text| !text.is_empty())
        .unwrap_or("2.0");
    check_version(text)?;
    let version = text.to_owned();
    // Tools that send logs name another role; they come and go without the
    // agent doing so.
    let monitored = matches!(query.get("role"), None | Some("" | "agent"));
    let shared = app.clone();
    let context = Box::new(context);
    Ok(websocket(&app, &mut request, move |socket| {
        session::serve(shared, &context, version, monitored, socket)
    }))
}

/// Whether an agent's version is served. Newer minor versions are: agents
/// never ask for an older one than their own, and cope with methods that are
/// missing here.
fn check_version(text: &str) -> ApiResult<()> {
    let checked = text.parse().and_then(|mut wanted: Version| {
        if wanted.major == Version::CURRENT.major {
            wanted.minor = wanted.minor.min(Version::CURRENT.minor);
        }
        Version::CURRENT.accept(wanted)
    });
    checked.map_err(|error| coord::unsupported(&error))
}
