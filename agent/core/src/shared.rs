//! Queues between the agent's services and its control session.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::logs::{Batch, Level, Line, LogQueue};
use crate::scripts::Completion;

/// Completions held while the control plane is away; newer ones are dropped.
const COMPLETIONS: usize = 1_024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log queue with somebody waiting for it.
#[derive(Debug, Default)]
pub struct Logs {
    queue: Mutex<LogQueue>,
    changed: Notify,
}

impl Logs {
    /// Adds a line; it is dropped when too much is waiting.
    pub fn line(&self, source: [u8; 16], level: Level, text: String) {
        let line = Line {
            at: SystemTime::now(),
            text,
            level,
        };
        let wake = {
            let mut queue = lock(&self.queue);
            let before = queue.poll_timeout();
            queue.handle_line(Instant::now(), source, line);
            before != queue.poll_timeout()
        };
        if wake {
            self.changed.notify_waiters();
        }
    }

    /// Has everything of `source` sent at once.
    pub fn flush(&self, source: [u8; 16]) {
        self.with(|q| q.handle_flush(Instant::now(), source));
        self.changed.notify_waiters();
    }

    /// Looks into the queue.
    pub fn with<T>(&self, look: impl FnOnce(&mut LogQueue) -> T) -> T {
        look(&mut lock(&self.queue))
    }

    /// The next batch to send. Waits for one. Cancel safe.
    pub async fn next_batch(&self) -> Batch {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let (batch, due) = self.with(|q| (q.poll_batch(Instant::now()), q.poll_timeout()));
            if let Some(batch) = batch {
                return batch;
            }
            match due {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at.into(), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// The batch under way arrived.
    pub fn sent(&self) {
        self.with(|q| q.handle_sent(Instant::now()));
        self.changed.notify_waiters();
    }

    /// The control plane takes no more logs.
    pub fn limit_exceeded(&self) {
        self.with(LogQueue::handle_limit_exceeded);
        self.changed.notify_waiters();
    }

    /// Waits until everything has been sent, asking for it to be sent now.
    pub async fn drained(&self) {
        self.with(|q| q.handle_flush_all(Instant::now()));
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.with(|q| q.is_empty()) {
                return;
            }
            changed.await;
        }
    }
}

/// Finished script runs waiting to be reported, oldest first.
#[derive(Debug, Default)]
pub struct Completions {
    queue: Mutex<VecDeque<Completion>>,
    changed: Notify,
    emptied: Notify,
}

impl Completions {
    /// Adds one.
    pub fn push(&self, completion: Completion) {
        let mut queue = lock(&self.queue);
        if queue.len() < COMPLETIONS {
            queue.push_back(completion);
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// The oldest one, which stays until [`pop`](Self::pop). Waits for one.
    /// Cancel safe.
    pub async fn next(&self) -> Completion {
        loop {
            let changed = self.changed.notified();
            if let Some(first) = lock(&self.queue).front().cloned() {
                return first;
            }
            changed.await;
        }
    }

    /// Removes the oldest one.
    pub fn pop(&self) {
        lock(&self.queue).pop_front();
        self.changed.notify_one();
        self.emptied.notify_waiters();
    }

    /// Waits until all have been reported.
    pub async fn drained(&self) {
        loop {
            let changed = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.queue).is_empty()
    }
}
