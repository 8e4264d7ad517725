//! Local listeners whose connections end in the workspace.
//!
//! Each forward and each connection stands alone: one that fails says why and
//! leaves the others as they are.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::Duration,
};

use adit_engine::Node;
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    ports::{Forward, Protocol},
    tunnel::Tunnel,
};

/// Connections that one listener serves at a time; more wait in the kernel.
const CONNECTIONS: usize = 1024;
/// Copy buffer of one direction of a connection.
const BUFFER: usize = 64 * 1024;
/// A UDP flow without traffic in either direction is forgotten.
const UDP_IDLE: Duration = Duration::from_secs(120);
/// UDP flows of one listener; the oldest idle one makes room.
const UDP_FLOWS: usize = 1024;
/// Datagrams waiting for a flow's task; the newest is dropped beyond.
const UDP_QUEUE: usize = 256;
/// Pause after the operating system refused to accept, for want of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All forwards of one command.
#[derive(Debug)]
pub(crate) struct Forwarder {
    node: Node,
    ip: Ipv6Addr,
    tasks: JoinSet<Result<()>>,
}

impl Forwarder {
    /// Forwards through `tunnel`.
    pub(crate) fn new(tunnel: &Tunnel) -> Self {
        Self {
            node: tunnel.node().clone(),
            ip: tunnel.ip(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens the local side of a forward; returns where it listens. Without a
    /// given address both loopback addresses are used, the IPv6 one where
    /// there is one.
    pub(crate) async fn listen(&mut self, forward: &Forward) -> Result<Vec<SocketAddr>> {
        let addresses: Vec<IpAddr> = match forward.bind {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        let remote = SocketAddrV6::new(self.ip, forward.remote, 0, 0);
        let mut bound = Vec::new();
        for address in addresses {
            let required = forward.bind.is_some() || address.is_ipv4();
            let local = SocketAddr::new(address, forward.local);
            let result = match forward.protocol {
                Protocol::Tcp => self.listen_tcp(local, remote).await,
                Protocol::Udp => self.listen_udp(local, remote).await,
            };
            match result {
                Ok(local) => bound.push(local),
                Err(error) if required => {
                    let remedy = if error.kind() == io::ErrorKind::AddrInUse {
                        format!(
                            ": another program uses it; choose another local port, as in {}:{}",
                            alternative(forward.local),
                            forward.remote
                        )
                    } else {
                        String::new()
                    };
                    return Err(error).with_context(|| {
                        format!("listen on {} {local}{remedy}", forward.protocol)
                    });
                }
                Err(error) => tracing::debug!(%local, %error, "not listening there"),
            }
        }
        if bound.is_empty() {
            bail!("no address to listen on for port {}", forward.local);
        }
        Ok(bound)
    }

    async fn listen_tcp(
        &mut self,
        local: SocketAddr,
        remote: SocketAddrV6,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(local).await?;
        let local = listener.local_addr()?;
        let node = self.node.clone();
        self.tasks
            .spawn(async move { serve_tcp(listener, node, remote).await });
        Ok(local)
    }

    async fn listen_udp(
        &mut self,
        local: SocketAddr,
        remote: SocketAddrV6,
    ) -> io::Result<SocketAddr> {
        let socket = UdpSocket::bind(local).await?;
        let local = socket.local_addr()?;
        let node = self.node.clone();
        self.tasks
            .spawn(async move { serve_udp(socket, node, remote).await });
        Ok(local)
    }

    /// Runs until a listener breaks.
    pub(crate) async fn run(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended.context("a forward ended unexpectedly")?,
            None => std::future::pending().await,
        }
    }
}

fn alternative(port: u16) -> u16 {
    if port < 60_000 {
        port.max(1024) + 1
    } else {
        8080
    }
}

async fn serve_tcp(listener: TcpListener, node: Node, remote: SocketAddrV6) -> Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (local, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client is gone already.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let node = node.clone();
        connections.spawn(async move {
            if let Err(error) = splice(local, &node, remote).await {
                eprintln!("adit: connection from {peer}: {error}");
            }
            drop(permit);
        });
    }
}

async fn splice(mut local: TcpStream, node: &Node, remote: SocketAddrV6) -> Result<()> {
    local.set_nodelay(true)?;
    let mut far = match node.dial(remote).await {
        Ok(far) => far,
        Err(adit_engine::Error::Refused) => {
            bail!("nothing listens on port {} in the workspace", remote.port())
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("reach port {} in the workspace", remote.port()));
        }
    };
    match tokio::io::copy_bidirectional_with_sizes(&mut local, &mut far, BUFFER, BUFFER).await {
        Ok(_) => Ok(()),
        // How clients leave; nothing was lost that they still wanted.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve_udp(socket: UdpSocket, node: Node, remote: SocketAddrV6) -> Result<()> {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks: JoinSet<SocketAddr> = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                if let Ok(peer) = ended
                    && flows.get(&peer).is_some_and(mpsc::Sender::is_closed)
                {
                    flows.remove(&peer);
                }
            }
            received = socket.recv_from(&mut buffer) => {
                let (length, peer) = match received {
                    Ok(received) => received,
                    // Windows reports an ICMP answer to an earlier datagram.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                    Err(error) => return Err(error).context("receive a datagram"),
                };
                let data = Bytes::copy_from_slice(&buffer[..length]);
                let queue = match flows.get(&peer).filter(|queue| !queue.is_closed()) {
                    Some(queue) => queue,
                    None if flows.len() >= UDP_FLOWS => {
                        tracing::warn!(%peer, "too many UDP flows; datagram dropped");
                        continue;
                    }
                    None => {
                        let (queue, incoming) = mpsc::channel(UDP_QUEUE);
                        tasks.spawn(udp_flow(Arc::clone(&socket), peer, node.clone(), remote, incoming));
                        flows.entry(peer).insert_entry(queue).into_mut()
                    }
                };
                // Full: the datagram is lost, as on any congested path.
                let _ = queue.try_send(data);
            }
        }
    }
}

/// Carries one client's datagrams, both ways, until it falls silent.
async fn udp_flow(
    local: Arc<UdpSocket>,
    peer: SocketAddr,
    node: Node,
    remote: SocketAddrV6,
    mut incoming: mpsc::Receiver<Bytes>,
) -> SocketAddr {
    let mut far = match node.udp_bind(0).await {
        Ok(far) => far,
        Err(error) => {
            eprintln!("adit: datagrams from {peer}: {error}");
            return peer;
        }
    };
    loop {
        let step = tokio::time::timeout(UDP_IDLE, async {
            tokio::select! {
                Some(data) = incoming.recv() => {
                    if data.len() > adit_engine::MAX_DATAGRAM {
                        tracing::warn!(%peer, bytes = data.len(), "datagram too large for the tunnel");
                        return true;
                    }
                    far.send_to(data, remote).is_ok()
                }
                Some(datagram) = far.recv() => {
                    if datagram.remote == remote {
                        // The client may be gone; it will be silent then.
                        let _ = local.send_to(&datagram.data, peer).await;
                    }
                    true
                }
                else => false,
            }
        });
        if !step.await.unwrap_or(false) {
            return peer;
        }
    }
}
