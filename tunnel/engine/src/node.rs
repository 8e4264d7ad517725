//! Handle to a running node.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use adit_keys::{DiscoPublic, NodePublic};
use adit_messages::tailnet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::command::Command;
use crate::config::NodeConfig;
use crate::driver;
use crate::error::Error;
use crate::listener::{BACKLOG, RestListener, TcpListener};
use crate::status::{ConnectionStats, Flow, NetReport, PeerStatus, PingResult};
use crate::stream::TcpStream;
use crate::udp::{UdpRest, UdpSender, UdpSocket};

/// Commands waiting for the core; senders block beyond that.
const COMMAND_QUEUE: usize = 256;
/// Datagrams waiting for a UDP user.
const UDP_QUEUE: usize = 256;
/// How long a dial waits when the caller sets no own limit.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one ping waits for its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`Node::close`] waits for the core to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A member of the mesh: keys, peers, paths, and an IPv6 stack of its own.
///
/// Cheap to clone; the core task ends when [`close`](Self::close) is called or
/// the last clone is dropped. Streams and listeners do not keep it alive.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    self_node: watch::Receiver<Option<tailnet::Node>>,
    key: NodePublic,
    disco: DiscoPublic,
    task: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Opens the UDP sockets and starts the core task.
    ///
    /// Must be called inside a tokio runtime. Returns at once; relays are
    /// connected as soon as a map is known. Where no UDP socket can be opened
    /// the node uses relays only.
    ///
    /// # Errors
    /// None at present.
    #[expect(
        clippy::unused_async,
        reason = "starting may need to wait on other platforms"
    )]
    pub async fn start(config: NodeConfig) -> Result<Self, Error> {
        let (commands, inbox) = mpsc::channel(COMMAND_QUEUE);
        let (announce, self_node) = watch::channel(None);
        let key = config.node_key.public();
        let disco = config.disco_key.public();
        let core = driver::Core::new(config, inbox, commands.downgrade(), announce);
        let task = tokio::spawn(core);
        Ok(Self {
            shared: Arc::new(Shared {
                commands,
                self_node,
                key,
                disco,
                task,
            }),
        })
    }

    /// WireGuard public key.
    #[must_use]
    pub fn public_key(&self) -> NodePublic {
        self.shared.key
    }

    /// Disco public key.
    #[must_use]
    pub fn disco_key(&self) -> DiscoPublic {
        self.shared.disco
    }

    /// What the coordinator should be told about this node; `None` until a
    /// home relay region is known. Changes when home, endpoints, addresses or
    /// latencies change.
    #[must_use]
    pub fn self_node(&self) -> watch::Receiver<Option<tailnet::Node>> {
        self.shared.self_node.clone()
    }

    /// Replaces the relay map (already rewritten for the own access URL).
    pub async fn set_derp_map(&self, map: tailnet::DerpMap) {
        self.tell(Command::SetDerpMap(Box::new(map))).await;
    }

    /// Replaces the own overlay addresses.
    pub async fn set_addresses(&self, addresses: Vec<Ipv6Addr>) {
        self.tell(Command::SetAddresses(addresses)).await;
    }

    /// Turns direct paths off or on, for existing peers too.
    pub async fn set_block_endpoints(&self, block: bool) {
        self.tell(Command::SetBlockEndpoints(block)).await;
    }

    /// Uses WebSockets for relay connections made from now on.
    pub async fn set_force_websockets(&self, force: bool) {
        self.tell(Command::SetForceWebsockets(force)).await;
    }

    /// Grants a peer, or replaces what is known of it. Only peers granted this
    /// way can exchange packets with the node. Returns once it is in force.
    ///
    /// `keepalive` keeps the session open every 25 s and starts the handshake
    /// now; the side that opened the tunnel sets it.
    ///
    /// # Errors
    /// [`Error::BadPeer`] when key, disco key, addresses or home region cannot
    /// be used; the previous state of the peer then stays.
    pub async fn upsert_peer(
        &self,
        id: Uuid,
        node: &tailnet::Node,
        keepalive: bool,
    ) -> Result<(), Error> {
        let node = Box::new(node.clone());
        self.ask(|reply| Command::UpsertPeer {
            id,
            node,
            keepalive,
            reply,
        })
        .await?
    }

    /// Takes the grant back: no packet from or to the peer from now on.
    pub async fn remove_peer(&self, id: Uuid) {
        let _ = self.ask(|reply| Command::RemovePeer { id, reply }).await;
    }

    /// Age of the newest handshake with a peer, `None` if there was none.
    pub async fn last_handshake(&self, id: Uuid) -> Option<Duration> {
        self.ask(|reply| Command::LastHandshake { id, reply })
            .await
            .ok()
            .flatten()
    }

    /// Something was sent to the peer within the last 45 s.
    pub async fn peer_active(&self, id: Uuid) -> bool {
        self.ask(|reply| Command::PeerActive { id, reply })
            .await
            .unwrap_or(false)
    }

    /// Listens on a TCP port of every own address.
    ///
    /// # Errors
    /// The port is taken or the node closed.
    pub async fn listen(&self, port: u16) -> Result<TcpListener, Error> {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.ask(|reply| Command::Listen {
            port,
            incoming: sender,
            reply,
        })
        .await??;
        Ok(TcpListener { port, incoming })
    }

    /// Receives connection attempts to all other TCP ports, replacing an
    /// earlier rest listener.
    pub async fn listen_rest(&self) -> RestListener {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        self.tell(Command::ListenRest { incoming: sender }).await;
        RestListener { incoming }
    }

    /// Opens a TCP connection to a peer; waits up to 30 s.
    ///
    /// # Errors
    /// Unknown peer, refused, timed out, or the node closed.
    pub async fn dial(&self, remote: SocketAddrV6) -> Result<TcpStream, Error> {
        self.dial_timeout(remote, DIAL_TIMEOUT).await
    }

    /// As [`dial`](Self::dial) with another limit.
    ///
    /// # Errors
    /// As [`dial`](Self::dial).
    pub async fn dial_timeout(
        &self,
        remote: SocketAddrV6,
        limit: Duration,
    ) -> Result<TcpStream, Error> {
        tokio::time::timeout(limit, self.ask(|reply| Command::Dial { remote, reply }))
            .await
            .map_err(|_| Error::Timeout("the peer to accept the connection"))??
    }

    /// Binds a UDP port (0 picks one) on the first own address.
    ///
    /// # Errors
    /// The port is taken or the node closed.
    pub async fn udp_bind(&self, port: u16) -> Result<UdpSocket, Error> {
        let (sender, incoming) = mpsc::channel(UDP_QUEUE);
        let local = self
            .ask(|reply| Command::UdpBind {
                port,
                incoming: sender,
                reply,
            })
            .await??;
        Ok(UdpSocket {
            local,
            incoming,
            sender: self.udp_sender(),
        })
    }

    /// Receives datagrams to all unbound UDP ports, replacing an earlier
    /// receiver.
    pub async fn udp_rest(&self) -> UdpRest {
        let (sender, incoming) = mpsc::channel(UDP_QUEUE);
        self.tell(Command::UdpRest { incoming: sender }).await;
        UdpRest {
            incoming,
            sender: self.udp_sender(),
        }
    }

    fn udp_sender(&self) -> UdpSender {
        UdpSender {
            commands: self.shared.commands.clone(),
        }
    }

    /// One reachability ping through the tunnel (TSMP, answered by the peer's
    /// IP stack): proves WireGuard, not only the path. Waits up to 10 s.
    ///
    /// # Errors
    /// Unknown peer, timeout, or the node closed.
    pub async fn ping_tsmp(&self, dst: Ipv6Addr) -> Result<Duration, Error> {
        tokio::time::timeout(
            PING_TIMEOUT,
            self.ask(|reply| Command::PingTsmp { dst, reply }),
        )
        .await
        .map_err(|_| Error::Timeout("the peer's pong"))??
    }

    /// One path discovery ping over every path; the first pong wins. Waits up
    /// to 5 s.
    ///
    /// # Errors
    /// Unknown peer, timeout, or the node closed.
    pub async fn ping_disco(&self, dst: Ipv6Addr) -> Result<PingResult, Error> {
        tokio::time::timeout(
            PING_TIMEOUT,
            self.ask(|reply| Command::PingDisco { dst, reply }),
        )
        .await
        .map_err(|_| Error::Timeout("the peer's pong"))??
    }

    /// All peers.
    pub async fn status(&self) -> Vec<PeerStatus> {
        self.ask(|reply| Command::Status { reply })
            .await
            .unwrap_or_default()
    }

    /// The peer that owns an overlay address.
    pub async fn peer_status(&self, addr: Ipv6Addr) -> Option<PeerStatus> {
        self.status()
            .await
            .into_iter()
            .find(|p| p.addresses.contains(&addr))
    }

    /// Traffic counters.
    pub async fn connection_stats(&self) -> ConnectionStats {
        self.ask(|reply| Command::Stats { reply })
            .await
            .unwrap_or_default()
    }

    /// The flows that carried packets since the last call. Only a node that
    /// counts them has any; see [`NodeConfig::count_flows`].
    pub async fn take_flows(&self) -> Vec<Flow> {
        self.ask(|reply| Command::TakeFlows { reply })
            .await
            .unwrap_or_default()
    }

    /// What the last network check found.
    pub async fn net_report(&self) -> NetReport {
        self.ask(|reply| Command::NetReport { reply })
            .await
            .unwrap_or_default()
    }

    /// Frees memory that is kept for traffic to come. To be called when there
    /// is none.
    pub async fn give_back(&self) {
        self.tell(Command::GiveBack).await;
    }

    /// Tells the node that the machine's network changed: endpoints are
    /// gathered again and all paths proved anew.
    pub async fn link_changed(&self) {
        self.tell(Command::LinkChanged).await;
    }

    /// Closes all connections and ends the core, within two seconds.
    pub async fn close(&self) {
        let closing = self.ask(|reply| Command::Close { reply });
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        self.shared.task.abort();
    }

    async fn tell(&self, command: Command) {
        // A closed node has nothing left to change.
        let _ = self.shared.commands.send(command).await;
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .commands
            .send(make(reply))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}
