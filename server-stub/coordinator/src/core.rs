//! The state machine.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    auth::{Permission, Role},
    message::{InvalidRequest, Kind, MAX_UPDATES_PER_RESPONSE, PeerUpdate, Request, Response},
    tunnels::Tunnels,
};

/// One connection of a peer. Never used twice, so that what a replaced
/// connection still does cannot touch the one that replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

/// What the driver has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the peer. If its queue is full, call
    /// [`Coordinator::overflowed`].
    Send(ConnId, Response),
    /// End the stream, once what was sent before is out.
    End(ConnId),
}

/// A connected peer, for diagnostics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer.
    pub id: Uuid,
    /// What it is called on diagnostic pages.
    pub name: String,
    /// Its encoded node, once it announced one.
    pub node: Option<Bytes>,
}

#[derive(Debug)]
struct Peer {
    conn: ConnId,
    role: Role,
    name: String,
    node: Option<Bytes>,
    /// What this connection was last told about each other peer.
    told: BTreeMap<Uuid, Bytes>,
}

/// Peers, their tunnels and what each was told.
#[derive(Debug, Default)]
pub struct Coordinator {
    peers: HashMap<Uuid, Peer>,
    conns: HashMap<ConnId, Uuid>,
    tunnels: Tunnels,
    last_conn: u64,
    outputs: VecDeque<Output>,
    closed: bool,
}

impl Coordinator {
    /// A coordinator without peers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes up a new connection of the peer `id`.
    ///
    /// An older connection of the same peer is told so and ended; its tunnels
    /// stay, and nobody else hears of the exchange. The new one is told the
    /// nodes of all who share a tunnel with it.
    pub fn connect(&mut self, id: Uuid, role: Role, name: impl Into<String>) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        if self.closed {
            self.end_with(conn, "coordinator closed");
            return conn;
        }
        let peer = Peer {
            conn,
            role,
            name: name.into(),
            node: None,
            told: BTreeMap::new(),
        };
        if let Some(old) = self.peers.insert(id, peer) {
            self.conns.remove(&old.conn);
            self.end_with(old.conn, "peer ID overwritten by new connection");
        }
        self.conns.insert(conn, id);

