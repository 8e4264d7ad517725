//! Segment construction: what to send next, if anything.

use super::scoreboard::Seg;
use super::{Ctx, MILLIS, Nanos, Tcb, cc};
use crate::TcpState;
use crate::wire::tcp::{self, ACK, FIN, Options, PSH, RST, SYN, Segment};

/// Time whose worth of data leaves in one burst.
const PACING_QUANTUM: Nanos = MILLIS;
/// Time without sending that is made up for.
const PACING_CREDIT: Nanos = 2 * MILLIS;
/// The same if there was something to send and the caller came late, which on a
/// busy machine must not be taken for the pace of the path.
const LATE_CREDIT: Nanos = 20 * MILLIS;

/// Outcome of asking a connection for a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A packet of this length was written.
    Packet(usize),
    /// Nothing may be sent before the pacing deadline.
    Paced,
    /// Nothing to send.
    Idle,
}

impl Tcb {
    /// Writes the next packet, if there is one to be sent.
    pub(crate) fn poll(&mut self, ctx: &mut Ctx<'_>, buf: &mut [u8]) -> Output {
        if self.send_reset {
            self.send_reset = false;
            return Output::Packet(self.write_reset(buf));
        }
        match self.state {
            TcpState::Pending | TcpState::Closed => return Output::Idle,
            TcpState::SynSent | TcpState::SynReceived => {
                if !self.send_syn {
                    return Output::Idle;
                }
                return Output::Packet(self.write_syn(ctx, buf));
            }
            _ => {}
        }
        let gaps = !self.recv.out_of_order().is_empty() || self.report.has_duplicate();
        if self.ack_now && gaps {
            // Full segments have no room for SACK blocks.
            return Output::Packet(self.write_ack(ctx.now, self.next, buf));
        }
        let mut outcome = Output::Idle;
        if self.state != TcpState::TimeWait {
            outcome = self.poll_data(ctx, buf);
            match outcome {
                Output::Paced => self.pace_blocked = true,
                Output::Idle => self.pace_blocked = false,
                Output::Packet(_) => {}
            }
            if let Output::Packet(_) = outcome {
                return outcome;
            }
        }
        if self.send_probe {
            self.send_probe = false;
            return Output::Packet(self.write_ack(ctx.now, self.una.max(1) - 1, buf));
        }
        if self.ack_now {
            return Output::Packet(self.write_ack(ctx.now, self.next, buf));
        }
        outcome
    }

    fn poll_data(&mut self, ctx: &mut Ctx<'_>, buf: &mut [u8]) -> Output {
        if self.send_tail_probe {
            self.send_tail_probe = false;
            if let Some(len) = self.write_tail_probe(ctx, buf) {
                self.stats.tail_probes += 1;
                return Output::Packet(len);
            }
        }
        let fin_left = self.fin_queued && !self.fin_sent();
        let unsent = self.send.end().saturating_sub(self.next);
        if !self.board.has_lost() && unsent == 0 && !fin_left {
            return Output::Idle;
        }
        let in_flight = self.board.in_flight();
        let cwnd = self.cc.cwnd();
        if let Some((number, seg)) = self.board.next_repeat() {
            let len = u64::from(seg.len);
            if in_flight > 0 && in_flight + len > cwnd && !self.force_repeat {
                self.cwnd_limited_until = self.next;
                return Output::Idle;
            }
            if self.is_paced(ctx) {
                return Output::Paced;
            }
            self.force_repeat = false;
            let (start, payload, fin) = (seg.start, seg.payload_len(), seg.has_fin());
            return Output::Packet(self.write_repeat(ctx, number, start, payload, fin, buf));
        }
        let Some(len) = self.next_len(ctx.now, unsent, fin_left) else {
            return Output::Idle;
        };
        if in_flight > 0 && in_flight + len as u64 > cwnd {
            self.cwnd_limited_until = self.next;
            return Output::Idle;
        }
        if self.is_paced(ctx) {
            return Output::Paced;
        }
        Output::Packet(self.write_new(ctx, len, buf))
    }

    /// Payload length of the next new segment under the peer's window, with
    /// sender-side silly window avoidance (RFC 9293 §3.8.6.2.1).
    fn next_len(&mut self, now: Nanos, unsent: u64, fin_left: bool) -> Option<usize> {
        let usable = (self.una + self.window).saturating_sub(self.next);
        let want = unsent.min(self.mss as u64);
        let len = want.min(usable);
        let whole = len == want && (unsent > 0 || usable > 0 || !fin_left);
        let half = len > 0 && 2 * len >= self.max_window;
        if whole || half || (self.force_window && len > 0) {
            self.force_window = false;
            return Some(len as usize);
        }
        if self.board.is_empty() {
            self.arm_persist(now);
        }
        None
    }

