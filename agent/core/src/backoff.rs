//! Waiting between attempts: the first at once, then growing by the golden
//! ratio up to a cap, each wait shortened by a random share so that many
//! agents of one deployment do not return in step.

use std::time::{Duration, Instant};

const GROWTH: f64 = 1.618_033_988_749_895;
/// A session that lived this long counts as healthy: the next outage starts
/// with an immediate attempt again.
const HEALTHY: Duration = Duration::from_secs(30);

/// The shortest and the longest wait of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the first wait grows from.
    pub floor: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(100),
            cap: Duration::from_secs(10),
        }
    }
}

/// The schedule of attempts at one thing.
#[derive(Debug, Default)]
pub struct Backoff {
    limits: Limits,
    last: Option<Duration>,
    attempt_began: Option<Instant>,
}

impl Backoff {
    /// A schedule whose first attempt is due at once.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How long to wait before the next attempt. `jitter` is a random number
    /// in `0.0..1.0`; the wait is between 80 % and 100 % of the nominal one.
    pub fn next_wait(&mut self, jitter: f64) -> Duration {
        let Some(last) = self.last else {
            self.last = Some(self.limits.floor);
            return Duration::ZERO;
        };
        let nominal = last.mul_f64(GROWTH).min(self.limits.cap);
        self.last = Some(nominal);
        nominal.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0))
    }

    /// Notes that a session began.
    pub fn handle_connected(&mut self, now: Instant) {
        self.attempt_began = Some(now);
    }

    /// Notes that the session ended; a long one resets the schedule.
    pub fn handle_disconnected(&mut self, now: Instant) {
        if let Some(began) = self.attempt_began.take()
            && now.saturating_duration_since(began) >= HEALTHY
        {
            self.reset();
        }
    }

    /// Starts over: the next attempt is due at once.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_golden_schedule_up_to_the_cap() {
        let mut b = Backoff::default();
        let waits: Vec<u128> = (0..13).map(|_| b.next_wait(0.0).as_millis()).collect();
        assert_eq!(
            waits,
            [
                0, 161, 261, 423, 685, 1_109, 1_794, 2_903, 4_697, 7_601, 10_000, 10_000, 10_000
            ]
        );
    }

    #[test]
    fn jitter_only_shortens() {
        let mut b = Backoff::default();
        b.next_wait(0.0);
        let w = b.next_wait(1.0);
        assert!(w >= Duration::from_millis(129) && w < Duration::from_millis(162));
    }

    #[test]
    fn resets_only_after_a_healthy_session() {
        let now = Instant::now();
        let mut b = Backoff::default();
        for _ in 0..5 {
            b.next_wait(0.0);
        }
        b.handle_connected(now);
        b.handle_disconnected(now + Duration::from_secs(3));
        assert!(b.next_wait(0.0) > Duration::from_secs(1));
        b.handle_connected(now);
        b.handle_disconnected(now + Duration::from_secs(31));
        assert_eq!(b.next_wait(0.0), Duration::ZERO);
    }
}
