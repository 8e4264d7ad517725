//! Reports that arrive both over a session and over REST.

use adit_messages::agent as pb;
use adit_rest::Time;
use adit_store::{Error as StoreError, LogsOutcome, NewAgentLog, model::AppStatusRow};
use uuid::Uuid;

use super::report;
use crate::{app::App, pubsub::WorkspaceEventKind};

/// Stores log lines and tells who follows them; says whether the limit is
/// reached.
pub(crate) async fn append_logs(
    app: &App,
    agent: Uuid,
    workspace: Uuid,
    source: Uuid,
    lines: Vec<NewAgentLog>,
) -> Result<bool, StoreError> {
    let source = if source.is_nil() {
        report::EXTERNAL_LOG_SOURCE
    } else {
        source
    };
    if source == report::EXTERNAL_LOG_SOURCE {
        app.store
            .add_log_source(agent, source, "External", "/emojis/1f310.png")
            .await?;
    }
    match app.store.append_agent_logs(agent, source, &lines).await? {
        LogsOutcome::Nothing => Ok(false),
        LogsOutcome::Overflowed => {
            app.workspace_id_changed(workspace, WorkspaceEventKind::AgentLogs)
                .await;
            Ok(true)
        }
        LogsOutcome::Stored { first, was_empty } => {
            app.pubsub.agent_logs.publish(&agent, first);
            if was_empty {
                app.workspace_id_changed(workspace, WorkspaceEventKind::AgentLogs)
                    .await;
            }
            Ok(false)
        }
    }
}

/// Stores what an app says it is doing.
pub(crate) async fn set_app_status(
    app: &App,
    agent: Uuid,
    request: &pb::UpdateAppStatusRequest,
) -> Result<(), String> {
    let state = report::app_status(request)?;
    let context = app
        .store
        .agent_context(agent)
        .await
        .map_err(|error| error.to_string())?;
    let apps = app
        .store
        .apps(agent)
        .await
        .map_err(|error| error.to_string())?;
    let found = apps
        .iter()
        .find(|app| app.spec.slug == request.slug)
        .ok_or_else(|| format!("No app found with slug {:?}", request.slug))?;
    let row = AppStatusRow {
        id: Uuid::new_v4(),
        workspace_id: context.workspace.id,
        agent_id: agent,
        app_id: found.id,
        state,
        message: report::clean_message(&request.message),
        uri: request.uri.clone(),
        created_at: Time::now(),
    };
    app.store
        .insert_app_status(&row)
        .await
        .map_err(|error| error.to_string())?;
    app.workspace_changed(&context.workspace, WorkspaceEventKind::AppStatus);
    Ok(())
}
