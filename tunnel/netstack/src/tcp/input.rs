//! Segment arrival (RFC 9293 §3.10.7), with the checks of RFC 5961 and 7323.

use super::{Ctx, MILLIS, Nanos, SECS, Tcb, event, nanos};
use crate::buffer::recv::Inserted;
use crate::wire::tcp::{ACK, FIN, RST, SYN, Segment};
use crate::{CloseReason, TcpState};

/// Age from which a stored timestamp says nothing any more (RFC 7323 §5.5).
const PAWS_EXPIRY: Nanos = 24 * 86_400 * SECS;
/// RTT of a path on which acknowledgements need not be spared.
const SHORT_PATH: Nanos = 2 * MILLIS;
/// Least time between acknowledgements of empty segments that do not fit.
const CHALLENGE_INTERVAL: Nanos = 50 * MILLIS;

/// What the stack has to do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Done,
    /// Answer the segment with RST.
    Reset,
}

impl Tcb {
    /// Takes one segment.
    pub(crate) fn on_segment(&mut self, ctx: &mut Ctx<'_>, seg: &Segment<'_>) -> Verdict {
        self.stats.segments_received += 1;
        match self.state {
            TcpState::Closed => {
                if seg.has(RST) {
                    Verdict::Done
                } else {
                    Verdict::Reset
                }
            }
            TcpState::Pending => {
                if seg.has(RST) && seg.seq == self.peer_seq(1) {
                    self.finish(ctx, CloseReason::Reset);
                }
                Verdict::Done
            }
            TcpState::SynSent => self.on_syn_sent(ctx, seg),
            _ => self.on_synchronized(ctx, seg),
        }
    }

    fn on_syn_sent(&mut self, ctx: &mut Ctx<'_>, seg: &Segment<'_>) -> Verdict {
        let ack_ok = seg.has(ACK) && seg.ack == self.seq(1) && self.next == 1;
        if seg.has(ACK) && !ack_ok {
            return if seg.has(RST) {
                Verdict::Done
            } else {
                Verdict::Reset
            };
        }
        if seg.has(RST) {
            if ack_ok {
                self.finish(ctx, CloseReason::Refused);
            }
            return Verdict::Done;
        }
        if !seg.has(SYN) {
            return Verdict::Done;
        }
        self.take_syn(ctx.now, seg);
        if ack_ok {
            self.una = 1;
            if self.handshake_tries == 1 {
                self.rtt.sample(ctx.now, ctx.now - self.handshake_sent);
            }
            self.establish(ctx);
            self.ack_now = true;
        } else {
            // Simultaneous open.
            self.state = TcpState::SynReceived;
            self.send_syn = true;
        }
        Verdict::Done
    }

    fn establish(&mut self, ctx: &mut Ctx<'_>) {
        self.state = TcpState::Established;
        self.life_at = None;
        self.handshake_at = None;
        self.send_syn = false;
        self.last_progress = ctx.now;
        self.wl1 = 0;
        self.wl2 = 1;
        self.drs_at = ctx.now;
        self.events |= event::CONNECTED;
        self.notify_writable();
        if self.fin_queued {
            self.state = TcpState::FinWait1;
        }
    }

    /// Asks for an acknowledgement that may be an answer to an attack or to
    /// another such acknowledgement, and is therefore limited in rate.
    fn challenge(&mut self, now: Nanos) {
        if now >= self.last_challenge + CHALLENGE_INTERVAL {
            self.last_challenge = now;
            self.ack_now = true;
        }
    }

