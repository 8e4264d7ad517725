//! What waits to be written to one client.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use adit_keys::NodePublic;
use bytes::{Bytes, BytesMut};

use crate::frame::{self, PACKET_OVERHEAD, PING_LEN, PeerGoneReason};

/// One batch of writes is at most about this long, in bytes.
const BATCH: usize = 64 << 10;

/// More notices than this are only kept for different nodes.
const MOST_NOTICES: usize = 512;

/// Packets up to this length are copied out of the read buffer: as slices,
/// a few of them would keep all of it alive.
const COPY_UP_TO: usize = 512;

/// Two bounded packet queues, notices and a pong, filled by other sessions
/// and emptied by the one that owns the connection.
pub(super) struct Outbox {
    state: Mutex<State>,
    depth: usize,
    bytes: usize,
}

#[derive(Default)]
struct State {
    disco: Queue,
    data: Queue,
    gone: VecDeque<(NodePublic, PeerGoneReason)>,
    pong: Option<[u8; PING_LEN]>,
    /// Set while the session sleeps with nothing to write.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<(NodePublic, Bytes)>,
    bytes: usize,
}

impl Queue {
    /// Appends; gives the number of packets dropped from the head.
    fn push(&mut self, src: NodePublic, packet: Bytes, depth: usize, bytes: usize) -> u64 {
        let mut dropped = 0;
        self.bytes += packet.len();
        self.packets.push_back((src, packet));
        while self.packets.len() > depth || self.bytes > bytes {
            let Some((_, oldest)) = self.packets.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    fn drain(&mut self, out: &mut BytesMut) {
        while out.len() < BATCH
            && let Some((src, packet)) = self.packets.pop_front()
        {
            self.bytes -= packet.len();
            frame::put_recv_packet(out, &src, &packet);
        }
    }
}

impl Outbox {
    pub(super) fn new(depth: usize, bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            depth,
            bytes,
        }
    }

    /// Queues a packet; gives the number of packets dropped for it, and the
    /// session to wake.
    pub(super) fn push(&self, src: NodePublic, packet: &Bytes) -> (u64, Option<Waker>) {
        let kept = if packet.len() <= COPY_UP_TO {
            Bytes::copy_from_slice(packet)
        } else {
            packet.clone()
        };
        let mut state = self.lock();
        let state = &mut *state;
        let queue = if adit_disco::is_disco(packet) {
            &mut state.disco
        } else {
            &mut state.data
        };
        let dropped = queue.push(src, kept, self.depth, self.bytes);
        (dropped, state.waker.take())
    }

    /// Queues the notice that a node is gone.
    pub(super) fn push_gone(&self, peer: NodePublic, reason: PeerGoneReason) -> Option<Waker> {
        let mut state = self.lock();
        if state.gone.len() >= MOST_NOTICES {
            state.gone.pop_front();
        }
        state.gone.push_back((peer, reason));
        state.waker.take()
    }

    /// Queues a pong, unless one is waiting already.
    pub(super) fn push_pong(&self, data: [u8; PING_LEN]) {
        self.lock().pong.get_or_insert(data);
    }

    /// Moves a batch of frames to `out`, small and urgent ones first. If there
    /// is nothing, the next push wakes the caller.
    pub(super) fn drain(&self, cx: &Context<'_>, out: &mut BytesMut) {
        let mut state = self.lock();
        if let Some(data) = state.pong.take() {
            frame::put_pong(out, &data);
        }
        while let Some((peer, reason)) = state.gone.pop_front() {
            frame::put_peer_gone(out, &peer, reason);
        }
        let waiting = state.disco.bytes
            + state.data.bytes
            + PACKET_OVERHEAD * (state.disco.packets.len() + state.data.packets.len());
        out.reserve(waiting.min(BATCH + 2048));
        state.disco.drain(out);
        state.data.drain(out);
        if out.is_empty() {
            state.waker = Some(cx.waker().clone());
        }
    }

    /// Gives back memory that only bursts need.
    pub(super) fn shrink(&self) {
        let mut state = self.lock();
        state.disco.packets.shrink_to(0);
        state.data.packets.shrink_to(0);
        state.gone.shrink_to(0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Frame};
    use std::task::Context;

    fn key(byte: u8) -> NodePublic {
        NodePublic::from_bytes([byte; 32])
    }

    fn drained(outbox: &Outbox) -> Vec<Frame> {
        let mut decoder = Decoder::for_client();
        let cx = Context::from_waker(Waker::noop());
        let mut frames = Vec::new();
        loop {
            let mut out = BytesMut::new();
            outbox.drain(&cx, &mut out);
            if out.is_empty() {
                return frames;
            }
            decoder.buffer().extend_from_slice(&out);
            while let Some(raw) = decoder.next_frame().unwrap() {
                frames.push(Frame::parse(raw));
            }
        }
    }

    #[test]
    fn a_full_queue_drops_its_oldest_packets() {
        let outbox = Outbox::new(3, 1000);
        let mut dropped = 0;
        for n in 0..5u8 {
            dropped += outbox.push(key(n), &Bytes::from(vec![n; 10])).0;
        }
        assert_eq!(dropped, 2);
        let sources: Vec<_> = drained(&outbox)
            .into_iter()
            .map(|frame| match frame {
                Frame::RecvPacket { src, .. } => src,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sources, [key(2), key(3), key(4)]);
    }

    #[test]
    fn bytes_are_bounded_too_and_disco_has_its_own_queue() {
        let outbox = Outbox::new(100, 1000);
        let mut disco = adit_disco::MAGIC.to_vec();
        disco.resize(100, 0);
        outbox.push(key(1), &disco.into());
        for _ in 0..10 {
            outbox.push(key(2), &Bytes::from(vec![0; 400]));
        }
        let frames = drained(&outbox);
        assert_eq!(frames.len(), 3);
        assert!(matches!(frames[0], Frame::RecvPacket { src, .. } if src == key(1)));
    }

    #[test]
    fn at_most_one_pong_waits() {
        let outbox = Outbox::new(1, 1);
        outbox.push_pong([1; 8]);
        outbox.push_pong([2; 8]);
        assert_eq!(drained(&outbox), [Frame::Pong([1; 8])]);
    }
}
