//! Resources, agents and what hangs on them.

use std::time::Duration;

use adit_rest::{self as rest, AgentStatus, LifecycleState, Time};
use adit_store::model::{Agent, App as AppRow, AppStatusRow, Metadata, Script};

use crate::app::App;
use crate::error::ApiResult;

/// An agent that was silent for so long counts as gone: two missed signs of
/// life, which come every 15 s.
pub(crate) const AGENT_SILENCE: Duration = Duration::from_secs(30);

/// Names that make up the host name of an app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) workspace: &'a str,
    pub(crate) owner: &'a str,
}

/// Everything a job made, with agents inline.
pub(crate) async fn resources(
    app: &App,
    job: uuid::Uuid,
    names: Option<Names<'_>>,
) -> ApiResult<Vec<rest::Resource>> {
    let mut all = Vec::new();
    for row in app.store.resources(job).await? {
        let mut agents = Vec::new();
        for item in app.store.agents_of_resource(row.id).await? {
            agents.push(agent(app, item, names).await?);
        }
        all.push(rest::Resource {
            id: row.id,
            created_at: row.created_at,
            job_id: row.job_id,
            workspace_transition: row.transition,
            resource_type: row.resource_type,
            name: row.name,
            hide: row.hide,
            icon: row.icon,
            agents,
            metadata: row.metadata,
            daily_cost: row.daily_cost,
        });
    }
    Ok(all)
}

/// Whether the control connection is up, and when it was lost.
fn status(agent: &Agent, now: Time) -> (AgentStatus, Option<Time>) {
    let lost = agent.disconnected_at;
    let (Some(_), Some(last)) = (agent.first_connected_at, agent.last_connected_at) else {
        let age = now.as_micros() - agent.created_at.as_micros();
        let patience = agent.connection_timeout_seconds.saturating_mul(1_000_000);
        let late = patience > 0 && age > patience;
        let status = if late {
            AgentStatus::Timeout
        } else {
            AgentStatus::Connecting
        };
        return (status, lost);
    };
    if lost.is_some_and(|lost| lost >= last) {
        return (AgentStatus::Disconnected, lost);
    }
    if now.as_micros() - last.as_micros() > AGENT_SILENCE.as_micros() as i64 {
        return (AgentStatus::Disconnected, Some(last));
    }
    (AgentStatus::Connected, lost)
}

fn health(status: AgentStatus, lifecycle: LifecycleState) -> rest::AgentHealth {
    let reason = match (status, lifecycle) {
        (AgentStatus::Connected, LifecycleState::StartError) => {
            "agent startup script exited with an error"
        }
        (
            AgentStatus::Connected,
            LifecycleState::ShuttingDown
            | LifecycleState::ShutdownTimeout
            | LifecycleState::ShutdownError
            | LifecycleState::Off,
        ) => "agent is shutting down",
        (AgentStatus::Connected, _) => "",
        (_, LifecycleState::Off) => "agent is not running",
        (AgentStatus::Connecting, _) => "agent has not yet connected",
        (AgentStatus::Timeout, _) => "agent is taking too long to connect",
        _ => "agent has lost connection",
    };
    rest::AgentHealth {
        healthy: reason.is_empty(),
        reason: reason.to_owned(),
    }
}

/// An agent with its apps, scripts and log sources.
pub(crate) async fn agent(
    app: &App,
    row: Agent,
    names: Option<Names<'_>>,
) -> ApiResult<rest::WorkspaceAgent> {
    let (status, disconnected_at) = status(&row, Time::now());
    let mut apps = Vec::new();
    for item in app.store.apps(row.id).await? {
        apps.push(workspace_app(app, item, names).await?);
    }
    let scripts = app.store.scripts(row.id).await?;
    let blocking = scripts
        .iter()
        .any(|script| script.run_on_start && script.start_blocks_login);
    let log_sources = app.store.log_sources(row.id).await?;
    Ok(rest::WorkspaceAgent {
        id: row.id,
        parent_id: row.parent_id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        first_connected_at: row.first_connected_at,
        last_connected_at: row.last_connected_at,
        disconnected_at,
        started_at: row.started_at,
        ready_at: row.ready_at,
        status,
        lifecycle_state: row.lifecycle_state,
        name: row.name,
        resource_id: row.resource_id,
        instance_id: String::new(),
        architecture: row.architecture,
        environment_variables: row.environment_variables,
        operating_system: row.operating_system,
        logs_length: row.logs_length,
        logs_overflowed: row.logs_overflowed,
        directory: row.directory,
        expanded_directory: row.expanded_directory,
        version: row.version,
        api_version: row.api_version,
        apps,
        derp_latency: app.coord.derp_latency(app, row.id),
        connection_timeout_seconds: row.connection_timeout_seconds,
        troubleshooting_url: row.troubleshooting_url,
        subsystems: row.subsystems,
        health: health(status, row.lifecycle_state),
        display_apps: row.display_apps,
        log_sources: log_sources
            .into_iter()
            .map(|source| rest::AgentLogSource {
                workspace_agent_id: source.agent_id,
                id: source.id,
                created_at: source.created_at,
                display_name: source.display_name,
                icon: source.icon,
            })
            .collect(),
        scripts: scripts.into_iter().map(script).collect(),
        startup_script_behavior: if blocking { "blocking" } else { "non-blocking" }.to_owned(),
    })
}

