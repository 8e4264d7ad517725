//! Text and binary forms, boxes and addresses.

use adit_keys::{DiscoPrivate, KeyError, NodePrivate, NodePublic, OpenError, addr};
use proptest::prelude::*;
use uuid::Uuid;

const PRIVATE: &str = "privkey:0002030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f60";
const PUBLIC: &str = "nodekey:07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";

#[test]
fn public_key_follows_from_private_key() {
    let private: NodePrivate = PRIVATE.parse().unwrap();
    assert_eq!(private.public().to_string(), PUBLIC);
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let private: NodePrivate = PRIVATE.parse().unwrap();
    let shared = private.shared(&private.public());
    assert_eq!(
        format!("{private:?} {shared:?}"),
        "NodePrivate(secret) SharedKey(secret)"
    );
}

#[test]
fn text_forms_are_strict() {
    assert_eq!(
        "discokey:00".parse::<NodePublic>(),
        Err(KeyError::Prefix("nodekey:"))
    );
    assert_eq!("nodekey:00".parse::<NodePublic>(), Err(KeyError::Length));
    let odd = PUBLIC.replace("07a3", "07x3");
    assert_eq!(odd.parse::<NodePublic>(), Err(KeyError::Hex));
    let upper = PUBLIC.to_uppercase().replace("NODEKEY:", "nodekey:");
    assert_eq!(upper.parse::<NodePublic>().unwrap().to_string(), PUBLIC);
}

#[test]
fn generated_keys_are_clamped_and_differ() {
    let (a, b) = (NodePrivate::generate(), NodePrivate::generate());
    assert_ne!(a.as_bytes(), b.as_bytes());
    assert_eq!(a.as_bytes()[0] & 7, 0);
    assert_eq!(a.as_bytes()[31] & 0xc0, 0x40);
}

#[test]
fn overlay_addresses_keep_the_tail_of_the_uuid() {
    let id = Uuid::parse_str("01020304-0506-4708-890a-0b0c0d0e0f10").unwrap();
    assert_eq!(
        addr::tailnet_ip(id).to_string(),
        "fd7a:115c:a1e0:4708:890a:b0c:d0e:f10"
    );
    assert_eq!(
        addr::service_ip(id).to_string(),
        "fd60:627a:a42b:4708:890a:b0c:d0e:f10"
    );
    assert!(addr::is_service_ip(&addr::service_ip(id)));
    assert!(!addr::is_service_ip(&addr::tailnet_ip(id)));
    assert_eq!(addr::node_id(id), -(0x890a_0b0c_0d0e_0f10_u64 as i64));
    assert_eq!(addr::node_id(Uuid::from_u128(7)), 7);
    assert_eq!(addr::node_id(Uuid::from_u128(1 << 63)), i64::MIN);
}

proptest! {
    #[test]
    fn forms_round_trip(bytes: [u8; 32]) {
        let key = NodePublic::from_bytes(bytes);
        prop_assert_eq!(key.to_string().parse::<NodePublic>().unwrap(), key);
        prop_assert_eq!(NodePublic::from_np_bytes(&key.to_np_bytes()).unwrap(), key);
    }

    #[test]
    fn hostile_forms_are_errors_or_keys(text in ".*", bytes: Vec<u8>) {
        let _ = text.parse::<NodePublic>();
        let _ = format!("nodekey:{text}").parse::<NodePublic>();
        prop_assert_eq!(NodePublic::from_np_bytes(&bytes).is_ok(), bytes.len() == 34 && bytes.starts_with(b"np"));
    }

    #[test]
    fn boxes_open_only_unaltered(content: Vec<u8>, nonce: [u8; 24], at: prop::sample::Index) {
        let (a, b) = (DiscoPrivate::from_bytes([1; 32]), DiscoPrivate::from_bytes([2; 32]));
        let mut sealed = a.shared(&b.public()).seal(&nonce, &content);
        let receiver = b.shared(&a.public());
        prop_assert_eq!(receiver.open(&nonce, &sealed), Ok(content));
        let at = at.index(sealed.len());
        sealed[at] ^= 1;
        prop_assert_eq!(receiver.open(&nonce, &sealed), Err(OpenError));
        sealed.truncate(at.min(15));
        prop_assert_eq!(receiver.open(&nonce, &sealed), Err(OpenError));
    }
}
