//! `show`: what a workspace is made of.

use adit_rest::{ListeningPortsResponse, Resource, Time, Transition, Workspace};
use anyhow::Result;

use crate::{
    api::Api,
    cli::{Output, ShowArgs},
    duration, resolve,
    settings::Settings,
    status,
    table::framed,
};

/// Prints resources, agents and the ports that listen in them.
pub(crate) async fn run(settings: &Settings, args: &ShowArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let workspace = resolve::named(&api, &args.workspace).await?;
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&workspace)?);
        return Ok(());
    }
    let now = Time::now();
    let mut groups = Vec::new();
    for resource in &workspace.latest_build.resources {
        if resource.hide {
            continue;
        }
        groups.push(group(&api, &workspace, resource, now).await);
    }
    print!(
        "{}",
        framed(
            &title(&workspace, now),
            &["RESOURCE", "STATUS", "HEALTH", "VERSION", "ACCESS"],
            &groups
        )
    );
    Ok(())
}

fn title(workspace: &Workspace, now: Time) -> String {
    let build = &workspace.latest_build;
    let since = build.job.completed_at.unwrap_or(build.updated_at);
    format!(
        "{}/{} ({} since {}) {}:{}",
        workspace.owner_name,
        workspace.name,
        build.status,
        duration::coarse(status::since(since, now)),
        workspace.template_name,
        build.template_version_name
    )
}

async fn group(
    api: &Api,
    workspace: &Workspace,
    resource: &Resource,
    now: Time,
) -> Vec<Vec<String>> {
    let mut rows = vec![vec![format!(
        "{}.{}",
        resource.resource_type, resource.name
    )]];
    let running = workspace.latest_build.transition == Transition::Start;
    let several = workspace
        .latest_build
        .resources
        .iter()
        .flat_map(|resource| &resource.agents)
        .count()
        > 1;
    for (index, agent) in resource.agents.iter().enumerate() {
        let last = index + 1 == resource.agents.len();
        let (branch, trunk) = if last {
            ("└─", "   ")
        } else {
            ("├─", "│  ")
        };
        let version = if agent.version.is_empty() {
            "(unknown)"
        } else {
            &agent.version
        };
        let access = if several {
            format!("adit ssh {}.{}", workspace.name, agent.name)
        } else {
            format!("adit ssh {}", workspace.name)
        };
        rows.push(vec![
            format!(
                "{branch} {} ({}, {})",
                agent.name, agent.operating_system, agent.architecture
            ),
            status::agent(agent, now),
            status::health(agent),
            version.to_owned(),
            access,
        ]);
        if !running || agent.status != adit_rest::AgentStatus::Connected {
            continue;
        }
        match api
            .get::<ListeningPortsResponse>(&format!(
                "/api/v2/workspaceagents/{}/listening-ports",
                agent.id
            ))
            .await
        {
            Ok(found) if found.ports.is_empty() => {}
            Ok(found) => {
                rows.push(vec![format!("{trunk}└─ Open Ports")]);
                for (index, port) in found.ports.iter().enumerate() {
                    let branch = if index + 1 == found.ports.len() {
                        "└─"
                    } else {
                        "├─"
                    };
                    // The process is not known of ports of other users.
                    let process = match port.process_name.as_str() {
                        "" => String::new(),
                        name => format!(" [{name}]"),
                    };
                    rows.push(vec![format!(
                        "{trunk}   {branch} {:>5}/{}{process}",
                        port.port, port.network
                    )]);
                }
            }
            // The rest of the answer is still good.
            Err(error) => eprintln!(
                "WARN: Failed to get listening ports for agent {}: {error:#}",
                agent.name
            ),
        }
    }
    rows
}
