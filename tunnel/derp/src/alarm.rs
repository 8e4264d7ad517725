//! One timer for deadlines that move.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes a task at the earliest of its deadlines. Set again only when that
/// changes.
pub(crate) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// An alarm for `at`.
    pub(crate) fn new(at: Instant) -> Self {
        Self(Box::pin(sleep_until(at)))
    }

    /// Ready once the earlier of `at` and `or` has passed.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        at: Instant,
        or: Option<Instant>,
    ) -> Poll<()> {
        let until = or.map_or(at, |or| or.min(at));
        if self.0.deadline() != until {
            self.0.as_mut().reset(until);
        }
        self.0.as_mut().poll(cx)
    }
}