fn script(row: Script) -> rest::AgentScript {
    rest::AgentScript {
        id: row.id,
        log_source_id: row.log_source_id,
        log_path: row.log_path,
        script: row.script,
        cron: row.cron,
        run_on_start: row.run_on_start,
        run_on_stop: row.run_on_stop,
        start_blocks_login: row.start_blocks_login,
        timeout: row.timeout_seconds.saturating_mul(1_000_000_000),
        display_name: row.display_name,
        exit_code: row.exit_code,
        status: row.status,
    }
}

async fn workspace_app(
    app: &App,
    row: AppRow,
    names: Option<Names<'_>>,
) -> ApiResult<rest::WorkspaceApp> {
    let spec = row.spec;
    let subdomain_name = match names {
        Some(names) if spec.subdomain => {
            format!("{}--{}--{}", spec.slug, names.workspace, names.owner)
        }
        _ => String::new(),
    };
    let statuses = app.store.app_statuses(row.id).await?;
    Ok(rest::WorkspaceApp {
        id: row.id,
        url: spec.url,
        external: spec.external,
        slug: spec.slug,
        display_name: spec.display_name,
        command: spec.command,
        icon: spec.icon,
        subdomain: spec.subdomain,
        subdomain_name,
        sharing_level: spec.sharing_level,
        healthcheck: spec.healthcheck,
        health: row.health,
        group: spec.group,
        hidden: spec.hidden,
        open_in: spec.open_in,
        tooltip: spec.tooltip,
        statuses: statuses.into_iter().map(app_status).collect(),
    })
}

pub(crate) fn app_status(row: AppStatusRow) -> rest::AppStatus {
    rest::AppStatus {
        id: row.id,
        created_at: row.created_at,
        workspace_id: row.workspace_id,
        agent_id: row.agent_id,
        app_id: row.app_id,
        state: row.state,
        message: row.message,
        uri: row.uri,
        icon: String::new(),
        needs_user_attention: false,
    }
}

pub(crate) fn metadata(row: Metadata, now: Time) -> rest::AgentMetadata {
    let age = if row.collected_at.is_zero() {
        0
    } else {
        (now.as_secs() - row.collected_at.as_secs()).max(0)
    };
    rest::AgentMetadata {
        result: rest::AgentMetadataResult {
            collected_at: row.collected_at,
            age,
            value: row.value,
            error: row.error,
        },
        description: rest::AgentMetadataDescription {
            display_name: row.display_name,
            key: row.key,
            script: row.script,
            interval: row.interval_seconds,
            timeout: row.timeout_seconds,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn connected(last: i64, lost: Option<i64>) -> Agent {
        Agent {
            first_connected_at: Some(at(0)),
            last_connected_at: Some(at(last)),
            disconnected_at: lost.map(at),
            ..Agent::default()
        }
    }

    #[test]
    fn status_follows_the_times() {
        let mut new = Agent {
            created_at: at(0),
            connection_timeout_seconds: 120,
            ..Agent::default()
        };
        assert_eq!(status(&new, at(119)).0, AgentStatus::Connecting);
        assert_eq!(status(&new, at(121)).0, AgentStatus::Timeout);
        new.connection_timeout_seconds = 0;
        assert_eq!(status(&new, at(9999)).0, AgentStatus::Connecting);
        assert_eq!(
            status(&connected(10, None), at(40)).0,
            AgentStatus::Connected
        );
        let silent = status(&connected(10, None), at(41));
        assert_eq!(silent, (AgentStatus::Disconnected, Some(at(10))));
        let lost = status(&connected(10, Some(10)), at(11));
        assert_eq!(lost, (AgentStatus::Disconnected, Some(at(10))));
        let back = status(&connected(20, Some(10)), at(21));
        assert_eq!(back, (AgentStatus::Connected, Some(at(10))));
    }

    #[test]
    fn a_late_script_is_no_illness() {
        assert!(health(AgentStatus::Connected, LifecycleState::StartTimeout).healthy);
        assert!(!health(AgentStatus::Connected, LifecycleState::StartError).healthy);
        let gone = health(AgentStatus::Disconnected, LifecycleState::Off);
        assert_eq!(gone.reason, "agent is not running");
    }
}
