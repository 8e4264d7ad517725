//! Clients that a recording of an agent only hints at: what the agent was told
//! about them is what they do.

use std::{collections::BTreeMap, net::SocketAddr};

use adit_messages::tailnet::{
    CoordinateRequest, CoordinateResponse,
    coordinate_request::{Disconnect, ReadyForHandshake, Tunnel, UpdateSelf},
    coordinate_response::{PeerUpdate, peer_update::Kind},
};
use adit_rpc::{Receiver, Sender, TailnetClient};
use adit_ws::{ByteStream, Role, WebSocketStream, config};
use adit_yamux::Connection;
use bytes::Bytes;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::live;

/// A client of one agent.
struct Puppet {
    requests: Sender<CoordinateRequest>,
    responses: Receiver<CoordinateResponse>,
    _connection: Connection,
}

/// All clients of a recording's agent, by recorded id.
#[derive(Default)]
pub(crate) struct Puppets {
    clients: BTreeMap<Bytes, Puppet>,
    /// Clients that the agent said it is ready for and that did not hear of it
    /// yet.
    greeted: Vec<Bytes>,
}

impl Puppets {
    /// Notes clients that the agent has just said it is ready for.
    pub(crate) fn greeted(&mut self, clients: impl Iterator<Item = Bytes>) {
        self.greeted.extend(clients);
    }

    /// Waits until the client has heard every greeting, so that it does not
    /// leave before.
    async fn hear_greetings(&mut self, id: &Bytes) {
        let Some(client) = self.clients.get_mut(id) else {
            return;
        };
        let mut due = self.greeted.len();
        self.greeted.retain(|greeted| greeted != id);
        due -= self.greeted.len();
        let hear = async {
            while due > 0 {
                let response = client.responses.recv().await.unwrap().expect("a greeting");
                let ready = response.peer_updates.iter();
                let heard = ready.filter(|update| update.kind() == Kind::ReadyForHandshake);
                due = due.saturating_sub(heard.count());
            }
        };
        tokio::time::timeout(live::PATIENCE, hear)
            .await
            .expect("greetings in time");
    }

    /// Makes a client do what an update says of it.
    pub(crate) async fn act(
        &mut self,
        update: &PeerUpdate,
        agent: Uuid,
        server: SocketAddr,
        token: &str,
    ) {
        let id = update.id.clone();
        if matches!(update.kind(), Kind::Disconnected | Kind::Lost) {
            self.hear_greetings(&id).await;
        }
        match update.kind() {
            Kind::Node => {
                let announce = CoordinateRequest {
                    update_self: Some(UpdateSelf {
                        node: update.node.clone(),
                    }),
                    ..Default::default()
                };
                if let Some(client) = self.clients.get_mut(&id) {
                    client.requests.send(&announce).await.unwrap();
                    return;
                }
                let tunnel = CoordinateRequest {
                    add_tunnel: Some(Tunnel {
                        id: Bytes::copy_from_slice(agent.as_bytes()),
                    }),
                    ..Default::default()
                };
                let mut client = connect(agent, server, token).await;
                let order = if update.reason == "add tunnel" {
                    [announce, tunnel]
                } else {
                    [tunnel, announce]
                };
                for request in &order {
                    client.requests.send(request).await.unwrap();
                }
                self.clients.insert(id, client);
            }
            Kind::Disconnected => {
                if let Some(mut client) = self.clients.remove(&id) {
                    let goodbye = CoordinateRequest {
                        disconnect: Some(Disconnect {}),
                        ..Default::default()
                    };
                    client.requests.send(&goodbye).await.unwrap();
                    // The server ends the stream once it has heard it.
                    let end = async { while let Ok(Some(_)) = client.responses.recv().await {} };
                    tokio::time::timeout(live::PATIENCE, end)
                        .await
                        .expect("an end in time");
                }
            }
            Kind::Lost => drop(self.clients.remove(&id)),
            _ => {}
        }
    }
}

/// Waits until the network knows an agent's node.
pub(crate) async fn await_node(agent: Uuid, server: SocketAddr, token: &str) {
    let mut probe = connect(agent, server, token).await;
    let tunnel = CoordinateRequest {
        add_tunnel: Some(Tunnel {
            id: Bytes::copy_from_slice(agent.as_bytes()),
        }),
        ..Default::default()
    };
    probe.requests.send(&tunnel).await.unwrap();
    let news = tokio::time::timeout(live::PATIENCE, probe.responses.recv()).await;
    news.expect("news in time").unwrap().unwrap();
}

/// An agent that a recording of a client only hints at.
pub(crate) struct AgentPuppet {
    answers: tokio::task::JoinHandle<()>,
    requests: std::sync::Arc<tokio::sync::Mutex<Sender<CoordinateRequest>>>,
    _connection: Connection,
}

impl AgentPuppet {
    /// Connects and joins the network; acknowledges every peer.
    pub(crate) async fn connect(server: SocketAddr, token: &str) -> Self {
        let path = "/api/v2/workspaceagents/me/rpc?version=2.10&role=test";
        let connection = dial(path, server, token).await;
        let (requests, mut responses) = TailnetClient::new(connection.clone())
            .coordinate()
            .await
            .unwrap();
        let requests = std::sync::Arc::new(tokio::sync::Mutex::new(requests));
        let acknowledge = std::sync::Arc::clone(&requests);
        let answers = tokio::spawn(async move {
            while let Ok(Some(response)) = responses.recv().await {
                let ready: Vec<_> = response
                    .peer_updates
                    .iter()
                    .filter(|update| update.kind() == Kind::Node)
                    .map(|update| ReadyForHandshake {
                        id: update.id.clone(),
                    })
                    .collect();
                if !ready.is_empty() {
                    let request = CoordinateRequest {
                        ready_for_handshake: ready,
                        ..Default::default()
                    };
                    let _ = acknowledge.lock().await.send(&request).await;
                }
            }
        });
        Self {
            answers,
            requests,
            _connection: connection,
        }
    }

    pub(crate) async fn send(&self, request: &CoordinateRequest) {
        self.requests.lock().await.send(request).await.unwrap();
    }

    /// Waits until the server has ended its part in the network.
    pub(crate) async fn ended(mut self) {
        tokio::time::timeout(live::PATIENCE, &mut self.answers)
            .await
            .expect("an end in time")
            .unwrap();
    }
}

impl Drop for AgentPuppet {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

async fn connect(agent: Uuid, server: SocketAddr, token: &str) -> Puppet {
    let path = format!("/api/v2/workspaceagents/{agent}/coordinate?version=2.0");
    let connection = dial(&path, server, token).await;
    let (requests, responses) = TailnetClient::new(connection.clone())
        .coordinate()
        .await
        .unwrap();
    Puppet {
        requests,
        responses,
        _connection: connection,
    }
}

pub(crate) async fn dial(path: &str, server: SocketAddr, token: &str) -> Connection {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nCoder-Session-Token: {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let answer = live::request(&mut socket, &head, "").await;
    assert_eq!(answer.status, 101, "{}", answer.body);
    let socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config())).await;
    Connection::client(ByteStream::new(socket), adit_yamux::Config::default()).0
}
