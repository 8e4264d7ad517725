use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::{
    Config, Error, Event, Read, Role, Session, Violation, Write,
    frame::{Flags, FrameType, HEADER_LEN, Header},
};

mod io;

fn session(role: Role) -> (Session, Instant) {
    let now = Instant::now();
    (Session::new(role, Config::default(), now), now)
}

fn raw(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut out = vec![0, kind];
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out
}

fn data(flags: u16, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut out = raw(0, flags, stream, u32::try_from(body.len()).unwrap());
    out.extend_from_slice(body);
    out
}

fn output(session: &mut Session, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(chunk) = session.poll_transmit(now) {
        out.extend_from_slice(&chunk);
    }
    out
}

fn feed(session: &mut Session, now: Instant, input: &[u8]) -> Result<(), Error> {
    session.handle_input(now, Bytes::copy_from_slice(input))
}

/// Moves everything in both directions until nothing is left.
fn exchange(left: &mut Session, right: &mut Session, now: Instant) {
    loop {
        let (to_right, to_left) = (output(left, now), output(right, now));
        if to_right.is_empty() && to_left.is_empty() {
            return;
        }
        feed(right, now, &to_right).unwrap();
        feed(left, now, &to_left).unwrap();
    }
}

fn violation(input: &[u8]) -> Violation {
    let (mut server, now) = session(Role::Server);
    let error = feed(&mut server, now, input).unwrap_err();
    let Error::Protocol(violation) = error else {
        panic!("{error:?}");
    };
    // The peer is told, and the session stays over.
    let told = output(&mut server, now).ends_with(&raw(3, 0, 0, 1));
    assert_eq!(told, !matches!(violation, Violation::Header(_)));
    assert!(server.open(now).is_err());
    violation
}

#[test]
fn call_has_the_bytes_of_the_go_library() {
    let (mut client, now) = session(Role::Client);
    let id = client.open(now).unwrap().unwrap();
    assert_eq!(id, 1);
    assert_eq!(output(&mut client, now), raw(1, 1, 1, 0));
    assert_eq!(client.write(id, b"hello"), Write::Taken(5));
    assert_eq!(output(&mut client, now), data(0, 1, b"hello"));
    client.finish(id);
    client.finish(id);
    assert_eq!(output(&mut client, now), raw(1, 4, 1, 0));
    assert_eq!(client.write(id, b"more"), Write::Closed);
    feed(&mut client, now, &raw(1, 2, 1, 0)).unwrap();
    feed(&mut client, now, &data(0, 1, b"answer")).unwrap();
    feed(&mut client, now, &raw(1, 4, 1, 0)).unwrap();
    assert_eq!(client.read(id, 100), Read::Data(Bytes::from("answer")));
    assert_eq!(client.read(id, 100), Read::Eof);
    client.release(id);
    assert_eq!(output(&mut client, now), b"");
    assert_eq!(client.open(now).unwrap(), Some(3));
}

#[test]
fn stream_is_acknowledged_at_accept() {
    let (mut server, now) = session(Role::Server);
    feed(&mut server, now, &raw(1, 1, 1, 0)).unwrap();
    assert_eq!(server.poll_event(), Some(Event::Incoming));
    assert_eq!(output(&mut server, now), b"");
    assert_eq!(server.accept(), Some(1));
    assert_eq!(output(&mut server, now), raw(1, 2, 1, 0));
    // SYN, data and FIN in one frame.
    feed(&mut server, now, &data(1 | 4, 3, b"all")).unwrap();
    assert_eq!(server.accept(), Some(3));
    assert_eq!(server.read(3, 10), Read::Data(Bytes::from("all")));
    assert_eq!(server.read(3, 10), Read::Eof);
}

