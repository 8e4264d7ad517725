//! One side of a connection, without I/O.
//!
//! Give it what arrives ([`Session::handle_input`]), send what it has
//! ([`Session::output`]), look at what happened ([`Session::poll_event`]) and
//! call it when time has passed ([`Session::poll_timeout`]). After an error
//! the connection is over; what is left in the output, a farewell as a rule,
//! may still be sent.

mod connection;
mod join;
mod login;
#[cfg(test)]
mod pairs;
#[cfg(feature = "testing")]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::algo::Side;
use crate::channel::{Channel, Stream};
use crate::config::Config;
use crate::error::{Deadline, Error, reason};
use crate::msg;
use crate::random::{Random, Stock};
use crate::request::{ChannelId, Global, GlobalAnswer, Open, Refusal, Request};
use crate::transport::Transport;
use crate::wire::{Reader, Write};

/// Channel data is fetched while less than this waits to be sent.
const OUTPUT_TARGET: usize = 128 << 10;
/// No input is handled while more than this waits to be sent: a peer that
/// sends requests and does not read the answers waits.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Longest text of a peer that is kept.
const LONGEST_TEXT: usize = 256;

/// Something the application should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The client may use the connection. The user name is any bytes.
    Authenticated {
        /// As the client sent it.
        user: Vec<u8>,
    },
    /// The peer wants a channel: [`Session::accept`] or
    /// [`Session::refuse`] it.
    Open {
        /// The channel to be.
        id: ChannelId,
        /// What it is for.
        open: Open,
    },
    /// A channel of [`Session::open`] is open.
    Opened(ChannelId),
    /// The peer does not want a channel of [`Session::open`].
    Refused {
        /// The channel that is not.
        id: ChannelId,
        /// RFC 4254 §5.1.
        code: u32,
        /// The peer's words.
        description: String,
    },
    /// A request: answer it by [`Session::answer`] if `wants_answer`, in the
    /// order of the requests of that channel.
    Request {
        /// Its channel.
        id: ChannelId,
        /// What it is.
        request: Request,
        /// The peer waits for an answer.
        wants_answer: bool,
    },
    /// The answer to the oldest unanswered request of [`Session::request`] on
    /// that channel that wanted one.
    Answered {
        /// Its channel.
        id: ChannelId,
        /// Whether it was granted.
        ok: bool,
    },
    /// The answer to the oldest unanswered request of
    /// [`Session::ask_global`].
    GlobalAnswered(GlobalAnswer),
    /// A request about the connection: [`Session::answer_global`], in any
    /// order.
    Global {
        /// For the answer.
        number: u64,
        /// What it is.
        request: Global,
    },
    /// [`Session::read`] has something new: data or the end.
    Readable(ChannelId),
    /// [`Session::room`] is not 0 any more.
    Room(ChannelId),
    /// The peer has closed the channel. Data that came before can still be
    /// read.
    Closed(ChannelId),
}

/// Which messages are possible.
enum Phase {
    /// A client's, until the server has let it in.
    Joining,
    /// A server's, before `ssh-userauth` was asked for.
    Service,
    /// A server's: refused attempts so far.
    Login(u32),
    Connection,
}

/// One side of a connection.
pub struct Session {
    config: Arc<Config>,
    now: Instant,
    transport: Transport,
    phase: Phase,
    login_deadline: Instant,
    channels: HashMap<u32, Channel>,
    next_channel: u32,
    granted: u64,
    /// Channels that can send, each once; the first is next.
    line: VecDeque<u32>,
    globals: VecDeque<connection::PendingGlobal>,
    next_global: u64,
    /// Questions about the connection that the peer has not answered.
    asked: VecDeque<connection::Asked>,
    /// The first key exchange is over and was made use of.
    under_way: bool,
    events: VecDeque<Event>,
    heard_at: Instant,
    asked_at: Option<Instant>,
    unanswered: u32,
    failed: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("authenticated", &self.transport.authenticated)
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A connection that begins now: a server's if the settings have a host
    /// key. A client asks for all it wants without waiting for answers, as
    /// much as the protocol allows.
    ///
    /// # Errors
    /// [`Error::Crypto`] without randomness.
    pub fn new(config: Arc<Config>, random: Box<dyn Random>, now: Instant) -> Result<Self, Error> {
        let side = config.side();
        let mut this = Self {
            transport: Transport::new(&config, Stock::new(random), now)?,
            login_deadline: now + config.login_deadline,
            config,
            now,
            phase: match side {
                Side::Server => Phase::Service,
                Side::Client => Phase::Joining,
            },
            channels: HashMap::new(),
            next_channel: 0,
            granted: 0,
            line: VecDeque::new(),
            globals: VecDeque::new(),
            next_global: 0,
            asked: VecDeque::new(),
            under_way: false,
            events: VecDeque::new(),
            heard_at: now,
            asked_at: None,
            unanswered: 0,
            failed: false,
        };
        if side == Side::Client {
            this.ask_to_join()?;
        }
        Ok(this)
    }

