//! Random histories of a coordinator against a plain model of what each peer
//! must know.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use adit_coordinator::{ConnId, Coordinator, Kind, Output, Permission, Request, Response, Role};
use adit_messages::tailnet;
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

const PEERS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Connect(usize),
    /// The newest connection of the peer goes away.
    Lose(usize),
    /// A connection that was replaced goes away late.
    LoseOld(usize),
    Disconnect(usize),
    Update(usize, i64),
    AddTunnel(usize, usize),
    RemoveTunnel(usize, usize),
    Ready(usize, usize),
    /// Something no client may do.
    Trespass(usize),
    Overflow(usize),
    CloseAll,
}

fn peer() -> impl Strategy<Value = usize> {
    0..PEERS
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => peer().prop_map(Op::Connect),
        2 => peer().prop_map(Op::Lose),
        2 => peer().prop_map(Op::LoseOld),
        2 => peer().prop_map(Op::Disconnect),
        8 => (peer(), 0..3_i64).prop_map(|(peer, node)| Op::Update(peer, node)),
        8 => (peer(), peer()).prop_map(|(from, to)| Op::AddTunnel(from, to)),
        3 => (peer(), peer()).prop_map(|(from, to)| Op::RemoveTunnel(from, to)),
        3 => (peer(), peer()).prop_map(|(from, to)| Op::Ready(from, to)),
        1 => peer().prop_map(Op::Trespass),
        1 => peer().prop_map(Op::Overflow),
        1 => Just(Op::CloseAll),
    ]
}

fn id(peer: usize) -> Uuid {
    Uuid::from_u128(0x1000 + peer as u128)
}

/// The even peers are clients with every permission, the odd ones agents of the
/// control plane's own (which may do all).
fn role(peer: usize) -> Role {
    if peer.is_multiple_of(2) {
        Role::User
    } else {
        Role::Trusted
    }
}

fn node(peer: usize, version: i64) -> tailnet::Node {
    tailnet::Node {
        id: peer as i64 * 100 + version,
        preferred_derp: 999,
        ..tailnet::Node::default()
    }
}

fn request(message: &tailnet::CoordinateRequest) -> Request {
    Request::decode(message.encode_to_vec().into()).unwrap()
}

/// What the rules say each connected peer has been told.
#[derive(Debug, Default)]
struct Model {
    /// Connected peers and their node.
    nodes: BTreeMap<usize, Option<i64>>,
    tunnels: BTreeSet<(usize, usize)>,
    /// (receiver, about) → node.
    view: BTreeMap<(usize, usize), i64>,
    closed: bool,
}

impl Model {
    fn partners(&self, peer: usize) -> Vec<usize> {
        (0..PEERS)
            .filter(|&other| {
                self.tunnels.contains(&(peer, other)) || self.tunnels.contains(&(other, peer))
            })
            .collect()
    }

    fn show(&mut self, to: usize, about: usize) {
        let node = self.nodes.get(&about).copied().flatten();
        if let (true, Some(node)) = (self.nodes.contains_key(&to), node) {
            self.view.insert((to, about), node);
        }
    }

    fn connect(&mut self, peer: usize) {
        self.view.retain(|(to, _), _| *to != peer);
        if self.closed {
            return;
        }
        self.nodes.insert(peer, None);
        for other in self.partners(peer) {
            self.show(peer, other);
        }
    }

    fn gone(&mut self, peer: usize) {
        self.nodes.remove(&peer);
        self.view.retain(|(to, _), _| *to != peer);
        for other in self.partners(peer) {
            self.view.remove(&(other, peer));
        }
        self.tunnels.retain(|(source, _)| *source != peer);
    }
}

/// The coordinator, and what its outputs amount to.
#[derive(Default)]
struct System {
    core: Coordinator,
    current: BTreeMap<usize, ConnId>,
    old: BTreeMap<usize, ConnId>,
    owner: BTreeMap<ConnId, usize>,
    ended: BTreeSet<ConnId>,
    view: BTreeMap<(ConnId, usize), i64>,
    ready: BTreeSet<(usize, usize)>,
    errors: Vec<(ConnId, String)>,
}