#[test]
fn pings_are_answered_and_keepalive_is_timed() {
    let (mut client, now) = session(Role::Client);
    feed(&mut client, now, &raw(2, 1, 0, 0xabcd)).unwrap();
    assert_eq!(output(&mut client, now), raw(2, 2, 0, 0xabcd));

    let first = now + Duration::from_secs(30);
    assert_eq!(client.poll_timeout(), Some(first));
    client.handle_timeout(first).unwrap();
    assert_eq!(output(&mut client, first), raw(2, 1, 0, 0));
    assert_eq!(client.poll_timeout(), Some(first + Duration::from_secs(10)));
    let answered = first + Duration::from_secs(2);
    feed(&mut client, answered, &raw(2, 2, 0, 0)).unwrap();
    let second = answered + Duration::from_secs(30);
    assert_eq!(client.poll_timeout(), Some(second));

    client.handle_timeout(second).unwrap();
    assert_eq!(output(&mut client, second), raw(2, 1, 0, 1));
    let late = second + Duration::from_secs(10);
    let error = client.handle_timeout(late).unwrap_err();
    assert!(matches!(error, Error::KeepaliveTimeout));
}

#[test]
fn own_ping_is_measured_or_lost() {
    let (mut client, now) = session(Role::Client);
    let id = client.ping(now).unwrap();
    let later = now + Duration::from_millis(40);
    feed(&mut client, later, &raw(2, 2, 0, id)).unwrap();
    assert_eq!(
        client.poll_event(),
        Some(Event::Pong(id, Duration::from_millis(40)))
    );
    let lost = client.ping(later).unwrap();
    client
        .handle_timeout(later + Duration::from_secs(10))
        .unwrap();
    assert_eq!(client.poll_event(), Some(Event::PingLost(lost)));
    // A pong nobody waits for is no error.
    feed(&mut client, later, &raw(2, 2, 0, 77)).unwrap();
}

#[test]
fn window_is_granted_after_half_was_read() {
    let (mut server, now) = session(Role::Server);
    feed(&mut server, now, &raw(1, 1, 1, 0)).unwrap();
    server.accept();
    output(&mut server, now);
    feed(&mut server, now, &data(0, 1, &vec![7; 200_000])).unwrap();
    let Read::Data(first) = server.read(1, 131_071) else {
        panic!("no data");
    };
    assert_eq!(first.len(), 131_071);
    assert_eq!(output(&mut server, now), b"");
    assert!(matches!(server.read(1, 1), Read::Data(_)));
    assert_eq!(output(&mut server, now), raw(1, 0, 1, 131_072));
}

#[test]
fn sender_stops_at_the_window() {
    let (mut client, now) = session(Role::Client);
    let id = client.open(now).unwrap().unwrap();
    let mut sent = 0;
    loop {
        match client.write(id, &[1; 50_000]) {
            Write::Taken(count) => sent += count,
            Write::Pending => {
                if output(&mut client, now).is_empty() {
                    break;
                }
            }
            Write::Closed => panic!("closed"),
        }
    }
    // The window, and what waits in the send buffer.
    assert_eq!(sent, 262_144 + 65_536);
    feed(&mut client, now, &raw(1, 0, 1, 10)).unwrap();
    assert_eq!(output(&mut client, now), data(0, 1, &[1; 10]));
    feed(&mut client, now, &raw(1, 0, 1, u32::MAX)).unwrap();
    feed(&mut client, now, &raw(1, 0, 1, u32::MAX)).unwrap();
    assert_eq!(output(&mut client, now).len(), 65_526 + 2 * HEADER_LEN);
}

#[test]
fn violations_end_the_session() {
    use crate::frame::HeaderError;
    let syn = raw(1, 1, 1, 0);
    assert_eq!(violation(&[1; 12]), HeaderError::Version(1).into());
    assert_eq!(violation(&raw(7, 0, 0, 0)), HeaderError::Type(7).into());
    assert_eq!(
        violation(&[syn.clone(), syn.clone()].concat()),
        Violation::DuplicateStream(1)
    );
    assert_eq!(violation(&raw(1, 1, 0, 0)), Violation::StreamId(0));
    let two_ends = [syn.clone(), raw(1, 4, 1, 0), raw(1, 4, 1, 0)].concat();
    assert_eq!(violation(&two_ends), Violation::UnexpectedFlag(1));
    let too_much = [syn.clone(), raw(0, 0, 1, 262_145)].concat();
    assert_eq!(violation(&too_much), Violation::Window(1));
    let in_pieces = [
        syn,
        data(0, 1, &vec![0; 200_000]),
        data(0, 1, &vec![0; 70_000]),
    ]
    .concat();
    assert_eq!(violation(&in_pieces), Violation::Window(1));
}

