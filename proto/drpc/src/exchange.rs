//! What the two sides of a call on the server share: the task that reads the
//! transport, and the handler.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Room for one message of the peer, and how the call stands. Much smaller
/// than a channel: calls that last as long as their session are many.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    message: Option<Bytes>,
    /// The peer said that no more messages follow.
    complete: bool,
    /// The handler takes no more messages.
    refused: bool,
    /// The peer gave the call up or is gone, or the call is over.
    cancelled: bool,
}

/// A message, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Message(Bytes),
    Complete,
    Cancelled,
}

impl Exchange {
    /// Hands a message over, once there is room. Cancel-safe: a message not
    /// taken stays in `waiting`. Returns whether the handler takes messages.
    pub(crate) async fn offer(&self, waiting: &mut Option<Bytes>) -> bool {
        let taken = self
            .until(|state| match state {
                State { refused: true, .. } => Some(false),
                State { message: None, .. } => {
                    state.message = waiting.take();
                    Some(true)
                }
                _ => None,
            })
            .await;
        self.changed.notify_waiters();
        taken
    }

    /// Takes the next message. Cancel-safe.
    pub(crate) async fn take(&self) -> Next {
        let next = self
            .until(|state| match state.message.take() {
                Some(message) => Some(Next::Message(message)),
                None if state.cancelled => Some(Next::Cancelled),
                None if state.complete => Some(Next::Complete),
                None => None,
            })
            .await;
        self.changed.notify_waiters();
        next
    }

    /// Waits until the call is cancelled or over.
    pub(crate) async fn cancelled(&self) {
        self.until(|state| state.cancelled.then_some(())).await;
    }

    /// No more messages follow.
    pub(crate) fn complete(&self) {
        self.set(|state| state.complete = true);
    }

    /// No more messages are taken.
    pub(crate) fn refuse(&self) {
        self.set(|state| {
            state.refused = true;
            state.message = None;
        });
    }

    fn cancel(&self) {
        self.set(|state| state.cancelled = true);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    async fn until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = ready(&mut self.lock()) {
                return value;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading side's handle. The call is cancelled when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Caller(Arc<Exchange>);

impl Caller {
    pub(crate) const fn exchange(&self) -> &Arc<Exchange> {
        &self.0
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, task::Poll};

    use super::*;

    /// What a future gives without waiting.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_message_waits_and_the_next_keeps_its_place() {
        let exchange = Exchange::default();
        assert_eq!(now(exchange.offer(&mut Some("a".into()))), Some(true));
        let mut waiting = Some("b".into());
        assert_eq!(now(exchange.offer(&mut waiting)), None);
        assert_eq!(waiting, Some("b".into()));
        exchange.complete();
        assert_eq!(now(exchange.take()), Some(Next::Message("a".into())));
        assert_eq!(now(exchange.offer(&mut waiting)), Some(true));
        assert_eq!(now(exchange.take()), Some(Next::Message("b".into())));
        assert_eq!(now(exchange.take()), Some(Next::Complete));
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let caller = Caller::default();
        let exchange = Arc::clone(caller.exchange());
        let taker = tokio::spawn(async move { exchange.take().await });
        assert!(caller.exchange().offer(&mut Some("a".into())).await);
        assert_eq!(taker.await.unwrap(), Next::Message("a".into()));

        let exchange = Arc::clone(caller.exchange());
        let (taker, watcher) = (Arc::clone(&exchange), Arc::clone(&exchange));
        let taker = tokio::spawn(async move { taker.take().await });
        let watcher = tokio::spawn(async move { watcher.cancelled().await });
        drop(caller);
        assert_eq!(taker.await.unwrap(), Next::Cancelled);
        watcher.await.unwrap();
        exchange.refuse();
        assert!(!exchange.offer(&mut Some("b".into())).await);
    }
}
