//! The connection protocol (RFC 4254).

use bytes::Bytes;

use super::{Event, Session, short_text};
use crate::algo::Side;
use crate::channel::{Channel, Peer, STDERR, Stream};
use crate::error::Error;
use crate::msg;
use crate::request::{
    ChannelId, Global, GlobalAnswer, Open, OpenOut, Refusal, Request, RequestOut,
};
use crate::wire::{Reader, Write};

/// Largest packet of data the peer may send.
pub(super) const LARGEST_PACKET: u32 = 64 << 10;
/// Smallest window that is granted.
const SMALLEST_WINDOW: u32 = 2 * LARGEST_PACKET;
/// Requests about the connection that may wait for the application.
const GLOBALS: usize = 128;

/// A request about the connection and its answer, which is sent when all
/// earlier ones are answered (RFC 4254 §4).
pub(super) struct PendingGlobal {
    number: u64,
    wants_answer: bool,
    answer: Option<GlobalAnswer>,
}

/// A question about the connection that the peer will answer, in order.
pub(super) enum Asked {
    Keepalive,
    Global,
}

impl Session {
    pub(super) fn handle_connection(
        &mut self,
        number: u8,
        seq: u32,
        body: &[u8],
    ) -> Result<(), Error> {
        match number {
            msg::GLOBAL_REQUEST => self.handle_global(body),
            msg::REQUEST_SUCCESS | msg::REQUEST_FAILURE => self.handle_global_answer(number, body),
            msg::CHANNEL_OPEN => self.handle_open(body),
            // RFC 4252 §5.1 would ignore further attempts; a client that
            // waits for an answer gets one.
            msg::USERAUTH_REQUEST if self.config.side() == Side::Server => self.refuse_login(),
            msg::CHANNEL_OPEN_CONFIRMATION..=msg::CHANNEL_FAILURE => {
                let mut reader = Reader::new(body, "channel message");
                let id = reader.u32()?;
                self.handle_channel(number, id, reader)
            }
            _ => self.unimplemented(seq),
        }
    }

    fn handle_global(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(body, "GLOBAL_REQUEST");
        let kind = reader.name()?;
        let wants_answer = reader.bool()?;
        let request = Global::parse(self.config.side(), kind, reader)?;
        if request.is_none() && !wants_answer {
            return Ok(());
        }
        if self.globals.len() >= GLOBALS {
            return Err(Error::TooMany("global requests"));
        }
        let number = self.next_global;
        self.next_global += 1;
        self.globals.push_back(PendingGlobal {
            number,
            wants_answer,
            answer: request.is_none().then_some(GlobalAnswer::Failure),
        });
        if let Some(request) = request {
            self.events.push_back(Event::Global { number, request });
        }
        self.send_global_answers()
    }

    /// To a question about life, any answer will do.
    fn handle_global_answer(&mut self, number: u8, body: &[u8]) -> Result<(), Error> {
        match self.asked.pop_front() {
            // An answer nobody asked for does no harm.
            None | Some(Asked::Keepalive) => return Ok(()),
            Some(Asked::Global) => {}
        }
        let answer = if number == msg::REQUEST_FAILURE {
            GlobalAnswer::Failure
        } else if body.is_empty() {
            GlobalAnswer::Success
        } else {
            let port = Reader::new(body, "REQUEST_SUCCESS").u32()?;
            let port = u16::try_from(port).map_err(|_| Error::Malformed("REQUEST_SUCCESS"))?;
            GlobalAnswer::Port(port)
        };
        self.events.push_back(Event::GlobalAnswered(answer));
        Ok(())
    }

