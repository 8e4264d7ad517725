//! How large a datagram the way to a peer carries.
//!
//! Every path carries what a usual ping measures. Larger datagrams are tried
//! with larger pings once data flows, all sizes at the same time, and only a
//! pong of the same length counts: it shows that both directions carry the
//! size, and that the peer knows what larger datagrams are. Peers of other
//! makes answer with a pong of the usual length; they are not asked again.
//!
//! A size that was proven has to stay so: heartbeats come in both lengths, and
//! when the short one is answered and the long one is not, the path is back to
//! the usual size at once.
//!
//! A relay's frames hold more than any datagram here, but whether the peer
//! knows what larger ones are has to be found out in the same way. There is
//! one size to try, and nothing to repeat: a connection to a relay has no MTU
//! that could change.

use std::time::{Duration, Instant};

use crate::{BUFFER_LEN, OVERHEAD};

/// Length of a usual ping.
pub(crate) const BASE: usize = adit_disco::PADDED_DATAGRAM_LEN;

/// Inner MTU of every path.
pub(crate) const BASE_MTU: usize = 1280;

/// UDP payloads that are tried: what fits into links of 1420 (tunnels), 1460
/// (some clouds), 1500 over IPv6 and IPv4, 9000 and more bytes.
const LADDER: [usize; 6] = [1392, 1432, 1452, 1472, 8952, BUFFER_LEN];

/// What is tried through a relay.
const RELAYED: [usize; 1] = [BUFFER_LEN];

/// Datagrams with data after which larger ones are worth a search.
const WORTH: u32 = 32;

/// First wait before a search is repeated, and the longest.
const AGAIN_MIN: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Size {
    /// Lengths worth a try, the smallest first.
    ladder: &'static [usize],
    /// Largest datagram that went both ways.
    proven: usize,
    /// The peer answers long pings with short pongs.
    foreign: bool,
    /// Datagrams with data since the path began.
    carried: u32,
    again: Duration,
    search_at: Option<Instant>,
    /// When the oldest unanswered long ping was sent.
    long_out: Option<Instant>,
    /// When the latest answered short ping was sent.
    short_ok: Option<Instant>,
}

impl Default for Size {
    fn default() -> Self {
        Self::of(&LADDER)
    }
}

impl Size {
    fn of(ladder: &'static [usize]) -> Self {
        Self {
            ladder,
            proven: BASE,
            foreign: false,
            carried: 0,
            again: AGAIN_MIN,
            search_at: None,
            long_out: None,
            short_ok: None,
        }
    }

    /// Of the way through the peer's relay.
    pub(crate) fn relayed() -> Self {
        Self::of(&RELAYED)
    }

    /// Inner MTU that the path allows.
    pub(crate) fn mtu(&self) -> usize {
        if self.proven == BASE {
            BASE_MTU
        } else {
            self.proven - OVERHEAD
        }
    }

    /// Length of long heartbeats, if they are needed.
    pub(crate) fn long(&self) -> Option<usize> {
        (self.proven > BASE).then_some(self.proven)
    }

    /// Another path: nothing is known of it.
    pub(crate) fn restart(&mut self) {
        *self = Self {
            foreign: self.foreign,
            ..Self::of(self.ladder)
        };
    }

    /// The peer answers long pings with short pongs, over whichever path.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Nothing large is to be sent to this peer.
    pub(crate) fn set_foreign(&mut self) {
        self.foreign = true;
        self.lower();
    }