#[test]
fn data_over_all_streams_is_bounded() {
    let now = Instant::now();
    let config = Config {
        max_buffered: 300_000,
        ..Config::default()
    };
    let mut server = Session::new(Role::Server, config, now);
    feed(&mut server, now, &data(1, 1, &vec![0; 200_000])).unwrap();
    let error = feed(&mut server, now, &data(1, 3, &vec![0; 200_000])).unwrap_err();
    assert!(matches!(error, Error::Protocol(Violation::Budget)));
}

#[test]
fn frames_of_unknown_streams_are_drained() {
    let (mut server, now) = session(Role::Server);
    let input = [
        data(0, 99, b"lost"),
        raw(1, 4, 99, 0),
        raw(1, 8, 99, 0),
        raw(1, 1, 1, 0),
    ]
    .concat();
    feed(&mut server, now, &input).unwrap();
    assert_eq!(server.accept(), Some(1));
}

#[test]
fn streams_beyond_the_backlog_are_reset() {
    let (mut server, now) = session(Role::Server);
    for stream in 0..257 {
        feed(&mut server, now, &raw(1, 1, 2 * stream + 1, 0)).unwrap();
    }
    assert_eq!(output(&mut server, now), raw(1, 8, 513, 0));
    assert_eq!(server.accept(), Some(1));
    feed(&mut server, now, &raw(1, 1, 515, 0)).unwrap();
    assert_eq!(output(&mut server, now), raw(1, 2, 1, 0));
}

#[test]
fn opener_waits_for_answers_and_ends_a_session_without_them() {
    let (mut client, now) = session(Role::Client);
    for _ in 0..256 {
        client.open(now).unwrap().unwrap();
    }
    assert_eq!(client.open(now).unwrap(), None);
    feed(&mut client, now, &raw(1, 2, 1, 0)).unwrap();
    assert_eq!(client.open(now).unwrap(), Some(513));
    // A refused stream counts as answered.
    feed(&mut client, now, &raw(1, 8, 3, 0)).unwrap();
    assert_eq!(client.read(3, 1), Read::Reset);
    assert_eq!(client.open(now).unwrap(), Some(515));
    client
        .handle_timeout(now + Duration::from_secs(30))
        .unwrap();
    output(&mut client, now);
    feed(&mut client, now + Duration::from_secs(31), &raw(2, 2, 0, 0)).unwrap();
    assert!(client.handle_timeout(now + Duration::from_secs(60)).is_ok());
    let error = client
        .handle_timeout(now + Duration::from_secs(75))
        .unwrap_err();
    assert!(matches!(error, Error::OpenTimeout));
}

#[test]
fn go_away_refuses_new_streams_and_keeps_old_ones() {
    let (mut client, now) = session(Role::Client);
    let (mut server, _) = session(Role::Server);
    let id = client.open(now).unwrap().unwrap();
    exchange(&mut client, &mut server, now);
    server.accept();
    server.go_away();
    server.go_away();
    exchange(&mut client, &mut server, now);
    assert!(matches!(client.open(now), Err(Error::NotAccepting)));
    client.write(id, b"still");
    exchange(&mut client, &mut server, now);
    assert_eq!(server.read(id, 10), Read::Data(Bytes::from("still")));
    // Opened by a peer that did not listen.
    feed(&mut server, now, &raw(1, 1, 9, 0)).unwrap();
    assert_eq!(output(&mut server, now), raw(1, 8, 9, 0));

    let error = feed(&mut client, now, &raw(3, 0, 0, 2)).unwrap_err();
    assert!(matches!(error, Error::RemoteGoAway(_)));
}