impl System {
    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::End(conn) => assert!(self.ended.insert(conn), "ended twice"),
                Output::Send(conn, response) => {
                    assert!(!self.ended.contains(&conn), "sent after the end");
                    self.take(conn, &response);
                }
            }
        }
    }

    fn take(&mut self, conn: ConnId, response: &Response) {
        // What a real peer would see.
        let decoded = tailnet::CoordinateResponse::decode(response.encode()).unwrap();
        assert!(decoded.peer_updates.len() <= adit_coordinator::MAX_UPDATES_PER_RESPONSE);
        if !decoded.error.is_empty() {
            self.errors.push((conn, decoded.error));
        }
        for (update, inner) in decoded.peer_updates.iter().zip(&response.updates) {
            let about = Uuid::from_slice(&update.id).unwrap().as_u128() as usize - 0x1000;
            match inner.kind {
                Kind::Node => {
                    let node = update.node.as_ref().unwrap().id;
                    let before = self.view.insert((conn, about), node % 100);
                    assert_ne!(before, Some(node % 100), "told twice");
                    assert_eq!(node / 100, about as i64, "the node of somebody else");
                }
                Kind::Disconnected | Kind::Lost => {
                    assert!(
                        self.view.remove(&(conn, about)).is_some(),
                        "the end of an unknown peer"
                    );
                    assert_eq!(update.node, None);
                }
                Kind::ReadyForHandshake => {
                    self.ready.insert((self.owner[&conn], about));
                }
            }
        }
    }

    fn send(&mut self, peer: usize, message: &tailnet::CoordinateRequest) {
        if let Some(&conn) = self.current.get(&peer) {
            self.core
                .request(conn, request(message), Permission::Granted);
        }
    }

    fn step(&mut self, model: &mut Model, op: &Op) {
        self.ready.clear();
        self.errors.clear();
        match *op {
            Op::Connect(peer) => {
                let conn = self.core.connect(id(peer), role(peer), "peer");
                self.owner.insert(conn, peer);
                if let Some(old) = self.current.insert(peer, conn) {
                    self.old.insert(peer, old);
                }
                let was_connected = model.nodes.contains_key(&peer);
                model.connect(peer);
                self.drain();
                let replaced = self.old.get(&peer).filter(|_| was_connected);
                if let Some(old) = replaced {
                    assert!(
                        self.errors
                            .contains(&(*old, "peer ID overwritten by new connection".to_owned())),
                        "{:?}",
                        self.errors
                    );
                    assert!(self.ended.contains(old));
                }
            }
            Op::Lose(peer) => {
                if let Some(conn) = self.current.remove(&peer) {
                    self.core.lost(conn);
                    if model.nodes.contains_key(&peer) {
                        model.gone(peer);
                    }
                }
            }
            Op::LoseOld(peer) => {
                if let Some(conn) = self.old.remove(&peer) {
                    self.core.lost(conn);
                }
            }
            Op::Disconnect(peer) => {
                self.send(
                    peer,
                    &tailnet::CoordinateRequest {
                        disconnect: Some(tailnet::coordinate_request::Disconnect {}),
                        ..Default::default()
                    },
                );
                if model.nodes.contains_key(&peer) {
                    model.gone(peer);
                    self.drain();
                    assert!(self.ended.contains(&self.current[&peer]));
                    assert!(self.errors.is_empty());
                    self.current.remove(&peer);
                }
            }
            Op::Update(peer, version) => {
                self.send(
                    peer,
                    &tailnet::CoordinateRequest {
                        update_self: Some(tailnet::coordinate_request::UpdateSelf {
                            node: Some(node(peer, version)),
                        }),
                        ..Default::default()
                    },
                );
                if let Some(node) = model.nodes.get_mut(&peer) {
                    *node = Some(version);
                    for other in model.partners(peer) {
                        model.show(other, peer);
                    }
                }
            }
            Op::AddTunnel(from, to) => {
                self.send(
                    from,
                    &tailnet::CoordinateRequest {
                        add_tunnel: Some(tunnel(to)),
                        ..Default::default()
                    },
                );
                if model.nodes.contains_key(&from) {
                    model.tunnels.insert((from, to));
                    model.show(from, to);
                    model.show(to, from);
                }
            }
            Op::RemoveTunnel(from, to) => {
                self.send(
                    from,
                    &tailnet::CoordinateRequest {
                        remove_tunnel: Some(tunnel(to)),
                        ..Default::default()
                    },
                );
                if model.nodes.contains_key(&from) {
                    model.tunnels.remove(&(from, to));
                    model.view.remove(&(from, to));
                    model.view.remove(&(to, from));
                }
            }
            Op::Ready(from, to) => self.ready(model, from, to),
            Op::Trespass(peer) => {
                if let (Some(&conn), true) =
                    (self.current.get(&peer), model.nodes.contains_key(&peer))
                {
                    let ready = Request {
                        ready_for_handshake: vec![id(0)],
                        ..Request::default()
                    };
                    let tunnel = Request {
                        add_tunnel: Some(id(0)),
                        ..Request::default()
                    };
                    if role(peer) == Role::User {
                        let (bad, permission) = if peer == 0 {
                            (ready, Permission::Granted)
                        } else {
                            (tunnel, Permission::Refused)
                        };
                        self.core.request(conn, bad, permission);
                        self.drain();
                        assert!(
                            self.errors[0].1.starts_with("authorization: "),
                            "{:?}",
                            self.errors
                        );
                        assert!(self.ended.contains(&conn));
                        model.gone(peer);
                    }
                }
            }
            Op::Overflow(peer) => {
                if let Some(&conn) = self.current.get(&peer) {
                    self.core.overflowed(conn);
                    if model.nodes.contains_key(&peer) {
                        model.gone(peer);
                    }
                }
            }
            Op::CloseAll => {
                self.core.close();
                self.drain();
                for peer in std::mem::take(&mut model.nodes).into_keys() {
                    assert!(self.ended.contains(&self.current[&peer]));
                }
                model.view.clear();
                model.tunnels.retain(|_| false);
                model.closed = true;
            }
        }
        self.drain();
    }

    fn ready(&mut self, model: &Model, from: usize, to: usize) {
        if role(from) == Role::User {
            return;
        }
        self.send(
            from,
            &tailnet::CoordinateRequest {
                ready_for_handshake: vec![tailnet::coordinate_request::ReadyForHandshake {
                    id: id(to).as_bytes().to_vec().into(),
                }],
                ..Default::default()
            },
        );
        self.drain();
        if !model.nodes.contains_key(&from) {
            return;
        }
        let shared = model.partners(from).contains(&to);
        assert_eq!(
            self.ready.contains(&(to, from)),
            shared && model.nodes.contains_key(&to)
        );
        if !shared {
            let text = format!(
                "ready for handshake error: you do not share a tunnel with \"{}\"",
                id(to)
            );
            assert_eq!(self.errors, [(self.current[&from], text)]);
            assert!(!self.ended.contains(&self.current[&from]));
        }
    }

    /// What the current connections believe.
    fn beliefs(&self, model: &Model) -> BTreeMap<(usize, usize), i64> {
        self.view
            .iter()
            .filter_map(|(&(conn, about), &node)| {
                let owner = self.owner[&conn];
                let current =
                    self.current.get(&owner) == Some(&conn) && model.nodes.contains_key(&owner);
                current.then_some(((owner, about), node))
            })
            .collect()
    }
}

