//! A peer that has keys and says anything.
//!
//! The peer is the other side of the same implementation: it encrypts what
//! the input wants said, behaves in between as it should where the input
//! wants that, and its state is no matter here. The side under test has an
//! application that does what the input says.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use adit_ssh::{
    ChannelId, Config, Event, Global, GlobalAnswer, OpenOut, Refusal, RequestOut, Session, Stream,
};
use bytes::{Bytes, BytesMut};

/// Channels at a time.
const CHANNELS: usize = 8;
/// What all channels together may be sent ahead, in bytes.
const WINDOWS: u64 = 1 << 20;
/// What a side may hold: every byte of the windows in another stream than
/// the one before, what is to be sent, and what the application sends.
const MOST: usize = 12 << 20;
/// Operations of one input.
const OPERATIONS: usize = 256;

/// A server that hears a hostile client.
pub fn ssh_server(data: &[u8]) {
    play(data, false);
}

/// A client that hears a hostile server.
pub fn ssh_client(data: &[u8]) {
    play(data, true);
}

fn small(mut config: Config) -> Arc<Config> {
    config.window = 128 << 10;
    config.window_total = WINDOWS;
    config.channels = CHANNELS;
    config.rekey_interval = Duration::from_secs(900);
    config.keepalive = Some(Duration::from_secs(15));
    Arc::new(config)
}

/// One side, what it has not read, and the channels and questions its
/// application knows.
struct End {
    session: Session,
    input: BytesMut,
    channels: Vec<ChannelId>,
    globals: Vec<u64>,
    failed: bool,
}

impl End {
    fn new(config: &Arc<Config>, seed: u64, now: Instant) -> Self {
        Self {
            session: super::session(config, seed, now),
            input: BytesMut::new(),
            channels: Vec::new(),
            globals: Vec::new(),
            failed: false,
        }
    }

    /// Hears what is in the input.
    fn hear(&mut self, now: Instant) {
        if !self.failed {
            self.failed = self.session.handle_input(now, &mut self.input).is_err();
        }
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Open { id, .. } => self.channels.push(id),
                Event::Global { number, .. } => self.globals.push(number),
                _ => {}
            }
        }
    }

    /// What is to be sent.
    fn take(&mut self, now: Instant) -> Vec<u8> {
        match self.session.output(now) {
            Ok(out) => std::mem::take(out),
            Err(_) => Vec::new(),
        }
    }

    /// The application does something.
    fn act(&mut self, action: u8, which: u8, amount: u8) {
        let id = self
            .channels
            .get(usize::from(which) % self.channels.len().max(1));
        let session = &mut self.session;
        let done = match (action % 16, id.copied()) {
            (0, Some(id)) => session.accept(id),
            (1, Some(id)) => session.refuse(id, Refusal::Prohibited, "no"),
            (2, Some(id)) => session.answer(id, amount & 1 == 0),
            (3, Some(id)) => session.read(id).map(|_| ()),
            (4, Some(id)) => session.discard(id),
            (5, Some(id)) => {
                let room = session.room(id).unwrap_or(0);
                let data = vec![which; room.min(usize::from(amount) * 257)];
                let stderr = action & 16 != 0;
                let stream = if stderr { Stream::Stderr } else { Stream::Data };
                session.send(id, stream, Bytes::from(data));
                Ok(())
            }
            (6, Some(id)) => {
                session.eof(id);
                Ok(())
            }
            (7, Some(id)) => {
                session.close(id);
                Ok(())
            }
            (8, Some(id)) => {
                session.release(id);
                Ok(())
            }
            (9, Some(id)) => {
                let request = match amount % 3 {
                    0 => RequestOut::Shell,
                    1 => RequestOut::ExitStatus(which.into()),
                    _ => RequestOut::Exec("true".into()),
                };
                session.request(id, &request, amount & 4 == 0);
                Ok(())
            }
            (10, _) => session
                .open(&match amount % 3 {
                    0 => OpenOut::Session,
                    1 => OpenOut::Agent,
                    _ => OpenOut::ForwardedTcpip {
                        address: "localhost".into(),
                        port: 22,
                        originator: "::1".into(),
                        originator_port: 1,
                    },
                })
                .map(|id| self.channels.extend(id)),
            (11, _) => session.ask_global(&Global::TcpipForward {
                address: String::new(),
                port: which.into(),
            }),
            (12, _) => match self.globals.pop() {
                Some(number) => session.answer_global(number, GlobalAnswer::Port(which.into())),
                None => Ok(()),
            },
            (13, _) => {
                self.channels.truncate(usize::from(which));
                Ok(())
            }
            _ => Ok(()),
        };
        self.failed |= done.is_err();
    }
}

