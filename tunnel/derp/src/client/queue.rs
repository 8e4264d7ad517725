//! What the handle and the task of a connection share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use adit_keys::NodePublic;
use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, oneshot, watch};

use super::{CloseReason, Event};
use crate::frame::{self, PACKET_OVERHEAD, PING_LEN};

/// One batch of writes is at most about this long, in bytes.
const BATCH: usize = 64 << 10;

/// Packets waiting to be sent: at most so many, and so many bytes. A second
/// of relayed traffic is worth little more, as what it carries is repeated.
const SEND_DEPTH: usize = 1024;
const SEND_BYTES: usize = 2 << 20;

/// Events waiting to be taken: the same, more generous as a burst of one read
/// must fit.
const RECV_DEPTH: usize = 4096;
const RECV_BYTES: usize = 8 << 20;

/// Pings on their way.
const MOST_PINGS: usize = 16;

/// Queues in both directions, and how the connection ended.
pub(super) struct Shared {
    pub(super) server_key: NodePublic,
    state: Mutex<State>,
    pub(super) readable: Notify,
    pub(super) ended: watch::Sender<bool>,
    pub(super) dropped_received: AtomicU64,
}

struct State {
    packets: VecDeque<(NodePublic, Bytes)>,
    packet_bytes: usize,
    events: VecDeque<Event>,
    event_bytes: usize,
    preferred: Option<bool>,
    pong: Option<[u8; PING_LEN]>,
    new_pings: Vec<[u8; PING_LEN]>,
    pings: Vec<([u8; PING_LEN], oneshot::Sender<()>)>,
    bucket: Option<Bucket>,
    closing: bool,
    reason: Option<CloseReason>,
    /// Set while the task sleeps with nothing to write.
    waker: Option<Waker>,
    /// A sender that waits until so few bytes are queued.
    room: Option<(usize, Waker)>,
}

/// The relay's limit on what we send; what exceeds it is dropped.
pub(super) struct Bucket {
    pub(super) per_second: f64,
    pub(super) burst: f64,
    pub(super) tokens: f64,
    pub(super) at: tokio::time::Instant,
}

impl Bucket {
    fn admits(&mut self, len: usize) -> bool {
        let now = tokio::time::Instant::now();
        let gained = now.duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = now;
        let admits = self.tokens >= len as f64;
        if admits {
            self.tokens -= len as f64;
        }
        admits
    }
}

impl Shared {
    pub(super) fn new(server_key: NodePublic, bucket: Option<Bucket>) -> Self {
        let state = State {
            packets: VecDeque::new(),
            packet_bytes: 0,
            events: VecDeque::new(),
            event_bytes: 0,
            preferred: None,
            pong: None,
            new_pings: Vec::new(),
            pings: Vec::new(),
            bucket,
            closing: false,
            reason: None,
            waker: None,
            room: None,
        };
        Self {
            server_key,
            state: Mutex::new(state),
            readable: Notify::new(),
            ended: watch::Sender::new(false),
            dropped_received: AtomicU64::new(0),
        }
    }

    /// Gives the number of packets dropped.
    pub(super) fn push_packets(&self, packets: impl Iterator<Item = (NodePublic, Bytes)>) -> usize {
        let mut dropped = 0;
        self.change(|state| {
            for (dst, packet) in packets {
                let len = PACKET_OVERHEAD + packet.len();
                let limited = state
                    .bucket
                    .as_mut()
                    .is_some_and(|bucket| !bucket.admits(len));
                if limited || state.reason.is_some() || state.closing {
                    dropped += 1;
                    continue;
                }
                state.packet_bytes += packet.len();
                state.packets.push_back((dst, packet));
                while state.packets.len() > SEND_DEPTH || state.packet_bytes > SEND_BYTES {
                    let Some((_, oldest)) = state.packets.pop_front() else {
                        break;
                    };
                    state.packet_bytes -= oldest.len();
                    dropped += 1;
                }
            }
        });
        dropped
    }

