//! Keeps the node's grants as the coordinator says.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use adit_coord::{Action, PeerTable, Traffic, rewrite_map};
use adit_coordinator::{Connection, EncodedNode, Permission, Request, Responses, Role};
use adit_engine::{Node, NodeConfig};
use adit_http::{Client, ClientConfig, ProxyConfig};
use adit_keys::addr;
use adit_messages::tailnet::CoordinateResponse;
use adit_messages::tailnet::coordinate_response::peer_update::Kind;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use url::Url;
use uuid::Uuid;

use super::{Ask, Tunnel, Unreachable};
use crate::app::App;
use crate::derp;

/// How often idle tunnels are looked for.
const SWEEP: Duration = Duration::from_secs(15);
/// How long a tunnel outlives its last use: the next one comes soon.
const LINGER: Duration = Duration::from_secs(60);

/// Starts the node and the task that drives it, which ends with the server,
/// when it had no tunnels for some time, or when nobody can ask any more.
pub(super) async fn start(app: &App, asks: mpsc::Receiver<Ask>) -> Result<(), Unreachable> {
    let failed = |error: &dyn std::fmt::Display| Unreachable::Node(error.to_string());
    // The relay is this server: the way to it needs no proxy and no name.
    let listen = crate::serve::reachable(app.config.listen);
    let base = Url::parse(&format!("http://{listen}")).map_err(|error| failed(&error))?;
    let client = ClientConfig {
        proxy: ProxyConfig::none(),
        ..ClientConfig::new(base)
    };
    let client = Client::new(client).map_err(|error| failed(&error))?;
    let id = Uuid::new_v4();
    let mut map = derp::map_message(app);
    rewrite_map(&mut map, client.base());
    let mut config = NodeConfig::new(client, addr::node_id(id), vec![addr::tailnet_ip(id)]);
    config.derp_map = Some(map);
    config.block_endpoints = app.config.block_direct_connections;
    config.force_websockets = app.config.force_websockets;
    config.speaks_first = true;
    let node = Node::start(config).await.map_err(|error| failed(&error))?;
    let (connection, responses) = app.coord.coordinator.connect(id, Role::Trusted, "server");
    let driver = Driver {
        node,
        table: PeerTable::default(),
        connection,
        tunnels: HashMap::new(),
        unused_since: Instant::now(),
    };
    let shutdown = app.shutdown.clone();
    app.tasks.spawn(async move {
        let node = driver.node.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = driver.run(asks, responses) => {}
        }
        node.close().await;
    });
    Ok(())
}

struct Driver {
    node: Node,
    table: PeerTable,
    connection: Connection,
    tunnels: HashMap<Uuid, Open>,
    /// Since when there has been no tunnel.
    unused_since: Instant,
}

/// A tunnel that was asked for.
struct Open {
    hold: Weak<()>,
    known: watch::Sender<bool>,
    unused_since: Option<Instant>,
}

