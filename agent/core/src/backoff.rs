//! Waiting between attempts: the first at once, then growing by the golden
//! ratio up to a cap, each wait shortened by a random share so that many
//! agents of one deployment do not return in step. An agent that is in use
//! returns with short waits only; one that is not leaves it room.

use std::time::{Duration, Instant};

const GROWTH: f64 = 1.618_033_988_749_895;
/// Most of a wait that chance takes away.
const JITTER: f64 = 0.5;
/// A session that lived this long counts as healthy: the next outage starts
/// with an early attempt again.
const HEALTHY: Duration = Duration::from_secs(30);
/// Within this time agents that nobody uses come back after a healthy session:
/// all of them have lost theirs at the same moment.
const SPREAD: Duration = Duration::from_secs(1);
/// Longest wait of an agent in use, and for how long after a loss such hurry
/// makes sense.
const HURRY: Duration = Duration::from_millis(400);
const HURRY_SPAN: Duration = Duration::from_secs(60);

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
    lost_at: Option<Instant>,
    /// The first attempt of a schedule is one of many agents'.
    spread: bool,
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
    /// in `0.0..1.0`; the wait is between 50 % and 100 % of the nominal one.
    /// With `in_use` somebody is connected to the workspace at this moment.
    pub fn next_wait(&mut self, now: Instant, jitter: f64, in_use: bool) -> Duration {
        let jitter = jitter.clamp(0.0, 1.0);
        let hurry = in_use
            && self
                .lost_at
                .is_some_and(|at| now.saturating_duration_since(at) < HURRY_SPAN);
        let Some(last) = self.last else {
            self.last = Some(self.limits.floor);
            let spread = self.spread && !hurry;
            return if spread {
                SPREAD.min(self.limits.cap).mul_f64(jitter)
            } else {
                Duration::ZERO
            };
        };
        let nominal = last.mul_f64(GROWTH).min(self.limits.cap);
        self.last = Some(nominal);
        let most = if hurry { nominal.min(HURRY) } else { nominal };
        most.mul_f64(1.0 - JITTER * jitter)
    }

    /// Notes that a session began.
    pub fn handle_connected(&mut self, now: Instant) {
        self.attempt_began = Some(now);
    }

    /// Notes that the session ended; a long one resets the schedule.
    pub fn handle_disconnected(&mut self, now: Instant) {
        let Some(began) = self.attempt_began.take() else {
            return;
        };
        if now.saturating_duration_since(began) >= HEALTHY {
            self.last = None;
            self.spread = true;
            self.lost_at = Some(now);
        } else {
            // One that is accepted and closed again is no reason to hurry
            // each time.
            self.lost_at.get_or_insert(now);
        }
    }

    /// Starts over: the next attempt is due at once.
    pub fn reset(&mut self) {
        self.last = None;
        self.spread = false;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// The times, from a loss, of the attempts of an agent whose control plane
    /// comes back after `outage`; the last one succeeds.
    fn attempts(rng: &mut StdRng, outage: Duration, in_use: bool) -> Vec<Duration> {
        let start = Instant::now();
        let mut b = Backoff::default();
        b.next_wait(start, 0.0, false);
        b.handle_connected(start);
        let lost = start + HEALTHY;
        b.handle_disconnected(lost);
        let mut at = Vec::new();
        let mut now = lost;
        loop {
            now += b.next_wait(now, rng.random(), in_use);
            at.push(now - lost);
            if now >= lost + outage {
                return at;
            }
        }
    }

    #[test]
    fn follows_the_golden_schedule_up_to_the_cap() {
        let now = Instant::now();
        let mut b = Backoff::default();
        let waits: Vec<u128> = (0..13)
            .map(|_| b.next_wait(now, 0.0, true).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                0, 161, 261, 423, 685, 1_109, 1_794, 2_903, 4_697, 7_601, 10_000, 10_000, 10_000
            ],
            "who never was connected has nobody to hurry for"
        );
    }

    #[test]
    fn jitter_only_shortens() {
        let now = Instant::now();
        let mut b = Backoff::default();
        b.next_wait(now, 0.0, false);
        let w = b.next_wait(now, 1.0, false);
        assert!(w >= Duration::from_millis(80) && w < Duration::from_millis(162));
    }

    #[test]
    fn resets_only_after_a_healthy_session() {
        let now = Instant::now();
        let mut b = Backoff::default();
        for _ in 0..5 {
            b.next_wait(now, 0.0, false);
        }
        b.handle_connected(now);
        b.handle_disconnected(now + Duration::from_secs(3));
        assert!(b.next_wait(now, 0.0, false) > Duration::from_secs(1));
        b.handle_connected(now);
        b.handle_disconnected(now + Duration::from_secs(31));
        assert_eq!(b.next_wait(now, 0.0, false), Duration::ZERO);
    }

    #[test]
    fn who_is_in_use_is_back_soon_after_an_outage() {
        let mut rng = StdRng::seed_from_u64(1);
        for seconds in [0, 1, 5, 30, 55] {
            let outage = Duration::from_secs(seconds);
            for _ in 0..200 {
                let at = attempts(&mut rng, outage, true);
                let back = *at.last().unwrap();
                assert!(back <= outage + HURRY, "back after {back:?} of {outage:?}");
                let most = 6 + seconds as usize * 5;
                assert!(at.len() <= most, "{} attempts in {outage:?}", at.len());
            }
        }
        // Nobody waits any more.
        let back = *attempts(&mut rng, Duration::from_secs(600), true)
            .last()
            .unwrap();
        assert!(back <= Duration::from_secs(610));
    }

    #[test]
    fn a_thousand_idle_agents_do_not_return_in_step() {
        let mut rng = StdRng::seed_from_u64(2);
        for seconds in [0, 5, 60] {
            let outage = Duration::from_secs(seconds);
            let mut slots = BTreeMap::<u128, usize>::new();
            for _ in 0..1000 {
                for at in attempts(&mut rng, outage, false) {
                    if at >= outage {
                        *slots.entry(at.as_millis() / 100).or_default() += 1;
                    }
                }
            }
            let most = slots.values().max().unwrap();
            assert!(
                *most <= 200,
                "{most} agents return within 100 ms: {slots:?}"
            );
        }
    }

    #[test]
    fn a_session_that_ends_at_once_is_not_hurried_for_ever() {
        let mut now = Instant::now();
        let mut b = Backoff::default();
        let mut attempts = 0;
        let end = now + Duration::from_secs(600);
        while now < end {
            now += b.next_wait(now, 0.0, true);
            b.handle_connected(now);
            b.handle_disconnected(now);
            attempts += 1;
        }
        assert!(attempts < 60 * 3 + 540 / 10 + 20, "{attempts} attempts");
    }
}