struct Play {
    tested: End,
    peer: End,
    now: Instant,
    /// Bytes that arrive at once.
    pieces: usize,
}

impl Play {
    fn new(client_is_tested: bool, pieces: usize) -> Self {
        static SERVER: LazyLock<Arc<Config>> = LazyLock::new(|| small(super::server_config()));
        static CLIENT: LazyLock<Arc<Config>> = LazyLock::new(|| small(super::client_config()));
        let now = Instant::now();
        let mut client = End::new(&CLIENT, 1, now);
        let mut server = End::new(&SERVER, 2, now);
        Session::assume_keys(&mut client.session, &mut server.session).expect("new sessions");
        let (tested, peer) = if client_is_tested {
            (client, server)
        } else {
            (server, client)
        };
        Self {
            tested,
            peer,
            now,
            pieces,
        }
    }

    /// Carries what the peer says.
    fn carry(&mut self) {
        let said = self.peer.take(self.now);
        for piece in said.chunks(self.pieces) {
            self.tested.input.extend_from_slice(piece);
            self.tested.hear(self.now);
            while !self.tested.failed && !self.tested.session.wants_input() {
                self.answer();
                self.tested.hear(self.now);
            }
            let held = self.tested.session.memory_used();
            assert!(held < MOST, "memory stays bounded: {held}");
        }
    }

    /// Carries what the tested side says. A peer that cannot follow any more
    /// hears nothing any more, but goes on saying what it is told to.
    fn answer(&mut self) {
        let said = self.tested.take(self.now);
        if !self.peer.failed {
            self.peer.input.extend_from_slice(&said);
            self.peer.hear(self.now);
            if self.peer.failed {
                self.peer.session.last_output().clear();
            }
        }
    }

    fn say(&mut self, message: &[u8], times: usize) {
        for _ in 0..times {
            let _ = self.peer.session.say(message);
        }
        self.carry();
    }
}

/// The first byte: whether the client logs in, and whether bytes arrive in
/// pieces. Then operations: each is a number, a length and that many bytes.
fn play(data: &[u8], client_is_tested: bool) {
    let Some((&mode, mut rest)) = data.split_first() else {
        return;
    };
    let pieces = if mode & 2 == 0 { usize::MAX } else { 13 };
    let mut play = Play::new(client_is_tested, pieces);
    let client = if client_is_tested {
        &mut play.tested
    } else {
        &mut play.peer
    };
    if mode & 1 == 0 {
        for _ in 0..2 {
            play.answer();
            play.carry();
        }
    } else {
        client.session.last_output().clear();
    }
    let mut last: &[u8] = &[];
    for _ in 0..OPERATIONS {
        let [operation, length, tail @ ..] = rest else {
            break;
        };
        if play.tested.failed {
            break;
        }
        let (bytes, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        match operation % 8 {
            0 => {
                last = bytes;
                play.say(bytes, 1);
            }
            // The same again, `length` times.
            1 => play.say(last, usize::from(*length)),
            // Much data on one channel.
            2 => {
                let [channel, size, ..] = *bytes else {
                    break;
                };
                let size = u32::from(size) * 256;
                let mut message = vec![94, 0, 0, 0, channel];
                message.extend_from_slice(&size.to_be_bytes());
                message.resize(message.len() + usize::try_from(size).unwrap_or(0), channel);
                play.say(&message, 1);
            }
            3 | 4 => {
                let end = if operation % 8 == 3 {
                    &mut play.tested
                } else {
                    &mut play.peer
                };
                for step in bytes.chunks_exact(3) {
                    end.act(step[0], step[1], step[2]);
                }
                play.carry();
            }
            5 => play.answer(),
            6 => {
                play.now += Duration::from_secs(u64::from(*length) * 4);
                play.tested.failed |= play.tested.session.handle_timeout(play.now).is_err();
                play.peer.failed |= play.peer.session.handle_timeout(play.now).is_err();
                play.carry();
            }
            _ => {
                play.answer();
                play.carry();
            }
        }
        // These have no bytes.
        rest = match operation % 8 {
            1 | 5 | 6 | 7 => rest.get(2..).unwrap_or_default(),
            _ => tail,
        };
    }
    if play.tested.failed {
        let input = &mut BytesMut::new();
        let again = play.tested.session.handle_input(play.now, input);
        assert!(again.is_err(), "a failed connection is over");
    }
}
