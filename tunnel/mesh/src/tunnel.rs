//! One peer's WireGuard tunnel over time: when to shake hands, rekey, send
//! keepalives and forget keys (WireGuard paper, section 6).

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::noise::{Kind, MAX_DATAGRAM, Noise, Opened, Rejected, index_at, kind};

const REKEY_AFTER: Duration = Duration::from_secs(120);
const REJECT_AFTER: Duration = Duration::from_secs(180);
const FORGET_AFTER: Duration = Duration::from_secs(540);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_ATTEMPT: Duration = Duration::from_secs(90);
const KEEPALIVE: Duration = Duration::from_secs(10);
const PERSISTENT: Duration = Duration::from_secs(25);
/// Random part of a handshake retry, in milliseconds.
const JITTER_MS: u64 = 334;
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

/// A session by its local index.
#[derive(Clone, Copy, Debug)]
struct Birth {
    index: u32,
    at: Instant,
    initiator: bool,
}

/// What the owner must send or deliver; lengths refer to the output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Authentic inner packet.
    Packet(usize, Ipv6Addr),
    /// Authentic, nothing to deliver. `Some` bytes go back to the peer.
    Handled(Option<usize>),
}

/// Result of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// `out[..len]` is ready.
    Sealed(usize),
    /// Queued; a handshake runs.
    Queued,
}

pub(crate) struct Tunnel<N> {
    noise: N,
    keepalive: bool,
    attempt: Option<Attempt>,
    /// Sessions by `index % 8`, as many as the core keeps.
    births: [Option<Birth>; 8],
    current: Option<Birth>,
    last_handshake: Option<Instant>,
    queue: VecDeque<Vec<u8>>,
    /// Passive keepalive is due.
    answer_at: Option<Instant>,
    /// First data packet sent since the last authentic one arrived.
    unanswered: Option<Instant>,
    last_tx: Option<Instant>,
    last_traffic: Option<Instant>,
    /// Datagrams made outside of a send: handshakes, keepalives, released queue.
    ready: VecDeque<Vec<u8>>,
    established: bool,
}

impl<N: Noise> Tunnel<N> {
    pub(crate) fn new(noise: N) -> Self {
        Self {
            noise,
            keepalive: false,
            attempt: None,
            births: [None; 8],
            current: None,
            last_handshake: None,
            queue: VecDeque::new(),
            answer_at: None,
            unanswered: None,
            last_tx: None,
            last_traffic: None,
            ready: VecDeque::new(),
            established: false,
        }
    }

