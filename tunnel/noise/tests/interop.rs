//! Against another implementation, in both roles.
#![allow(clippy::unwrap_used, reason = "test")]

mod support;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use adit_noise::{Admission, Origin, PublicKey, StaticSecret};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use support::{Node, S};

const OURS: [u8; 32] = [3; 32];
const THEIRS: [u8; 32] = [4; 32];
const SOURCE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

struct Pair {
    us: Node,
    them: Tunn,
    out: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum Made {
    Network(Vec<u8>),
    Packet(Vec<u8>),
    Nothing,
}

fn made(result: TunnResult<'_>) -> Made {
    match result {
        TunnResult::WriteToNetwork(p) => Made::Network(p.to_vec()),
        TunnResult::WriteToTunnelV4(p, _) | TunnResult::WriteToTunnelV6(p, _) => {
            Made::Packet(p.to_vec())
        }
        TunnResult::Done => Made::Nothing,
        TunnResult::Err(error) => panic!("refused: {error:?}"),
    }
}

impl Pair {
    fn new(limit: Option<u64>) -> Self {
        let (ours, theirs) = (StaticSecret::from(OURS), StaticSecret::from(THEIRS));
        let limiter = limit.map(|n| Arc::new(RateLimiter::new(&PublicKey::from(&theirs), n)));
        let us = Node::new(Instant::now(), OURS, PublicKey::from(&theirs));
        let them = Tunn::new(theirs, PublicKey::from(&ours), None, None, 5, limiter);
        Self {
            us,
            them,
            out: vec![0; 4096],
        }
    }

    /// A message of ours to them.
    fn tell(&mut self, message: &[u8]) -> Made {
        made(self.them.decapsulate(Some(SOURCE), message, &mut self.out))
    }

    fn they_seal(&mut self, packet: &[u8]) -> Vec<u8> {
        match made(self.them.encapsulate(packet, &mut self.out)) {
            Made::Network(message) => message,
            other => panic!("not sealed: {other:?}"),
        }
    }

    fn we_begin(&mut self) {
        let first = self.us.initiate();
        let Made::Network(answer) = self.tell(&first) else {
            panic!("no answer")
        };
        self.us.finish(&answer).unwrap();
        let keepalive = self.us.seal(b"").unwrap();
        assert_eq!(self.tell(&keepalive), Made::Nothing);
    }

    fn they_begin(&mut self) {
        let TunnResult::WriteToNetwork(first) =
            self.them.format_handshake_initiation(&mut self.out, true)
        else {
            panic!("no initiation")
        };
        let first = first.to_vec();
        let answer = self.us.respond(&first).unwrap();
        assert!(!self.us.can_seal() || self.us.peer.current().unwrap().at < self.us.now);
        let Made::Network(keepalive) = self.tell(&answer) else {
            panic!("no keepalive")
        };
        assert_eq!(self.us.open(&keepalive), Ok(vec![]));
    }

    /// Packets of all lengths both ways; ours arrive cut to their length.
    fn talk(&mut self) {
        for len in [40, 41, 47, 48, 100, 1279, 1280] {
            let packet = packet(len);
            let sealed = self.us.seal(&packet).unwrap();
            assert_eq!(self.tell(&sealed), Made::Packet(packet.clone()));
            let sealed = self.they_seal(&packet);
            assert_eq!(self.us.open(&sealed).unwrap()[..len], packet);
            assert!(self.us.open(&sealed).is_err(), "a copy");
        }
    }
}

/// An IPv6 packet.
fn packet(len: usize) -> Vec<u8> {
    let mut packet = vec![7; len];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
    packet
}

/// Five sessions, each at the age at which one is renewed.
fn renewed(begin: impl Fn(&mut Pair)) {
    let mut pair = Pair::new(None);
    for _ in 0..5 {
        begin(&mut pair);
        pair.talk();
        pair.us.now += 120 * S;
    }
}

#[test]
fn we_begin_and_renew() {
    renewed(Pair::we_begin);
}

#[test]
fn they_begin_and_renew() {
    renewed(Pair::they_begin);
}

#[test]
fn roles_change() {
    let mut pair = Pair::new(None);
    for round in 0..6 {
        if round % 2 == 0 {
            pair.we_begin();
        } else {
            pair.they_begin();
        }
        pair.talk();
        pair.us.now += S;
    }
}

#[test]
fn messages_of_the_last_session_arrive_after_a_renewal() {
    let mut pair = Pair::new(None);
    pair.we_begin();
    let packet = packet(600);
    let ours: Vec<_> = (0..900).map(|_| pair.us.seal(&packet).unwrap()).collect();
    let theirs: Vec<_> = (0..6000).map(|_| pair.they_seal(&packet)).collect();
    pair.us.now += S;
    pair.we_begin();
    for sealed in ours.iter().rev() {
        assert_eq!(pair.tell(sealed), Made::Packet(packet.clone()));
    }
    for sealed in theirs.iter().rev() {
        assert_eq!(pair.us.open(sealed).unwrap()[..600], packet);
    }
}

#[test]
fn their_cookie_is_understood() {
    let mut pair = Pair::new(Some(1));
    // They are under load from the second message on.
    let first = pair.us.initiate();
    assert!(matches!(pair.tell(&first), Made::Network(m) if m.len() == 92));
    pair.us.now += S;
    let second = pair.us.initiate();
    let Made::Network(reply) = pair.tell(&second) else {
        panic!("no cookie")
    };
    assert_eq!(reply.len(), 64);
    pair.us.peer.take_cookie(pair.us.now, &reply).unwrap();
    pair.us.now += S;
    let third = pair.us.initiate();
    let Made::Network(answer) = pair.tell(&third) else {
        panic!("no answer")
    };
    assert_eq!(answer.len(), 92);
    pair.us.finish(&answer).unwrap();
    let keepalive = pair.us.seal(b"").unwrap();
    assert_eq!(pair.tell(&keepalive), Made::Nothing);
    pair.talk();
}

#[test]
fn our_cookie_is_understood() {
    let mut pair = Pair::new(None);
    let origin = Origin::Relay([7; 32]);
    let begin =
        |pair: &mut Pair| match made(pair.them.format_handshake_initiation(&mut pair.out, true)) {
            Made::Network(message) => message,
            other => panic!("{other:?}"),
        };
    let first = begin(&mut pair);
    let admit =
        |us: &mut Node, message: &[u8]| us.guard.admit(us.now, origin, message, &mut us.random);
    let reply = (0..200).find_map(|_| match admit(&mut pair.us, &first) {
        Admission::Cookie(reply) => Some(reply),
        Admission::Accept | Admission::Drop => None,
    });
    assert_eq!(pair.tell(&reply.unwrap()), Made::Nothing);
    let second = begin(&mut pair);
    assert_eq!(admit(&mut pair.us, &second), Admission::Accept);
    let incoming = pair.us.identity.examine(&second).unwrap();
    let answer = pair
        .us
        .peer
        .respond(pair.us.now, incoming, &mut pair.us.random)
        .unwrap();
    let Made::Network(keepalive) = pair.tell(&answer) else {
        panic!("no keepalive")
    };
    assert!(pair.us.open(&keepalive).is_ok());
    pair.talk();
}
