//! Our agent against control planes that misbehave, that come and go, and
//! that say what a real one said.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod claim;
mod fine;
mod lifecycle;
mod recorded;
mod replay;
mod server;
mod tokens;

use std::path::Path;
use std::time::Duration;

use adit_agent_core::backoff::Limits;
use adit_agent_core::{AgentConfig, Auth};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A token of the right form.
pub(crate) fn token() -> Auth {
    Auth::Token("00000000-0000-4000-8000-00000a6e0001".into())
}

/// An agent in this process.
#[derive(Debug)]
pub(crate) struct Agent {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    /// Starts one whose files are below `dir`.
    pub(crate) fn start(url: &str, dir: &Path) -> Self {
        Self::with_auth(url, dir, token())
    }

    /// One with another token.
    pub(crate) fn with_auth(url: &str, dir: &Path, auth: Auth) -> Self {
        Self::with_retry(url, dir, auth, Limits::default())
    }

    /// One that waits differently between attempts.
    pub(crate) fn with_retry(url: &str, dir: &Path, auth: Auth, retry: Limits) -> Self {
        let mut config = AgentConfig::new(url.parse().unwrap(), auth);
        config.retry = retry;
        config.log_dir = dir.to_owned();
        config.script_data_dir = dir.to_owned();
        let stop = CancellationToken::new();
        let running = adit_agent_core::run(config, stop.clone());
        let task = tokio::spawn(async move { running.await.unwrap() });
        Self { stop, task }
    }

    /// As a stop signal does.
    pub(crate) fn signal(&self) {
        self.stop.cancel();
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(self) {
        self.signal();
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("the agent ends in time")
            .unwrap();
    }
}
