//! One connection to a relay.
//!
//! [`Client::connect`] finds a carrier that works, proves our key and returns
//! a handle. A task of the handle reads and writes; it never waits for the
//! caller: both queues are bounded and drop their oldest packets. When the
//! connection ends, [`Client::closed`] says why; connecting again is up to the
//! caller.

mod connect;
mod driver;
mod queue;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_http::Endpoint;
use adit_keys::NodePublic;
use adit_rest::DerpNode;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use connect::{ConnectError, ConnectOptions, Memory};

use crate::CarrierKind;
use crate::frame::{FrameError, MAX_PACKET, PeerGoneReason};
use crate::handshake::HandshakeError;
use queue::Shared;

/// How long a [`Client::ping`] waits.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that came from the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A packet.
    Packet {
        /// Who sent it, as authenticated by the relay.
        src: NodePublic,
        /// The packet.
        packet: Bytes,
    },
    /// A node cannot be reached here: forget that it was seen here. Not a
    /// proof that it is dead.
    PeerGone {
        /// The node.
        peer: NodePublic,
        /// Why.
        reason: PeerGoneReason,
    },
    /// The relay says what is wrong with it; empty when it is well.
    Health(String),
    /// The relay is about to restart.
    Restarting {
        /// When to connect again.
        reconnect_in: Duration,
        /// For how long to try.
        try_for: Duration,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    #[error("closed")]
    Local,
    /// The relay ended the stream, as it does when it stops.
    #[error("the relay closed the connection")]
    Eof,
    /// The connection broke.
    #[error("connection to the relay broke: {reason}")]
    Io {
        /// Kind of the error.
        kind: io::ErrorKind,
        /// In words.
        reason: String,
    },
    /// Nothing was heard for two minutes although relays send keep-alives.
    #[error("nothing heard from the relay in time")]
    ReadTimeout,
    /// The relay takes nothing more.
    #[error("the relay did not take what was sent in time")]
    WriteTimeout,
    /// The relay sent a frame that ends the connection.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The relay could not prove its key.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The carrier below was used wrongly.
    #[error("the relay broke the protocol: {0}")]
    Protocol(String),
}

/// A connection to a relay; the task behind it ends with it.
pub struct Client {
    shared: Arc<Shared>,
    kind: CarrierKind,
    refused: Option<String>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.close(CloseReason::Local);
    }
}

impl Client {
    /// Which carrier won.
    pub fn carrier(&self) -> CarrierKind {
        self.kind
    }

    /// Why `Upgrade: DERP` was refused with a status 400 to 499, if the
    /// connection is a WebSocket for that reason. Nodes report this text for
    /// the region.
    pub fn upgrade_refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The relay's key.
    pub fn server_key(&self) -> NodePublic {
        self.shared.server_key
    }

    /// Queues packets, each for a node. Never waits; if the queue is full, its
    /// oldest packets are dropped. Gives the number of packets dropped, among
    /// them those that are too large. After the end of the connection all are.
    pub fn send_batch(&self, packets: impl IntoIterator<Item = (NodePublic, Bytes)>) -> usize {
        let mut dropped = 0;
        let fitting = packets.into_iter().filter(|(_, packet)| {
            let fits = packet.len() <= MAX_PACKET;
            dropped += usize::from(!fits);
            fits
        });
        let pushed = self.shared.push_packets(fitting);
        dropped + pushed
    }

    /// Ready while fewer than `limit` bytes wait to be sent. Otherwise the
    /// caller, of whom there can be one, is woken once half of that is left,
    /// or when the connection ends.
    pub fn poll_room(&self, cx: &Context<'_>, limit: usize) -> Poll<()> {
        self.shared.poll_room(cx, limit)
    }

    /// Frees the room of the queues that a burst needed.
    pub fn shrink(&self) {
        self.shared.shrink();
    }

    /// Tells the relay whether it is our home.
    pub fn note_preferred(&self, home: bool) {
        self.shared.note_preferred(home);
    }

    /// Waits for events and appends up to `max` of them to `out`. Safe to
    /// cancel. What was received before the connection ended is given first.
    pub async fn recv_batch(&self, out: &mut Vec<Event>, max: usize) -> Result<usize, CloseReason> {
        loop {
            let notified = self.shared.readable.notified();
            let taken = self.shared.take_events(out, max);
            if taken > 0 {
                return Ok(taken);
            }
            if let Some(reason) = self.shared.close_reason() {
                return Err(reason);
            }
            notified.await;
        }
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> CloseReason {
        let mut ended = self.shared.ended.subscribe();
        loop {
            if let Some(reason) = self.shared.close_reason() {
                return reason;
            }
            if ended.changed().await.is_err() {
                return CloseReason::Local;
            }
        }
    }

    /// Round trip to the relay, `None` if it takes more than 5 s. For use
    /// after a change of networks: if this fails, connect again.
    pub async fn ping(&self) -> Option<Duration> {
        let (sender, pong) = oneshot::channel();
        let start = Instant::now();
        self.shared.start_ping(rand::random(), sender);
        timeout(PING_TIMEOUT, pong).await.ok()?.ok()?;
        Some(start.elapsed())
    }

    /// How many received packets were dropped because nobody took them.
    pub fn dropped_received(&self) -> u64 {
        self.shared.dropped_received.load(Ordering::Relaxed)
    }

    /// Sends what is queued, ends the stream and waits for that, at most a
    /// second.
    pub async fn close(mut self) {
        self.shared.begin_close();
        let _ = timeout(Duration::from_secs(1), &mut self.task).await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("carrier", &self.kind)
            .field("closed", &self.shared.close_reason())
            .finish_non_exhaustive()
    }
}

/// Where to dial a relay of a relay map. `None` if it relays nothing, or none
/// of its address families may be used.
///
/// Literal addresses are dialed instead of the name; any other text in their
/// place, such as `none`, rules the family out.
pub fn relay_endpoint(node: &DerpNode) -> Option<Endpoint> {
    if node.stun_only {
        return None;
    }
    let port = match node.derp_port {
        0 => 443,
        port => u16::try_from(port).ok()?,
    };
    let mut endpoint = Endpoint::new(node.host_name.clone(), port, !node.force_http);
    endpoint.insecure = node.insecure_for_tests;
    endpoint.cert_name = Some(node.cert_name.clone()).filter(|name| !name.is_empty());
    let fixed = [&node.ipv4, &node.ipv6]
        .into_iter()
        .filter_map(|text| text.parse().ok());
    endpoint.addresses = fixed.collect();
    if endpoint.addresses.is_empty() {
        let ruled_out = !node.ipv4.is_empty() && !node.ipv6.is_empty();
        if ruled_out || endpoint.host.is_empty() {
            return None;
        }
    }
    Some(endpoint)
}
