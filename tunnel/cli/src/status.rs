//! Words for what a workspace and its agents are doing.

use adit_rest::{
    AgentStatus, JobStatus, LifecycleState, Time, Transition, Workspace, WorkspaceAgent,
};

use crate::duration;

/// One word for a workspace, from its latest build's job and transition.
pub(crate) fn workspace(workspace: &Workspace) -> &'static str {
    let build = &workspace.latest_build;
    match (build.job.status, build.transition) {
        (JobStatus::Pending, _) => "Queued",
        (JobStatus::Running, Transition::Start) => "Starting",
        (JobStatus::Running, Transition::Stop) => "Stopping",
        (JobStatus::Running, Transition::Delete) => "Deleting",
        (JobStatus::Succeeded, Transition::Start) => "Started",
        (JobStatus::Succeeded, Transition::Stop) => "Stopped",
        (JobStatus::Succeeded, Transition::Delete) => "Deleted",
        (JobStatus::Canceling, _) => "Canceling",
        (JobStatus::Canceled, _) => "Canceled",
        (JobStatus::Failed, _) => "Failed",
        _ => "Unknown",
    }
}

/// An agent's connection, as in `⦿ connected` or `⦾ connecting [12s]`.
pub(crate) fn agent(agent: &WorkspaceAgent, now: Time) -> String {
    match agent.status {
        AgentStatus::Connecting => {
            format!("⦾ connecting [{}s]", since(agent.created_at, now).as_secs())
        }
        AgentStatus::Connected => "⦿ connected".to_owned(),
        AgentStatus::Disconnected => {
            let since = agent.disconnected_at.map_or_else(String::new, |at| {
                format!(" [{}]", duration::coarse(since(at, now)))
            });
            format!("⦾ disconnected{since}")
        }
        AgentStatus::Timeout => "⦾ timeout".to_owned(),
        _ => agent.status.to_string(),
    }
}

/// An agent's health, with the reason when it is bad.
pub(crate) fn health(agent: &WorkspaceAgent) -> String {
    if agent.health.healthy {
        "✔ healthy".to_owned()
    } else if agent.health.reason.is_empty() {
        "✘ unhealthy".to_owned()
    } else {
        format!("✘ {}", agent.health.reason)
    }
}

/// Whether the agent is on its way out, so that a new session makes no sense.
pub(crate) fn shutting_down(state: LifecycleState) -> bool {
    matches!(
        state,
        LifecycleState::ShuttingDown
            | LifecycleState::ShutdownTimeout
            | LifecycleState::ShutdownError
            | LifecycleState::Off
    )
}

/// Time from `then` to `now`, zero if that lies ahead.
pub(crate) fn since(then: Time, now: Time) -> std::time::Duration {
    let micros = now.as_micros().saturating_sub(then.as_micros());
    std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let mut ws = Workspace::default();
        ws.latest_build.transition = Transition::Start;
        ws.latest_build.job.status = JobStatus::Succeeded;
        assert_eq!(workspace(&ws), "Started");
        ws.latest_build.job.status = JobStatus::Failed;
        assert_eq!(workspace(&ws), "Failed");

        let now = Time::now();
        let mut a = WorkspaceAgent {
            status: AgentStatus::Connecting,
            created_at: now.plus_micros(-12_400_000),
            ..WorkspaceAgent::default()
        };
        assert_eq!(agent(&a, now), "⦾ connecting [12s]");
        a.health.reason = "agent has not yet connected".into();
        assert_eq!(health(&a), "✘ agent has not yet connected");
    }
}
