//! What the peer has sent on one channel and nobody has read yet.
//!
//! The peer may send [`WINDOW`] bytes ahead. Reading re-opens the window, so
//! the queue is bounded, and a channel nobody reads stops its own sender and
//! no other.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::{Bytes, BytesMut};

/// Bytes the peer may send ahead on a channel: 100 Mbit/s over 160 ms.
pub(crate) const WINDOW: u32 = 2 << 20;
/// Consumed bytes are granted again in steps of this size.
const GRANT: u32 = WINDOW / 4;
/// Longest piece handed out at once.
const PIECE: usize = 256 << 10;
/// Packets up to this size are joined with their neighbours.
const SMALL: usize = 8 << 10;

/// The queue. One reader.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// Consumed and not yet granted again.
    consumed: u32,
    ended: bool,
    discard: bool,
    reader: Option<Waker>,
}

impl Inbox {
    /// Appends what arrived. Returns false if nobody wants it any more.
    pub(crate) fn push(&self, data: &[u8]) -> bool {
        let mut state = self.lock();
        if state.ended || state.discard {
            return false;
        }
        state.append(data);
        state.wake();
        true
    }

    /// The peer sends no more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.wake();
    }

    /// Nobody will read any more: drops what is there and what will come.
    pub(crate) fn discard(&self) {
        let mut state = self.lock();
        state.discard = true;
        state.pieces.clear();
        state.tail = BytesMut::new();
    }

    /// The next piece, or `None` once the peer has ended. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(piece) = state.take() {
                return Poll::Ready(Some(piece));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Notes that `len` bytes have been consumed; returns how many the peer
    /// may now be granted, if that is worth a message.
    pub(crate) fn consume(&self, len: usize) -> Option<u32> {
        let mut state = self.lock();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        state.consumed = state.consumed.saturating_add(len);
        (state.consumed >= GRANT).then(|| std::mem::take(&mut state.consumed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Small packets gather in `tail`; others go straight into the queue.
    fn append(&mut self, data: &[u8]) {
        if data.len() > SMALL {
            self.flush_tail();
            self.pieces.push_back(Bytes::copy_from_slice(data));
            return;
        }
        self.tail.extend_from_slice(data);
        if self.tail.len() > SMALL {
            self.flush_tail();
        }
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        if piece.len() > PIECE {
            let rest = piece.slice(PIECE..);
            piece.truncate(PIECE);
            self.pieces.push_front(rest);
        }
        Some(piece)
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_out_in_order_and_end() {
        let inbox = Inbox::default();
        let mut sent = Vec::new();
        for (i, len) in [1usize, 5, 9000, 3, 40_000, 300_000, 2]
            .into_iter()
            .enumerate()
        {
            let data = vec![u8::try_from(i).unwrap_or(0); len];
            inbox.push(&data);
            sent.extend(data);
        }
        inbox.end();
        inbox.push(b"late");
        let mut got = Vec::new();
        while let Some(piece) = inbox.next().await {
            assert!(piece.len() <= PIECE);
            got.extend(piece);
        }
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let inbox = Inbox::default();
        let (got, ()) = tokio::join!(inbox.next(), async {
            tokio::task::yield_now().await;
            inbox.push(b"x");
        });
        assert_eq!(got.as_deref(), Some(&b"x"[..]));
    }

    #[tokio::test]
    async fn what_nobody_wants_is_dropped() {
        let inbox = Inbox::default();
        assert!(inbox.push(b"x"));
        inbox.discard();
        assert!(!inbox.push(b"y"));
        inbox.end();
        assert_eq!(inbox.next().await, None);
    }

    #[test]
    fn grants_come_in_steps_and_add_up() {
        let inbox = Inbox::default();
        let total: u32 = (0..1000).filter_map(|_| inbox.consume(3000)).sum();
        assert!((3_000_000 - GRANT..=3_000_000).contains(&total));
    }
}