    fn on_synchronized(&mut self, ctx: &mut Ctx<'_>, seg: &Segment<'_>) -> Verdict {
        let now = ctx.now;
        let recv_next = self.recv_next();
        let delta = seg.seq.wrapping_sub(self.peer_seq(recv_next)) as i32;
        let mut start = recv_next as i64 + i64::from(delta);
        let mut syn = seg.has(SYN);
        if self.state == TcpState::SynReceived && syn && start == 0 {
            if seg.has(ACK) && seg.ack == self.seq(1) {
                // The other half of a simultaneous open.
                start = 1;
                syn = false;
                self.ack_now = true;
            } else {
                self.send_syn = true;
                return Verdict::Done;
            }
        }
        // PAWS (RFC 7323 §5.3).
        if self.ts_on
            && !seg.has(RST)
            && let Some((value, _)) = seg.options.timestamps
            && (value.wrapping_sub(self.ts_recent) as i32) < 0
            && now - self.ts_recent_at < PAWS_EXPIRY
        {
            if seg.seq_len() > 0 {
                self.ack_now = true;
            } else {
                self.challenge(now);
            }
            return Verdict::Done;
        }
        let len = seg.payload.len() as i64 + i64::from(seg.has(FIN));
        let end = start + len;
        // An empty segment may be as old as the last acknowledgement sent: data
        // sent after it can overtake it.
        let old = if len > 0 {
            end <= recv_next as i64
        } else {
            start < self.last_ack_sent as i64
        };
        if old || start > self.edge as i64 {
            if !seg.has(RST) {
                self.on_unacceptable(now, start, end, seg);
            }
            return Verdict::Done;
        }
        if seg.has(RST) {
            // RFC 5961 §3.
            if start == recv_next as i64 {
                let reason = if self.state == TcpState::SynReceived {
                    CloseReason::Refused
                } else {
                    CloseReason::Reset
                };
                self.finish(ctx, reason);
            } else {
                self.challenge(now);
            }
            return Verdict::Done;
        }
        if syn {
            // RFC 5961 §4.
            self.challenge(now);
            return Verdict::Done;
        }
        if !seg.has(ACK) {
            return Verdict::Done;
        }
        self.last_received = now;
        self.keepalive_probes = 0;
        self.persist_answered();
        if self.ts_on
            && let Some((value, _)) = seg.options.timestamps
            && start <= self.last_ack_sent as i64
        {
            self.ts_recent = value;
            self.ts_recent_at = now;
        }
        if !self.on_ack_field(ctx, seg, start as u64) {
            return if self.state == TcpState::SynReceived {
                Verdict::Reset
            } else {
                Verdict::Done
            };
        }
        if self.state == TcpState::Closed {
            return Verdict::Done;
        }
        self.on_data(ctx, seg, start as u64);
        Verdict::Done
    }

    /// A segment outside the window.
    fn on_unacceptable(&mut self, now: Nanos, start: i64, end: i64, seg: &Segment<'_>) {
        if seg.seq_len() == 0 {
            self.challenge(now);
            return;
        }
        if self.sack_on && !seg.payload.is_empty() && end <= self.recv_next() as i64 && start >= 1 {
            let left = start as u64;
            self.report.duplicate(left, left + seg.payload.len() as u64);
        }
        self.ack_now = true;
    }

    /// The acknowledgement field; `false` if the segment goes no further.
    fn on_ack_field(&mut self, ctx: &mut Ctx<'_>, seg: &Segment<'_>, start: u64) -> bool {
        let now = ctx.now;
        let delta = seg.ack.wrapping_sub(self.seq(self.una)) as i32;
        let ack = self.una as i64 + i64::from(delta);
        if self.state == TcpState::SynReceived {
            if ack != 1 || self.next < 1 {
                return false;
            }
            self.una = 1;
            if self.handshake_tries == 1 {
                self.rtt.sample(now, now - self.handshake_sent);
            }
            self.establish(ctx);
            self.set_window(seg, start, 1);
            return true;
        }
        // RFC 5961 §5.
        if ack > self.next as i64 || ack < self.una as i64 - self.max_window as i64 {
            self.challenge(now);
            return false;
        }
        let ack = ack.max(0) as u64;
        let newer = self.wl1 < start || (self.wl1 == start && self.wl2 <= ack);
        let window_before = self.window;
        if ack >= self.una && newer {
            self.set_window(seg, start, ack);
        }
        let window_changed = self.window != window_before;
        self.process_ack(ctx, seg, ack, window_changed);
        self.on_fin_acknowledged(ctx);
        true
    }

    fn set_window(&mut self, seg: &Segment<'_>, start: u64, ack: u64) {
        self.window = u64::from(seg.window) << self.peer_scale;
        self.max_window = self.max_window.max(self.window);
        self.wl1 = start;
        self.wl2 = ack;
        if self.window > 0 {
            self.persist_at = None;
        }
    }

