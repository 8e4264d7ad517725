//! What follows once start scripts have ended: sub-agents, and the (empty)
//! context state of AI tools.

use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_messages::agent;

use super::{Ended, Session};

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// SHA-256 of nothing: there are no resources.
const EMPTY_HASH: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

impl Session {
    pub(super) async fn context(&self) -> Ended {
        self.agent.started.cancelled().await;
        let has_parent = self
            .agent
            .manifest
            .borrow()
            .as_ref()
            .is_some_and(|m| m.parent_id.is_some());
        let wanted = self.agent.config.devcontainers && !has_parent;
        if wanted && !self.agent.sub_agents_listed.swap(true, Ordering::Relaxed) {
            let request = agent::ListSubAgentsRequest {};
            if let Err(error) = self.rpc.list_sub_agents(&request).await {
                tracing::debug!(%error, "sub-agents are not known");
            }
        }
        self.push_context().await;
        Ok(())
    }

    /// Replaces what the control plane has stored by an empty snapshot. A
    /// control plane that does not know the call is left alone.
    async fn push_context(&self) {
        let request = agent::PushContextStateRequest {
            version: 1,
            aggregate_hash: bytes::Bytes::from_static(&EMPTY_HASH),
            initial: true,
            ..Default::default()
        };
        let mut wait = FIRST_RETRY;
        while let Err(error) = self.rpc.push_context_state(&request).await {
            if error.is_unimplemented() {
                return;
            }
            tracing::debug!(%error, "the context state was refused");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST_RETRY);
        }
    }
}
