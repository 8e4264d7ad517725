//! From a name on the command line to an agent that can be dialled.

use std::time::Duration;

use adit_rest::{
    AgentStatus, BuildReason, CreateWorkspaceBuildRequest, JobStatus, LifecycleState, Time,
    Transition, Workspace, WorkspaceAgent, WorkspaceAgentLog, WorkspaceBuild, WorkspaceStatus,
};
use anyhow::{Context as _, Result, anyhow, bail};
use uuid::Uuid;

use crate::{api::Api, build_log, cli::Wait, name::WorkspaceRef, status};

/// A workspace, and the agent of it that a command goes to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) workspace: Workspace,
    pub(crate) agent: WorkspaceAgent,
}

impl Target {
    /// `workspace.agent`, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.workspace.name, self.agent.name)
    }
}

/// What to do with a workspace that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Autostart {
    /// Start it and wait.
    Yes,
    /// Say that it is stopped.
    No,
}

/// Fetches a workspace by its name or id.
pub(crate) async fn workspace(api: &Api, reference: &WorkspaceRef) -> Result<Workspace> {
    if let (Ok(id), "me") = (
        Uuid::parse_str(&reference.workspace),
        reference.owner.as_str(),
    ) {
        return api.get(&format!("/api/v2/workspaces/{id}")).await;
    }
    api.get(&format!(
        "/api/v2/users/{}/workspace/{}",
        reference.owner, reference.workspace
    ))
    .await
}

/// Fetches a workspace that was named on the command line.
pub(crate) async fn named(api: &Api, name: &str) -> Result<Workspace> {
    workspace(api, &WorkspaceRef::parse(name)?).await
}

/// Finds the agent to dial; starts the workspace if that is wanted and
/// needed.
pub(crate) async fn agent(
    api: &Api,
    reference: &WorkspaceRef,
    autostart: Autostart,
) -> Result<Target> {
    let mut found = workspace(api, reference).await?;
    if found.latest_build.transition != Transition::Start {
        if autostart == Autostart::No {
            bail!(
                "workspace {:?} is {}: start it with 'adit start {}'",
                found.name,
                status::workspace(&found).to_lowercase(),
                found.name
            );
        }
        start_stopped(api, &found).await?;
        found = workspace(api, reference).await?;
    }
    let build = finished_build(api, &found).await?;
    let agent = pick(&found, &build, reference.agent.as_deref())?;
    found.latest_build = build;
    Ok(Target {
        workspace: found,
        agent,
    })
}

async fn start_stopped(api: &Api, workspace: &Workspace) -> Result<()> {
    let build = &workspace.latest_build;
    if build.transition == Transition::Delete {
        bail!("workspace {:?} is being deleted", workspace.name);
    }
    if build.job.status == JobStatus::Failed {
        bail!(
            "the last build of workspace {:?} failed: {}. See 'adit logs {}', then 'adit start {}'",
            workspace.name,
            build.job.error,
            workspace.name,
            workspace.name
        );
    }
    if build.job.completed_at.is_none() {
        build_log::wait(api, build, build_log::Show::Stages).await?;
    } else if build.status != WorkspaceStatus::Stopped {
        bail!(
            "workspace {:?} cannot be started: its status is {}",
            workspace.name,
            build.status
        );
    }
    eprintln!(
        "Workspace was stopped, starting workspace to allow connecting to {:?}...",
        workspace.name
    );
    let request = CreateWorkspaceBuildRequest {
        transition: "start".to_owned(),
        reason: BuildReason::SshConnection.as_str().to_owned(),
        template_version_id: build.template_version_id,
        ..CreateWorkspaceBuildRequest::default()
    };
    let path = format!("/api/v2/workspaces/{}/builds", workspace.id);
    match api.post::<_, WorkspaceBuild>(&path, &request).await {
        Ok(build) => build_log::wait(api, &build, build_log::Show::Stages).await,
        // Someone else was faster; the caller looks again and waits for that.
        Err(error) if api.status_of(&error) == Some(409) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("start workspace {:?}", workspace.name)),
    }
}

/// The latest build, waited for if it is still running.
async fn finished_build(api: &Api, workspace: &Workspace) -> Result<WorkspaceBuild> {
    let build = &workspace.latest_build;
    if build.job.completed_at.is_some() {
        return Ok(build.clone());
    }
    build_log::wait(api, build, build_log::Show::Stages).await?;
    api.get(&format!("/api/v2/workspacebuilds/{}", build.id))
        .await
}

fn pick(
    workspace: &Workspace,
    build: &WorkspaceBuild,
    name: Option<&str>,
) -> Result<WorkspaceAgent> {
    let agents: Vec<&WorkspaceAgent> = build
        .resources
        .iter()
        .flat_map(|resource| &resource.agents)
        .collect();
    let names = || {
        let mut names: Vec<&str> = agents.iter().map(|agent| agent.name.as_str()).collect();
        names.sort_unstable();
        names.join(", ")
    };
    match (name, &agents[..]) {
        (_, []) if build.job.status == JobStatus::Failed => Err(anyhow!(
            "the last build of workspace {:?} failed: {}",
            workspace.name,
            build.job.error
        )),
        (_, []) => Err(anyhow!("workspace {:?} has no agents", workspace.name)),
        (Some(name), _) => agents
            .iter()
            .find(|agent| agent.name == name)
            .map(|agent| (*agent).clone())
            .ok_or_else(|| {
                anyhow!(
                    "workspace {:?} has no agent {name:?}; it has: {}",
                    workspace.name,
                    names()
                )
            }),
        (None, [agent]) => Ok((*agent).clone()),
        (None, _) => Err(anyhow!(
            "workspace {:?} has several agents; name one of them, as in {}.{}: {}",
            workspace.name,
            workspace.name,
            agents.first().map_or("", |agent| &agent.name),
            names()
        )),
    }
}

