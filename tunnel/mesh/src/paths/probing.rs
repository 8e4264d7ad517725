//! Which addresses are pinged, and when.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_disco::TxId;
use rand::Rng;

use super::size::BASE;
use super::{Action, Paths, Sent};
use crate::types::Via;

/// A ping without answer is forgotten after this.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Spacing of discovery pings to one silent address, by number of tries.
const DISCOVERY: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// Candidates learned from the peer's pings are kept this long.
const LEARNED: Duration = Duration::from_secs(45);
/// Most unanswered pings remembered.
const MAX_PINGS: usize = 256;
/// Call-me-maybe messages to one peer are at least this far apart.
const CALL_INTERVAL: Duration = Duration::from_secs(2);

impl Paths {
    /// Notes a ping sent over the relay or for a caller.
    pub(crate) fn note_ping(
        &mut self,
        now: Instant,
        to: Via,
        len: usize,
        token: Option<u64>,
        rng: &mut impl Rng,
    ) -> TxId {
        if self.pings.len() >= MAX_PINGS {
            self.pings
                .retain(|_, p| now.duration_since(p.at) < PING_TIMEOUT);
            if self.pings.len() >= MAX_PINGS {
                self.pings.clear();
            }
        }
        let tx = TxId(rng.random());
        self.pings.insert(
            tx,
            Sent {
                to,
                at: now,
                len,
                token,
            },
        );
        tx
    }

    /// Pings every address worth trying, for a caller who waits for `token`.
    pub(crate) fn ping_all(&mut self, now: Instant, token: u64, rng: &mut impl Rng) {
        if self.blocked {
            return;
        }
        let targets: Vec<_> = self.candidates.keys().copied().collect();
        for to in targets {
            let tx = self.note_ping(now, Via::Udp(to), BASE, Some(token), rng);
            self.actions.push_back(Action::Ping { tx, to, len: BASE });
        }
    }

    /// Pings all candidates that are due, and invites the peer to do the same.
    pub(super) fn discover(&mut self, now: Instant, again: bool, rng: &mut impl Rng) {
        if self.blocked {
            return;
        }
        if again {
            self.reset_tries();
        }
        self.prune(now);
        self.full_probe = Some(now);
        let due: Vec<_> = self
            .candidates
            .keys()
            .copied()
            .filter(|a| self.due(now, *a))
            .collect();
        for addr in due {
            self.ping(now, addr, rng);
        }
        if self
            .last_call
            .is_none_or(|t| now.duration_since(t) >= CALL_INTERVAL)
            && !self.trusted(now)
        {
            self.last_call = Some(now);
            self.actions.push_back(Action::CallMeMaybe);
        }
    }

    pub(super) fn due(&self, now: Instant, addr: SocketAddr) -> bool {
        self.candidates.get(&addr).is_some_and(|c| {
            c.pinged
                .is_none_or(|t| now.duration_since(t) >= spacing(c.tries))
        })
    }

    /// Asks whether the path in use works, and carries what it did.
    pub(super) fn ping_best(&mut self, now: Instant, rng: &mut impl Rng) {
        if let Some(addr) = self.direct() {
            if let Some(len) = self.size.long() {
                self.ping_sized(now, addr, len, rng);
            }
            self.ping(now, addr, rng);
        }
    }

    /// Sends a ping of `len` bytes over the path in use.
    pub(super) fn ping_sized(
        &mut self,
        now: Instant,
        to: SocketAddr,
        len: usize,
        rng: &mut impl Rng,
    ) {
        let tx = self.note_ping(now, Via::Udp(to), len, None, rng);
        self.size.pinged(now, len);
        self.actions.push_back(Action::Ping { tx, to, len });
    }

    pub(super) fn ping(&mut self, now: Instant, to: SocketAddr, rng: &mut impl Rng) {
        let tx = self.note_ping(now, Via::Udp(to), BASE, None, rng);
        if let Some(candidate) = self.candidates.get_mut(&to) {
            candidate.pinged = Some(now);
            candidate.tries = candidate.tries.saturating_add(1);
        }
        if let Some(best) = &mut self.best
            && best.addr == to
        {
            best.last_ping = now;
            best.ping_out.get_or_insert(now);
        }
        self.actions.push_back(Action::Ping { tx, to, len: BASE });
    }

    pub(super) fn reset_tries(&mut self) {
        for candidate in self.candidates.values_mut() {
            candidate.tries = 0;
            candidate.pinged = None;
        }
    }

    pub(super) fn prune(&mut self, now: Instant) {
        let best = self.direct();
        self.candidates.retain(|addr, c| {
            c.announced
                || c.called
                || Some(*addr) == best
                || c.seen.is_some_and(|t| now.duration_since(t) < LEARNED)
        });
        self.pings
            .retain(|_, p| now.duration_since(p.at) < PING_TIMEOUT);
    }
}

/// Time to the next try at an address that was silent so often.
pub(super) fn spacing(tries: usize) -> Duration {
    DISCOVERY[tries.saturating_sub(1).min(DISCOVERY.len() - 1)]
}