    /// Whether fewer than `limit` bytes wait to be sent; if not, the task wakes
    /// the caller when half of that is left.
    pub(super) fn poll_room(&self, cx: &Context<'_>, limit: usize) -> Poll<()> {
        let mut state = self.lock();
        if state.packet_bytes < limit || state.reason.is_some() {
            return Poll::Ready(());
        }
        state.room = Some((limit / 2, cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn note_preferred(&self, home: bool) {
        self.change(|state| state.preferred = Some(home));
    }

    pub(super) fn push_pong(&self, data: [u8; PING_LEN]) {
        self.lock().pong = Some(data);
    }

    pub(super) fn start_ping(&self, data: [u8; PING_LEN], sender: oneshot::Sender<()>) {
        self.change(|state| {
            if state.pings.len() >= MOST_PINGS {
                state.pings.remove(0);
            }
            if state.new_pings.len() < MOST_PINGS && state.reason.is_none() {
                state.pings.push((data, sender));
                state.new_pings.push(data);
            }
        });
    }

    pub(super) fn end_ping(&self, data: [u8; PING_LEN]) {
        let mut state = self.lock();
        if let Some(at) = state.pings.iter().position(|(sent, _)| *sent == data) {
            // Whoever stopped waiting for the pong does not need it.
            let _ = state.pings.swap_remove(at).1.send(());
        }
    }

    /// Moves a batch of frames to `out`; `true` if all is sent and the
    /// connection is to be closed. If there is nothing, the next push wakes
    /// the caller.
    pub(super) fn drain(&self, cx: &Context<'_>, out: &mut BytesMut) -> bool {
        let mut state = self.lock();
        if let Some(data) = state.pong.take() {
            frame::put_pong(out, &data);
        }
        if let Some(home) = state.preferred.take() {
            frame::put_note_preferred(out, home);
        }
        for data in std::mem::take(&mut state.new_pings) {
            frame::put_ping(out, &data);
        }
        let waiting = state.packet_bytes + PACKET_OVERHEAD * state.packets.len();
        out.reserve(waiting.min(BATCH + 2048));
        while out.len() < BATCH
            && let Some((dst, packet)) = state.packets.pop_front()
        {
            state.packet_bytes -= packet.len();
            frame::put_send_packet(out, &dst, &packet);
        }
        if out.is_empty() {
            state.waker = Some(cx.waker().clone());
            // The room of a large batch is not kept for the next.
            *out = BytesMut::new();
        }
        let room = match state.room.take() {
            Some((limit, waker)) if state.packet_bytes <= limit => Some(waker),
            waiting => {
                state.room = waiting;
                None
            }
        };
        let done = out.is_empty() && state.closing;
        drop(state);
        if let Some(waker) = room {
            waker.wake();
        }
        done
    }

    /// Queues what one read brought.
    pub(super) fn push_events(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut dropped = 0;
        let mut state = self.lock();
        for event in events.drain(..) {
            state.event_bytes += size(&event);
            state.events.push_back(event);
            while state.events.len() > RECV_DEPTH || state.event_bytes > RECV_BYTES {
                let Some(oldest) = state.events.pop_front() else {
                    break;
                };
                state.event_bytes -= size(&oldest);
                dropped += 1;
            }
        }
        drop(state);
        if dropped > 0 {
            self.dropped_received.fetch_add(dropped, Ordering::Relaxed);
        }
        self.readable.notify_one();
    }

    pub(super) fn take_events(&self, out: &mut Vec<Event>, max: usize) -> usize {
        let mut state = self.lock();
        let taken = state.events.len().min(max);
        out.extend(state.events.drain(..taken));
        let freed: usize = out[out.len() - taken..].iter().map(size).sum();
        state.event_bytes -= freed;
        let more = !state.events.is_empty() || state.reason.is_some();
        drop(state);
        if more {
            self.readable.notify_one();
        }
        taken
    }

    /// Gives back memory that only bursts need.
    pub(super) fn shrink(&self) {
        let mut state = self.lock();
        state.packets.shrink_to(0);
        state.events.shrink_to(0);
    }

    pub(super) fn begin_close(&self) {
        self.change(|state| state.closing = true);
    }

    /// Ends the connection; the first reason stays.
    pub(super) fn close(&self, reason: CloseReason) {
        let mut state = self.lock();
        state.reason.get_or_insert(reason);
        state.pings.clear();
        state.packets = VecDeque::new();
        state.packet_bytes = 0;
        let room = state.room.take();
        drop(state);
        if let Some((_, waker)) = room {
            waker.wake();
        }
        self.ended.send_replace(true);
        self.readable.notify_one();
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.lock().reason.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Packet { packet, .. } => packet.len(),
        Event::Health(text) => text.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let shared = Shared::new(NodePublic::from_bytes([1; 32]), None);
        let key = NodePublic::from_bytes([2; 32]);
        let packet = Bytes::from_static(b"packet");
        shared.push_packets((0..500).map(|_| (key, packet.clone())));
        let event = Event::Packet { src: key, packet };
        shared.push_events(&mut vec![event; 500]);
        shared.shrink();
        assert_eq!(shared.lock().packets.len(), 500, "what waits stays");
        let cx = Context::from_waker(Waker::noop());
        shared.drain(&cx, &mut BytesMut::new());
        assert_eq!(shared.take_events(&mut Vec::new(), 500), 500);
        shared.shrink();
        let state = shared.lock();
        assert_eq!((state.packets.capacity(), state.events.capacity()), (0, 0));
    }
}