        let mut updates = Vec::new();
        for other in self.tunnels.peers_of(id) {
            if let Some(node) = self.peers.get(&other).and_then(|other| other.node.clone()) {
                updates.extend(self.news(id, other, Some(node), Kind::Node, "init"));
            }
        }
        while !updates.is_empty() {
            let rest = updates.split_off(updates.len().min(MAX_UPDATES_PER_RESPONSE));
            let batch = std::mem::replace(&mut updates, rest);
            self.outputs.push_back(Output::Send(
                conn,
                Response {
                    updates: batch,
                    error: String::new(),
                },
            ));
        }
        conn
    }

    /// Whether this connection is still the current one of its peer.
    #[must_use]
    pub fn is_connected(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Carries out a request. `permission` answers its `add_tunnel` for a
    /// [`Role::User`]. Requests of ended connections are ignored.
    pub fn request(&mut self, conn: ConnId, request: Request, permission: Permission) {
        let Some(&id) = self.conns.get(&conn) else {
            return;
        };
        let Some(role) = self.peers.get(&id).map(|peer| peer.role) else {
            return;
        };
        if let Err(denied) = role.authorize(&request, permission) {
            self.refuse(conn, id, format!("authorization: {denied}"));
            return;
        }
        if let Some(node) = request.update_self {
            self.update_self(id, &node.bytes);
        }
        if let Some(destination) = request.add_tunnel {
            self.add_tunnel(id, destination);
        }
        if let Some(destination) = request.remove_tunnel {
            self.tunnels.remove(id, destination);
            self.tell(id, destination, None, Kind::Disconnected, "remove tunnel");
            self.tell(destination, id, None, Kind::Disconnected, "remove tunnel");
        }
        if request.disconnect {
            self.remove(id, Kind::Disconnected, "graceful disconnect");
            self.outputs.push_back(Output::End(conn));
            return;
        }
        for other in request.ready_for_handshake {
            self.ready_for_handshake(conn, id, other);
        }
    }

    /// Ends a connection whose request could not be read.
    pub fn invalid(&mut self, conn: ConnId, error: &InvalidRequest) {
        if let Some(&id) = self.conns.get(&conn) {
            // The ids are read by the access rules of the original protocol,
            // hence the common prefix of its error texts.
            self.refuse(conn, id, format!("authorization: {error}"));
        }
    }

    /// The connection went away without a goodbye.
    pub fn lost(&mut self, conn: ConnId) {
        if let Some(&id) = self.conns.get(&conn) {
            self.remove(id, Kind::Lost, "lost");
        }
    }

    /// The queue of the connection is full: its peer reads too slowly to be
    /// told the truth, so it has to start anew.
    pub fn overflowed(&mut self, conn: ConnId) {
        if let Some(&id) = self.conns.get(&conn) {
            self.remove(id, Kind::Disconnected, "failed update");
            self.outputs.push_back(Output::End(conn));
        }
    }

    /// Ends all connections, and those that come later at once. Peers are told
    /// that the others are lost, not gone: their tunnels go on working.
    pub fn close(&mut self) {
        self.closed = true;
        let mut all: Vec<_> = self.conns.iter().map(|(&conn, &id)| (conn, id)).collect();
        all.sort_unstable();
        for (conn, id) in all {
            self.remove(id, Kind::Lost, "coordinator close");
            self.end_with(conn, "coordinator closed");
        }
    }

    /// What to do next, in order; `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The encoded node of a connected peer.
    #[must_use]
    pub fn node(&self, id: Uuid) -> Option<Bytes> {
        self.peers.get(&id)?.node.clone()
    }

    /// All connected peers, in order of their ids.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<_> = self
            .peers
            .iter()
            .map(|(&id, peer)| PeerInfo {
                id,
                name: peer.name.clone(),
                node: peer.node.clone(),
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }

    /// The number of tunnels, whether their ends are connected or not.
    #[must_use]
    pub fn tunnel_count(&self) -> usize {
        self.tunnels.len()
    }

    fn update_self(&mut self, id: Uuid, node: &Bytes) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.node = Some(node.clone());
        }
        for other in self.tunnels.peers_of(id) {
            self.tell(other, id, Some(node.clone()), Kind::Node, "node update");
        }
    }

    fn add_tunnel(&mut self, id: Uuid, destination: Uuid) {
        self.tunnels.add(id, destination);
        for (to, about) in [(id, destination), (destination, id)] {
            if let Some(node) = self.node(about) {
                self.tell(to, about, Some(node), Kind::Node, "add tunnel");
            }
        }
    }

    fn ready_for_handshake(&mut self, conn: ConnId, id: Uuid, other: Uuid) {
        if !self.tunnels.shared(id, other) {
            let text =
                format!("ready for handshake error: you do not share a tunnel with \"{other}\"");
            self.outputs
                .push_back(Output::Send(conn, Response::error(text)));
        } else if let Some(peer) = self.peers.get(&other) {
            let update = PeerUpdate {
                id,
                node: None,
                kind: Kind::ReadyForHandshake,
                reason: "",
            };
            self.outputs
                .push_back(Output::Send(peer.conn, Response::update(update)));
        }
    }

    /// Removes a peer and the tunnels it opened, and tells who shared one.
    fn remove(&mut self, id: Uuid, kind: Kind, reason: &'static str) {
        if let Some(peer) = self.peers.remove(&id) {
            self.conns.remove(&peer.conn);
        }
        for other in self.tunnels.peers_of(id) {
            self.tell(other, id, None, kind, reason);
        }
        self.tunnels.remove_all_from(id);
    }

    fn refuse(&mut self, conn: ConnId, id: Uuid, text: String) {
        self.remove(id, Kind::Lost, "lost");
        self.end_with(conn, text);
    }

    fn end_with(&mut self, conn: ConnId, text: impl Into<String>) {
        self.outputs
            .push_back(Output::Send(conn, Response::error(text)));
        self.outputs.push_back(Output::End(conn));
    }

    /// Sends news about a peer to another one, if connected and if news.
    fn tell(
        &mut self,
        to: Uuid,
        about: Uuid,
        node: Option<Bytes>,
        kind: Kind,
        reason: &'static str,
    ) {
        let Some(conn) = self.peers.get(&to).map(|peer| peer.conn) else {
            return;
        };
        if let Some(update) = self.news(to, about, node, kind, reason) {
            self.outputs
                .push_back(Output::Send(conn, Response::update(update)));
        }
    }

    /// Notes what `to` is told about a peer; `None` if it knows that already: a
    /// node equal byte for byte, or the end of a peer it never heard of.
    fn news(
        &mut self,
        to: Uuid,
        about: Uuid,
        node: Option<Bytes>,
        kind: Kind,
        reason: &'static str,
    ) -> Option<PeerUpdate> {
        let told = &mut self.peers.get_mut(&to)?.told;
        match &node {
            Some(node) if told.get(&about) == Some(node) => return None,
            Some(node) => {
                told.insert(about, node.clone());
            }
            None => {
                told.remove(&about)?;
            }
        }
        Some(PeerUpdate {
            id: about,
            node,
            kind,
            reason,
        })
    }
}