    /// Whether pacing forbids to send now.
    fn is_paced(&self, ctx: &Ctx<'_>) -> bool {
        ctx.cfg.pacing && ctx.now < self.pace_at
    }

    /// When a quantum's worth may leave.
    pub(super) fn pace_deadline(&self) -> Nanos {
        let rate = self.cc.pacing_rate(self.rtt.srtt()).unwrap_or(u64::MAX);
        let one = self.mss as u64 * 1_000_000_000 / rate.max(1);
        self.pace_at + PACING_QUANTUM.saturating_sub(one)
    }

    fn charge_pacing(&mut self, now: Nanos, bytes: usize) {
        let Some(rate) = self.cc.pacing_rate(self.rtt.srtt()) else {
            return;
        };
        if self.rate.delivered < cc::INITIAL_SEGMENTS * self.mss as u64
            && self.next <= cc::INITIAL_SEGMENTS * self.mss as u64
        {
            // The initial window leaves at once.
            return;
        }
        let credit = if self.pace_blocked {
            let half = self.rtt.min().unwrap_or(0) / 2;
            half.clamp(PACING_CREDIT, LATE_CREDIT)
        } else {
            PACING_CREDIT
        };
        let base = self.pace_at.max(now.saturating_sub(credit));
        self.pace_at = base + bytes as u64 * 1_000_000_000 / rate.max(1);
    }

    fn write_new(&mut self, ctx: &Ctx<'_>, len: usize, buf: &mut [u8]) -> usize {
        let start = self.next;
        let last = start + len as u64 == self.send.end();
        let fin = last && self.fin_queued;
        let mut seg = Seg::new(start, len as u32 + u32::from(fin), fin);
        let in_flight = self.board.in_flight();
        if self.board.is_empty() {
            self.rto_base = ctx.now;
            self.last_progress = ctx.now;
        }
        self.cc
            .on_send(ctx.now, in_flight, self.rate.is_app_limited());
        self.rate.on_send(ctx.now, in_flight, &mut seg);
        self.cc.on_sent(len as u64);
        self.next = seg.end();
        self.tail_base = ctx.now;
        self.board.push(seg);
        if last && self.board.in_flight() < self.cc.cwnd() && !self.board.has_lost() {
            self.rate.set_app_limited(self.board.in_flight());
        }
        self.charge_pacing(ctx.now, len);
        self.write_data(ctx.now, start, len, fin, buf)
    }

    fn write_repeat(
        &mut self,
        ctx: &Ctx<'_>,
        number: u64,
        start: u64,
        len: usize,
        fin: bool,
        buf: &mut [u8],
    ) -> usize {
        self.board.repeated(ctx.now, number, &mut self.rate);
        self.stats.retransmits += 1;
        if let Some(doubt) = &mut self.doubt
            && self.recovery.is_some()
        {
            doubt.repeats += 1;
        }
        self.cc.on_sent(len as u64);
        self.charge_pacing(ctx.now, len);
        self.write_data(ctx.now, start, len, fin, buf)
    }

    /// RFC 8985 §7.3: new data if there is some, else the last segment again.
    fn write_tail_probe(&mut self, ctx: &Ctx<'_>, buf: &mut [u8]) -> Option<usize> {
        let unsent = self.send.end().saturating_sub(self.next);
        let usable = (self.una + self.window).saturating_sub(self.next);
        let len = unsent.min(self.mss as u64);
        if len > 0 && len <= usable {
            self.tail_repeated = false;
            let written = self.write_new(ctx, len as usize, buf);
            self.tail_end = Some(self.next);
            return Some(written);
        }
        let (number, seg) = self.board.last_undelivered()?;
        let (start, payload, fin) = (seg.start, seg.payload_len(), seg.has_fin());
        self.tail_repeated = true;
        Some(self.write_repeat(ctx, number, start, payload, fin, buf))
    }

    fn write_data(
        &mut self,
        now: Nanos,
        start: u64,
        len: usize,
        fin: bool,
        buf: &mut [u8],
    ) -> usize {
        self.stats.bytes_sent += len as u64;
        self.stats.segments_sent += 1;
        let mut flags = ACK;
        if fin {
            flags |= FIN;
            self.after_fin();
        }
        if len > 0 && start + len as u64 == self.send.end() {
            flags |= PSH;
        }
        let options = self.options(now);
        let segment = self.segment(start, flags, options);
        self.ack_was_sent();
        let send = &self.send;
        tcp::write_packet(
            buf,
            self.local.ip(),
            self.remote.ip(),
            &segment,
            len,
            |payload| send.copy(start, payload),
        )
    }

