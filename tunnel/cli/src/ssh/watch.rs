//! Ends a session when its workspace stops or is built anew: what it was
//! connected to no longer exists.

use std::time::Duration;

use adit_rest::{Transition, Workspace, WorkspaceStatus};
use anyhow::anyhow;

use crate::api::Api;

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Completes with the reason when the workspace has gone. While the control
/// plane is away it keeps trying: the session itself may well live on.
pub(crate) async fn workspace(api: &Api, workspace: &Workspace) -> anyhow::Error {
    let path = format!("/api/v2/workspaces/{}/watch", workspace.id);
    let mut pause = RETRY_MIN;
    loop {
        match api.events::<Workspace>(&path).await {
            Ok(mut events) => {
                while let Some(Ok(now)) = events.next().await {
                    pause = RETRY_MIN;
                    if let Some(reason) = gone(workspace, &now) {
                        return anyhow!(reason);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the workspace is not watched"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

fn gone(before: &Workspace, now: &Workspace) -> Option<String> {
    let build = &now.latest_build;
    let replaced = build.transition == Transition::Start && build.id != before.latest_build.id;
    if build.status == WorkspaceStatus::Stopped {
        Some(format!("workspace {:?} has stopped", before.name))
    } else if replaced {
        Some(format!("workspace {:?} was started anew", before.name))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_or_replaced() {
        let before = Workspace::default();
        let mut now = Workspace::default();
        assert_eq!(gone(&before, &now), None);
        now.latest_build.status = WorkspaceStatus::Stopped;
        assert!(gone(&before, &now).is_some());
        now.latest_build.status = WorkspaceStatus::Starting;
        now.latest_build.transition = Transition::Start;
        assert_eq!(gone(&before, &now), None);
        now.latest_build.id = uuid::Uuid::from_u128(7);
        assert!(gone(&before, &now).is_some());
    }
}
