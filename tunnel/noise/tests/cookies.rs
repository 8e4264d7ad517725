//! Nodes under load.
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use adit_noise::{Admission, Guard, Identity, Kind, Origin, Random, kind, receiver_index};
use support::{Node, S, pair};

fn udp(text: &str) -> Origin {
    Origin::Udp(text.parse::<SocketAddr>().unwrap())
}

fn home() -> Origin {
    udp("192.0.2.1:1000")
}

fn admit(node: &mut Node, origin: Origin, message: &[u8]) -> Admission {
    node.guard
        .admit(node.now, origin, message, &mut node.random)
}

/// Puts the node under load.
fn flood(node: &mut Node, message: &[u8]) {
    for _ in 0..100 {
        assert_eq!(admit(node, home(), message), Admission::Accept);
    }
}

fn cookie(admission: Admission) -> [u8; 64] {
    match admission {
        Admission::Cookie(reply) => reply,
        other => panic!("no cookie but {other:?}"),
    }
}

#[test]
fn a_cookie_opens_the_door_for_its_address() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    assert_eq!(first[132..], [0; 16], "no cookie, no second code");
    flood(&mut b, &first);
    let reply = cookie(admit(&mut b, home(), &first));
    assert_eq!(kind(&reply), Some(Kind::Cookie));
    assert_eq!(receiver_index(&reply).unwrap().to_le_bytes(), first[4..8]);
    a.peer.take_cookie(a.now, &reply).unwrap();
    let again = a.initiate();
    assert_ne!(again[132..], [0; 16]);
    assert_eq!(admit(&mut b, home(), &again), Admission::Accept);
    for elsewhere in ["192.0.2.1:1001", "192.0.2.2:1000"] {
        assert!(matches!(
            admit(&mut b, udp(elsewhere), &again),
            Admission::Cookie(_)
        ));
    }
    let incoming = b.identity.examine(&again).unwrap();
    assert!(b.peer.respond(b.now, incoming, &mut b.random).is_ok());
}

#[test]
fn load_passes() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    flood(&mut b, &first);
    assert!(matches!(
        admit(&mut b, home(), &first),
        Admission::Cookie(_)
    ));
    b.now += S / 2;
    assert!(matches!(
        admit(&mut b, home(), &first),
        Admission::Cookie(_)
    ));
    b.now += 2 * S;
    assert_eq!(admit(&mut b, home(), &first), Admission::Accept);
}

#[test]
fn a_host_with_a_cookie_is_limited_too() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    flood(&mut b, &first);
    let reply = cookie(admit(&mut b, home(), &first));
    a.peer.take_cookie(a.now, &reply).unwrap();
    let again = a.initiate();
    let through = |b: &mut Node| {
        (0..100)
            .filter(|_| admit(b, home(), &again) == Admission::Accept)
            .count()
    };
    assert_eq!(through(&mut b), 5);
    b.now += Duration::from_millis(100);
    assert_eq!(through(&mut b), 2);
}

#[test]
fn forgeries_neither_count_nor_get_cookies() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    let mut forged = first;
    forged[120] ^= 1;
    for _ in 0..1000 {
        assert_eq!(admit(&mut b, home(), &forged), Admission::Drop);
    }
    assert_eq!(admit(&mut b, home(), &first), Admission::Accept);
    assert_eq!(admit(&mut b, home(), &[]), Admission::Drop);
    // A message to somebody else.
    let mut other =
        Guard::new(Identity::new([9; 32].into(), adit_noise::Clock::new(a.now, S)).into());
    let mut random = Random::new([1; 32]);
    assert_eq!(
        other.admit(a.now, home(), &first, &mut random),
        Admission::Drop
    );
}

#[test]
fn cookies_belong_to_the_last_message_and_age() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    flood(&mut b, &first);
    let reply = cookie(admit(&mut b, home(), &first));
    let mut forged = reply;
    forged[40] ^= 1;
    assert!(a.peer.take_cookie(a.now, &forged).is_err());
    let second = a.initiate();
    assert!(
        a.peer.take_cookie(a.now, &reply).is_err(),
        "not the last one's"
    );
    let reply = cookie(admit(&mut b, home(), &second));
    a.peer.take_cookie(a.now, &reply).unwrap();
    a.now += 119 * S;
    assert_ne!(a.initiate()[132..], [0; 16]);
    a.now += S;
    assert_eq!(a.initiate()[132..], [0; 16], "too old");
    // The secret behind cookies changes: an old one gets a new one.
    a.now = b.now;
    let third = a.initiate();
    b.now += 121 * S;
    flood(&mut b, &third);
    assert!(matches!(
        admit(&mut b, home(), &third),
        Admission::Cookie(_)
    ));
}

#[test]
fn responses_carry_cookies_as_well() {
    let (mut a, mut b) = pair();
    let answer = b.respond(&a.initiate()).unwrap();
    flood(&mut a, &answer);
    let reply = cookie(admit(&mut a, Origin::Relay([1; 32]), &answer));
    assert_eq!(receiver_index(&reply).unwrap().to_le_bytes(), answer[4..8]);
    b.peer.take_cookie(b.now, &reply).unwrap();
    a.advance(&mut b, S / 10);
    let again = a.initiate();
    let incoming = b.identity.examine(&again).unwrap();
    let answer = b.peer.respond(b.now, incoming, &mut b.random).unwrap();
    assert_eq!(
        admit(&mut a, Origin::Relay([1; 32]), &answer),
        Admission::Accept
    );
}

#[test]
fn hosts_are_limited_in_number() {
    let (mut a, mut b) = pair();
    let first = a.initiate();
    flood(&mut b, &first);
    // Each address answers its cookie: the account grows, but not for ever.
    let mut accepted = 0;
    for n in 0..6000u32 {
        let [_, x, y, z] = n.to_be_bytes();
        let origin = udp(&format!("10.{x}.{y}.{z}:1"));
        let message = a.initiate();
        let reply = cookie(admit(&mut b, origin, &message));
        a.peer.take_cookie(a.now, &reply).unwrap();
        let message = a.initiate();
        if admit(&mut b, origin, &message) == Admission::Accept {
            accepted += 1;
        }
    }
    assert_eq!(accepted, 4096);
}
