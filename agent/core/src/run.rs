//! The life of the process: one instance after the other, and the watch for
//! claims beside them.

use std::sync::Arc;
use std::time::Instant;

use adit_http::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::instance::Instance;
use crate::{ipc, local, reinit};

/// Runs an agent until `shutdown` is cancelled and it has left in good order.
/// Failures to reach the control plane never end it.
///
/// # Errors
/// The configuration cannot be used at all.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), adit_http::Error> {
    let config = Arc::new(config);
    let http = Client::new(config.client())?;
    // A client of its own, so that a long poll never holds back a dial.
    let poller = Client::new(config.client())?;
    let memory = reinit::Memory::new(&config.data_dir());
    let (claims, mut claimed) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(reinit::poll(
        poller,
        config.auth.clone(),
        config.retry,
        memory,
        claims,
    ));
    loop {
        let agent = Instance::new(Arc::clone(&config), http.clone());
        let mut listeners = JoinSet::new();
        local::start(&agent, &mut listeners);
        listeners.spawn(ipc::run(Arc::clone(&agent)));
        let stop = CancellationToken::new();
        let mut running = std::pin::pin!(Arc::clone(&agent).run(stop.clone()));
        let claim = tokio::select! {
            () = &mut running => None,
            () = shutdown.cancelled() => None,
            Some(claim) = claimed.recv() => Some(claim),
        };
        let began = Instant::now();
        stop.cancel();
        running.await;
        listeners.shutdown().await;
        match claim {
            Some(claim) if !shutdown.is_cancelled() => {
                let took_ms = began.elapsed().as_millis();
                tracing::info!(owner = %claim.owner_id, took_ms, "the workspace was claimed; starting for its owner");
            }
            _ => {
                tasks.shutdown().await;
                return Ok(());
            }
        }
    }
}
