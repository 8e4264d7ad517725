//! Accepting connections on the agent's own ports.

use std::net::{SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, OnceLock};

use adit_agent_ssh::{Config, HostKey, Server};
use adit_engine::{Node, TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::diagnose::SessionError;
use crate::http_api::{Api, Scope};
use crate::instance::Instance;
use crate::manifest::Manifest;

/// Most connections per service; more are dropped.
const MOST: usize = 1_024;

/// Starts everything that listens in the tunnel. The SSH server appears in
/// `ssh` once its host key is derived, which nothing waits for but SSH clients.
pub(super) async fn start_all(
    agent: &Arc<Instance>,
    manifest: &Manifest,
    node: &Node,
    terminals: &adit_agent_pty::Service,
    ssh: &Arc<OnceLock<Server>>,
    tasks: &mut JoinSet<()>,
) -> Result<(), SessionError> {
    let ssh_ports = [node.listen(1).await?, node.listen(22).await?];
    let terminal_port = node.listen(2).await?;
    let speed_port = node.listen(3).await?;
    let api_port = node.listen(4).await?;

    let until = agent.graceful.clone();
    let service = terminals.clone();
    tasks.spawn(accept(terminal_port, until, move |stream, remote| {
        let service = service.clone();
        async move { service.serve(stream, Some(remote)).await }
    }));
    tasks.spawn(accept(
        speed_port,
        agent.graceful.clone(),
        |stream, _| async {
            if let Err(error) = crate::speedtest::serve(stream).await {
                tracing::debug!(%error, "speed test ended");
            }
        },
    ));
    let api = Arc::new(Api {
        node: Some(node.clone()),
        manifest: agent.manifest.subscribe(),
        metrics: Arc::clone(&agent.metrics),
        log_file: agent.config.log_file.clone(),
        ignored_ports: agent.config.ignored_ports.clone(),
        scan: Mutex::default(),
        scope: Scope::Tunnel,
    });
    tasks.spawn(accept(
        api_port,
        agent.graceful.clone(),
        move |stream, _| Arc::clone(&api).serve(stream),
    ));
    tasks.spawn(crate::proxy::run_tcp(node.listen_rest().await));
    tasks.spawn(crate::proxy::run_udp(node.udp_rest().await));

    tasks.spawn(serve_ssh(
        Arc::clone(agent),
        manifest.clone(),
        ssh_ports,
        Arc::clone(ssh),
    ));
    Ok(())
}

async fn serve_ssh(
    agent: Arc<Instance>,
    manifest: Manifest,
    ports: [TcpListener; 2],
    slot: Arc<OnceLock<Server>>,
) {
    let derive = move || HostKey::derive(&manifest.owner, &manifest.workspace, &manifest.agent);
    let key = match tokio::task::spawn_blocking(derive).await {
        Ok(Ok(key)) => key,
        Ok(Err(error)) => {
            tracing::error!(%error, "no host key, no SSH");
            return;
        }
        Err(_) => return,
    };
    let config = &agent.config;
    let mut ssh = Config::new(agent.workspace.clone(), agent.reports.clone());
    ssh.tally = agent.metrics.clone();
    ssh.greeting = agent.workspace.clone();
    ssh.max_timeout = Some(config.ssh_max_timeout).filter(|t| !t.is_zero());
    ssh.block_file_transfer = config.block_file_transfer;
    ssh.block_reverse_port_forwarding = config.block_reverse_port_forwarding;
    ssh.block_local_port_forwarding = config.block_local_port_forwarding;
    let server = slot.get_or_init(|| Server::new(ssh, &key)).clone();
    // SSH is closed by its own server, politely.
    let never = CancellationToken::new();
    let [one, other] = ports.map(|port| {
        let server = server.clone();
        accept(port, never.clone(), move |stream, remote| {
            let server = server.clone();
            async move { server.serve(stream, Some(remote)).await }
        })
    });
    tokio::join!(one, other);
}

/// Accepts connections until `until` is cancelled or the tunnel closes; then
/// those under way are dropped.
async fn accept<S, F>(mut listener: TcpListener, until: CancellationToken, serve: S)
where
    S: Fn(TcpStream, SocketAddr) -> F + Send,
    F: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = until.cancelled() => break,
            accepted = listener.accept() => {
                let Some((stream, remote)) = accepted else { break };
                if running.len() >= MOST {
                    tracing::warn!(port = listener.port(), "too many connections");
                    continue;
                }
                running.spawn(serve(stream, without_scope(remote)));
            }
            Some(_) = running.join_next(), if !running.is_empty() => {}
        }
    }
}

fn without_scope(remote: SocketAddrV6) -> SocketAddr {
    SocketAddr::new((*remote.ip()).into(), remote.port())
}
