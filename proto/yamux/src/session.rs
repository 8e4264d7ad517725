//! The protocol core: no sockets, no clock, no tasks.
//!
//! Bytes of the transport go into [`Session::handle_input`]; bytes for the
//! transport come out of [`Session::poll_transmit`]; what the application has
//! to know comes out of [`Session::poll_event`]. Time is passed in, and
//! [`Session::poll_timeout`] says when to call [`Session::handle_timeout`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use crate::{
    config::Config,
    error::{Error, GoAwayCode, Violation},
    frame::{Decoder, Flags, FrameType, Header, Item},
    stream::{LocalEnd, StreamState},
};

/// Largest body of one outgoing Data frame, so that streams take turns.
const MAX_BODY: usize = 64 * 1024;
/// Bodies below this are copied behind their header, larger ones are handed
/// out as they are.
const COPY_BODY: usize = 4 * 1024;
/// Control bytes that may wait before reading has to stop. A peer that makes
/// us answer faster than it reads is slowed down instead of filling memory.
const MAX_CONTROL: usize = 64 * 1024;
/// Own pings that may wait for an answer.
const MAX_PINGS: usize = 64;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams with odd ids.
    Client,
    /// Opens streams with even ids.
    Server,
}

/// Something the application may be waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A stream of the peer waits in [`Session::accept`].
    Incoming,
    /// [`Session::open`] may succeed again.
    CanOpen,
    /// Data, end or reset of the stream can be read.
    Readable(u32),
    /// The stream takes data again, or never will.
    Writable(u32),
    /// The answer to the ping with this id.
    Pong(u32, Duration),
    /// No answer to the ping with this id.
    PingLost(u32),
}

/// Outcome of [`Session::read`].
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// At least one byte.
    Data(Bytes),
    /// Nothing yet; [`Event::Readable`] follows.
    Pending,
    /// The peer finished writing.
    Eof,
    /// The stream was reset, or is unknown.
    Reset,
}

/// Outcome of [`Session::write`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// So many bytes were taken.
    Taken(usize),
    /// The send buffer is full; [`Event::Writable`] follows.
    Pending,
    /// The stream is closed for writing, or was reset.
    Closed,
}

/// One yamux session.
#[derive(Debug)]
pub struct Session {
    pub(crate) config: Config,
    pub(crate) decoder: Decoder,
    pub(crate) streams: HashMap<u32, StreamState>,
    next_stream: Option<u32>,
    /// Own streams without an answer.
    pub(crate) unacked: usize,
    pub(crate) inbound: usize,
    pub(crate) accept_queue: VecDeque<u32>,
    pub(crate) send_queue: VecDeque<u32>,
    pub(crate) control: BytesMut,
    staged: Option<Bytes>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) buffered: usize,
    pub(crate) local_go_away: bool,
    pub(crate) remote_go_away: bool,
    pub(crate) error: Option<Error>,
    next_ping: u32,
    pub(crate) pings: BTreeMap<u32, Instant>,
    keepalive_at: Option<Instant>,
    pub(crate) keepalive_id: Option<u32>,
    open_deadlines: VecDeque<(Instant, u32)>,
    pub(crate) close_deadlines: VecDeque<(Instant, u32)>,
}

impl Session {
    /// A session that starts now.
    #[must_use]
    pub fn new(role: Role, config: Config, now: Instant) -> Self {
        let keepalive_at = config.keepalive_interval.map(|interval| now + interval);
        Self {
            config,
            decoder: Decoder::default(),
            streams: HashMap::new(),
            next_stream: Some(match role {
                Role::Client => 1,
                Role::Server => 2,
            }),
            unacked: 0,
            inbound: 0,
            accept_queue: VecDeque::new(),
            send_queue: VecDeque::new(),
            control: BytesMut::new(),
            staged: None,
            events: VecDeque::new(),
            buffered: 0,
            local_go_away: false,
            remote_go_away: false,
            error: None,
            next_ping: 0,
            pings: BTreeMap::new(),
            keepalive_at,
            keepalive_id: None,
            open_deadlines: VecDeque::new(),
            close_deadlines: VecDeque::new(),
        }
    }