    /// Switches the persistent keepalive. Switching it on sends one at once.
    pub(crate) fn set_keepalive(&mut self, now: Instant, on: bool, rng: &mut impl Rng) {
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

    /// Seals one inner packet.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        packet: &[u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Output {
        if self.usable(now)
            && let Some(len) = self.noise.seal(packet, out)
        {
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

    /// Opens one datagram.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        datagram: &[u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Input, Rejected> {
        let kind = kind(datagram);
        if kind == Kind::Data && !self.accepts(now, index_at(datagram, 4)) {
            return Err(Rejected);
        }
        let opened = self.noise.open(datagram, out)?;
        match (kind, opened) {
            (Kind::Initiation, Opened::Reply(len)) if len == 92 => {
                self.born(now, index_at(out, 4), false);
                self.touched(now);
                Ok(Input::Handled(Some(len)))
            }
            // A cookie: the initiation itself was not looked at.
            (Kind::Initiation | Kind::Response, Opened::Reply(len)) if len == 64 => {
                Ok(Input::Handled(Some(len)))
            }
            (Kind::Response, Opened::Reply(len)) => {
                let index = index_at(datagram, 8);
                self.born(now, index, true);
                self.confirmed(now, index);
                self.touched(now);
                // The core's keepalive confirms the keys; queued packets do
                // the same and make it superfluous, but it must go first: the
                // peer accepts data only after the first authentic packet.
                self.ready.push_back(out[..len].to_vec());
                self.release(now, rng);
                Ok(Input::Handled(None))
            }
            (Kind::Data, Opened::Packet(len, source)) => {
                self.confirmed(now, index_at(datagram, 4));
                self.touched(now);
                if self.answer_at.is_none() {
                    self.answer_at = Some(now + KEEPALIVE);
                }
                self.rekey_on_receive(now, rng);
                self.release(now, rng);
                Ok(Input::Packet(len, source))
            }
            (Kind::Data, Opened::Empty) => {
                self.confirmed(now, index_at(datagram, 4));
                self.touched(now);
                self.release(now, rng);
                Ok(Input::Handled(None))
            }
            (Kind::Cookie, Opened::Empty) => Ok(Input::Handled(None)),
            _ => Err(Rejected),
        }
    }

    /// A data packet that surely is the peer's belongs to no session in force:
    /// one of the two clocks jumped or stood still, and the peer does not know
    /// that its session is over.
    pub(crate) fn outdated(&mut self, now: Instant, datagram: &[u8], rng: &mut impl Rng) {
        if kind(datagram) == Kind::Data
            && !self.accepts(now, index_at(datagram, 4))
            && self
                .last_handshake
                .is_none_or(|at| now.duration_since(at) >= REKEY_TIMEOUT)
        {
            self.start(now, rng);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to run next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let no_reply = self.unanswered.map(|t| t + KEEPALIVE + REKEY_TIMEOUT);
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
            self.current.map(|c| c.at + FORGET_AFTER),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(attempt) = &self.attempt
            && now >= attempt.retry_at
        {
            if now.duration_since(attempt.started) >= REKEY_ATTEMPT && !self.keepalive {
                self.attempt = None;
                self.queue.clear();
                self.unanswered = None;
            } else {
                self.initiate(now, rng);
            }
        }
        if self
            .unanswered
            .is_some_and(|t| now >= t + KEEPALIVE + REKEY_TIMEOUT)
        {
            self.unanswered = None;
            self.start(now, rng);
        }
        if self.answer_at.is_some_and(|t| now >= t) {
            self.answer_at = None;
            if self.usable(now) {
                self.send_empty(now, rng);
            }
        }
        if self.keepalive && self.last_traffic.is_none_or(|t| now >= t + PERSISTENT) {
            self.last_traffic = Some(now);
            self.send_empty(now, rng);
        }
        if self.current.is_some_and(|c| now >= c.at + FORGET_AFTER) {
            self.noise.forget();
            self.current = None;
            self.births = [None; 8];
        }
    }

    /// Sends a keepalive, if there is a session: tells the peer that this side
    /// can be reached.
    pub(crate) fn poke(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.usable(now) {
            self.send_empty(now, rng);
        }
    }

    /// Retries a running handshake now: a better path turned up.
    pub(crate) fn nudge(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.attempt.as_ref().is_some_and(|a| a.tries < 8) {
            self.initiate(now, rng);
        }
    }

    fn usable(&self, now: Instant) -> bool {
        self.current
            .is_some_and(|c| now.duration_since(c.at) < REJECT_AFTER)
            && self.noise.has_session()
    }

    fn accepts(&self, now: Instant, index: u32) -> bool {
        self.births[slot(index)]
            .is_some_and(|b| b.index == index && now.duration_since(b.at) < REJECT_AFTER)
    }

    fn born(&mut self, now: Instant, index: u32, initiator: bool) {
        self.births[slot(index)] = Some(Birth {
            index,
            at: now,
            initiator,
        });
        if initiator {
            self.attempt = None;
        }
        self.last_handshake = Some(now);
        self.established = true;
    }

    /// Packets may be sent on session `index`, unless a newer one works.
    fn confirmed(&mut self, now: Instant, index: u32) {
        let Some(birth) = self.births[slot(index)] else {
            return;
        };
        if self
            .current
            .is_none_or(|c| c.index != index && birth.at >= c.at)
        {
            self.current = Some(birth);
            // The peer's handshake came through: ours is not needed any more.
            if now.duration_since(birth.at) < REKEY_TIMEOUT {
                self.attempt = None;
            }
        }
    }

    fn touched(&mut self, now: Instant) {
        self.unanswered = None;
        self.last_traffic = Some(now);
    }

    fn sent(&mut self, now: Instant, data: bool, rng: &mut impl Rng) {
        self.last_tx = Some(now);
        self.last_traffic = Some(now);
        self.answer_at = None;
        if data && self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
        if self
            .current
            .is_some_and(|c| c.initiator && now.duration_since(c.at) >= REKEY_AFTER)
        {
            self.start(now, rng);
        }
    }

    fn rekey_on_receive(&mut self, now: Instant, rng: &mut impl Rng) {
        let limit = REJECT_AFTER - KEEPALIVE - REKEY_TIMEOUT;
        if self
            .current
            .is_some_and(|c| c.initiator && now.duration_since(c.at) >= limit)
        {
            self.start(now, rng);
        }
    }

    fn send_empty(&mut self, now: Instant, rng: &mut impl Rng) {
        let mut out = [0; INITIAL];
        if self.usable(now)
            && let Some(len) = self.noise.seal(&[], &mut out)
        {
            self.ready.push_back(out[..len].to_vec());
            self.sent(now, false, rng);
        } else {
            self.start(now, rng);
        }
    }

    /// Sends what waited for a session.
    fn release(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.queue.is_empty() || !self.usable(now) {
            return;
        }
        let mut out = vec![0; MAX_DATAGRAM];
        while let Some(packet) = self.queue.pop_front() {
            let Some(len) = self.noise.seal(&packet, &mut out) else {
                break;
            };
            self.ready.push_back(out[..len].to_vec());
            self.sent(now, true, rng);
        }
    }

    fn start(&mut self, now: Instant, rng: &mut impl Rng) {
        if self.attempt.is_none() {
            self.attempt = Some(Attempt {
                started: now,
                retry_at: now,
                tries: 0,
            });
            self.initiate(now, rng);
        }
    }

    fn initiate(&mut self, now: Instant, rng: &mut impl Rng) {
        let working = self.usable(now);
        let mut out = [0; INITIAL];
        let made = self.noise.initiate(&mut out);
        if self.current.is_some() && !self.noise.has_session() {
            // The core gave its keys up.
            self.current = None;
        }
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let wait = match FIRST_RETRIES.get(usize::try_from(attempt.tries).unwrap_or(usize::MAX)) {
            Some(first) if !working => *first,
            _ => REKEY_TIMEOUT,
        };
        attempt.tries += 1;
        attempt.retry_at = now + wait + Duration::from_millis(rng.random_range(0..JITTER_MS));
        if let Some(len) = made {
            self.last_tx = Some(now);
            self.ready.push_back(out[..len].to_vec());
        }
    }
}

/// Room for a handshake message or a keepalive.
const INITIAL: usize = crate::noise::INITIATION_LEN;

fn slot(index: u32) -> usize {
    (index & 7) as usize
}
