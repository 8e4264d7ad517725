//! `logs`: what the build and the agents of a workspace have said.

use adit_rest::{ProvisionerJobLog, Time, WorkspaceAgent, WorkspaceAgentLog, WorkspaceBuild};
use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::{api::Api, cli::LogsArgs, resolve, settings::Settings};

/// Prints both kinds of logs in order of time; with `--follow` goes on until
/// interrupted.
pub(crate) async fn run(settings: &Settings, args: &LogsArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    let build: WorkspaceBuild = match args.build_number {
        None => workspace.latest_build.clone(),
        Some(number) => {
            let number = if number <= 0 {
                workspace.latest_build.build_number + number
            } else {
                number
            };
            api.get(&format!(
                "/api/v2/users/{}/workspace/{}/builds/{number}",
                workspace.owner_name, workspace.name
            ))
            .await
            .with_context(|| format!("find build {number} of workspace {:?}", workspace.name))?
        }
    };
    println!(
        "--- Logs for workspace build #{} (ID: {} Template Version: {}) ---",
        build.build_number, build.id, build.template_version_name
    );
    let agents: Vec<&WorkspaceAgent> = build
        .resources
        .iter()
        .flat_map(|resource| &resource.agents)
        .collect();
    let builds: Vec<ProvisionerJobLog> = api
        .get(&format!("/api/v2/workspacebuilds/{}/logs", build.id))
        .await?;
    let mut last_build = 0;
    let mut lines: Vec<(Time, String)> = Vec::new();
    for log in builds {
        last_build = last_build.max(log.id);
        lines.push((log.created_at, build_line(&log)));
    }
    let mut followed = Vec::new();
    for agent in agents {
        let logs: Vec<WorkspaceAgentLog> = api
            .get(&format!("/api/v2/workspaceagents/{}/logs", agent.id))
            .await?;
        let mut last = 0;
        for log in logs {
            last = last.max(log.id);
            lines.push((log.created_at, agent_line(agent, &log)));
        }
        followed.push((agent.clone(), last));
    }
    lines.sort_by_key(|(when, _)| *when);
    for (_, line) in lines {
        println!("{line}");
    }
    if !args.follow {
        return Ok(());
    }
    let mut streams: JoinSet<Result<()>> = JoinSet::new();
    {
        let api = api.clone();
        streams.spawn(async move {
            let path = format!(
                "/api/v2/workspacebuilds/{}/logs?follow&after={last_build}",
                build.id
            );
            let mut socket = api.json_socket::<ProvisionerJobLog>(&path).await?;
            while let Some(log) = socket.next().await {
                println!("{}", build_line(&log?));
            }
            Ok(())
        });
    }
    for (agent, last) in followed {
        let api = api.clone();
        streams.spawn(async move {
            let path = format!(
                "/api/v2/workspaceagents/{}/logs?follow&after={last}",
                agent.id
            );
            let mut socket = api.json_socket::<Vec<WorkspaceAgentLog>>(&path).await?;
            while let Some(logs) = socket.next().await {
                for log in logs? {
                    println!("{}", agent_line(&agent, &log));
                }
            }
            Ok(())
        });
    }
    tokio::select! {
        result = async {
            while let Some(ended) = streams.join_next().await {
                ended.context("a log stream broke off")??;
            }
            Ok(())
        } => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn build_line(log: &ProvisionerJobLog) -> String {
    format!(
        "{} [{}] [{}|{}] {}",
        seconds(log.created_at),
        log.log_level,
        log.log_source,
        log.stage,
        log.output
    )
}

fn agent_line(agent: &WorkspaceAgent, log: &WorkspaceAgentLog) -> String {
    let mut sources = agent.log_sources.iter();
    let source = match sources.find(|source| source.id == log.source_id) {
        Some(source) => format!("|{}", source.display_name),
        None => String::new(),
    };
    format!(
        "{} [{}] [agent.{}{source}] {}",
        seconds(log.created_at),
        log.level,
        agent.name,
        log.output
    )
}

/// A time without its fraction.
fn seconds(time: Time) -> Time {
    Time::from_micros(time.as_micros().div_euclid(1_000_000) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use adit_rest::{AgentLogSource, LogLevel, LogSource};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn lines_say_when_how_bad_and_by_whom() {
        let at: Time = "2026-11-21T20:38:22.019190Z".parse().unwrap();
        let build = ProvisionerJobLog {
            created_at: at,
            log_level: LogLevel::Info,
            log_source: LogSource::Provisioner,
            stage: "Setting up".to_owned(),
            ..ProvisionerJobLog::default()
        };
        let expected = "2026-11-21T20:38:22Z [info] [provisioner|Setting up] ";
        assert_eq!(build_line(&build), expected);

        let source = AgentLogSource {
            id: Uuid::from_u128(1),
            display_name: "Startup".to_owned(),
            ..AgentLogSource::default()
        };
        let agent = WorkspaceAgent {
            name: "main".to_owned(),
            log_sources: vec![source],
            ..WorkspaceAgent::default()
        };
        let mut log = WorkspaceAgentLog {
            created_at: at,
            level: LogLevel::Error,
            output: "no such file".to_owned(),
            source_id: Uuid::from_u128(1),
            ..WorkspaceAgentLog::default()
        };
        let expected = "2026-11-21T20:38:22Z [error] [agent.main|Startup] no such file";
        assert_eq!(agent_line(&agent, &log), expected);
        log.source_id = Uuid::from_u128(2);
        let expected = "2026-11-21T20:38:22Z [error] [agent.main] no such file";
        assert_eq!(agent_line(&agent, &log), expected);
    }
}
