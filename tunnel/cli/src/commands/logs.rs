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
            lines.push((log.created_at, agent_line(&agent.name, &log)));
        }
        followed.push((agent.name.clone(), agent.id, last));
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
    for (name, id, last) in followed {
        let api = api.clone();
        streams.spawn(async move {
            let path = format!("/api/v2/workspaceagents/{id}/logs?follow&after={last}");
            let mut socket = api.json_socket::<Vec<WorkspaceAgentLog>>(&path).await?;
            while let Some(logs) = socket.next().await {
                for log in logs? {
                    println!("{}", agent_line(&name, &log));
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
    let text = if log.output.is_empty() {
        &log.stage
    } else {
        &log.output
    };
    format!("{} [{}] [build] {text}", log.created_at, log.log_level)
}

fn agent_line(agent: &str, log: &WorkspaceAgentLog) -> String {
    format!(
        "{} [{}] [agent.{agent}] {}",
        log.created_at, log.level, log.output
    )
}
