//! One peer's WireGuard tunnel over time: when to shake hands, rekey, send
//! keepalives and forget keys (WireGuard paper, section 6).

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use adit_noise::limits::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_JITTER_MS,
    REKEY_TIMEOUT,
};
use adit_noise::{Incoming, Kind, OVERHEAD, Peer, RESPONSE_LEN, Random, Rejected, receiver_index};
use rand::Rng;

use crate::BUFFER_LEN;
use crate::inner;
use crate::paths::BASE_MTU;

/// Keys are forgotten this long after the last handshake.
const FORGET_AFTER: Duration = Duration::from_secs(540);
/// Time between persistent keepalives.
const PERSISTENT: Duration = Duration::from_secs(25);
/// Packets kept while a handshake runs; the oldest goes first.
const QUEUE: usize = 256;
/// First retries come sooner while no session works yet: an initiation that
/// reached a peer before the peer knew this node is lost, and waiting the full
/// timeout for that would be felt.
const FIRST_RETRIES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// A handshake in progress.
#[derive(Debug)]
struct Attempt {
    started: Instant,
    retry_at: Instant,
    tries: u32,
}

/// A message to this node that the peer sent, by its own word.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Initiation(Box<Incoming>),
    /// One that names a session number of the peer.
    Other(Kind, &'a [u8]),
}

/// What the owner must send or deliver; a length refers to the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Authentic inner packet.
    Packet(usize, Ipv6Addr),
    /// Authentic, nothing to deliver. A response goes back to the peer.
    Handled(Option<[u8; RESPONSE_LEN]>),
}

/// Result of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// `out[..len]` is ready.
    Sealed(usize),
    /// Queued; a handshake runs.
    Queued,
}

pub(crate) struct Tunnel {
    noise: Peer,
    keepalive: bool,
    attempt: Option<Attempt>,
    last_handshake: Option<Instant>,
    /// When keys are to be forgotten, if there are any.
    forget_at: Option<Instant>,
    queue: VecDeque<Vec<u8>>,
    /// Passive keepalive is due.
    answer_at: Option<Instant>,
    /// First data packet sent since the last authentic one arrived.
    unanswered: Option<Instant>,
    last_traffic: Option<Instant>,
    /// Datagrams made outside of a send: handshakes, keepalives, released queue.
    ready: VecDeque<Vec<u8>>,
    established: bool,
}

impl Tunnel {
    pub(crate) fn new(noise: Peer) -> Self {
        Self {
            noise,
            keepalive: false,
            attempt: None,
            last_handshake: None,
            forget_at: None,
            queue: VecDeque::new(),
            answer_at: None,
            unanswered: None,
            last_traffic: None,
            ready: VecDeque::new(),
            established: false,
        }
    }

    /// Switches the persistent keepalive. Switching it on sends one at once.
    pub(crate) fn set_keepalive(&mut self, now: Instant, on: bool, rng: &mut Random) {
        if on && !self.keepalive {
            self.last_traffic = Some(now);
            self.send_empty(now, rng);
        }
        self.keepalive = on;
    }

