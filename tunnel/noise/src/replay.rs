//! Which counters were seen (section 5.4.6; RFC 6479).

/// Counters remembered, a power of two.
const BITS: u64 = 8192;
const WORDS: usize = (BITS / 64) as usize;

/// A counter may lie this far behind the greatest one: the word that is being
/// filled takes the place of the oldest.
pub(crate) const BEHIND: u64 = BITS - 64;

/// The counters of a session.
pub(crate) struct Window {
    /// The counter after the greatest one.
    next: u64,
    seen: [u64; WORDS],
}

fn word(counter: u64) -> usize {
    (counter / 64) as usize % WORDS
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether the counter is new, as far as can be known.
    pub(crate) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - 1 - counter <= BEHIND && self.seen[word(counter)] & bit(counter) == 0
    }

    /// Remembers a counter that [`is_new`](Self::is_new) and whose message is
    /// authentic.
    pub(crate) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            if let Some(greatest) = self.next.checked_sub(1) {
                let from = greatest / 64;
                let steps = (counter / 64 - from).min(WORDS as u64);
                for step in 1..=steps {
                    self.seen[(from + step) as usize % WORDS] = 0;
                }
            }
            self.next = counter + 1;
        }
        self.seen[word(counter)] |= bit(counter);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_counts_once() {
        let mut window = Window::new();
        for counter in [0, 1, 5, 3, 70, 64, 63] {
            assert!(window.is_new(counter));
            window.mark(counter);
            assert!(!window.is_new(counter));
        }
        assert!(window.is_new(2) && window.is_new(65));
    }

    #[test]
    fn eight_thousand_counters_may_be_late() {
        for base in [0, 1, 63, 64, 1000] {
            let mut window = Window::new();
            window.mark(base + BEHIND + 1);
            assert!(!window.is_new(base), "too old");
            for counter in base + 1..=base + BEHIND {
                assert!(window.is_new(counter), "{counter} after {base}");
                window.mark(counter);
                assert!(!window.is_new(counter));
            }
        }
    }

    #[test]
    fn a_jump_forgets_everything() {
        let mut window = Window::new();
        for counter in 0..BITS {
            window.mark(counter);
        }
        let far = 1 << 40;
        window.mark(far);
        assert!((far - BEHIND..far).all(|counter| window.is_new(counter)));
        assert!(!window.is_new(far - BEHIND - 1));
    }

    /// All counters ever seen.
    #[derive(Default)]
    struct Model {
        seen: HashSet<u64>,
        greatest: u64,
    }

    impl Model {
        fn take(&mut self, counter: u64) -> bool {
            let new = counter + BEHIND >= self.greatest && self.seen.insert(counter);
            self.greatest = self.greatest.max(counter);
            new
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_window_is_like_a_memory_of_everything(
            steps in prop::collection::vec(
                prop_oneof![-40i64..40, -9000i64..9000, -8200i64..-8000, Just(1i64), Just(8191i64), Just(8192i64)],
                1..2000,
            ),
            start in prop_oneof![Just(0u64), Just(1 << 32), 0..20_000u64],
        ) {
            let mut window = Window::new();
            let mut model = Model::default();
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let new = window.is_new(at);
                prop_assert_eq!(new, model.take(at));
                if new {
                    window.mark(at);
                }
                at = at.max(model.greatest.saturating_sub(9000));
            }
        }
    }
}
