//! UDP, ICMPv6, TSMP and what is dropped.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::Ipv6Addr;
use std::time::Duration;

use adit_netstack::{CloseReason, Event, TcpState, UdpError};
use bytes::Bytes;
use support::wire::{OWN, PEER, Script, Seg, own, packet, peer};

fn datagram(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(sport.to_be_bytes());
    body.extend(dport.to_be_bytes());
    body.extend((8 + payload.len() as u16).to_be_bytes());
    body.extend([0, 0]);
    body.extend(payload);
    packet(PEER, OWN, 17, &body, Some(6))
}

fn inject(s: &mut Script, bytes: &[u8]) {
    let now = s.instant();
    s.stack.handle_packet(now, bytes);
}

fn sent(s: &mut Script) -> Option<(u8, Vec<u8>)> {
    s.next_packet(Duration::ZERO)
        .map(|(_, next, body)| (next, body))
}

#[test]
fn datagrams_go_both_ways() {
    let mut s = Script::new();
    s.stack.udp_bind(53).unwrap();
    assert_eq!(s.stack.udp_bind(53), Err(UdpError::PortInUse));
    inject(&mut s, &datagram(4000, 53, b"question"));
    assert_eq!(
        s.events(),
        [Event::Datagram {
            local: own(53),
            remote: peer(4000),
            payload: Bytes::from_static(b"question")
        }]
    );
    s.stack.udp_send(own(53), peer(4000), b"answer").unwrap();
    let (next, body) = sent(&mut s).unwrap();
    assert_eq!(
        (next, &body[..4], &body[8..]),
        (17, &[0, 53, 15, 160][..], &b"answer"[..])
    );
    // An empty one is a datagram, too.
    inject(&mut s, &datagram(4000, 53, b""));
    assert_eq!(s.events().len(), 1);
}

#[test]
fn datagrams_are_never_fragmented() {
    let mut s = Script::new();
    assert_eq!(s.stack.udp_payload_limit(&PEER), 1232);
    s.stack.udp_send(own(1), peer(1), &[0; 1232]).unwrap();
    assert_eq!(sent(&mut s).unwrap().1.len(), 1240);
    assert_eq!(
        s.stack.udp_send(own(1), peer(1), &[0; 1233]),
        Err(UdpError::TooLarge)
    );
    assert_eq!(
        s.stack.udp_send(peer(1), own(1), b""),
        Err(UdpError::BadAddress)
    );
}

#[test]
fn the_queues_are_bounded() {
    let mut s = Script::new();
    s.stack.udp_accept_any(true);
    for _ in 0..10_000 {
        inject(&mut s, &datagram(1, 2, &[0; 1000]));
    }
    let kept = s.events().len();
    assert!((500..1100).contains(&kept), "{kept}");
    inject(&mut s, &datagram(1, 2, &[0; 1000]));
    assert_eq!(s.events().len(), 1);
    let refused = (0..10_000)
        .filter(|_| s.stack.udp_send(own(1), peer(1), &[0; 1000]) == Err(UdpError::QueueFull))
        .count();
    assert!(refused > 8000);
}

#[test]
fn a_closed_port_is_unreachable() {
    let mut s = Script::new();
    inject(&mut s, &datagram(4000, 99, b"anyone?"));
    let (next, body) = sent(&mut s).unwrap();
    assert_eq!((next, &body[..2]), (58, &[1, 4][..]));
    assert_eq!(body[8..][..40][..4], [0x60, 0, 0, 0]);
    assert_eq!(&body[8 + 40..][..4], [15, 160, 0, 99]);
    assert!(s.events().is_empty());
    // The application may say the same of a port it took.
    let now = s.instant();
    s.stack.udp_reject(now, own(99), peer(4000));
    let (_, body) = sent(&mut s).unwrap();
    assert_eq!(
        (&body[..2], &body[8 + 40..][..4]),
        (&[1, 4][..], &[15, 160, 0, 99][..])
    );
}

/// An ICMPv6 error about a packet of ours.
fn error(kind: u8, code: u8, word: u32, next: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut quoted = Vec::new();
    quoted.extend(sport.to_be_bytes());
    quoted.extend(dport.to_be_bytes());
    quoted.extend([0; 16]);
    let quoted = packet(OWN, PEER, next, &quoted, None);
    let mut body = vec![kind, code, 0, 0];
    body.extend(word.to_be_bytes());
    body.extend(quoted);
    packet(PEER, OWN, 58, &body, Some(2))
}

#[test]
fn errors_are_told() {
    let mut s = Script::new();
    inject(&mut s, &error(1, 4, 0, 17, 700, 800));
    assert_eq!(
        s.events(),
        [Event::DatagramUnreachable {
            local: own(700),
            remote: peer(800)
        }]
    );
    let now = s.instant();
    let id = s.stack.connect(now, 700, peer(80)).unwrap();
    inject(&mut s, &error(1, 0, 0, 6, 700, 80));
    let reason = CloseReason::Unreachable;
    assert!(s.events().contains(&Event::Closed { id, reason }));
    // An open connection is not impressed.
    let mut s = Script::established();
    inject(&mut s, &error(1, 0, 0, 6, 80, 4000));
    assert_eq!(s.stack.state(s.id()), TcpState::Established);
}

