//! SSH as a client speaks it before the keys are exchanged.

use std::{sync::Arc, time::Instant};

use adit_ssh::{Config, Event, RsaKey, Session, SystemRandom};
use bytes::BytesMut;
use num_bigint::BigUint;

/// 2^521 − 1 and 2^607 − 1 are prime.
fn host_key() -> RsaKey {
    let mersenne = |bits: u32| (BigUint::from(1u32) << bits) - 1u32;
    RsaKey::from_primes(&mersenne(607), &mersenne(521), &BigUint::from(65_537u32))
        .expect("a valid key")
}

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

/// Identification, algorithms and key exchange, whole and in pieces, once as
/// a stream and once as messages in packets.
pub fn ssh(data: &[u8]) {
    read(data);
    read(&packets(data));
}

fn read(data: &[u8]) {
    static CONFIG: std::sync::LazyLock<Arc<Config>> =
        std::sync::LazyLock::new(|| Arc::new(Config::new("SSH-2.0-Test", host_key())));
    let now = Instant::now();
    for size in [11, usize::MAX] {
        let mut session =
            Session::new(Arc::clone(&CONFIG), Box::new(SystemRandom), now).expect("randomness");
        let mut input = BytesMut::from(&b"SSH-2.0-fuzz\r\n"[..]);
        for chunk in data.chunks(size.min(data.len().max(1))) {
            input.extend_from_slice(chunk);
            if session.handle_input(now, &mut input).is_err() {
                break;
            }
            while let Some(event) = session.poll_event() {
                assert!(
                    !matches!(event, Event::Open { .. }),
                    "no channel without keys"
                );
            }
            if let Ok(out) = session.output(now) {
                out.clear();
            }
        }
    }
}
