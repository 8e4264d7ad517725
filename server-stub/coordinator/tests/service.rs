//! The coordinator as its connections see it.
#![expect(clippy::unwrap_used, reason = "tests")]

use adit_coordinator::{Permission, Request, Role, Service};
use adit_messages::tailnet::{CoordinateResponse, coordinate_response::peer_update::Kind};
use bytes::Bytes;
use prost::Message as _;
use uuid::Uuid;

const AGENT: Uuid = Uuid::from_u128(0x3f25_04e0_4f89_41d3_9a0c_0305_e82c_3301);
const CLIENT: Uuid = Uuid::from_u128(2);

/// `update_self` with a node that has an id only.
fn announce(id: u8) -> Request {
    Request::decode(vec![0x0a, 0x04, 0x0a, 0x02, 0x08, id].into()).unwrap()
}

fn add_tunnel(to: Uuid) -> Request {
    Request {
        add_tunnel: Some(to),
        ..Request::default()
    }
}

fn decode(bytes: Option<Bytes>) -> CoordinateResponse {
    CoordinateResponse::decode(bytes.unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_and_an_agent_find_each_other() {
    let service = Service::new();
    let (agent, mut to_agent) = service.connect(AGENT, Role::Agent(AGENT), "owner-workspace-agent");
    let (client, mut to_client) = service.connect(CLIENT, Role::ClientOf(AGENT), "client");

    agent.request(announce(1), Permission::Refused);
    client.request(add_tunnel(AGENT), Permission::Refused);
    let news = decode(to_client.next().await);
    assert_eq!(news.peer_updates[0].kind(), Kind::Node);
    assert_eq!(news.peer_updates[0].reason, "add tunnel");

    client.request(announce(2), Permission::Refused);
    let news = decode(to_agent.next().await);
    assert_eq!(news.peer_updates[0].id, CLIENT.as_bytes()[..]);
    assert_eq!(news.peer_updates[0].reason, "node update");

    agent.request(
        Request {
            ready_for_handshake: vec![CLIENT],
            ..Request::default()
        },
        Permission::Refused,
    );
    assert_eq!(
        decode(to_client.next().await).peer_updates[0].kind(),
        Kind::ReadyForHandshake
    );

    drop(client);
    let news = decode(to_agent.next().await);
    assert_eq!(
        (
            news.peer_updates[0].kind(),
            &news.peer_updates[0].reason[..]
        ),
        (Kind::Lost, "lost")
    );
    assert_eq!(to_client.next().await, None);
    assert_eq!(service.peers().len(), 1);
}

#[tokio::test]
async fn a_replaced_connection_does_no_harm_when_it_ends() {
    let service = Service::new();
    let (client, mut to_client) = service.connect(CLIENT, Role::ClientOf(AGENT), "client");
    client.request(add_tunnel(AGENT), Permission::Refused);
    let (old, mut to_old) = service.connect(AGENT, Role::Agent(AGENT), "agent");
    old.request(announce(1), Permission::Refused);
    let (new, _to_new) = service.connect(AGENT, Role::Agent(AGENT), "agent");
    new.request(announce(2), Permission::Refused);

    assert_eq!(
        decode(to_old.next().await).error,
        "peer ID overwritten by new connection"
    );
    assert_eq!(to_old.next().await, None);
    drop(old);

    for id in [1, 2] {
        let news = decode(to_client.next().await);
        assert_eq!(
            news.peer_updates[0].node.as_ref().map(|node| node.id),
            Some(id)
        );
    }
    assert!(service.node(AGENT).is_some());
    drop(new);
    assert_eq!(
        decode(to_client.next().await).peer_updates[0].kind(),
        Kind::Lost
    );
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let service = Service::new();
    let (client, _to_client) = service.connect(CLIENT, Role::ClientOf(AGENT), "client");
    client.request(add_tunnel(AGENT), Permission::Refused);
    let (agent, mut to_agent) = service.connect(AGENT, Role::Agent(AGENT), "agent");
    client.request(announce(1), Permission::Refused);
    assert_eq!(
        decode(to_agent.next().await).peer_updates[0].kind(),
        Kind::Node
    );

    for round in 0..600 {
        agent.request(announce(1 + (round % 2) as u8), Permission::Refused);
    }
    // The agent stays, the client is gone.
    let news = decode(to_agent.next().await);
    assert_eq!(news.peer_updates[0].kind(), Kind::Disconnected);
    assert_eq!(news.peer_updates[0].reason, "failed update");
    assert_eq!(service.peers().len(), 1);
}

#[tokio::test]
async fn many_waiting_clients_are_announced_in_batches() {
    let service = Service::new();
    let mut clients = Vec::new();
    for number in 0..1500_u32 {
        let (client, responses) = service.connect(
            Uuid::from_u128(100 + u128::from(number)),
            Role::User,
            "client",
        );
        client.request(announce(1), Permission::Granted);
        client.request(add_tunnel(AGENT), Permission::Granted);
        clients.push((client, responses));
    }
    let (_agent, mut to_agent) = service.connect(AGENT, Role::Agent(AGENT), "agent");
    assert_eq!(decode(to_agent.next().await).peer_updates.len(), 1024);
    assert_eq!(decode(to_agent.next().await).peer_updates.len(), 476);
}

#[tokio::test]
async fn closing_tells_everyone() {
    let service = Service::new();
    let (client, mut to_client) = service.connect(CLIENT, Role::ClientOf(AGENT), "client");
    client.request(add_tunnel(AGENT), Permission::Refused);
    let (agent, _to_agent) = service.connect(AGENT, Role::Agent(AGENT), "agent");
    agent.request(announce(1), Permission::Refused);
    decode(to_client.next().await);
    service.close();
    let mut errors = Vec::new();
    while let Some(response) = to_client.next().await {
        errors.push(decode(Some(response)).error);
    }
    assert_eq!(
        errors.last().map(String::as_str),
        Some("coordinator closed")
    );
    let (_late, mut to_late) = service.connect(CLIENT, Role::User, "client");
    assert_eq!(decode(to_late.next().await).error, "coordinator closed");
    assert_eq!(to_late.next().await, None);
}