#[test]
fn packet_too_big_lowers_the_path_mtu() {
    let mut s = Script::new();
    s.stack.set_path_mtu(PEER, 1400);
    s.open(&Seg {
        mss: Some(1340),
        ..s.syn()
    });
    assert_eq!(s.stack.udp_payload_limit(&PEER), 1352);
    inject(&mut s, &error(2, 0, 1300, 6, 80, 4000));
    assert_eq!(s.stack.udp_payload_limit(&PEER), 1252);
    inject(&mut s, &error(2, 0, 100, 6, 80, 4000));
    assert_eq!(s.stack.udp_payload_limit(&PEER), 1232);
    inject(&mut s, &error(2, 0, 9000, 6, 80, 4000));
    assert_eq!(s.stack.udp_payload_limit(&PEER), 1232);
}

#[test]
fn echo_requests_are_answered_and_made() {
    let mut s = Script::new();
    let body = [&[128, 0, 0, 0, 1, 2, 3, 4][..], b"payload"].concat();
    inject(&mut s, &packet(PEER, OWN, 58, &body, Some(2)));
    let (next, answer) = sent(&mut s).unwrap();
    assert_eq!((next, answer[0], &answer[4..]), (58, 129, &body[4..]));
    s.stack.echo_request(PEER, 7, 9, b"x");
    let (_, mut request) = sent(&mut s).unwrap();
    assert_eq!(request[0], 128);
    request[0] = 129;
    inject(&mut s, &packet(PEER, OWN, 58, &request, Some(2)));
    assert_eq!(
        s.events(),
        [Event::EchoReply {
            from: PEER,
            ident: 7,
            seq: 9
        }]
    );
}

#[test]
fn tsmp_pings_are_answered_and_made() {
    let mut s = Script::new();
    inject(&mut s, &packet(PEER, OWN, 99, b"p12345678more", None));
    assert_eq!(sent(&mut s), Some((99, b"o12345678\0\0".to_vec())));
    let now = s.instant();
    let id = s.stack.tsmp_ping(now, PEER);
    let (_, ping) = sent(&mut s).unwrap();
    assert_eq!((ping.len(), ping[0]), (9, b'p'));
    let pong = [b"o", &ping[1..], &[0, 0]].concat();
    s.now += Duration::from_millis(12);
    inject(&mut s, &packet(PEER, OWN, 99, &pong, None));
    let rtt = Duration::from_millis(12);
    assert_eq!(
        s.events(),
        [Event::TsmpPong {
            id,
            from: PEER,
            rtt
        }]
    );
    // Once.
    inject(&mut s, &packet(PEER, OWN, 99, &pong, None));
    inject(
        &mut s,
        &packet(PEER, OWN, 99, b"!stuff that is not for us", None),
    );
    assert_eq!((s.events(), sent(&mut s)), (vec![], None));
}

#[test]
fn what_is_not_for_us_is_dropped() {
    let mut s = Script::new();
    s.stack.udp_accept_any(true);
    let other = Ipv6Addr::LOCALHOST;
    let good = datagram(1, 2, b"x");
    let mut corrupt = good.clone();
    corrupt[48] ^= 1;
    let mut no_checksum = good.clone();
    no_checksum[46..48].fill(0);
    for bytes in [
        packet(PEER, other, 99, b"p12345678", None),
        packet(OWN, OWN, 99, b"p12345678", None),
        packet(Ipv6Addr::UNSPECIFIED, OWN, 99, b"p12345678", None),
        packet("ff02::1".parse().unwrap(), OWN, 99, b"p12345678", None),
        // Hop-by-hop, fragment, destination options, nothing, SCTP.
        packet(PEER, OWN, 0, &[17, 0, 1, 4, 0, 0, 0, 0], None),
        packet(PEER, OWN, 44, &[17, 0, 0, 1, 0, 0, 0, 0], None),
        packet(PEER, OWN, 60, &[17, 0, 1, 4, 0, 0, 0, 0], None),
        packet(PEER, OWN, 59, &[], None),
        packet(PEER, OWN, 132, &[0; 20], None),
        good[..good.len() - 1].to_vec(),
        corrupt,
        no_checksum,
        vec![0x45; 60],
        vec![],
    ] {
        inject(&mut s, &bytes);
        assert_eq!((s.events(), sent(&mut s)), (vec![], None), "{bytes:x?}");
    }
    // Padding behind the packet is no harm.
    let mut padded = good;
    padded.extend([0; 15]);
    inject(&mut s, &padded);
    assert_eq!(s.events().len(), 1);
}

#[test]
fn addresses_can_change() {
    let mut s = Script::new();
    s.stack.set_addresses(&[PEER]);
    inject(&mut s, &packet(PEER, OWN, 99, b"p12345678", None));
    assert_eq!(sent(&mut s), None);
    s.stack.set_addresses(&[OWN]);
    inject(&mut s, &packet(PEER, OWN, 99, b"p12345678", None));
    assert!(sent(&mut s).is_some());
}

#[test]
fn answers_to_strays_are_limited() {
    let mut s = Script::new();
    let mut answers = 0;
    for port in 0..5000u16 {
        s.peer_port = 1000 + port;
        s.inject(&Seg {
            ack: 1,
            ..s.seg(".", 0, 0)
        });
        while sent(&mut s).is_some() {
            answers += 1;
        }
    }
    assert!((500..=1000).contains(&answers), "{answers}");
    s.now += Duration::from_secs(1);
    s.inject(&Seg {
        ack: 1,
        ..s.seg(".", 0, 0)
    });
    assert!(sent(&mut s).is_some());
}
