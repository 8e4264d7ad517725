//! Routes for programs that run beside an agent and share its token.

use adit_messages::agent as pb;
use adit_rest::{AgentLogSource, AppState, LogLevel, Time};
use adit_store::NewAgentLog;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{report, stored};
use crate::{
    app::App,
    auth::AgentActor,
    error::{ApiError, ApiResult},
    extract::{Body, Json, Query},
    git_key,
};

/// The longest name of a log source, in bytes.
const MAX_SOURCE_NAME: usize = 127;

/// The keys `git` uses in a workspace.
#[derive(Serialize)]
pub(super) struct GitSshKeys {
    public_key: String,
    private_key: String,
}

pub(super) async fn git_ssh_key(
    State(app): State<App>,
    AgentActor(context): AgentActor,
) -> ApiResult<Json<GitSshKeys>> {
    let key = git_key::of_user(&app, context.owner.id).await?;
    Ok(Json(GitSshKeys {
        public_key: key.public_key,
        private_key: key.private_key,
    }))
}

/// No sign-in providers are configured, so none ever matches; helpers then
/// leave the question to git.
pub(super) async fn external_auth(AgentActor(_): AgentActor, query: Query) -> ApiResult<Json<()>> {
    let given = |name| query.get(name).filter(|value| !value.is_empty());
    let url = given("match").or_else(|| given("url"));
    match (url, given("id")) {
        (None, None) => Err(ApiError::bad_request("'url' or 'id' must be provided!")),
        (Some(_), Some(_)) => Err(ApiError::bad_request(
            "'url' and 'id' cannot be provided together!",
        )),
        (url, _) => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!(
                "No matching external auth provider found in Coder for the url {:?}.",
                url.unwrap_or_default()
            ),
        )
        .detail("no external auth provider is configured")),
    }
}

#[derive(Deserialize)]
pub(super) struct NewLogSource {
    #[serde(default)]
    id: Uuid,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    icon: String,
}

pub(super) async fn log_source(
    State(app): State<App>,
    AgentActor(context): AgentActor,
    Body(new): Body<NewLogSource>,
) -> ApiResult<(StatusCode, Json<AgentLogSource>)> {
    if new.display_name.len() > MAX_SOURCE_NAME {
        return Err(ApiError::invalid(
            "display_name",
            format!("must be at most {MAX_SOURCE_NAME} characters"),
        ));
    }
    let agent = context.agent.id;
    app.store
        .add_log_source(agent, new.id, &new.display_name, &new.icon)
        .await?;
    let source = app
        .store
        .log_sources(agent)
        .await?
        .into_iter()
        .find(|source| source.id == new.id);
    Ok((
        StatusCode::CREATED,
        Json(AgentLogSource {
            workspace_agent_id: agent,
            id: new.id,
            created_at: source.map_or_else(Time::now, |source| source.created_at),
            display_name: new.display_name,
            icon: new.icon,
        }),
    ))
}

#[derive(Deserialize)]
pub(super) struct NewLogs {
    #[serde(default)]
    log_source_id: Option<Uuid>,
    #[serde(default)]
    logs: Option<Vec<NewLog>>,
}

#[derive(Deserialize)]
struct NewLog {
    #[serde(default)]
    output: String,
    #[serde(default)]
    level: String,
}

pub(super) async fn logs(
    State(app): State<App>,
    AgentActor(context): AgentActor,
    Body(new): Body<NewLogs>,
) -> ApiResult<Json<()>> {
    let logs = new.logs.unwrap_or_default();
    if logs.is_empty() {
        return Err(ApiError::bad_request("No logs provided."));
    }
    let mut lines = Vec::with_capacity(logs.len());
    for log in logs {
        let level = match log.level.as_str() {
            "" => LogLevel::Info,
            text => LogLevel::parse(text).ok_or_else(|| {
                ApiError::bad_request("Invalid log level provided.")
                    .detail(format!("invalid log level: {text:?}"))
            })?,
        };
        lines.push(NewAgentLog {
            level,
            output: log.output,
        });
    }
    let source = new.log_source_id.unwrap_or(report::EXTERNAL_LOG_SOURCE);
    if stored::append_logs(&app, context.agent.id, context.workspace.id, source, lines).await? {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Logs limit exceeded",
        ));
    }
    Ok(Json(()))
}

#[derive(Deserialize)]
pub(super) struct NewAppStatus {
    #[serde(default)]
    app_slug: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    uri: String,
}

pub(super) async fn app_status(
    State(app): State<App>,
    AgentActor(context): AgentActor,
    Body(new): Body<NewAppStatus>,
) -> ApiResult<Json<()>> {
    use pb::update_app_status_request::AppStatusState;
    let state = match AppState::parse(&new.state) {
        Some(AppState::Working) => AppStatusState::Working,
        Some(AppState::Idle) => AppStatusState::Idle,
        Some(AppState::Complete) => AppStatusState::Complete,
        Some(AppState::Failure) => AppStatusState::Failure,
        _ => {
            return Err(ApiError::bad_request("Failed to parse request.")
                .detail(format!("invalid state: {:?}", new.state)));
        }
    };
    let request = pb::UpdateAppStatusRequest {
        slug: new.app_slug,
        state: state.into(),
        message: new.message,
        uri: new.uri,
    };
    stored::set_app_status(&app, context.agent.id, &request)
        .await
        .map_err(|error| match error.as_str() {
            "Message is too long." => ApiError::bad_request(error),
            _ => ApiError::bad_request("Failed to get workspace app.").detail(error),
        })?;
    Ok(Json(()))
}

/// What was told to read its context again: there is no chat daemon.
#[derive(Serialize)]
pub(super) struct Refreshed {
    refreshed: u32,
}

pub(super) async fn refresh_chat_context(AgentActor(_): AgentActor) -> Json<Refreshed> {
    Json(Refreshed { refreshed: 0 })
}