    fn after_fin(&mut self) {
        match self.state {
            TcpState::Established => self.state = TcpState::FinWait1,
            TcpState::CloseWait => self.state = TcpState::LastAck,
            _ => {}
        }
    }

    fn write_ack(&mut self, now: Nanos, offset: u64, buf: &mut [u8]) -> usize {
        self.stats.segments_sent += 1;
        let mut options = self.options(now);
        self.add_sacks(&mut options);
        let segment = self.segment(offset, ACK, options);
        self.ack_was_sent();
        // More changes than blocks: another acknowledgement follows.
        self.ack_now = self.sack_on && self.report.is_pending();
        tcp::write_packet(buf, self.local.ip(), self.remote.ip(), &segment, 0, |_| {})
    }

    fn options(&self, now: Nanos) -> Options {
        Options {
            timestamps: self.ts_on.then(|| (self.timestamp(now), self.ts_recent)),
            ..Options::default()
        }
    }

    fn add_sacks(&mut self, options: &mut Options) {
        if !self.sack_on {
            return;
        }
        let blocks = self.report.take(self.recv.out_of_order());
        for &(left, right) in blocks.as_slice() {
            options.sacks[options.sack_count] = (self.peer_seq(left), self.peer_seq(right));
            options.sack_count += 1;
        }
    }

    fn segment(&self, offset: u64, flags: u8, options: Options) -> Segment<'static> {
        let window = self.announced() >> self.scale;
        Segment {
            src_port: self.local.port(),
            dst_port: self.remote.port(),
            seq: self.seq(offset),
            ack: self.peer_seq(self.recv_next()),
            flags,
            window: window as u16,
            options,
            payload: &[],
        }
    }

    /// Window to announce, in whole units of the scale. What was promised
    /// before stays valid, up to the rounding.
    fn announced(&self) -> u64 {
        let edge = self.recv.edge().max(self.edge);
        let window = edge.saturating_sub(self.recv_next()) >> self.scale;
        window.min(65_535) << self.scale
    }

    fn ack_was_sent(&mut self) {
        self.edge = self.edge.max(self.recv_next() + self.announced());
        self.last_ack_sent = self.recv_next();
        self.ack_now = false;
        self.ack_at = None;
        self.unacked = 0;
    }

    fn write_syn(&mut self, ctx: &Ctx<'_>, buf: &mut [u8]) -> usize {
        self.send_syn = false;
        self.next = self.next.max(1);
        self.stats.segments_sent += 1;
        if self.handshake_tries > 0 {
            self.stats.retransmits += 1;
        }
        self.arm_handshake(ctx.now);
        let answer = self.state == TcpState::SynReceived;
        let options = Options {
            mss: Some(self.own_mss),
            // An answer may only offer what was offered (RFC 7323 §2.2).
            window_scale: (!answer || self.scale > 0).then_some(self.scale),
            sack_permitted: self.sack_on,
            timestamps: self
                .ts_on
                .then(|| (self.timestamp(ctx.now), self.ts_recent)),
            ..Options::default()
        };
        if answer {
            self.last_ack_sent = 1;
        }
        let segment = Segment {
            src_port: self.local.port(),
            dst_port: self.remote.port(),
            seq: self.iss,
            ack: if answer { self.peer_seq(1) } else { 0 },
            flags: if answer { SYN | ACK } else { SYN },
            window: (self.edge - 1).min(65_535) as u16,
            options,
            payload: &[],
        };
        tcp::write_packet(buf, self.local.ip(), self.remote.ip(), &segment, 0, |_| {})
    }

    fn write_reset(&mut self, buf: &mut [u8]) -> usize {
        let segment = Segment {
            src_port: self.local.port(),
            dst_port: self.remote.port(),
            seq: self.seq(self.next),
            ack: self.peer_seq(self.recv_next()),
            flags: RST | ACK,
            window: 0,
            options: Options::default(),
            payload: &[],
        };
        tcp::write_packet(buf, self.local.ip(), self.remote.ip(), &segment, 0, |_| {})
    }

    /// Whether [`poll`](Self::poll) may have something at once.
    pub(crate) fn wants_poll(&self) -> bool {
        self.send_reset
            || self.ack_now
            || self.send_syn
            || self.send_probe
            || self.send_tail_probe
            || self.board.has_lost()
            || self.next < self.send.end() + u64::from(self.fin_queued)
    }
}
