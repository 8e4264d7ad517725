//! Round-trip time estimation and retransmission timeout (RFC 6298), and the
//! windowed minimum used by RACK and congestion control.

use super::{MILLIS, Nanos, SECS};

/// Window of the minimum.
const MIN_WINDOW: Nanos = 10 * SECS;
/// Timeout before the first sample.
const INITIAL_RTO: Nanos = SECS;
/// Clock granularity G.
const GRANULARITY: Nanos = MILLIS;

/// Estimator of one connection; all times in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    srtt: Option<Nanos>,
    var: Nanos,
    min: Nanos,
    min_at: Nanos,
    /// Least sample since half a window ago: the successor of `min`.
    next_min: Nanos,
    next_min_at: Nanos,
    backoff: u32,
    floor: Nanos,
    ceiling: Nanos,
}

impl Rtt {
    pub(crate) fn new(floor: Nanos, ceiling: Nanos) -> Self {
        Self {
            srtt: None,
            var: 0,
            min: Nanos::MAX,
            min_at: 0,
            next_min: Nanos::MAX,
            next_min_at: 0,
            backoff: 0,
            floor,
            ceiling,
        }
    }

    /// Takes a sample.
    pub(crate) fn sample(&mut self, now: Nanos, rtt: Nanos) {
        let rtt = rtt.max(1000);
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.var = rtt / 2;
            }
            Some(srtt) => {
                self.var = (3 * self.var + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((7 * srtt + rtt) / 8);
            }
        }
        if now.saturating_sub(self.min_at) > MIN_WINDOW {
            self.min = self.next_min;
            self.min_at = self.next_min_at;
            self.next_min = Nanos::MAX;
        }
        if rtt <= self.min || now.saturating_sub(self.min_at) > MIN_WINDOW {
            self.min = rtt;
            self.min_at = now;
            self.next_min = Nanos::MAX;
        } else if now - self.min_at > MIN_WINDOW / 2 && rtt <= self.next_min {
            self.next_min = rtt;
            self.next_min_at = now;
        }
    }

    pub(crate) fn srtt(&self) -> Option<Nanos> {
        self.srtt
    }

    /// Least sample lately.
    pub(crate) fn min(&self) -> Option<Nanos> {
        (self.min != Nanos::MAX).then_some(self.min)
    }

    /// Timeout including back-off.
    pub(crate) fn rto(&self) -> Nanos {
        let base = match self.srtt {
            None => INITIAL_RTO,
            Some(srtt) => srtt + (4 * self.var).max(GRANULARITY),
        };
        base.max(self.floor)
            .saturating_mul(1 << self.backoff.min(16))
            .min(self.ceiling)
    }

    pub(crate) fn back_off(&mut self) {
        self.backoff += 1;
    }

    pub(crate) fn backoff(&self) -> u32 {
        self.backoff
    }

    pub(crate) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// The path is another one: its minimum is unknown, and the estimate only
    /// good for a first guess.
    pub(crate) fn restart(&mut self) {
        let guess = self.srtt.map(|srtt| (srtt, srtt / 2));
        *self = Self::new(self.floor, self.ceiling);
        if let Some((srtt, var)) = guess {
            self.srtt = Some(srtt);
            self.var = var;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::new(200 * MILLIS, 60 * SECS);
        assert_eq!(rtt.rto(), SECS);
        rtt.sample(0, 100 * MILLIS);
        assert_eq!(rtt.rto(), 300 * MILLIS);
        for _ in 0..100 {
            rtt.sample(0, 100 * MILLIS);
        }
        assert_eq!(rtt.rto(), 200 * MILLIS);
        rtt.back_off();
        assert_eq!(rtt.rto(), 400 * MILLIS);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), 60 * SECS);
    }

    #[test]
    fn the_minimum_expires() {
        let mut rtt = Rtt::new(200 * MILLIS, 60 * SECS);
        rtt.sample(SECS, 10 * MILLIS);
        for s in 2..8 {
            rtt.sample(s * SECS, 30 * MILLIS);
        }
        assert_eq!(rtt.min(), Some(10 * MILLIS));
        for s in 8..13 {
            rtt.sample(s * SECS, (20 + s) * MILLIS);
        }
        assert_eq!(rtt.min(), Some(28 * MILLIS));
    }
}
