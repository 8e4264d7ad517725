//! What handles ask of the core task.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use adit_messages::tailnet;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::error::Error;
use crate::listener::PendingConn;
use crate::status::{ConnectionStats, Flow, NetReport, PeerStatus, PingResult};
use crate::stream::TcpStream;
use crate::udp::Datagram;

/// Answer channel of a command.
pub(crate) type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub(crate) enum Command {
    SetDerpMap(Box<tailnet::DerpMap>),
    SetAddresses(Vec<Ipv6Addr>),
    SetBlockEndpoints(bool),
    SetForceWebsockets(bool),
    UpsertPeer {
        id: Uuid,
        node: Box<tailnet::Node>,
        keepalive: bool,
        reply: Reply<Result<(), Error>>,
    },
    RemovePeer {
        id: Uuid,
        reply: Reply<()>,
    },
    Listen {
        port: u16,
        incoming: mpsc::Sender<TcpStream>,
        reply: Reply<Result<(), Error>>,
    },
    ListenRest {
        incoming: mpsc::Sender<PendingConn>,
    },
    Dial {
        remote: SocketAddrV6,
        reply: Reply<Result<TcpStream, Error>>,
    },
    Accept {
        id: u64,
        reply: Reply<Result<TcpStream, Error>>,
    },
    Reject {
        id: u64,
    },
    UdpBind {
        port: u16,
        incoming: mpsc::Sender<Datagram>,
        reply: Reply<Result<SocketAddrV6, Error>>,
    },
    UdpRest {
        incoming: mpsc::Sender<Datagram>,
    },
    UdpSend(Datagram),
    PingTsmp {
        dst: Ipv6Addr,
        reply: Reply<Result<Duration, Error>>,
    },
    PingDisco {
        dst: Ipv6Addr,
        reply: Reply<Result<PingResult, Error>>,
    },
    Status {
        reply: Reply<Vec<PeerStatus>>,
    },
    LastHandshake {
        id: Uuid,
        reply: Reply<Option<Duration>>,
    },
    PeerActive {
        id: Uuid,
        reply: Reply<bool>,
    },
    Stats {
        reply: Reply<ConnectionStats>,
    },
    TakeFlows {
        reply: Reply<Vec<Flow>>,
    },
    NetReport {
        reply: Reply<NetReport>,
    },
    GiveBack,
    LinkChanged,
    Close {
        reply: Reply<()>,
    },
}