    /// Processes bytes of the transport, in any split.
    ///
    /// # Errors
    /// When the session is over. What [`Session::poll_transmit`] still gives
    /// (a GoAway) should be sent before closing the transport.
    pub fn handle_input(&mut self, now: Instant, mut input: Bytes) -> Result<(), Error> {
        self.alive()?;
        loop {
            let item = match self.decoder.next(&mut input) {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.violation(error.into())),
            };
            let outcome = match item {
                Item::Header(header) => self.handle_header(now, header),
                Item::Body { stream, data, fin } => self.handle_body(stream, data).map(|()| {
                    if fin {
                        self.remote_finished(stream);
                    }
                }),
            };
            if let Err(error) = outcome {
                return Err(self.fail(error));
            }
        }
    }

    /// Next bytes for the transport.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(staged) = self.staged.take() {
            return Some(staged);
        }
        let mut out = self.control.split();
        while out.len() < MAX_BODY && self.error.is_none() {
            let Some(id) = self.send_queue.pop_front() else {
                break;
            };
            if let Some(body) = self.send_turn(now, id, &mut out) {
                self.staged = Some(body);
                break;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Whether so many answers wait for the transport that no more input may
    /// be given to [`Session::handle_input`].
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.control.len() > MAX_CONTROL
    }

    /// Next thing the application may be waiting for.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.error.is_some() {
            return None;
        }
        let ping = self
            .pings
            .values()
            .min()
            .map(|sent| *sent + self.config.write_timeout);
        let open = self.open_deadlines.front().map(|(at, _)| *at);
        let close = self.close_deadlines.front().map(|(at, _)| *at);
        [self.keepalive_at, ping, open, close]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the session is over: no pong, or a stream that the peer ignores.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.alive()?;
        self.expire_pings(now)?;
        self.expire_opens(now)?;
        self.expire_closes(now);
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at = None;
            self.keepalive_id = Some(self.send_ping(now));
        }
        Ok(())
    }

    /// Opens a stream; `None` while too many own streams wait for an answer.
    ///
    /// # Errors
    /// When no stream can be opened any more.
    pub fn open(&mut self, now: Instant) -> Result<Option<u32>, Error> {
        self.alive()?;
        if self.remote_go_away {
            return Err(Error::NotAccepting);
        }
        let Some(id) = self.next_stream else {
            return Err(Error::StreamsExhausted);
        };
        if self.unacked >= self.config.accept_backlog {
            return Ok(None);
        }
        self.next_stream = id.checked_add(2);
        self.unacked += 1;
        let mut state = StreamState::new(true);
        let grown = self.grant_configured_window(&mut state);
        self.streams.insert(id, state);
        self.send_control(FrameType::WindowUpdate, Flags::SYN, id, grown);
        self.forget_deadlines();
        self.open_deadlines
            .push_back((now + self.config.stream_open_timeout, id));
        Ok(Some(id))
    }

    /// Takes the next stream of the peer and acknowledges it at once.
    pub fn accept(&mut self) -> Option<u32> {
        while let Some(id) = self.accept_queue.pop_front() {
            let Some(mut state) = self.streams.remove(&id) else {
                continue;
            };
            state.established = true;
            if !state.off_wire {
                let grown = self.grant_configured_window(&mut state);
                self.send_control(FrameType::WindowUpdate, Flags::ACK, id, grown);
            }
            self.streams.insert(id, state);
            return Some(id);
        }
        None
    }

    /// Reads at most `max` bytes of a stream.
    pub fn read(&mut self, id: u32, max: usize) -> Read {
        let Some(state) = self.streams.get_mut(&id) else {
            return Read::Reset;
        };
        if let Some(data) = state.recv.pop(max) {
            self.buffered = self.buffered.saturating_sub(data.len());
            self.update_window(id);
            return Read::Data(data);
        }
        if state.reset {
            Read::Reset
        } else if state.remote_fin {
            Read::Eof
        } else {
            Read::Pending
        }
    }

    /// Queues data on a stream.
    pub fn write(&mut self, id: u32, data: &[u8]) -> Write {
        let limit = self.config.send_buffer;
        let Some(state) = self.streams.get_mut(&id) else {
            return Write::Closed;
        };
        if state.reset || state.local != LocalEnd::Open {
            return Write::Closed;
        }
        let free = limit.saturating_sub(state.send.len());
        if free == 0 {
            return Write::Pending;
        }
        let piece = data.get(..free).unwrap_or(data);
        state.send.push_slice(piece);
        self.enqueue(id);
        Write::Taken(piece.len())
    }

    /// Whether everything written on the stream went to the transport.
    #[must_use]
    pub fn is_flushed(&self, id: u32) -> bool {
        self.streams
            .get(&id)
            .is_none_or(|state| state.send.is_empty() || state.reset)
    }

    /// Ends the own direction once queued data is sent. Further calls do
    /// nothing.
    pub fn finish(&mut self, id: u32) {
        if let Some(state) = self.streams.get_mut(&id)
            && state.local == LocalEnd::Open
            && !state.reset
        {
            state.local = LocalEnd::Closing;
            self.enqueue(id);
        }
    }

    /// Gives a stream up in both directions at once.
    pub fn reset(&mut self, id: u32) {
        let Some(state) = self.streams.get(&id) else {
            return;
        };
        if !state.off_wire {
            self.send_control(FrameType::WindowUpdate, Flags::RST, id, 0);
        }
        self.kill_stream(id);
    }

    /// The application lets go of a stream: it is finished, and what still
    /// arrives is dropped.
    pub fn release(&mut self, id: u32) {
        self.finish(id);
        let Some(state) = self.streams.get_mut(&id) else {
            return;
        };
        state.orphaned = true;
        self.buffered = self.buffered.saturating_sub(state.recv.len());
        state.recv.clear();
        if state.off_wire {
            self.streams.remove(&id);
        }
    }

    /// Sends a ping and returns its id.
    ///
    /// # Errors
    /// When the session is over or too many pings are unanswered.
    pub fn ping(&mut self, now: Instant) -> Result<u32, Error> {
        self.alive()?;
        if self.pings.len() >= MAX_PINGS {
            return Err(Error::TooManyPings);
        }
        Ok(self.send_ping(now))
    }

    /// Asks the peer not to open streams any more, and refuses them from now
    /// on.
    pub fn go_away(&mut self) {
        if !self.local_go_away && self.error.is_none() {
            self.local_go_away = true;
            self.send_control(FrameType::GoAway, Flags::NONE, 0, GoAwayCode::NORMAL.0);
        }
    }

    /// Ends the session for a reason outside of the protocol. For
    /// [`Error::Closed`], what was written before is still sent, as far as the
    /// windows of the peer permit.
    pub fn close(&mut self, now: Instant, reason: Error) {
        if self.error.is_none() && matches!(reason, Error::Closed) {
            let mut out = self.control.split();
            while let Some(id) = self.send_queue.pop_front() {
                if let Some(body) = self.send_turn(now, id, &mut out) {
                    out.extend_from_slice(&body);
                }
            }
            self.control = out;
        }
        self.fail(reason);
    }

    /// Why the session is over, if it is.
    #[must_use]
    pub const fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    pub(crate) fn alive(&self) -> Result<(), Error> {
        self.error.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn violation(&mut self, violation: Violation) -> Error {
        self.fail(violation.into())
    }

    /// Ends the session; the first reason stays. The peer is told of
    /// violations, unless it does not even speak this protocol: the Go library
    /// draws the same line.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        if let Some(first) = &self.error {
            return first.clone();
        }
        let told = !matches!(error, Error::Protocol(Violation::Header(_)));
        if matches!(error, Error::Protocol(_)) && told {
            let code = GoAwayCode::PROTOCOL.0;
            self.send_control(FrameType::GoAway, Flags::NONE, 0, code);
        }
        self.error = Some(error.clone());
        self.send_queue.clear();
        for (id, state) in &mut self.streams {
            state.reset = true;
            state.off_wire = true;
            self.events.push_back(Event::Readable(*id));
            self.events.push_back(Event::Writable(*id));
        }
        self.events.push_back(Event::Incoming);
        self.events.push_back(Event::CanOpen);
        error
    }

    pub(crate) fn send_control(&mut self, kind: FrameType, flags: Flags, stream: u32, length: u32) {
        Header {
            frame_type: kind,
            flags,
            stream,
            length,
        }
        .encode(&mut self.control);
    }

    /// Peers assume the protocol's window for a new stream; the rest of a
    /// larger configured one is granted with the first frame.
    fn grant_configured_window(&self, state: &mut StreamState) -> u32 {
        let grown = self
            .config
            .receive_window
            .saturating_sub(crate::config::INITIAL_WINDOW);
        state.recv_window = state.recv_window.saturating_add(grown);
        grown
    }

    /// Grants what was read once it is half of the window.
    fn update_window(&mut self, id: u32) {
        let max = self.config.receive_window;
        let Some(state) = self.streams.get_mut(&id) else {
            return;
        };
        if state.off_wire || state.remote_fin {
            return;
        }
        let held = u32::try_from(state.recv.len()).unwrap_or(max);
        let delta = max.saturating_sub(held).saturating_sub(state.recv_window);
        if delta >= max / 2 {
            state.recv_window += delta;
            self.send_control(FrameType::WindowUpdate, Flags::NONE, id, delta);
        }
    }

    pub(crate) fn enqueue(&mut self, id: u32) {
        if let Some(state) = self.streams.get_mut(&id)
            && !state.queued
            && state.has_work()
        {
            state.queued = true;
            self.send_queue.push_back(id);
        }
    }

    /// One frame of one stream. A large body is returned instead of copied.
    fn send_turn(&mut self, now: Instant, id: u32, out: &mut BytesMut) -> Option<Bytes> {
        let state = self.streams.get_mut(&id)?;
        state.queued = false;
        if !state.has_work() {
            return None;
        }
        let window = usize::try_from(state.send_window).unwrap_or(usize::MAX);
        let was_full = state.send.len() >= self.config.send_buffer;
        let mut large = None;
        if let Some(body) = state.send.pop(window.min(MAX_BODY)) {
            let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
            state.send_window = state.send_window.saturating_sub(length);
            Header {
                frame_type: FrameType::Data,
                flags: Flags::NONE,
                stream: id,
                length,
            }
            .encode(out);
            if body.len() <= COPY_BODY {
                out.extend_from_slice(&body);
            } else {
                large = Some(body);
            }
            if was_full || state.send.is_empty() {
                self.events.push_back(Event::Writable(id));
            }
        } else {
            state.local = LocalEnd::FinSent;
            Header {
                frame_type: FrameType::WindowUpdate,
                flags: Flags::FIN,
                stream: id,
                length: 0,
            }
            .encode(out);
            self.events.push_back(Event::Writable(id));
            if state.both_finished() {
                self.leave_wire(id);
            } else {
                self.forget_deadlines();
                let at = now + self.config.stream_close_timeout;
                self.close_deadlines.push_back((at, id));
            }
        }
        self.enqueue(id);
        large
    }

    fn send_ping(&mut self, now: Instant) -> u32 {
        let id = self.next_ping;
        self.next_ping = id.wrapping_add(1);
        self.pings.insert(id, now);
        self.send_control(FrameType::Ping, Flags::SYN, 0, id);
        id
    }

    pub(crate) fn schedule_keepalive(&mut self, now: Instant) {
        self.keepalive_id = None;
        self.keepalive_at = self
            .config
            .keepalive_interval
            .map(|interval| now + interval);
    }

    fn expire_pings(&mut self, now: Instant) -> Result<(), Error> {
        let timeout = self.config.write_timeout;
        while let Some((&id, _)) = self.pings.iter().find(|(_, sent)| **sent + timeout <= now) {
            self.pings.remove(&id);
            if self.keepalive_id == Some(id) {
                return Err(self.fail(Error::KeepaliveTimeout));
            }
            self.events.push_back(Event::PingLost(id));
        }
        Ok(())
    }

    fn expire_opens(&mut self, now: Instant) -> Result<(), Error> {
        self.forget_deadlines();
        match self.open_deadlines.front() {
            Some((at, _)) if *at <= now => Err(self.fail(Error::OpenTimeout)),
            _ => Ok(()),
        }
    }

    fn expire_closes(&mut self, now: Instant) {
        self.forget_deadlines();
        while let Some(&(at, id)) = self.close_deadlines.front() {
            if at > now {
                return;
            }
            self.close_deadlines.pop_front();
            if self.is_on_wire(id) {
                self.reset(id);
            }
        }
    }

    /// Drops the deadlines of streams that no longer wait from the front of
    /// both queues, so that the queues stay as short as the waiting streams.
    fn forget_deadlines(&mut self) {
        while let Some((_, id)) = self.open_deadlines.front() {
            let waiting = self
                .streams
                .get(id)
                .is_some_and(|state| state.outbound && !state.established && !state.off_wire);
            if waiting {
                break;
            }
            self.open_deadlines.pop_front();
        }
        while let Some((_, id)) = self.close_deadlines.front() {
            if self.is_on_wire(*id) {
                break;
            }
            self.close_deadlines.pop_front();
        }
    }

    fn is_on_wire(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|state| !state.off_wire)
    }
}