    /// Makes a request about the connection; [`Event::GlobalAnswered`]
    /// follows.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn ask_global(&mut self, request: &Global) -> Result<(), Error> {
        self.asked.push_back(Asked::Global);
        let result = self.transport.send(|out| {
            out.put_u8(msg::GLOBAL_REQUEST);
            out.put_string(request.kind());
            out.put_bool(true);
            request.write(out);
        });
        self.note(result)
    }

    /// Answers a request about the connection.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn answer_global(&mut self, number: u64, answer: GlobalAnswer) -> Result<(), Error> {
        if let Some(pending) = self.globals.iter_mut().find(|g| g.number == number) {
            pending.answer.get_or_insert(answer);
        }
        let result = self.send_global_answers();
        self.note(result)
    }

    fn send_global_answers(&mut self) -> Result<(), Error> {
        while let Some(answer) = self.globals.front().and_then(|g| g.answer) {
            let wants_answer = self.globals.pop_front().is_some_and(|g| g.wants_answer);
            if wants_answer {
                self.transport.send(|out| match answer {
                    GlobalAnswer::Failure => out.put_u8(msg::REQUEST_FAILURE),
                    GlobalAnswer::Success => out.put_u8(msg::REQUEST_SUCCESS),
                    GlobalAnswer::Port(port) => {
                        out.put_u8(msg::REQUEST_SUCCESS);
                        out.put_u32(port.into());
                    }
                })?;
            }
        }
        Ok(())
    }

    fn handle_open(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(body, "CHANNEL_OPEN");
        let kind = reader.name()?;
        let peer = Peer {
            id: reader.u32()?,
            window: reader.u32()?,
            packet: reader.u32()?,
        };
        if peer.packet == 0 {
            return Err(Error::Malformed("CHANNEL_OPEN"));
        }
        let Some(open) = Open::parse(self.config.side(), kind, reader)? else {
            return self.refuse_peer(peer.id, Refusal::UnknownType, "unknown channel type");
        };
        let Some(id) = self.insert(Some(peer)) else {
            return self.refuse_peer(peer.id, Refusal::ResourceShortage, "too many channels");
        };
        self.events.push_back(Event::Open { id, open });
        Ok(())
    }

    pub(super) fn refuse_peer(
        &mut self,
        peer: u32,
        why: Refusal,
        description: &str,
    ) -> Result<(), Error> {
        self.transport.send(|out| {
            out.put_u8(msg::CHANNEL_OPEN_FAILURE);
            out.put_u32(peer);
            out.put_u32(why as u32);
            out.put_string(description);
            out.put_string("");
        })
    }

    /// Makes a channel with as much window as can be had.
    fn insert(&mut self, peer: Option<Peer>) -> Option<ChannelId> {
        if self.channels.len() >= self.config.channels {
            return None;
        }
        while self.channels.contains_key(&self.next_channel) {
            self.next_channel = self.next_channel.wrapping_add(1);
        }
        let id = self.next_channel;
        self.next_channel = id.wrapping_add(1);
        let left = self.config.window_total.saturating_sub(self.granted);
        let window = u32::try_from(left).unwrap_or(u32::MAX);
        let window = window.min(self.config.window).max(SMALLEST_WINDOW);
        self.granted += u64::from(window);
        self.channels.insert(id, Channel::new(peer, window));
        Some(ChannelId(id))
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Some(channel) = self.channels.remove(&id) {
            self.granted = self.granted.saturating_sub(channel.window_max.into());
        }
    }

    fn handle_channel(&mut self, number: u8, id: u32, mut reader: Reader<'_>) -> Result<(), Error> {
        let unknown = Error::UnknownChannel {
            message: number,
            channel: id,
        };
        let Some(channel) = self.channels.get_mut(&id) else {
            // Said before the peer learnt that the channel is gone.
            return if id < self.next_channel {
                Ok(())
            } else {
                Err(unknown)
            };
        };
        let opening = matches!(
            number,
            msg::CHANNEL_OPEN_CONFIRMATION | msg::CHANNEL_OPEN_FAILURE
        );
        if number == msg::CHANNEL_FAILURE && channel.refuse_ahead() {
            return Ok(());
        }
        // The peer has closed the channel, or does not know it yet.
        if channel.close_in || channel.peer.is_none() != opening {
            return Err(Error::Unexpected(number));
        }
        match number {
            msg::CHANNEL_OPEN_CONFIRMATION => {
                let peer = Peer {
                    id: reader.u32()?,
                    window: reader.u32()?,
                    packet: reader.u32()?,
                };
                if peer.packet == 0 {
                    return Err(Error::Malformed("CHANNEL_OPEN_CONFIRMATION"));
                }
                let refused = channel.confirm(peer);
                let id = ChannelId(id);
                self.events.push_back(Event::Opened(id));
                for _ in 0..refused {
                    self.events.push_back(Event::Answered { id, ok: false });
                }
                self.settle(id.0);
            }
            msg::CHANNEL_OPEN_FAILURE => {
                let code = reader.u32()?;
                let description = short_text(reader.string()?);
                self.remove(id);
                self.events.push_back(Event::Refused {
                    id: ChannelId(id),
                    code,
                    description,
                });
            }
            msg::CHANNEL_WINDOW_ADJUST => {
                channel.granted(reader.u32()?)?;
                self.settle(id);
            }
            msg::CHANNEL_DATA => {
                channel.receive(reader.string()?, Some(Stream::Data))?;
                self.events.push_back(Event::Readable(ChannelId(id)));
                self.regrant(id)?;
            }
            msg::CHANNEL_EXTENDED_DATA => {
                // Extended data of clients has no meaning.
                let stream = (reader.u32()? == STDERR && self.config.side() == Side::Client)
                    .then_some(Stream::Stderr);
                channel.receive(reader.string()?, stream)?;
                self.events.push_back(Event::Readable(ChannelId(id)));
                self.regrant(id)?;
            }
            msg::CHANNEL_EOF => {
                channel.end_input();
                self.events.push_back(Event::Readable(ChannelId(id)));
            }
            msg::CHANNEL_CLOSE => self.handle_close(id)?,
            msg::CHANNEL_REQUEST => {
                let kind = reader.name()?;
                let wants_answer = reader.bool()?;
                self.events.push_back(Event::Request {
                    id: ChannelId(id),
                    request: Request::parse(kind, reader)?,
                    wants_answer,
                });
            }
            _ => {
                let ok = number == msg::CHANNEL_SUCCESS;
                if channel.answered(ok) {
                    let id = ChannelId(id);
                    self.events.push_back(Event::Answered { id, ok });
                }
            }
        }
        Ok(())
    }

    /// The peer closed: so do we (RFC 4254 §5.3).
    fn handle_close(&mut self, id: u32) -> Result<(), Error> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(());
        };
        channel.close_in = true;
        channel.drop_queue();
        let answer = !std::mem::replace(&mut channel.close_out, true);
        if let (true, Some(peer)) = (answer, channel.peer) {
            self.transport.send(|out| {
                out.put_u8(msg::CHANNEL_CLOSE);
                out.put_u32(peer.id);
            })?;
        }
        self.events.push_back(Event::Closed(ChannelId(id)));
        self.settle(id);
        Ok(())
    }

    /// Grants window for what was consumed.
    pub(super) fn regrant(&mut self, id: u32) -> Result<(), Error> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(());
        };
        if let (Some(amount), Some(peer)) = (channel.grant(), channel.peer) {
            self.transport.send(|out| {
                out.put_u8(msg::CHANNEL_WINDOW_ADJUST);
                out.put_u32(peer.id);
                out.put_u32(amount);
            })?;
        }
        Ok(())
    }

    /// Puts a channel in the line if it can send; forgets it if it is over.
    pub(super) fn settle(&mut self, id: u32) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        if channel.is_over() {
            self.remove(id);
        } else if !channel.in_line && channel.can_send() {
            channel.in_line = true;
            self.line.push_back(id);
        }
    }

    /// Asks the peer to open a channel. `None` if there are too many, or, for
    /// a server, before the client is authenticated.
    ///
    /// # Errors
    /// Whatever ends the connection.
    pub fn open(&mut self, open: &OpenOut) -> Result<Option<ChannelId>, Error> {
        if self.config.side() == Side::Server && !self.transport.authenticated {
            return Ok(None);
        }
        let Some(id) = self.insert(None) else {
            return Ok(None);
        };
        let window = self.channels.get(&id.0).map_or(0, |c| c.window_max);
        let result = self.transport.send(|out| {
            out.put_u8(msg::CHANNEL_OPEN);
            out.put_string(open.kind());
            out.put_u32(id.0);
            out.put_u32(window);
            out.put_u32(LARGEST_PACKET);
            open.write(out);
        });
        self.note(result)?;
        Ok(Some(id))
    }

    /// Bytes that [`Session::send`] will queue on a channel; `None` if the
    /// channel is closed. If it is 0, [`Event::Room`] will follow.
    pub fn room(&mut self, id: ChannelId) -> Option<usize> {
        let channel = self.channels.get_mut(&id.0)?;
        if channel.output_ended() {
            return None;
        }
        let room = channel.room();
        channel.wants_room = room == 0;
        Some(room)
    }

    /// Queues data. It must fit into [`Session::room`].
    pub fn send(&mut self, id: ChannelId, stream: Stream, data: Bytes) {
        self.with(id, |channel| channel.queue_data(stream, data));
    }

    /// Says that no data follows.
    pub fn eof(&mut self, id: ChannelId) {
        self.with(id, Channel::queue_eof);
    }

    /// Makes a request, after all data; [`Event::Answered`] follows if an
    /// answer is wanted.
    pub fn request(&mut self, id: ChannelId, request: &RequestOut, wants_answer: bool) {
        let (kind, body) = request.encode();
        self.with(id, |channel| {
            channel.queue_request(kind, wants_answer, body)
        });
    }

    /// Closes a channel once all that is queued has been sent.
    pub fn close(&mut self, id: ChannelId) {
        self.with(id, Channel::queue_close);
    }

    /// The application will not mention the channel again: closes it if it
    /// is open, and forgets it when the peer has closed it, too.
    pub fn release(&mut self, id: ChannelId) {
        self.with(id, |channel| {
            channel.queue_close();
            channel.discard();
            channel.released = true;
        });
    }

    fn with(&mut self, id: ChannelId, change: impl FnOnce(&mut Channel)) {
        if let Some(channel) = self.channels.get_mut(&id.0) {
            change(channel);
            self.settle(id.0);
        }
    }
}