    /// Moves on in the closing states once the own FIN is acknowledged.
    fn on_fin_acknowledged(&mut self, ctx: &mut Ctx<'_>) {
        if !self.fin_sent() || !self.all_acknowledged() {
            return;
        }
        match self.state {
            TcpState::FinWait1 => {
                self.state = TcpState::FinWait2;
                if self.released {
                    self.life_at = Some(ctx.now + nanos(ctx.cfg.fin_wait));
                }
            }
            TcpState::Closing => self.enter_time_wait(ctx),
            TcpState::LastAck => self.finish(ctx, CloseReason::Finished),
            _ => {}
        }
    }

    fn enter_time_wait(&mut self, ctx: &mut Ctx<'_>) {
        self.state = TcpState::TimeWait;
        self.life_at = Some(ctx.now + nanos(ctx.cfg.time_wait));
        self.board.clear();
        self.reorder_at = None;
        self.persist_at = None;
        if self.reason.is_none() {
            self.reason = Some(CloseReason::Finished);
            self.events |= event::CLOSED;
            self.notify_readable();
            self.notify_writable();
        }
    }

    /// Payload and FIN.
    fn on_data(&mut self, ctx: &mut Ctx<'_>, seg: &Segment<'_>, start: u64) {
        if seg.payload.is_empty() && !seg.has(FIN) {
            return;
        }
        if !matches!(
            self.state,
            TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2
        ) {
            // The peer's FIN was received: nothing can follow it.
            self.ack_now = true;
            return;
        }
        let mut payload = seg.payload;
        let mut fin = seg.has(FIN);
        let room = self.edge.saturating_sub(start) as usize;
        if payload.len() > room {
            payload = &payload[..room];
            fin = false;
            self.ack_now = true;
        }
        let before = self.recv.next();
        if !payload.is_empty() {
            self.on_payload(ctx, start, payload);
        }
        if self.released && self.recv.next() > before && self.all_acknowledged() {
            // The application will never read this (RFC 2525 §2.17).
            self.reset(ctx, CloseReason::Aborted);
            return;
        }
        if fin {
            let fin_at = start + seg.payload.len() as u64;
            if fin_at == self.recv.next() {
                self.on_fin(ctx);
            } else {
                // A gap before it: the peer will send it again.
                self.ack_now = true;
            }
        }
    }

    fn on_payload(&mut self, ctx: &mut Ctx<'_>, start: u64, payload: &[u8]) {
        let now = ctx.now;
        let had_gap = !self.recv.out_of_order().is_empty();
        let before = self.recv.next();
        self.segment_seen = self.segment_seen.max(payload.len());
        match self.recv.insert(start, payload, ctx.pool) {
            Inserted::Duplicate => {
                if self.sack_on {
                    self.report.duplicate(start, start + payload.len() as u64);
                }
                self.ack_now = true;
            }
            Inserted::Dropped => self.ack_now = true,
            Inserted::OutOfOrder(left, right) => {
                self.stats.out_of_order += 1;
                self.report.changed(left, right);
                self.ack_now = true;
            }
            Inserted::InOrder => {
                let new = (self.recv.next() - before) as usize;
                self.stats.bytes_received += new as u64;
                if self.released {
                    self.recv.discard(ctx.pool);
                } else {
                    self.notify_readable();
                }
                self.unacked += new;
                if had_gap || self.unacked >= self.ack_threshold() {
                    self.ack_now = true;
                } else if self.quick > 0 {
                    self.quick -= 1;
                    self.ack_now = true;
                } else {
                    self.ack_at.get_or_insert(now + nanos(ctx.cfg.ack_delay));
                }
                self.idle_at = Some(now + super::timer::IDLE_SHRINK);
            }
        }
    }

    /// Bytes that are acknowledged at once: two segments; of a fast flow more,
    /// but at least sixteen times per round trip, which spares a slow way back.
    /// On a short path batches have the same effect.
    fn ack_threshold(&self) -> usize {
        let segment = self.segment_seen;
        if self.rtt.min().is_none_or(|rtt| rtt < SHORT_PATH) {
            return 2 * segment;
        }
        (self.per_round as usize / 16).clamp(2 * segment, 8 * segment)
    }

    fn on_fin(&mut self, ctx: &mut Ctx<'_>) {
        self.fin_received = true;
        self.ack_now = true;
        self.notify_readable();
        match self.state {
            TcpState::Established => self.state = TcpState::CloseWait,
            TcpState::FinWait1 => self.state = TcpState::Closing,
            TcpState::FinWait2 => self.enter_time_wait(ctx),
            _ => {}
        }
    }
}