    /// Handles the packets at the front of `input` and removes them. The rest
    /// must be given again with what arrives next, as it is: part of it may
    /// be decrypted already.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) -> Result<(), Error> {
        self.now = now;
        let result = self.handle_packets(input);
        self.note(result)
    }

    fn handle_packets(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        if !self.transport.identify(input)? {
            return Ok(());
        }
        while self.wants_input() {
            let Some(packet) = self.transport.open(input)? else {
                return Ok(());
            };
            self.heard_at = self.now;
            self.asked_at = None;
            self.unanswered = 0;
            let payload = input
                .get(packet.payload)
                .ok_or(Error::Malformed("packet"))?;
            let config = Arc::clone(&self.config);
            let handled = self
                .transport
                .handle(&config, self.now, packet.seq, payload)?;
            if !handled {
                self.handle_message(packet.seq, payload)?;
            }
            input.advance(packet.len);
        }
        Ok(())
    }

    fn handle_message(&mut self, seq: u32, payload: &[u8]) -> Result<(), Error> {
        let Some((&number, body)) = payload.split_first() else {
            return Err(Error::Malformed("packet"));
        };
        match number {
            msg::DISCONNECT => {
                let mut reader = Reader::new(body, "DISCONNECT");
                return Err(Error::Disconnected {
                    code: reader.u32()?,
                    description: short_text(reader.string().unwrap_or_default()),
                });
            }
            msg::IGNORE | msg::UNIMPLEMENTED | msg::DEBUG | msg::EXT_INFO => return Ok(()),
            _ => {}
        }
        match self.phase {
            Phase::Connection => self.handle_connection(number, seq, body),
            Phase::Joining => self.handle_joining(number, seq, body),
            _ => self.handle_login(number, seq, body),
        }
    }

    /// A message we do not know (RFC 4253 §11.4).
    fn unimplemented(&mut self, seq: u32) -> Result<(), Error> {
        self.transport.send(|out| {
            out.put_u8(msg::UNIMPLEMENTED);
            out.put_u32(seq);
        })
    }

    /// False while so much waits to be sent that input should wait, too.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.transport.out.len() < OUTPUT_LIMIT
    }

    /// Bytes of buffer that the packet which is arriving needs; 0 if unknown.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.transport.wanted()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be sent: fills it with data of the channels in turn, and
    /// returns it. Whatever is sent must be removed from the front.
    ///
    /// # Errors
    /// [`Error::Crypto`], which no input is known to cause.
    pub fn output(&mut self, now: Instant) -> Result<&mut Vec<u8>, Error> {
        self.now = now;
        let result = self.fill();
        self.note(result)?;
        Ok(&mut self.transport.out)
    }

    /// True if [`Session::output`] would have something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let sending = !self.line.is_empty() || !self.under_way;
        !self.transport.out.is_empty() || (sending && self.transport.may_send())
    }

    /// What is left to be sent after an error.
    pub fn last_output(&mut self) -> &mut Vec<u8> {
        &mut self.transport.out
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.transport.maybe_rekey(&self.config, self.now)?;
        self.get_under_way();
        while self.transport.out.len() < OUTPUT_TARGET && self.transport.may_send() {
            let Some(id) = self.line.pop_front() else {
                break;
            };
            let Some(channel) = self.channels.get_mut(&id) else {
                continue;
            };
            channel.in_line = false;
            let transport = &mut self.transport;
            channel.transmit(|build| transport.emit(build))?;
            if channel.wants_room && channel.has_much_room() {
                channel.wants_room = false;
                self.events.push_back(Event::Room(ChannelId(id)));
            }
            self.settle(id);
        }
        Ok(())
    }

    /// When [`Session::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let login = (!self.transport.authenticated).then_some(self.login_deadline);
        let transport = self.transport.timeout(&self.config);
        let keepalive = self.config.keepalive.filter(|_| login.is_none());
        let keepalive = keepalive.map(|k| self.asked_at.unwrap_or(self.heard_at) + k);
        [login, transport, keepalive].into_iter().flatten().min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the peer was too slow.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.now = now;
        let result = self.handle_due();
        self.note(result)
    }

    fn handle_due(&mut self) -> Result<(), Error> {
        if !self.transport.authenticated {
            return if self.now >= self.login_deadline {
                Err(Error::Deadline(Deadline::Login))
            } else {
                Ok(())
            };
        }
        self.transport.handle_timeout(&self.config, self.now)?;
        let Some(interval) = self.config.keepalive else {
            return Ok(());
        };
        if self.now < self.asked_at.unwrap_or(self.heard_at) + interval {
            return Ok(());
        }
        if self.unanswered >= self.config.keepalive_misses {
            return Err(Error::Deadline(Deadline::Keepalive));
        }
        self.unanswered += 1;
        self.asked_at = Some(self.now);
        self.asked.push_back(connection::Asked::Keepalive);
        self.transport.send(|out| {
            out.put_u8(msg::GLOBAL_REQUEST);
            out.put_string("keepalive@openssh.com");
            out.put_bool(true);
        })
    }

    /// Ends the connection; the output holds the farewell.
    pub fn disconnect(&mut self, description: &str) {
        self.say_goodbye(reason::BY_APPLICATION, description);
    }

    /// After an error nothing but the farewell is sent.
    fn note(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &result {
            match error.disconnect_reason() {
                Some(code) => self.say_goodbye(code, &error.to_string()),
                None => self.failed = true,
            }
        }
        result
    }

    fn say_goodbye(&mut self, code: u32, description: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            // Without randomness there is no farewell.
            let _ = self.transport.emit(|out| {
                out.put_u8(msg::DISCONNECT);
                out.put_u32(code);
                out.put_string(description);
                out.put_string("");
            });
        }
    }

    /// Opens a channel the peer asked for.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn accept(&mut self, id: ChannelId) -> Result<(), Error> {
        let Some(channel) = self.channels.get(&id.0) else {
            return Ok(());
        };
        let (Some(peer), window) = (channel.peer, channel.window_max) else {
            return Ok(());
        };
        let result = self.transport.send(|out| {
            out.put_u8(msg::CHANNEL_OPEN_CONFIRMATION);
            out.put_u32(peer.id);
            out.put_u32(id.0);
            out.put_u32(window);
            out.put_u32(connection::LARGEST_PACKET);
        });
        self.note(result)
    }

    /// Refuses a channel the peer asked for.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn refuse(&mut self, id: ChannelId, why: Refusal, description: &str) -> Result<(), Error> {
        let peer = self.channels.get(&id.0).and_then(|c| c.peer);
        let Some(peer) = peer else {
            return Ok(());
        };
        self.remove(id.0);
        let result = self.refuse_peer(peer.id, why, description);
        self.note(result)
    }

    /// Answers a request of a channel.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn answer(&mut self, id: ChannelId, ok: bool) -> Result<(), Error> {
        let channel = self.channels.get(&id.0).filter(|c| !c.close_out);
        let Some(peer) = channel.and_then(|c| c.peer) else {
            return Ok(());
        };
        let result = self.transport.send(|out| {
            out.put_u8(if ok {
                msg::CHANNEL_SUCCESS
            } else {
                msg::CHANNEL_FAILURE
            });
            out.put_u32(peer.id);
        });
        self.note(result)
    }

    /// The next piece of data of a channel; taking it lets the peer send
    /// more. `None` if there is nothing now.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn read(&mut self, id: ChannelId) -> Result<Option<(Stream, Bytes)>, Error> {
        let piece = self.channels.get_mut(&id.0).and_then(Channel::take);
        if piece.is_some() {
            let result = self.regrant(id.0);
            self.note(result)?;
        }
        Ok(piece)
    }

    /// True once all the peer sent has been read, and no more will come.
    #[must_use]
    pub fn input_ended(&self, id: ChannelId) -> bool {
        self.channels.get(&id.0).is_none_or(Channel::input_ended)
    }

    /// Drops what the peer has sent on a channel and what it will send.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn discard(&mut self, id: ChannelId) -> Result<(), Error> {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            channel.discard();
        }
        let result = self.regrant(id.0);
        self.note(result)
    }
}

/// The beginning of a text of the peer, safe to print.
fn short_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_TEXT)
        .collect()
}