    /// A datagram with data goes out. The lengths to be tried now, if any.
    pub(crate) fn sent(&mut self, now: Instant) -> &'static [usize] {
        if self.foreign || self.proven == BUFFER_LEN {
            return &[];
        }
        self.carried = self.carried.saturating_add(1);
        if self.carried < WORTH || self.search_at.is_some_and(|at| now < at) {
            return &[];
        }
        self.search_at = Some(now + self.again);
        self.again = (self.again * 4).min(AGAIN_MAX);
        let known = self.ladder.partition_point(|len| *len <= self.proven);
        &self.ladder[known..]
    }

    /// A ping of `len` bytes was sent over the path.
    pub(crate) fn pinged(&mut self, now: Instant, len: usize) {
        if len > BASE && len == self.proven {
            self.long_out.get_or_insert(now);
        }
    }

    /// A ping of `len` bytes, sent at `at`, was answered by a pong of `back`.
    pub(crate) fn ponged(&mut self, at: Instant, len: usize, back: usize) {
        if len <= BASE {
            self.short_ok = self.short_ok.max(Some(at));
        } else if back < len {
            self.set_foreign();
        } else if len >= self.proven {
            self.long_out = None;
            self.proven = len;
        }
    }

    /// When the long ping has had its time.
    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let out = self.long_out?;
        (self.short_ok? >= out).then(|| out + patience)
    }

    /// A datagram of `len` bytes is too long. Whether that is news.
    pub(crate) fn too_long(&mut self, now: Instant, len: usize) -> bool {
        if len > self.proven {
            return false;
        }
        // What still fits is soon found out.
        self.again = AGAIN_MIN;
        self.search_at = Some(now + self.again);
        self.lower()
    }

    /// Back to the usual size. Whether that is another one.
    fn lower(&mut self) -> bool {
        self.long_out = None;
        std::mem::replace(&mut self.proven, BASE) != BASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(size: &mut Size, now: Instant) -> &'static [usize] {
        for _ in 1..WORTH {
            assert!(size.sent(now).is_empty());
        }
        size.sent(now)
    }

    #[test]
    fn grows_to_what_comes_back_as_long_as_it_went() {
        let now = Instant::now();
        let mut size = Size::default();
        assert_eq!(size.mtu(), BASE_MTU);
        assert_eq!(busy(&mut size, now), LADDER);
        size.ponged(now, 1432, 1432);
        size.ponged(now, 1472, 1472);
        size.ponged(now, 1452, 1452);
        assert_eq!(size.mtu(), 1440, "a smaller one is no news");
        assert!(size.sent(now).is_empty(), "one search at a time");
        assert_eq!(size.sent(now + AGAIN_MIN), [8952, BUFFER_LEN]);
    }

    #[test]
    fn leaves_other_makes_alone() {
        let now = Instant::now();
        let mut size = Size::default();
        busy(&mut size, now);
        size.ponged(now, 1452, BASE);
        assert!(size.is_foreign());
        assert_eq!(size.mtu(), BASE_MTU);
        assert!(size.sent(now + AGAIN_MAX).is_empty());
        size.restart();
        assert!(busy(&mut size, now + AGAIN_MAX).is_empty());
    }

    #[test]
    fn a_relay_is_asked_once_for_the_largest() {
        let now = Instant::now();
        let mut size = Size::relayed();
        assert_eq!(busy(&mut size, now), [BUFFER_LEN]);
        size.ponged(now, BUFFER_LEN, BUFFER_LEN);
        assert_eq!(size.mtu(), crate::MAX_MTU);
        assert!(size.sent(now + AGAIN_MAX).is_empty());
        size.restart();
        assert_eq!(size.mtu(), BASE_MTU);
        assert_eq!(busy(&mut size, now), [BUFFER_LEN]);
    }

    #[test]
    fn falls_when_only_short_pings_are_answered() {
        let (now, patience) = (Instant::now(), Duration::from_millis(200));
        let mut size = Size::default();
        busy(&mut size, now);
        size.ponged(now, 1472, 1472);
        size.pinged(now, 1472);
        size.pinged(now, BASE);
        assert_eq!(size.deadline(patience), None, "both may be under way");
        size.ponged(now, BASE, BASE);
        assert_eq!(size.deadline(patience), Some(now + patience));
        let proven = size.long().unwrap();
        assert!(size.too_long(now + patience, proven));
        assert_eq!(size.mtu(), BASE_MTU);
        assert!(size.deadline(patience).is_none());
    }
}
