//! Tells the control plane that a workspace is in use, so that it is not
//! stopped under its user.

use std::time::Duration;

use adit_rest::PostUsageRequest;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::api::Api;

const EVERY: Duration = Duration::from_secs(60);

/// Reports usage at once and then every minute, until dropped.
#[derive(Debug)]
pub(crate) struct Usage(JoinHandle<()>);

impl Usage {
    /// Reports for one agent and kind of program, or for the workspace as a
    /// whole when `agent` is `None`.
    pub(crate) fn report(api: &Api, workspace: Uuid, agent: Option<(Uuid, String)>) -> Self {
        let api = api.clone();
        Self(tokio::spawn(async move {
            let path = format!("/api/v2/workspaces/{workspace}/usage");
            let body = agent.map(|(agent_id, app_name)| PostUsageRequest { agent_id, app_name });
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                ticks.tick().await;
                if let Err(error) = api.send(http::Method::POST, &path, body.as_ref()).await {
                    tracing::debug!(%error, "usage was not reported");
                }
            }
        }))
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.0.abort();
    }
}