/// Waits until the agent is connected and, where that is asked for, until its
/// start scripts are done. Progress goes to standard error.
pub(crate) async fn ready(
    api: &Api,
    target: &mut Target,
    wait: Wait,
    show_logs: bool,
) -> Result<()> {
    let path = format!("/api/v2/workspaceagents/{}", target.agent.id);
    let started = Time::now();
    let mut said = None;
    let mut last_log = 0;
    loop {
        let agent = &target.agent;
        if status::shutting_down(agent.lifecycle_state) {
            bail!(
                "agent {} is shutting down: start the workspace again",
                target.name()
            );
        }
        let message = match agent.status {
            AgentStatus::Connected => match agent.lifecycle_state {
                LifecycleState::StartError => {
                    warn_once(
                        &mut said,
                        "a start script failed; the workspace may be incomplete",
                    );
                    return Ok(());
                }
                LifecycleState::StartTimeout => {
                    warn_once(
                        &mut said,
                        "a start script takes longer than its time limit; the workspace may be incomplete",
                    );
                    return Ok(());
                }
                LifecycleState::Created | LifecycleState::Starting if waits(wait, agent) => {
                    if show_logs {
                        last_log = print_logs(api, agent.id, last_log).await?;
                    }
                    "waiting for the start scripts of the workspace (--wait=no goes on without them)"
                }
                _ => return Ok(()),
            },
            AgentStatus::Disconnected => {
                "the control plane lost the agent's connection; waiting for it to return"
            }
            AgentStatus::Timeout => {
                "the agent takes longer than expected to connect; see the workspace's logs for the reason"
            }
            _ => "waiting for the agent of the workspace to connect",
        };
        if status::since(started, Time::now()) > Duration::from_millis(700)
            || agent.status == AgentStatus::Timeout
        {
            warn_once(&mut said, message);
        }
        tokio::time::sleep(poll_interval(status::since(started, Time::now()))).await;
        target.agent = api.get(&path).await?;
    }
}

fn waits(wait: Wait, agent: &WorkspaceAgent) -> bool {
    match wait {
        Wait::Yes => true,
        Wait::No => false,
        Wait::Auto => agent.start_blocks_login(),
    }
}

fn warn_once<'a>(said: &mut Option<&'a str>, message: &'a str) {
    if *said != Some(message) {
        eprintln!("adit: {message}");
        *said = Some(message);
    }
}

/// Half a second at first, slower the longer it takes.
fn poll_interval(waited: Duration) -> Duration {
    let factor = match waited.as_secs() {
        0..5 => return Duration::from_millis(100),
        5..60 => 1,
        60..120 => 2,
        120..300 => 4,
        300..600 => 8,
        _ => 16,
    };
    Duration::from_millis(500) * factor
}

async fn print_logs(api: &Api, agent: Uuid, after: i64) -> Result<i64> {
    let logs: Vec<WorkspaceAgentLog> = api
        .get(&format!(
            "/api/v2/workspaceagents/{agent}/logs?after={after}"
        ))
        .await?;
    let mut last = after;
    for log in logs {
        eprintln!("{}", log.output);
        last = last.max(log.id);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use adit_rest::Resource;

    use super::*;

    fn build(names: &[&str]) -> WorkspaceBuild {
        WorkspaceBuild {
            resources: vec![Resource {
                agents: names
                    .iter()
                    .map(|name| WorkspaceAgent {
                        name: (*name).to_owned(),
                        ..WorkspaceAgent::default()
                    })
                    .collect(),
                ..Resource::default()
            }],
            ..WorkspaceBuild::default()
        }
    }

    #[test]
    fn picks_the_agent() {
        let workspace = Workspace {
            name: "dev".into(),
            ..Workspace::default()
        };
        assert_eq!(
            pick(&workspace, &build(&["main"]), None).unwrap().name,
            "main"
        );
        assert_eq!(
            pick(&workspace, &build(&["a", "b"]), Some("b"))
                .unwrap()
                .name,
            "b"
        );
        let text = |names: &[&str], wanted| {
            pick(&workspace, &build(names), wanted)
                .unwrap_err()
                .to_string()
        };
        assert!(text(&[], None).contains("has no agents"));
        assert!(text(&["b", "a"], None).contains("a, b"));
        assert!(text(&["b", "a"], Some("c")).contains("no agent \"c\"; it has: a, b"));
    }

    #[test]
    fn polls_slower_and_slower() {
        assert_eq!(poll_interval(Duration::ZERO), Duration::from_millis(100));
        assert_eq!(
            poll_interval(Duration::from_secs(61)),
            Duration::from_secs(1)
        );
        assert_eq!(
            poll_interval(Duration::from_secs(3600)),
            Duration::from_secs(8)
        );
    }
}
