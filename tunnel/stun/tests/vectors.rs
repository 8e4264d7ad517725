//! Recorded packets and parser verdicts, and hostile input.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::{IpAddr, SocketAddr};

use adit_stun::{
    TxId, binding_request, binding_response, is_stun, parse_binding_request, parse_binding_response,
};
use proptest::prelude::*;
use serde_json::Value;

const VECTORS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/vectors/wire/stun.jsonl"
));

fn records(kind: &str) -> impl Iterator<Item = Value> {
    VECTORS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(move |record| record["type"] == kind)
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn tx(record: &Value) -> TxId {
    TxId(bytes(&record["txid"]).try_into().unwrap())
}

#[test]
fn recorded_packets_match_byte_for_byte() {
    for record in records("stun") {
        let packet = bytes(&record["packet"]);
        assert!(is_stun(&packet));
        let tx = tx(&record);
        if record["name"] == "binding request" {
            assert_eq!(binding_request(tx).as_slice(), packet);
            assert_eq!(parse_binding_request(&packet), Ok(tx));
        } else {
            let mapped: SocketAddr = record["mapped"].as_str().unwrap().parse().unwrap();
            assert_eq!(binding_response(tx, mapped), packet);
            assert_eq!(parse_binding_response(&packet), Ok((tx, mapped)));
        }
    }
}

#[test]
fn parser_verdicts_match() {
    let mut cases = 0;
    for record in records("stun_parse_response") {
        let expected = record["library_result"].as_str().unwrap();
        match parse_binding_response(&bytes(&record["packet"])) {
            Ok((got, mapped)) => {
                assert_eq!(got, tx(&record));
                assert_eq!(mapped.to_string(), expected, "{}", record["note"]);
            }
            Err(error) => assert!(
                expected.starts_with("error: "),
                "{}: {error}",
                record["note"]
            ),
        }
        cases += 1;
    }
    assert_eq!(cases, 7);
}

proptest! {
    #[test]
    fn responses_round_trip(tx: [u8; 12], ip: IpAddr, port: u16) {
        let mapped = SocketAddr::new(ip.to_canonical(), port);
        let packet = binding_response(TxId(tx), mapped);
        prop_assert_eq!(parse_binding_response(&packet), Ok((TxId(tx), mapped)));
        prop_assert_eq!(parse_binding_request(&binding_request(TxId(tx))), Ok(TxId(tx)));
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes: Vec<u8>, kind in 0..2u8) {
        let _ = parse_binding_response(&bytes);
        let _ = parse_binding_request(&bytes);
        if bytes.len() >= 20 {
            let len = ((bytes.len() - 20) as u16).to_be_bytes();
            bytes[..8].copy_from_slice(&[kind, 1, len[0], len[1], 0x21, 0x12, 0xa4, 0x42]);
            let _ = parse_binding_response(&bytes);
            let _ = parse_binding_request(&bytes);
        }
    }
}