impl Driver {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut responses: Responses) {
        let mut myself = self.node.self_node();
        myself.mark_changed();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let due = self.table.poll_timeout();
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.open(ask),
                    None => return,
                },
                response = responses.next() => match response {
                    Some(bytes) => self.hear(&bytes).await,
                    // The coordinator closes with the server.
                    None => return,
                },
                changed = myself.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let node = myself.borrow_and_update().clone();
                    if let Some(node) = node {
                        self.announce(&node);
                    }
                }
                () = at(due) => self.timeout().await,
                _ = sweep.tick() => {
                    self.sweep(Instant::now()).await;
                    if self.tunnels.is_empty() && self.unused_since.elapsed() >= LINGER {
                        return;
                    }
                }
            }
        }
    }

    fn announce(&self, node: &adit_messages::tailnet::Node) {
        match EncodedNode::decode(node.encode_to_vec().into()) {
            Ok(node) => self.say(Request {
                update_self: Some(node),
                ..Request::default()
            }),
            Err(error) => tracing::error!(%error, "this server's node cannot be announced"),
        }
    }

    fn say(&self, request: Request) {
        self.connection.request(request, Permission::Granted);
    }

    fn open(&mut self, ask: Ask) {
        let agent = ask.agent;
        if !self.tunnels.contains_key(&agent) {
            self.table.mark_destination(agent);
            self.say(Request {
                add_tunnel: Some(agent),
                ..Request::default()
            });
        }
        let open = self.tunnels.entry(agent).or_insert_with(|| Open {
            hold: Weak::new(),
            known: watch::Sender::new(false),
            unused_since: None,
        });
        let hold = open.hold.upgrade().unwrap_or_default();
        open.hold = Arc::downgrade(&hold);
        open.unused_since = None;
        // Whoever asked may have gone; the sweep finds that out.
        let _ = ask.reply.send(Tunnel {
            node: self.node.clone(),
            agent,
            known: open.known.subscribe(),
            _hold: hold,
        });
    }

    async fn hear(&mut self, bytes: &[u8]) {
        let response = match CoordinateResponse::decode(bytes) {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, "the coordinator's response does not decode");
                return;
            }
        };
        if !response.error.is_empty() {
            tracing::warn!(error = response.error, "the coordinator reports an error");
        }
        for update in &response.peer_updates {
            let Ok(id) = Uuid::from_slice(&update.id) else {
                continue;
            };
            // Nobody but agents asked for can be a peer of this node.
            if !self.tunnels.contains_key(&id) {
                continue;
            }
            let traffic = Traffic {
                active: self.node.peer_active(id).await,
                last_handshake: self.node.last_handshake(id).await,
            };
            let node = update.node.as_ref();
            let now = Instant::now();
            let action = self.table.handle(now, id, update.kind(), node, traffic);
            if let Some(action) = action {
                self.apply(action).await;
            }
            if update.kind() == Kind::Disconnected {
                // The tunnel is still wanted, should the agent come back.
                self.table.mark_destination(id);
            }
        }
    }

    async fn timeout(&mut self) {
        let mut ages = HashMap::new();
        for id in self.table.ids() {
            if let Some(age) = self.node.last_handshake(id).await {
                ages.insert(id, age);
            }
        }
        let now = Instant::now();
        let actions = self.table.handle_timeout(now, |id| ages.get(id).copied());
        for action in actions {
            self.apply(action).await;
        }
    }

    async fn apply(&mut self, action: Action) {
        let (id, known) = match action {
            Action::Program {
                id,
                node,
                keepalive,
            } => match self.node.upsert_peer(id, &node, keepalive).await {
                Ok(()) => (id, true),
                Err(error) => {
                    tracing::warn!(agent = %id, %error, "an agent's node cannot be used");
                    return;
                }
            },
            Action::Remove(id) => {
                self.node.remove_peer(id).await;
                (id, false)
            }
        };
        if let Some(open) = self.tunnels.get(&id) {
            open.known.send_replace(known);
        }
    }

    /// Closes the tunnels nobody has held for a while.
    async fn sweep(&mut self, now: Instant) {
        if !self.tunnels.is_empty() {
            self.unused_since = now;
        }
        let mut idle = Vec::new();
        for (id, open) in &mut self.tunnels {
            if open.hold.strong_count() > 0 {
                open.unused_since = None;
            } else if now.duration_since(*open.unused_since.get_or_insert(now)) >= LINGER {
                idle.push(*id);
            }
        }
        for id in idle {
            self.tunnels.remove(&id);
            self.say(Request {
                remove_tunnel: Some(id),
                ..Request::default()
            });
            let gone = Traffic::default();
            let action = self.table.handle(now, id, Kind::Disconnected, None, gone);
            if let Some(action) = action {
                self.apply(action).await;
            }
        }
    }
}

/// Waits until then; for ever without a time.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