fn tunnel(to: usize) -> tailnet::coordinate_request::Tunnel {
    tailnet::coordinate_request::Tunnel {
        id: id(to).as_bytes().to_vec().into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// After any history each peer knows exactly what the rules let it know,
    /// was never told the same twice, and never heard the end of a stranger.
    #[test]
    fn peers_know_what_they_should(ops in prop::collection::vec(op(), 1..80)) {
        let mut system = System::default();
        let mut model = Model::default();
        for op in &ops {
            system.step(&mut model, op);
            prop_assert_eq!(system.beliefs(&model), model.view.clone(), "after {:?} of {:?}", op, ops);
            prop_assert_eq!(system.core.peers().len(), model.nodes.len());
            prop_assert_eq!(system.core.tunnel_count(), model.tunnels.len());
        }
    }

    /// Who shares no tunnel with a peer hears nothing of it.
    #[test]
    fn strangers_hear_nothing(ops in prop::collection::vec(op(), 1..80)) {
        let mut system = System::default();
        let mut model = Model::default();
        let mut ever_shared = BTreeSet::new();
        for op in &ops {
            if let Op::AddTunnel(from, to) = *op {
                ever_shared.extend([(from, to), (to, from)]);
            }
            system.step(&mut model, op);
            for &(conn, about) in system.view.keys() {
                prop_assert!(ever_shared.contains(&(system.owner[&conn], about)));
            }
        }
    }

    /// No bytes make the decoder panic, and what it accepts it can act on.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut core = Coordinator::new();
        let conn = core.connect(id(0), Role::Trusted, "peer");
        match Request::decode(bytes.into()) {
            Ok(request) => core.request(conn, request, Permission::Granted),
            Err(error) => core.invalid(conn, &error),
        }
        while core.poll_output().is_some() {}
    }
}
