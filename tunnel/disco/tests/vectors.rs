//! Recorded datagrams and parser verdicts, and hostile input.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::SocketAddr;

use adit_disco::{DecodeError, Envelope, Message, PADDED_DATAGRAM_LEN, TxId, is_disco, seal};
use adit_keys::{DiscoPrivate, NodePublic};
use proptest::prelude::*;
use serde_json::Value;

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/wire/disco.jsonl"
));

fn records(kind: &str) -> Vec<Value> {
    VECTORS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["type"] == kind)
        .collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}

/// The message that a record's `name` and `fields` describe.
fn described(record: &Value) -> Message {
    let fields = &record["fields"];
    match record["name"]
        .as_str()
        .unwrap()
        .split([' ', ','])
        .next()
        .unwrap()
    {
        "ping" => Message::Ping {
            tx: TxId(array(&fields["txid"])),
            node_key: fields
                .get("node_key")
                .map(|key| NodePublic::from_bytes(array(key))),
        },
        "pong" => Message::Pong {
            tx: TxId(array(&fields["txid"])),
            src: address(&fields["src"]),
        },
        "call-me-maybe" => Message::CallMeMaybe {
            endpoints: fields["endpoints"]
                .as_array()
                .unwrap()
                .iter()
                .map(address)
                .collect(),
        },
        other => panic!("unknown message {other}"),
    }
}

#[test]
fn recorded_datagrams_match_byte_for_byte() {
    let keys = &records("keys")[0];
    let a = DiscoPrivate::from_bytes(array(&keys["disco_a_private"]));
    let b = DiscoPrivate::from_bytes(array(&keys["disco_b_private"]));
    let recorded = records("disco");
    assert_eq!(recorded.len(), 7);
    for record in recorded {
        let (from, to) = if record["from"] == "A" {
            (&a, &b)
        } else {
            (&b, &a)
        };
        let message = described(&record);
        let mut plaintext = bytes(&record["plaintext"]);
        plaintext.resize(record["plaintext_len"].as_u64().unwrap() as usize, 0);
        assert_eq!(message.encode(), plaintext, "{}", record["name"]);
        assert_eq!(Message::decode(&plaintext).unwrap(), message);

        let datagram = bytes(&record["datagram"]);
        let nonce = array(&record["nonce"]);
        let sealed = seal(&from.public(), &from.shared(&to.public()), &nonce, &message);
        assert_eq!(sealed, datagram, "{}", record["name"]);
        assert!(is_disco(&datagram));
        let envelope = Envelope::parse(&datagram).unwrap();
        assert_eq!(envelope.sender, from.public());
        assert_eq!(
            envelope.open(&to.shared(&envelope.sender)).unwrap(),
            message
        );
    }
}

#[test]
fn parser_verdicts_match() {
    for record in records("disco_parse") {
        let verdict = match Message::decode(&bytes(&record["plaintext"])) {
            Ok(Message::Ping { tx, node_key }) => {
                let tx = &format!("{tx:?}")[..12];
                format!("ping tx={tx} nodekey_set={}", node_key.is_some())
            }
            Ok(Message::Pong { tx, .. }) => format!("pong tx={}", &format!("{tx:?}")[..12]),
            Ok(Message::CallMeMaybe { endpoints }) => {
                assert!(endpoints.is_empty(), "{}", record["note"]);
                "call-me-maybe".into()
            }
            Err(DecodeError::Short) => "error: short message".into(),
            Err(DecodeError::UnknownType(kind)) => {
                format!("error: unknown message type {kind:#04x}")
            }
            Err(other) => other.to_string(),
        };
        assert_eq!(
            verdict,
            record["library_result"].as_str().unwrap(),
            "{}",
            record["note"]
        );
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let endpoint = any::<(std::net::IpAddr, u16)>()
        .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
    prop_oneof![
        (any::<[u8; 12]>(), proptest::option::of(any::<[u8; 32]>())).prop_map(|(tx, key)| {
            let node_key = key.map(NodePublic::from_bytes).filter(|key| !key.is_zero());
            Message::Ping {
                tx: TxId(tx),
                node_key,
            }
        }),
        (any::<[u8; 12]>(), endpoint.clone())
            .prop_map(|(tx, src)| Message::Pong { tx: TxId(tx), src }),
        proptest::collection::vec(endpoint, 0..20)
            .prop_map(|endpoints| Message::CallMeMaybe { endpoints }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(message in any_message(), nonce: [u8; 24]) {
        let (a, b) = (DiscoPrivate::from_bytes([3; 32]), DiscoPrivate::from_bytes([4; 32]));
        let datagram = seal(&a.public(), &a.shared(&b.public()), &nonce, &message);
        if !matches!(message, Message::CallMeMaybe { .. }) {
            prop_assert_eq!(datagram.len(), PADDED_DATAGRAM_LEN);
        }
        let opened = Envelope::parse(&datagram).unwrap().open(&b.shared(&a.public()));
        prop_assert_eq!(opened, Ok(message));
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes: Vec<u8>) {
        let _ = Message::decode(&bytes);
        let key = DiscoPrivate::from_bytes([3; 32]);
        bytes.splice(0..0, adit_disco::MAGIC);
        if let Some(envelope) = Envelope::parse(&bytes) {
            prop_assert!(envelope.open(&key.shared(&envelope.sender)).is_err());
        }
        prop_assert_eq!(Envelope::parse(&bytes).is_some(), is_disco(&bytes));
    }
}
