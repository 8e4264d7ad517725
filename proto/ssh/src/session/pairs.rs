//! A client and a server, joined by two byte pipes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::tests::Counting;
use super::{Event, Session};
use crate::error::{Deadline, Error};
use crate::request::{
    ChannelId, Global, GlobalAnswer, Open, OpenOut, Refusal, Request, RequestOut,
};
use crate::wire::Write as _;
use crate::{Config, Stream, msg, rsa};

/// One side, and what it has not read yet.
struct End {
    session: Session,
    input: BytesMut,
    waiting: Vec<u8>,
}

impl End {
    fn new(config: Config, seed: u64, now: Instant) -> Self {
        Self {
            session: Session::new(Arc::new(config), Box::new(Counting(seed)), now).unwrap(),
            input: BytesMut::new(),
            waiting: Vec::new(),
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    fn read_all(&mut self, id: ChannelId) -> Vec<(Stream, Bytes)> {
        std::iter::from_fn(|| self.session.read(id).unwrap()).collect()
    }
}

struct Pair {
    client: End,
    server: End,
    now: Instant,
}

fn server_config() -> Config {
    Config::new("SSH-2.0-Go", rsa::tests::key())
}

fn client_config() -> Config {
    Config::client("SSH-2.0-Adit")
}

impl Pair {
    fn new(client: Config, server: Config) -> Self {
        let now = Instant::now();
        Self {
            client: End::new(client, 1, now),
            server: End::new(server, 2, now),
            now,
        }
    }

    /// Carries everything that is to be sent to one side, `step` bytes at a
    /// time. Returns how much that was.
    fn carry(&mut self, to_server: bool, step: usize) -> Result<usize, Error> {
        let (from, to) = if to_server {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        let out = from.session.output(self.now)?;
        to.waiting.append(out);
        let carried = to.waiting.len();
        for part in std::mem::take(&mut to.waiting).chunks(step) {
            to.input.extend_from_slice(part);
            to.session.handle_input(self.now, &mut to.input)?;
        }
        Ok(carried)
    }

    /// Carries until nobody has anything to say.
    fn settle(&mut self) {
        while self.carry(true, 1 << 20).unwrap() + self.carry(false, 1 << 20).unwrap() > 0 {}
    }

    /// The client asks for a session.
    fn open_session(&mut self) -> ChannelId {
        let opened = self.client.session.open(&OpenOut::Session);
        opened.unwrap().unwrap()
    }

    /// A channel that both know.
    fn session_channel(&mut self) -> (ChannelId, ChannelId) {
        let here = self.open_session();
        self.settle();
        let there = self
            .server
            .events()
            .into_iter()
            .find_map(|event| match event {
                Event::Open { id, .. } => Some(id),
                _ => None,
            });
        let there = there.unwrap();
        self.server.session.accept(there).unwrap();
        self.settle();
        assert!(self.client.events().contains(&Event::Opened(here)));
        (here, there)
    }
}

/// All a client wants is asked for in its second flight, and what it is
/// answered comes with the server's second.
#[test]
fn a_command_takes_two_flights() {
    let mut pair = Pair::new(client_config(), server_config());
    let id = pair.open_session();
    let env = RequestOut::Env {
        name: "A".into(),
        value: "b".into(),
    };
    pair.client.session.request(id, &env, false);
    let exec = RequestOut::Exec("true".into());
    pair.client.session.request(id, &exec, true);
    pair.carry(true, 1 << 20).unwrap();
    pair.carry(false, 1 << 20).unwrap();
    pair.carry(true, 1 << 20).unwrap();
    let events = pair.server.events();
    let [
        Event::Authenticated { user },
        Event::Open { id: there, open },
        Event::Request {
            request: Request::Env { .. },
            wants_answer: false,
            ..
        },
        Event::Request {
            request: Request::Exec(command),
            wants_answer: true,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(user.is_empty() && *open == Open::Session && command == b"true");
    let server = &mut pair.server.session;
    server.accept(*there).unwrap();
    server.answer(*there, true).unwrap();
    server.send(*there, Stream::Data, Bytes::from_static(b"out"));
    server.send(*there, Stream::Stderr, Bytes::from_static(b"err"));
    server.request(*there, &RequestOut::ExitStatus(3), false);
    server.close(*there);
    pair.carry(false, 1 << 20).unwrap();
    let events = pair.client.events();
    for wanted in [
        Event::Opened(id),
        Event::Answered { id, ok: true },
        Event::Request {
            id,
            request: Request::ExitStatus(3),
            wants_answer: false,
        },
        Event::Closed(id),
    ] {
        assert!(events.contains(&wanted), "{wanted:?} in {events:?}");
    }
    let pieces = pair.client.read_all(id);
    let expected = [(Stream::Data, "out"), (Stream::Stderr, "err")];
    assert_eq!(pieces, expected.map(|(s, text)| (s, Bytes::from(text))));
}

/// With a server of another make, requests wait for the number of their
/// channel.
#[test]
fn unknown_servers_number_their_channels_themselves() {
    let mut server = server_config();
    server.identification = "SSH-2.0-other".into();
    let mut pair = Pair::new(client_config(), server);
    let id = pair.open_session();
    pair.client.session.request(id, &RequestOut::Shell, true);
    pair.settle();
    let events = pair.server.events();
    assert!(matches!(&events[..], [_, Event::Open { .. }]), "{events:?}");
    let Event::Open { id: there, .. } = events[1] else {
        panic!("no channel");
    };
    pair.server.session.accept(there).unwrap();
    pair.settle();
    assert!(matches!(
        pair.server.events()[..],
        [Event::Request {
            request: Request::Shell,
            ..
        }]
    ));
}

/// A server that does not count after all: what was sent to the wrong number
/// is refused, sent again, and its refusal counts for nothing. The refusals
/// may come before the number or after it.
#[test]
fn requests_to_a_wrong_number_are_sent_again() {
    for before in [false, true] {
        let mut pair = Pair::new(client_config(), server_config());
        pair.server.session.next_channel = 5;
        let id = pair.open_session();
        let env = RequestOut::Env {
            name: "A".into(),
            value: "b".into(),
        };
        pair.client.session.request(id, &env, false);
        pair.client.session.request(id, &RequestOut::Agent, true);
        pair.client.session.request(id, &RequestOut::Shell, true);
        pair.settle();
        let events = pair.server.events();
        let [_, Event::Open { id: there, .. }] = events[..] else {
            panic!("{events:?}");
        };
        let refuse = |server: &mut Session| {
            server.transport.emit(|out| {
                out.put_u8(msg::CHANNEL_FAILURE);
                out.put_u32(id.0);
            })
        };
        let server = &mut pair.server.session;
        if before {
            refuse(server).unwrap();
            refuse(server).unwrap();
        }
        server.accept(there).unwrap();
        if !before {
            refuse(server).unwrap();
            refuse(server).unwrap();
        }
        pair.settle();
        assert!(pair.client.events().contains(&Event::Opened(id)));
        let kinds: Vec<_> = pair.server.events();
        assert!(
            matches!(
                &kinds[..],
                [
                    Event::Request { request: Request::Env { .. }, id: a, .. },
                    Event::Request { request: Request::Agent, id: b, .. },
                    Event::Request { request: Request::Shell, id: c, .. },
                ] if [*a, *b, *c] == [there; 3]
            ),
            "{kinds:?}"
        );
        let server = &mut pair.server.session;
        server.answer(there, false).unwrap();
        server.answer(there, true).unwrap();
        pair.settle();
        let answered = |ok| Event::Answered { id, ok };
        assert_eq!(pair.client.events(), [answered(false), answered(true)]);
    }
}

/// What is refused before the channel has its number, but under the right
/// one, is refused.
#[test]
fn early_refusals_under_the_right_number_count() {
    let mut pair = Pair::new(client_config(), server_config());
    let id = pair.open_session();
    pair.client.session.request(id, &RequestOut::Shell, true);
    pair.settle();
    let server = &mut pair.server.session;
    let refusal = server.transport.emit(|out| {
        out.put_u8(msg::CHANNEL_FAILURE);
        out.put_u32(id.0);
    });
    refusal.unwrap();
    server.accept(ChannelId(0)).unwrap();
    pair.settle();
    let events = pair.client.events();
    let expected = [Event::Opened(id), Event::Answered { id, ok: false }];
    assert!(events.ends_with(&expected), "{events:?}");
}

/// What arrives stays in order, and changing streams costs no more than
/// room for a few bytes each time.
#[test]
fn streams_may_alternate() {
    let mut pair = Pair::new(client_config(), server_config());
    let (here, there) = pair.session_channel();
    let pieces: Vec<_> = (0..40_000u32)
        .map(|i| match i % 3 {
            0 => (Stream::Stderr, Bytes::copy_from_slice(&[i as u8])),
            _ => (Stream::Data, Bytes::copy_from_slice(&[i as u8, 1])),
        })
        .collect();
    for (stream, piece) in &pieces {
        pair.server.session.send(there, *stream, piece.clone());
    }
    pair.settle();
    let read = pair.client.read_all(here);
    let mut expected: Vec<(Stream, Vec<u8>)> = Vec::new();
    for (stream, piece) in pieces {
        match expected.last_mut() {
            Some((last, text)) if *last == stream => text.extend_from_slice(&piece),
            _ => expected.push((stream, piece.to_vec())),
        }
    }
    assert!(read.iter().map(|(s, b)| (*s, b.to_vec())).eq(expected));
}

#[test]
fn refused_channels_are_gone() {
    let mut pair = Pair::new(client_config(), server_config());
    let id = pair.open_session();
    pair.settle();
    let events = pair.server.events();
    let Event::Open { id: there, .. } = events[1] else {
        panic!("{events:?}");
    };
    let server = &mut pair.server.session;
    server.refuse(there, Refusal::Prohibited, "no").unwrap();
    pair.settle();
    let refused = Event::Refused {
        id,
        code: 1,
        description: "no".into(),
    };
    assert!(pair.client.events().contains(&refused));
    assert_eq!(pair.client.session.room(id), None);
    assert!(pair.client.session.input_ended(id));
}

#[test]
fn servers_open_channels_that_clients_asked_for() {
    let mut pair = Pair::new(client_config(), server_config());
    let forward = Global::TcpipForward {
        address: "localhost".into(),
        port: 0,
    };
    pair.client.session.ask_global(&forward).unwrap();
    pair.settle();
    let events = pair.server.events();
    let [_, Event::Global { number, request }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(*request, forward);
    let answer = GlobalAnswer::Port(77);
    pair.server.session.answer_global(*number, answer).unwrap();
    let open = OpenOut::ForwardedTcpip {
        address: "localhost".into(),
        port: 77,
        originator: "::1".into(),
        originator_port: 5,
    };
    let there = pair.server.session.open(&open).unwrap().unwrap();
    let agent = pair.server.session.open(&OpenOut::Agent).unwrap().unwrap();
    pair.settle();
    let events = pair.client.events();
    assert!(events.contains(&Event::GlobalAnswered(answer)));
    let opened = |wanted: &Open| {
        events.iter().find_map(|event| match event {
            Event::Open { id, open } if open == wanted => Some(*id),
            _ => None,
        })
    };
    let here = opened(&Open::ForwardedTcpip {
        address: "localhost".into(),
        port: 77,
        originator: "::1".into(),
        originator_port: 5,
    });
    pair.client.session.accept(here.unwrap()).unwrap();
    let id = opened(&Open::Agent).unwrap();
    let client = &mut pair.client.session;
    client.refuse(id, Refusal::Prohibited, "").unwrap();
    pair.settle();
    let events = pair.server.events();
    assert!(events.contains(&Event::Opened(there)));
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Refused { id, .. } if *id == agent))
    );
}

/// Neither side can make the other serve what is not for it.
#[test]
fn a_client_serves_nothing_of_a_server() {
    let mut pair = Pair::new(client_config(), server_config());
    pair.settle();
    let forward = Global::TcpipForward {
        address: String::new(),
        port: 1,
    };
    pair.server.session.ask_global(&forward).unwrap();
    let there = pair
        .server
        .session
        .open(&OpenOut::Session)
        .unwrap()
        .unwrap();
    pair.settle();
    let events = pair.server.events();
    assert!(events.contains(&Event::GlobalAnswered(GlobalAnswer::Failure)));
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Refused { id, code: 3, .. } if *id == there))
    );
}