#[test]
fn half_closed_stream_is_reset_in_the_end() {
    let (mut client, now) = session(Role::Client);
    let id = client.open(now).unwrap().unwrap();
    feed(&mut client, now, &raw(1, 2, 1, 0)).unwrap();
    client.release(id);
    output(&mut client, now);
    feed(&mut client, now, &data(0, 1, b"ignored")).unwrap();
    let mut late = now;
    for second in (30..300).step_by(15) {
        late = now + Duration::from_secs(second);
        client.handle_timeout(late).unwrap();
        for pong in 0..20 {
            feed(&mut client, late, &raw(2, 2, 0, pong)).unwrap();
        }
    }
    output(&mut client, late);
    client
        .handle_timeout(now + Duration::from_secs(300))
        .unwrap();
    let out = output(&mut client, now + Duration::from_secs(300));
    assert!(
        out.windows(HEADER_LEN)
            .any(|frame| frame == raw(1, 8, 1, 0))
    );
    // Late frames of the peer are drained.
    feed(&mut client, late, &data(4, 1, b"late")).unwrap();
}

#[test]
fn pings_that_nobody_reads_stop_the_reading() {
    let (mut server, now) = session(Role::Server);
    let pings = raw(2, 1, 0, 1).repeat(1000);
    let mut rounds = 0;
    while !server.is_congested() {
        feed(&mut server, now, &pings).unwrap();
        rounds += 1;
    }
    assert!(rounds < 10, "{rounds}");
}

#[test]
fn header_round_trips() {
    let header = Header {
        frame_type: FrameType::GoAway,
        flags: Flags(0x1234),
        stream: 0x0102_0304,
        length: u32::MAX,
    };
    let mut out = BytesMut::new();
    header.encode(&mut out);
    assert_eq!(Header::decode(out[..].try_into().unwrap()), Ok(header));
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        8 => (0..4u8, 0..16u16, 0..6u32, 0..50u32).prop_map(|(kind, flags, stream, length)| {
            raw(kind.max(1), flags, stream, length)
        }),
        8 => (0..16u16, 0..6u32, body).prop_map(|(flags, stream, body)| data(flags, stream, &body)),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ]
}

/// What can be seen of a session after it was fed.
fn run(input: &[u8], piece: usize) -> (String, Vec<u8>, Vec<u8>) {
    let now = Instant::now();
    let mut server = Session::new(Role::Server, Config::default(), now);
    let mut outcome = Ok(());
    for piece in input.chunks(piece) {
        outcome = feed(&mut server, now, piece);
        if outcome.is_err() {
            break;
        }
    }
    let mut received = Vec::new();
    while let Some(id) = server.accept() {
        while let Read::Data(data) = server.read(id, 7) {
            received.extend_from_slice(&data);
        }
        server.write(id, b"answer");
        server.release(id);
    }
    (format!("{outcome:?}"), output(&mut server, now), received)
}

proptest! {
    #[test]
    fn any_input_is_handled_in_any_pieces(
        frames in prop::collection::vec(any_frame(), 0..30),
        piece in 1..40usize,
    ) {
        let input = frames.concat();
        prop_assert_eq!(run(&input, usize::MAX), run(&input, piece));
    }

    #[test]
    fn two_sessions_carry_any_data(
        writes in prop::collection::vec((0..4usize, prop::collection::vec(any::<u8>(), 1..9000)), 1..60),
    ) {
        let (mut client, now) = session(Role::Client);
        let (mut server, _) = session(Role::Server);
        let ids = (0..4).map(|_| client.open(now).unwrap().unwrap()).collect::<Vec<_>>();
        exchange(&mut client, &mut server, now);
        while server.accept().is_some() {}
        let mut expected = vec![Vec::new(); 4];
        let mut received = vec![Vec::new(); 4];
        for (index, data) in &writes {
            let mut rest = &data[..];
            while !rest.is_empty() {
                if let Write::Taken(count) = client.write(ids[*index], rest) {
                    rest = &rest[count..];
                }
                exchange(&mut client, &mut server, now);
                for (id, received) in ids.iter().zip(&mut received) {
                    while let Read::Data(data) = server.read(*id, 4096) {
                        received.extend_from_slice(&data);
                    }
                }
            }
            expected[*index].extend_from_slice(data);
        }
        prop_assert_eq!(expected, received);
    }
}
