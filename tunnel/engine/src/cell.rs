//! What a TCP stream and the core task share: two bounded byte rings, the
//! wakers of the user's side, and a doorbell towards the core.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use crate::ring::Ring;

/// Bound of each direction's ring, in bytes. The network stack below has its
/// own, autotuned buffers; this one only bridges two wake-ups.
pub(crate) const RING_MAX: usize = 256 * 1024;

/// Wakes the core and tells it which streams have news.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    dirty: Mutex<Vec<u64>>,
    waker: AtomicWaker,
}

impl Doorbell {
    /// Notes stream `id` and wakes the core.
    pub(crate) fn ring(&self, id: u64) {
        let first = {
            let mut dirty = lock(&self.dirty);
            dirty.push(id);
            dirty.len() == 1
        };
        if first {
            self.waker.wake();
        }
    }

    /// Registers the core's waker, then moves the noted ids to `out`.
    pub(crate) fn take(&self, waker: &Waker, out: &mut Vec<u64>) {
        self.waker.register(waker);
        out.append(&mut lock(&self.dirty));
    }

    /// Frees the room that a burst of news needed.
    pub(crate) fn shrink(&self) {
        lock(&self.dirty).shrink_to_fit();
    }
}

/// State of one stream.
#[derive(Debug)]
pub(crate) struct StreamState {
    /// Bytes from the peer, not read yet.
    pub(crate) rx: Ring,
    /// Bytes to the peer, not taken by the stack yet.
    pub(crate) tx: Ring,
    /// The peer finished sending and everything is in `rx`.
    pub(crate) rx_eof: bool,
    /// The stack has more to deliver than `rx` had room for.
    pub(crate) rx_stalled: bool,
    /// The user finished writing.
    pub(crate) tx_shutdown: bool,
    /// The user dropped the stream.
    pub(crate) dropped: bool,
    /// The user wants a reset.
    pub(crate) abort: bool,
    /// The connection failed.
    pub(crate) error: Option<io::ErrorKind>,
    /// Already noted at the doorbell.
    rung: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Shared half of a stream.
#[derive(Debug)]
pub(crate) struct StreamCell {
    id: u64,
    state: Mutex<StreamState>,
    doorbell: Arc<Doorbell>,
}

impl StreamCell {
    pub(crate) fn new(id: u64, doorbell: Arc<Doorbell>) -> Self {
        Self {
            id,
            state: Mutex::new(StreamState {
                rx: Ring::new(RING_MAX),
                tx: Ring::new(RING_MAX),
                rx_eof: false,
                rx_stalled: false,
                tx_shutdown: false,
                dropped: false,
                abort: false,
                error: None,
                rung: false,
                reader: None,
                writer: None,
            }),
            doorbell,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StreamState> {
        lock(&self.state)
    }

    /// Tells the core that this stream has news, once until it looked.
    pub(crate) fn ring(&self, mut state: MutexGuard<'_, StreamState>) {
        if !std::mem::replace(&mut state.rung, true) {
            drop(state);
            self.doorbell.ring(self.id);
        }
    }
}

impl StreamState {
    /// The core starts looking at this stream.
    pub(crate) fn answer(&mut self) {
        self.rung = false;
    }

    pub(crate) fn wait_readable(&mut self, waker: &Waker) {
        set(&mut self.reader, waker);
    }

    pub(crate) fn wait_writable(&mut self, waker: &Waker) {
        set(&mut self.writer, waker);
    }

    pub(crate) fn wake_reader(&mut self) -> Option<Waker> {
        self.reader.take()
    }

    pub(crate) fn wake_writer(&mut self) -> Option<Waker> {
        self.writer.take()
    }
}

fn set(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) if old.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}

/// A poisoned lock only means that a user of the stream panicked between two
/// complete updates.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
