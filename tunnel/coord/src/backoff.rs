//! Waiting between attempts.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(80);
const LONGEST: Duration = Duration::from_secs(10);
/// A connection that lasted this long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);

/// Exponential waits with jitter: nothing first, then 80 ms growing by the
/// golden ratio to ten seconds, each shortened by up to a half. A healthy
/// connection starts over; one that is accepted and closed does not.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// How long to wait now.
    pub(crate) fn wait(&mut self, rng: &mut impl Rng) -> Duration {
        let now = self.next;
        self.next = now.mul_f64(1.618).clamp(FIRST, LONGEST);
        now.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// A connection ended that had lasted `span`.
    pub(crate) fn ended(&mut self, span: Duration) {
        if span >= HEALTHY {
            self.next = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn grows_to_a_bound_and_resets_on_health() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(&mut rng), Duration::ZERO);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            last = backoff.wait(&mut rng);
            assert!(last <= LONGEST);
        }
        assert!(last >= LONGEST / 2);
        backoff.ended(Duration::from_secs(1));
        assert!(
            backoff.wait(&mut rng) >= LONGEST / 2,
            "accept and close is not health"
        );
        backoff.ended(HEALTHY);
        assert_eq!(backoff.wait(&mut rng), Duration::ZERO);
    }
}