    pub(crate) fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    /// Nothing waits to be sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ready.is_empty()
    }

    /// A datagram to send, made by a timer or a handshake.
    pub(crate) fn poll_ready(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// Whether a handshake completed since the last call.
    pub(crate) fn take_established(&mut self) -> bool {
        std::mem::take(&mut self.established)
    }

    /// Gives the session numbers back.
    pub(crate) fn close(&mut self, rng: &mut Random) {
        self.noise.close(rng);
    }

    /// Seals one inner packet, padded to no more than `largest` bytes.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: &[u8],
        largest: usize,
        out: &mut [u8],
        rng: &mut Random,
    ) -> Output {
        if let Some(len) = self.noise.seal(now, packet, largest, out) {
            self.sent(now, !packet.is_empty(), rng);
            return Output::Sealed(len);
        }
        if self.queue.len() == QUEUE {
            self.queue.pop_front();
        }
        self.queue.push_back(packet.to_vec());
        self.start(now, rng);
        Output::Queued
    }

    /// Takes one message.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        message: Message<'_>,
        out: &mut [u8],
        rng: &mut Random,
    ) -> Result<Input, Rejected> {
        match message {
            Message::Initiation(incoming) => {
                let response = self.noise.respond(now, *incoming, rng)?;
                self.shook(now);
                Ok(Input::Handled(Some(response)))
            }
            Message::Other(Kind::Response, message) => {
                self.noise.finish(now, message, rng)?;
                self.attempt = None;
                self.shook(now);
                // The peer sends only once it got something.
                if self.queue.is_empty() {
                    self.send_empty(now, rng);
                } else {
                    self.release(now, rng);
                }
                Ok(Input::Handled(None))
            }
            Message::Other(Kind::Data, message) => self.open(now, message, out, rng),
            Message::Other(Kind::Cookie, message) => {
                self.noise.take_cookie(now, message)?;
                Ok(Input::Handled(None))
            }
            Message::Other(..) => Err(Rejected),
        }
    }

    fn open(
        &mut self,
        now: Instant,
        message: &[u8],
        out: &mut [u8],
        rng: &mut Random,
    ) -> Result<Input, Rejected> {
        if message.len() > BUFFER_LEN {
            return Err(Rejected);
        }
        let opened = self.noise.open(now, message, out)?;
        let current = self.noise.current();
        if opened.renewed && current.is_some_and(|c| now.duration_since(c.at) < REKEY_TIMEOUT) {
            // The peer's handshake came through: ours is not needed any more.
            self.attempt = None;
        }
        self.touched(now);
        let packet = out.get(..opened.len).and_then(inner::packet);
        if packet.is_some() {
            if self.answer_at.is_none() {
                self.answer_at = Some(now + KEEPALIVE_TIMEOUT);
            }
            self.renew(
                now,
                REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT,
                rng,
            );
        }
        self.release(now, rng);
        Ok(match packet {
            Some((len, source)) => Input::Packet(len, source),
            None => Input::Handled(None),
        })
    }

    /// A data packet that surely is the peer's belongs to no session in force:
    /// one of the two clocks jumped or stood still, and the peer does not know
    /// that its session is over.
    pub(crate) fn outdated(&mut self, now: Instant, datagram: &[u8], rng: &mut Random) {
        if receiver_index(datagram).is_some_and(|index| !self.noise.accepts(now, index))
            && self
                .last_handshake
                .is_none_or(|at| now.duration_since(at) >= REKEY_TIMEOUT)
        {
            self.start(now, rng);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to run next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let no_reply = self
            .unanswered
            .map(|t| t + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT);
        [
            self.attempt.as_ref().map(|a| a.retry_at),
            self.answer_at,
            if self.attempt.is_none() {
                no_reply
            } else {
                None
            },
            if self.keepalive {
                self.last_traffic.map(|t| t + PERSISTENT)
            } else {
                None
            },
            self.forget_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut Random) {
        if let Some(attempt) = &self.attempt
            && now >= attempt.retry_at
        {
            if now.duration_since(attempt.started) >= REKEY_ATTEMPT_TIME && !self.keepalive {
                self.attempt = None;
                self.noise.abandon(rng);
                self.queue.clear();
                self.unanswered = None;
            } else {
                self.initiate(now, rng);
            }
        }
        if self
            .unanswered
            .is_some_and(|t| now >= t + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT)
        {
            self.unanswered = None;
            self.start(now, rng);
        }
        if self.answer_at.is_some_and(|t| now >= t) {
            self.answer_at = None;
            self.poke(now, rng);
        }
        if self.keepalive && self.last_traffic.is_none_or(|t| now >= t + PERSISTENT) {
            self.last_traffic = Some(now);
            self.send_empty(now, rng);
        }
        if self.forget_at.is_some_and(|at| now >= at) {
            self.forget_at = None;
            self.noise.forget(rng);
        }
    }

    /// Sends a keepalive, if there is a session: tells the peer that this side
    /// can be reached.
    pub(crate) fn poke(&mut self, now: Instant, rng: &mut Random) {
        if self.noise.can_seal(now) {
            self.send_empty(now, rng);
        }
    }

    /// Retries a running handshake now: a better path turned up.
    pub(crate) fn nudge(&mut self, now: Instant, rng: &mut Random) {
        if self.attempt.as_ref().is_some_and(|a| a.tries < 8) {
            self.initiate(now, rng);
        }
    }

    /// A handshake was completed.
    fn shook(&mut self, now: Instant) {
        self.last_handshake = Some(now);
        self.forget_at = Some(now + FORGET_AFTER);
        self.established = true;
        self.touched(now);
    }

    fn touched(&mut self, now: Instant) {
        self.unanswered = None;
        self.last_traffic = Some(now);
    }

    fn sent(&mut self, now: Instant, data: bool, rng: &mut Random) {
        self.last_traffic = Some(now);
        self.answer_at = None;
        if data && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        self.renew(now, REKEY_AFTER_TIME, rng);
    }

    /// Begins a handshake if the session is worn, or if it is this old and
    /// began on this side.
    fn renew(&mut self, now: Instant, age: Duration, rng: &mut Random) {
        if self.noise.current().is_some_and(|current| {
            current.worn || current.initiator && now.duration_since(current.at) >= age
        }) {
            self.start(now, rng);
        }
    }

    fn send_empty(&mut self, now: Instant, rng: &mut Random) {
        let mut out = [0; OVERHEAD];
        if let Some(len) = self.noise.seal(now, &[], 0, &mut out) {
            self.ready.push_back(out[..len].to_vec());
            self.sent(now, false, rng);
        } else {
            self.start(now, rng);
        }
    }

    /// Sends what waited for a session.
    fn release(&mut self, now: Instant, rng: &mut Random) {
        if self.queue.is_empty() || !self.noise.can_seal(now) {
            return;
        }
        let mut out = vec![0; BUFFER_LEN];
        while let Some(packet) = self.queue.pop_front() {
            let Some(len) = self.noise.seal(now, &packet, BASE_MTU, &mut out) else {
                break;
            };
            self.ready.push_back(out[..len].to_vec());
            self.sent(now, true, rng);
        }
    }

    fn start(&mut self, now: Instant, rng: &mut Random) {
        if self.attempt.is_none() {
            self.attempt = Some(Attempt {
                started: now,
                retry_at: now,
                tries: 0,
            });
            self.initiate(now, rng);
        }
    }

    fn initiate(&mut self, now: Instant, rng: &mut Random) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let wait = match FIRST_RETRIES.get(usize::try_from(attempt.tries).unwrap_or(usize::MAX)) {
            Some(first) if !self.noise.can_seal(now) => *first,
            _ => REKEY_TIMEOUT,
        };
        let jitter = Duration::from_millis(rng.random_range(0..=REKEY_JITTER_MS));
        attempt.tries += 1;
        attempt.retry_at = now + wait + jitter;
        if let Some(initiation) = self.noise.initiate(now, rng) {
            self.ready.push_back(initiation.to_vec());
        }
    }
}