#[test]
fn clients_notice_a_dead_server() {
    let mut config = client_config();
    config.keepalive = Some(Duration::from_secs(15));
    let mut pair = Pair::new(config, server_config());
    pair.settle();
    let start = pair.now;
    // Alive: every question is answered.
    for _ in 0..10 {
        pair.now = pair.client.session.poll_timeout().unwrap();
        pair.client.session.handle_timeout(pair.now).unwrap();
        pair.settle();
    }
    assert_eq!(pair.now - start, Duration::from_secs(150));
    for _ in 0..3 {
        pair.now = pair.client.session.poll_timeout().unwrap();
        pair.client.session.handle_timeout(pair.now).unwrap();
    }
    pair.now = pair.client.session.poll_timeout().unwrap();
    let dead = pair.client.session.handle_timeout(pair.now);
    assert!(matches!(dead, Err(Error::Deadline(Deadline::Keepalive))));
}

/// A server may greet before it names itself, but not for ever.
#[test]
fn greetings_of_servers() {
    let now = Instant::now();
    for (lines, fine) in [(0, true), (64, true), (65, false)] {
        let mut client = End::new(client_config(), 1, now);
        let mut text = "hello\r\n".repeat(lines);
        text.push_str("SSH-2.0-x\r\n");
        client.input.extend_from_slice(text.as_bytes());
        let result = client.session.handle_input(now, &mut client.input);
        assert_eq!(result.is_ok(), fine, "{lines} lines");
    }
    let mut server = End::new(server_config(), 1, now);
    server.input.extend_from_slice(b"hello\r\nSSH-2.0-x\r\n");
    assert!(server.session.handle_input(now, &mut server.input).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Send { up: bool, stderr: bool, len: usize },
    Carry { up: bool, step: usize },
    Read { up: bool },
    Time(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (any::<bool>(), any::<bool>(), 1usize..60_000).prop_map(|(up, stderr, len)| Step::Send {
            up,
            stderr: stderr && !up,
            len
        }),
        (any::<bool>(), 1usize..3000).prop_map(|(up, step)| Step::Carry { up, step }),
        any::<bool>().prop_map(|up| Step::Read { up }),
        (1u64..40).prop_map(Step::Time),
    ];
    prop::collection::vec(step, 1..80)
}

/// What one direction should carry, and what it has.
#[derive(Default)]
struct Flow {
    sent: [Vec<u8>; 2],
    got: [Vec<u8>; 2],
}

impl Flow {
    fn take(&mut self, pieces: Vec<(Stream, Bytes)>) {
        for (stream, piece) in pieces {
            self.got[usize::from(stream == Stream::Stderr)].extend_from_slice(&piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is cut where and read when, through any number of key
    /// exchanges begun by either side: what is sent arrives, once, in order.
    #[test]
    fn streams_arrive_whole(
        steps in steps(),
        windows in (17u32..20, 17u32..20),
        rekey in prop::sample::select(vec![30_000u64, 200_000, 1 << 30]),
    ) {
        let (mut client, mut server) = (client_config(), server_config());
        client.window = 1 << windows.0;
        server.window = 1 << windows.1;
        client.rekey_bytes = rekey;
        server.rekey_bytes = rekey + 10_000;
        client.rekey_interval = Duration::from_secs(50);
        let mut pair = Pair::new(client, server);
        let (here, there) = pair.session_channel();
        let mut flows = [Flow::default(), Flow::default()];
        let mut counter = 0u8;
        for step in steps {
            match step {
                Step::Send { up, stderr, len } => {
                    let (end, id) = if up { (&mut pair.client, here) } else { (&mut pair.server, there) };
                    let room = end.session.room(id).unwrap();
                    let data: Vec<u8> = (0..len.min(room)).map(|_| {
                        counter = counter.wrapping_mul(5).wrapping_add(17);
                        counter
                    }).collect();
                    let stream = if stderr { Stream::Stderr } else { Stream::Data };
                    flows[usize::from(up)].sent[usize::from(stderr)].extend_from_slice(&data);
                    end.session.send(id, stream, Bytes::from(data));
                }
                Step::Carry { up, step } => {
                    pair.carry(up, step).unwrap();
                }
                Step::Read { up } => {
                    let (end, id) = if up { (&mut pair.server, there) } else { (&mut pair.client, here) };
                    let pieces = end.read_all(id);
                    flows[usize::from(up)].take(pieces);
                }
                Step::Time(seconds) => {
                    pair.now += Duration::from_secs(seconds);
                    pair.client.session.handle_timeout(pair.now).unwrap();
                    pair.server.session.handle_timeout(pair.now).unwrap();
                    pair.settle();
                }
            }
        }
        loop {
            pair.settle();
            let up = pair.server.read_all(there);
            let down = pair.client.read_all(here);
            if up.is_empty() && down.is_empty() {
                break;
            }
            flows[1].take(up);
            flows[0].take(down);
        }
        for flow in flows {
            prop_assert!(flow.sent == flow.got);
        }
    }

    /// No bytes of a server make a client fail in another way than with an
    /// error.
    #[test]
    fn any_bytes_of_a_server_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), named: bool) {
        let now = Instant::now();
        let mut client = End::new(client_config(), 1, now);
        if named {
            client.input.extend_from_slice(b"SSH-2.0-Go\r\n");
        }
        client.input.extend_from_slice(&bytes);
        let _ = client.session.handle_input(now, &mut client.input);
        let _ = client.session.output(now);
    }
}
