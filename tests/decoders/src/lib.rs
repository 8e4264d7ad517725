//! Everything that decodes what a peer sends, each behind one function of
//! bytes: the fuzzer calls them, and so does the test that replays its corpora.
//!
//! A function returns normally for any input. What it must not do is panic,
//! loop without end, or hold memory out of proportion to its input.

use std::{net::Ipv6Addr, time::Duration, time::Instant};

use adit_netstack::{Stack, StackConfig};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

mod mesh;
mod ssh;

pub use mesh::mesh;
pub use ssh::{ssh, ssh_client, ssh_server};

/// A decoder under test.
pub type Target = fn(&[u8]);

/// All decoders, by the name of their fuzz target and corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("derp", derp),
    ("disco", disco),
    ("drpc", drpc),
    ("json", json),
    ("mesh", mesh),
    ("netstack", netstack),
    ("protobuf", protobuf),
    ("sse", sse),
    ("ssh", ssh),
    ("ssh_client", ssh_client),
    ("ssh_server", ssh_server),
    ("stun", stun),
    ("websocket", websocket),
    ("yamux", yamux),
];

/// DERP frames, as a client and as a relay read them.
pub fn derp(data: &[u8]) {
    let mut decoder = adit_derp::frame::Decoder::for_client();
    for chunk in data.chunks(7) {
        decoder.buffer().extend_from_slice(chunk);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = adit_derp::frame::Frame::parse(frame);
        }
    }
}

/// Disco datagrams and, behind their seal, messages.
pub fn disco(data: &[u8]) {
    let _ = adit_disco::is_disco(data);
    let _ = adit_disco::Envelope::parse(data);
    if let Ok(message) = adit_disco::Message::decode(data) {
        let again = adit_disco::Message::decode(&message.encode());
        assert_eq!(
            again.as_ref(),
            Ok(&message),
            "what is encoded decodes to the same"
        );
    }
}

/// DRPC packets, whole and in pieces.
pub fn drpc(data: &[u8]) {
    for size in [1, 5, usize::MAX] {
        let mut decoder = adit_drpc::codec::Decoder::default();
        let mut input = BytesMut::new();
        'input: for chunk in data.chunks(size.min(data.len().max(1))) {
            input.extend_from_slice(chunk);
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'input,
                }
            }
        }
    }
    let _ = adit_drpc::metadata::decode(data);
    let _ = adit_drpc::Status::decode(data);
}

/// JSON bodies.
pub fn json(data: &[u8]) {
    macro_rules! decode {
        ($($kind:ty),+ $(,)?) => {
            $(
                if let Ok(value) = serde_json::from_slice::<$kind>(data) {
                    let text = serde_json::to_vec(&value).expect("every value encodes");
                    assert!(serde_json::from_slice::<$kind>(&text).is_ok(), "what is encoded decodes");
                }
            )+
        };
    }
    decode!(
        adit_rest::AgentConnectionInfo,
        adit_rest::BuildInfo,
        adit_rest::CreateWorkspaceRequest,
        adit_rest::DerpMap,
        adit_rest::Preset,
        adit_rest::ProvisionerJobLog,
        adit_rest::Response,
        adit_rest::Template,
        adit_rest::User,
        adit_rest::Workspace,
        adit_rest::WorkspacesResponse,
    );
}

/// Packets out of the tunnel: each is one length byte and that many bytes,
/// with time passing in between.
pub fn netstack(data: &[u8]) {
    let start = Instant::now();
    let own = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1);
    let mut config = StackConfig::new(vec![own], 1);
    config.verify_checksums = false;
    let mut stack = Stack::new(config, start);
    let mut out = vec![0; adit_netstack::MAX_MTU];
    let mut now = start;
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (packet, tail) = tail.split_at(usize::from(length).min(tail.len()));
        rest = tail;
        stack.handle_packet(now, packet);
        // As if it had come from a granted peer: addresses put right.
        if packet.len() >= 40 {
            let mut addressed = packet.to_vec();
            addressed[0] = 0x60;
            addressed[4..6]
                .copy_from_slice(&u16::try_from(packet.len() - 40).unwrap_or(0).to_be_bytes());
            addressed[8..24]
                .copy_from_slice(&Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2).octets());
            addressed[24..40].copy_from_slice(&own.octets());
            stack.handle_packet(now, &addressed);
        }
        while let Some(event) = stack.poll_event() {
            if let adit_netstack::Event::Incoming { id, .. } = event {
                let _ = stack.accept(now, id);
            }
        }
        for _ in 0..64 {
            if stack.poll_transmit(now, &mut out).is_none() {
                break;
            }
        }
        now += Duration::from_millis(u64::from(length));
        stack.handle_timeout(now);
    }
    assert!(stack.memory_used() < 64 << 20, "memory stays bounded");
}

/// Protobuf messages of both services.
pub fn protobuf(data: &[u8]) {
    use adit_messages::{agent, tailnet};
    macro_rules! decode {
        ($($kind:ty),+ $(,)?) => {
            $(let _ = <$kind>::decode(data);)+
        };
    }
    decode!(
        agent::BatchCreateLogsRequest,
        agent::BatchUpdateAppHealthRequest,
        agent::BatchUpdateMetadataRequest,
        agent::Manifest,
        agent::PushContextStateRequest,
        agent::ReportConnectionRequest,
        agent::UpdateLifecycleRequest,
        agent::UpdateStartupRequest,
        agent::UpdateStatsRequest,
        tailnet::CoordinateRequest,
        tailnet::CoordinateResponse,
        tailnet::DerpMap,
        tailnet::Node,
        tailnet::TelemetryRequest,
        tailnet::WorkspaceUpdate,
    );
}

/// Server sent events, whole and byte by byte.
pub fn sse(data: &[u8]) {
    let mut whole = Vec::new();
    let _ = adit_rest::sse::Decoder::new().feed(data, &mut whole);
    let mut pieces = Vec::new();
    let mut decoder = adit_rest::sse::Decoder::new();
    for byte in data {
        if decoder.feed(&[*byte], &mut pieces).is_err() {
            break;
        }
    }
    assert_eq!(whole, pieces, "splits change nothing");
}

/// STUN requests and responses.
pub fn stun(data: &[u8]) {
    let _ = adit_stun::is_stun(data);
    let _ = adit_stun::parse_binding_request(data);
    let _ = adit_stun::parse_binding_response(data);
}

/// The WebSocket byte stream, as a server reads a client.
pub fn websocket(data: &[u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(data.len() + 64 * 1024);
        far.write_all(data).await.expect("the pipe is large enough");
        far.shutdown().await.expect("the pipe closes");
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let mut stream = adit_ws::ByteStream::new(socket);
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
    });
}

/// A yamux session of either role.
pub fn yamux(data: &[u8]) {
    use adit_yamux::{Config, Role, Session};
    let now = Instant::now();
    for role in [Role::Client, Role::Server] {
        let mut session = Session::new(role, Config::default(), now);
        for chunk in data.chunks(13) {
            if session
                .handle_input(now, Bytes::copy_from_slice(chunk))
                .is_err()
            {
                break;
            }
            while session.poll_event().is_some() {}
            while let Some(id) = session.accept() {
                let _ = session.read(id, 4096);
            }
            while session.poll_transmit(now).is_some() {}
        }
    }
}
