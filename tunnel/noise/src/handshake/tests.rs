//! The recorded handshake, byte by byte, in both roles.
#![allow(clippy::unwrap_used, reason = "test")]

use std::time::{Duration, Instant};

use serde_json::Value;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Incoming, Pending};
use crate::clock::Clock;
use crate::cookie::Jar;
use crate::crypto::dh;
use crate::identity::Identity;
use crate::session::Session;

const RECORDED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/wire/wireguard.jsonl"
));

struct Recorded(Vec<Value>);

impl Recorded {
    fn read() -> Self {
        Self(
            RECORDED
                .lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect(),
        )
    }

    fn keys(&self, name: &str) -> [u8; 32] {
        array(&self.0[1][name])
    }

    fn wg(&self, n: usize) -> &Value {
        &self.0[2 + n]
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn index(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn identity(secret: [u8; 32]) -> Identity {
    Identity::new(secret.into(), Clock::new(Instant::now(), Duration::ZERO))
}

fn begin(recorded: &Recorded) -> (Identity, Pending, [u8; 148]) {
    let own = identity(recorded.keys("a_static_private"));
    let peer = PublicKey::from(recorded.keys("b_static_public"));
    let now = Instant::now();
    let shared = dh(&own.secret, &peer).unwrap();
    let first = recorded.wg(0);
    let (pending, mut message) = Pending::begin(
        now,
        &own,
        &peer,
        &shared,
        index(&first["sender_index_le"]),
        array(&first["decrypted_tai64n"]),
        StaticSecret::from(recorded.keys("a_ephemeral_private")),
    )
    .unwrap();
    Jar::new(&peer).stamp(now, &mut message);
    (own, pending, message)
}

#[test]
fn the_initiation_is_the_recorded_one() {
    let recorded = Recorded::read();
    let first = recorded.wg(0);
    let (_, pending, message) = begin(&recorded);
    assert_eq!(message, array::<148>(&first["packet"]));
    assert_eq!(
        pending.state(),
        (
            array(&first["chaining_key_after"]),
            array(&first["hash_after"])
        )
    );
}

fn examined(recorded: &Recorded) -> (Identity, Incoming) {
    let own = identity(recorded.keys("b_static_private"));
    let incoming = own.examine(&bytes(&recorded.wg(0)["packet"])).unwrap();
    (own, incoming)
}

#[test]
fn the_response_is_the_recorded_one() {
    let recorded = Recorded::read();
    let (first, second) = (recorded.wg(0), recorded.wg(1));
    let (own, mut incoming) = examined(&recorded);
    assert_eq!(
        incoming.sender().as_bytes(),
        &recorded.keys("a_static_public")
    );
    let shared = dh(&own.secret, incoming.sender()).unwrap();
    assert_eq!(
        incoming.authenticate(&shared),
        Ok(array(&first["decrypted_tai64n"]))
    );
    assert_eq!(
        incoming.state(),
        (
            array(&first["chaining_key_after"]),
            array(&first["hash_after"])
        )
    );
    let secret = StaticSecret::from(recorded.keys("b_ephemeral_private"));
    let (agreed, mut message) = incoming
        .answer(index(&second["sender_index_le"]), &secret)
        .unwrap();
    Jar::new(&PublicKey::from(recorded.keys("a_static_public")))
        .stamp(Instant::now(), &mut message);
    assert_eq!(message, array::<92>(&second["packet"]));
    assert_eq!(*agreed.send, array::<32>(&second["transport_key_b_to_a"]));
    assert_eq!(
        *agreed.receive,
        array::<32>(&second["transport_key_a_to_b"])
    );
}

#[test]
fn the_transport_messages_are_the_recorded_ones() {
    let recorded = Recorded::read();
    let second = recorded.wg(1);
    let (own, pending, _) = begin(&recorded);
    let agreed = pending.finish(&own, &bytes(&second["packet"])).unwrap();
    assert_eq!(*agreed.send, array::<32>(&second["transport_key_a_to_b"]));
    assert_eq!(agreed.remote, index(&second["sender_index_le"]));
    let now = Instant::now();
    let mut session = Session::new(pending.index, now, true, &agreed).unwrap();
    let mut out = [0; 2048];
    for n in 2..recorded.0.len() - 2 {
        let packet = recorded.wg(n);
        let message = bytes(&packet["packet"]);
        let plain = bytes(&packet["plaintext"]);
        if packet["from"] == "A" {
            let len = session.seal(&plain, usize::MAX, &mut out).unwrap();
            assert_eq!(out[..len], message, "message {n}");
        } else {
            let len = session.open(&message, &mut out).unwrap();
            assert!(out[..len].starts_with(&plain), "message {n}");
            assert!(session.open(&message, &mut out).is_err(), "a copy");
        }
    }
}

#[test]
fn no_changed_byte_passes() {
    let recorded = Recorded::read();
    let (own, pending, _) = begin(&recorded);
    let response = bytes(&recorded.wg(1)["packet"]);
    for at in (4..8).chain(12..60) {
        let mut changed = response.clone();
        changed[at] ^= 0x40;
        // The index is only covered by the codes at the end.
        assert_eq!(pending.finish(&own, &changed).is_ok(), at < 8, "byte {at}");
    }
    assert!(pending.finish(&own, &response).is_ok(), "still good");
    let own = identity(recorded.keys("b_static_private"));
    let first = bytes(&recorded.wg(0)["packet"]);
    for at in 8..116 {
        let mut changed = first.clone();
        changed[at] ^= 0x40;
        let passed = own.examine(&changed).is_ok_and(|mut incoming| {
            let shared = dh(&own.secret, incoming.sender()).unwrap();
            incoming.authenticate(&shared).is_ok()
        });
        assert!(!passed, "byte {at}");
    }
}
