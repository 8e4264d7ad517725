//! The agent's lifecycle, as a state machine without clocks or sockets.
//!
//! States only ever move forward. Every transition is remembered with the time
//! it happened and has to be reported to the control plane in order, each
//! once; a report that was lost with its connection is offered again on the
//! next one.

use std::collections::VecDeque;
use std::time::SystemTime;

/// Where an agent is in its life, in the only order in which it may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The agent exists; never reported.
    Created,
    /// The first manifest arrived and start scripts are running.
    Starting,
    /// A start script ran into its time limit.
    StartTimeout,
    /// A start script failed.
    StartError,
    /// All start scripts succeeded.
    Ready,
    /// Shutdown began.
    ShuttingDown,
    /// A stop script ran into its time limit.
    ShutdownTimeout,
    /// A stop script failed, or scripts were never set up.
    ShutdownError,
    /// All stop scripts succeeded.
    Off,
}

impl State {
    /// The number of this state in `coder.agent.v2.Lifecycle.State`.
    #[must_use]
    pub fn wire(self) -> i32 {
        match self {
            Self::Created => 1,
            Self::Starting => 2,
            Self::StartTimeout => 3,
            Self::StartError => 4,
            Self::Ready => 5,
            Self::ShuttingDown => 6,
            Self::ShutdownTimeout => 7,
            Self::ShutdownError => 8,
            Self::Off => 9,
        }
    }

    /// Whether this state ends the life of an agent.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::ShutdownTimeout | Self::ShutdownError | Self::Off
        )
    }
}

/// A transition waiting to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Position in this agent's history, counted from zero.
    pub sequence: u64,
    /// The state entered.
    pub state: State,
    /// When it was entered, cut to microseconds.
    pub changed_at: SystemTime,
}

/// The history of one agent.
#[derive(Debug)]
pub struct Lifecycle {
    current: State,
    next_sequence: u64,
    backlog: VecDeque<Report>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            current: State::Created,
            next_sequence: 0,
            backlog: VecDeque::new(),
        }
    }
}

impl Lifecycle {
    /// The state the agent is in now.
    #[must_use]
    pub fn current(&self) -> State {
        self.current
    }

    /// Moves to `state` if that is a step forward; otherwise nothing changes
    /// and the answer is `false`.
    pub fn handle_transition(&mut self, state: State, now: SystemTime) -> bool {
        if state <= self.current {
            return false;
        }
        self.current = state;
        self.backlog.push_back(Report {
            sequence: self.next_sequence,
            state,
            changed_at: to_micros(now),
        });
        self.next_sequence += 1;
        true
    }

    /// The oldest transition not yet reported. It stays until
    /// [`handle_reported`](Self::handle_reported) confirms it.
    #[must_use]
    pub fn poll_report(&self) -> Option<Report> {
        self.backlog.front().copied()
    }

    /// Confirms the transition with this sequence number. Confirmations that
    /// are out of order or repeated are ignored.
    pub fn handle_reported(&mut self, sequence: u64) {
        if self.backlog.front().is_some_and(|r| r.sequence == sequence) {
            self.backlog.pop_front();
        }
    }

    /// Whether a final state was reached and everything has been reported.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.current.is_final() && self.backlog.is_empty()
    }
}

fn to_micros(t: SystemTime) -> SystemTime {
    let since = t.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::from(since.subsec_nanos() % 1_000);
    t - std::time::Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const ALL: [State; 9] = [
        State::Created,
        State::Starting,
        State::StartTimeout,
        State::StartError,
        State::Ready,
        State::ShuttingDown,
        State::ShutdownTimeout,
        State::ShutdownError,
        State::Off,
    ];

    #[test]
    fn never_goes_back_and_reports_in_order() {
        let mut l = Lifecycle::default();
        let t = SystemTime::UNIX_EPOCH + Duration::new(5, 1_234_567);
        assert!(!l.handle_transition(State::Created, t));
        assert!(l.handle_transition(State::Starting, t));
        assert!(!l.handle_transition(State::Starting, t));
        assert!(l.handle_transition(State::Ready, t));
        assert!(!l.handle_transition(State::StartError, t));
        let first = l.poll_report().expect("a report");
        assert_eq!(first.state, State::Starting);
        assert_eq!(
            first.changed_at,
            SystemTime::UNIX_EPOCH + Duration::new(5, 1_234_000)
        );
        // A lost report is offered again.
        assert_eq!(l.poll_report(), Some(first));
        l.handle_reported(first.sequence + 1);
        assert_eq!(l.poll_report(), Some(first));
        l.handle_reported(first.sequence);
        l.handle_reported(first.sequence);
        assert_eq!(l.poll_report().map(|r| r.state), Some(State::Ready));
    }

    #[test]
    fn settled_only_after_the_final_report() {
        let mut l = Lifecycle::default();
        let t = SystemTime::now();
        l.handle_transition(State::ShuttingDown, t);
        l.handle_transition(State::Off, t);
        while let Some(r) = l.poll_report() {
            assert!(!l.is_settled());
            l.handle_reported(r.sequence);
        }
        assert!(l.is_settled());
    }

    proptest! {
        #[test]
        fn any_sequence_is_reported_strictly_ascending(picks in prop::collection::vec(0_usize..9, 0..40), acks in prop::collection::vec(any::<bool>(), 0..40)) {
            let mut l = Lifecycle::default();
            let mut seen = Vec::new();
            let mut acks = acks.into_iter();
            for p in picks {
                l.handle_transition(ALL[p], SystemTime::now());
                if acks.next().unwrap_or(false) && let Some(r) = l.poll_report() {
                    l.handle_reported(r.sequence);
                    seen.push(r.state);
                }
            }
            while let Some(r) = l.poll_report() {
                l.handle_reported(r.sequence);
                seen.push(r.state);
            }
            prop_assert!(seen.windows(2).all(|w| w[0] < w[1]));
            prop_assert_eq!(seen.last().copied().unwrap_or(State::Created), l.current());
        }
    }
}
