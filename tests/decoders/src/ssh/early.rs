//! Identification, algorithms and the first key exchange.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use adit_ssh::{Config, Event};
use bytes::BytesMut;

/// An unencrypted packet (RFC 4253 §6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 9) % 8) % 8;
    let mut packet = Vec::with_capacity(payload.len() + padding + 5);
    let length = u32::try_from(1 + payload.len() + padding).expect("a short payload");
    packet.extend_from_slice(&length.to_be_bytes());
    packet.push(u8::try_from(padding).expect("a short padding"));
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// The messages in `data`: each is two bytes of length and that many bytes.
fn packets(mut data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    while let [high, low, tail @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (payload, tail) = tail.split_at(length);
        data = tail;
        stream.extend_from_slice(&packet(payload));
    }
    stream
}

/// What a side hears before it has keys. Bits of the first byte choose the
/// side, whether the rest is a stream or messages in packets, and whether it
/// comes in pieces.
pub fn ssh(data: &[u8]) {
    static SERVER: LazyLock<Arc<Config>> = LazyLock::new(|| Arc::new(super::server_config()));
    static CLIENT: LazyLock<Arc<Config>> = LazyLock::new(|| Arc::new(super::client_config()));
    let Some((&mode, rest)) = data.split_first() else {
        return;
    };
    let config = if mode & 1 == 0 { &SERVER } else { &CLIENT };
    let stream = if mode & 2 == 0 {
        rest.to_vec()
    } else {
        packets(rest)
    };
    let size = if mode & 4 == 0 { usize::MAX } else { 11 };
    let now = Instant::now();
    let mut session = super::session(config, 1, now);
    let mut input = BytesMut::new();
    if mode & 8 == 0 {
        input.extend_from_slice(b"SSH-2.0-fuzz\r\n");
    }
    for chunk in stream.chunks(size.min(stream.len().max(1))) {
        input.extend_from_slice(chunk);
        if session.handle_input(now, &mut input).is_err() {
            break;
        }
        while let Some(event) = session.poll_event() {
            assert!(
                !matches!(event, Event::Open { .. } | Event::Authenticated { .. }),
                "nothing is granted without keys"
            );
        }
        if let Ok(out) = session.output(now) {
            out.clear();
        }
        assert!(session.memory_used() < 1 << 20, "memory stays bounded");
    }
}
