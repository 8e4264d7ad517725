//! Listeners on loopback: metrics and debug pages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::http_api::{Api, Scope};
use crate::instance::Instance;

/// Most connections per listener.
const MOST: usize = 64;

/// Starts what the configuration asks for. An address that cannot be used is
/// only logged.
pub(crate) fn start(agent: &Arc<Instance>, tasks: &mut JoinSet<()>) {
    let config = &agent.config;
    for (address, scope) in [
        (config.prometheus_address, Scope::Metrics),
        (config.debug_address, Scope::Debug),
    ] {
        let Some(address) = address else { continue };
        let api = Arc::new(Api {
            node: None,
            manifest: agent.manifest.subscribe(),
            metrics: Arc::clone(&agent.metrics),
            log_file: config.log_file.clone(),
            ignored_ports: Vec::new(),
            scan: Mutex::default(),
            scope,
        });
        tasks.spawn(listen(address, api));
    }
}

async fn listen(address: SocketAddr, api: Arc<Api>) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::debug!(%address, %error, "cannot listen");
            return;
        }
    };
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted
                    && running.len() < MOST
                {
                    running.spawn(Arc::clone(&api).serve(stream));
                }
            }
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}
