//! Acknowledgement processing: SACK, RTT, loss recovery, congestion control.

use super::cc::Ack;
use super::scoreboard::Acked;
use super::{Ctx, Doubt, MILLIS, Nanos, SECS, Tcb};
use crate::wire::tcp::Segment;

/// Oldest timestamp echo that is believed.
const MAX_ECHO_AGE: u32 = 120_000;

impl Tcb {
    /// End of the millisecond in which the acknowledged segment was sent, from
    /// the echoed timestamp.
    fn echo_time(&self, now: Nanos, seg: &Segment<'_>) -> Option<Nanos> {
        let (_, echo) = seg.options.timestamps.filter(|_| self.ts_on)?;
        let age = self.timestamp(now).wrapping_sub(echo);
        if age > MAX_ECHO_AGE {
            return None;
        }
        (now / MILLIS + 1)
            .checked_sub(u64::from(age))
            .map(|ms| ms * MILLIS)
    }

    /// Applies an acceptable acknowledgement up to offset `ack`.
    pub(super) fn process_ack(
        &mut self,
        ctx: &mut Ctx<'_>,
        seg: &Segment<'_>,
        ack: u64,
        window_changed: bool,
    ) {
        let now = ctx.now;
        let echo = self.echo_time(now, seg);
        if self.board.is_empty() && ack <= self.una {
            // What arrived twice is reported when all else is done.
            self.take_sacks(now, seg, echo, &mut Acked::default());
            return;
        }
        let prior_in_flight = self.board.in_flight();
        let prior_una = self.una;
        let advanced = ack > self.una;
        let mut acked = Acked::default();
        if advanced {
            self.board
                .acknowledge(now, ack, echo, &mut self.rate, &mut acked);
            self.stats.bytes_acked += ack.min(self.send.end()) - self.una.min(self.send.end());
            self.send.acknowledge(ack);
            self.una = ack;
            self.last_progress = now;
            self.rto_base = now;
            self.tail_base = now;
            self.duplicates = 0;
            self.rtt.reset_backoff();
        }
        self.take_sacks(now, seg, echo, &mut acked);
        let rtt = acked.rtt.or_else(|| {
            // A repeated segment's RTT is ambiguous without the echo, and with
            // it known to a millisecond; rather too long than too short.
            let sent = echo.filter(|_| advanced)?;
            Some((now + MILLIS).saturating_sub(sent))
        });
        // After an outage the first acknowledgement answers a repetition, even
        // if what it acknowledges had arrived long before.
        let rtt = rtt.filter(|rtt| self.timeouts <= 1 || now - rtt >= self.timeout_at);
        if let Some(rtt) = rtt {
            self.rtt.sample(now, rtt);
        }
        if advanced {
            self.timeouts = 0;
        }
        self.check_doubt(now, advanced, &acked, echo);
        let mut lost = self.detect_losses(now);
        if !self.sack_on {
            lost += self.count_duplicates(seg, ack, prior_una, advanced, window_changed);
        }
        self.update_recovery(ctx, lost, prior_in_flight);
        self.on_tail_probe_ack(ctx, &acked, seg);
        let sample = self.rate.take_sample(now, self.rtt.min());
        let in_flight = self.board.in_flight();
        self.cc.on_ack(&Ack {
            now,
            delivered: acked.delivered,
            lost,
            in_flight,
            rtt,
            srtt: self.rtt.srtt().unwrap_or(SECS),
            rate: sample,
            total_delivered: self.rate.delivered,
            total_lost: self.rate.lost,
            una: self.una,
            next: self.next,
            in_recovery: self.recovery.is_some(),
            cwnd_limited: prior_una < self.cwnd_limited_until,
        });
        if let Some(sample) = sample
            && sample.rate > 0
        {
            self.stats.delivery_rate = sample.rate;
        }
        if advanced {
            self.update_send_limit(ctx);
        }
    }

    /// Applies the SACK blocks, lowest first.
    fn take_sacks(
        &mut self,
        now: Nanos,
        seg: &Segment<'_>,
        echo: Option<Nanos>,
        acked: &mut Acked,
    ) {
        if !self.sack_on || seg.options.sack_count == 0 {
            return;
        }
        let mut blocks = [(0u64, 0u64); 4];
        let mut count = 0;
        for (index, &(left, right)) in seg.options.sacks[..seg.options.sack_count]
            .iter()
            .enumerate()
        {
            let len = right.wrapping_sub(left);
            let delta = i64::from(left.wrapping_sub(self.seq(self.una)) as i32);
            let left = self.una as i64 + delta;
            let right = left + i64::from(len);
            if len == 0 || len > i32::MAX as u32 {
                continue;
            }
            if right <= self.una as i64 {
                // RFC 2883: only the first block may report a duplicate.
                if index == 0 && left >= 0 {
                    self.on_dsack(now, left as u64, right as u64);
                }
                continue;
            }
            if index == 0 && seg.options.sack_count > 1 {
                let (l, r) = seg.options.sacks[1];
                let inside = seg.options.sacks[0].0.wrapping_sub(l) <= r.wrapping_sub(l)
                    && seg.options.sacks[0].1.wrapping_sub(l) <= r.wrapping_sub(l);
                if inside {
                    self.on_dsack(now, left.max(0) as u64, right as u64);
                    continue;
                }
            }
            if left < self.una as i64 || right > self.next as i64 {
                continue;
            }
            blocks[count] = (left as u64, right as u64);
            count += 1;
        }
        let blocks = &mut blocks[..count];
        blocks.sort_unstable();
        for &(left, right) in blocks.iter() {
            self.board
                .sack(now, left, right, echo, &mut self.rate, acked);
        }
    }

    /// The peer got `left` to `right` twice. If it got everything twice that
    /// was repeated, nothing had been lost.
    fn on_dsack(&mut self, now: Nanos, left: u64, right: u64) {
        self.stats.spurious += 1;
        self.board.on_dsack(self.una, self.next);
        let Some(doubt) = &mut self.doubt else { return };
        if doubt.repeats == 0 || left < doubt.start || right > doubt.end {
            return;
        }
        doubt.repeats -= 1;
        if doubt.repeats == 0 && !self.board.awaits_lost() {
            self.undo(now);
        }
    }

    /// Marks what RACK believes lost.
    pub(super) fn detect_losses(&mut self, now: Nanos) -> u64 {
        if !self.sack_on {
            return 0;
        }
        let min = self.rtt.min().unwrap_or(0);
        let srtt = self.rtt.srtt().unwrap_or(0);
        let recovering = self.recovery.is_some();
        let (lost, again) = self
            .board
            .detect_losses(now, min, srtt, recovering, &mut self.rate);
        self.reorder_at = again;
        lost
    }

    /// Fast retransmit without SACK (RFC 5681 §3.2, RFC 6582).
    fn count_duplicates(
        &mut self,
        seg: &Segment<'_>,
        ack: u64,
        prior_una: u64,
        advanced: bool,
        window_changed: bool,
    ) -> u64 {
        if advanced {
            return if self.recovery.is_some_and(|point| ack < point) {
                self.board.lose_first(&mut self.rate)
            } else {
                0
            };
        }
        if ack == prior_una && seg.payload.is_empty() && !window_changed {
            self.duplicates += 1;
            if self.duplicates == 3 && self.recovery.is_none() {
                return self.board.lose_first(&mut self.rate);
            }
        }
        0
    }

    /// Enters or leaves recovery.
    pub(super) fn update_recovery(&mut self, ctx: &Ctx<'_>, lost: u64, in_flight: u64) {
        if let Some(point) = self.recovery
            && self.una >= point
        {
            self.recovery = None;
            self.board.on_recovery_end();
            self.cc.on_recovery_end(ctx.now);
        }
        if lost > 0 && self.recovery.is_none() {
            self.recovery = Some(self.next);
            self.force_repeat = true;
            self.begin_doubt(ctx.now, false);
            self.cc.on_congestion(ctx.now, in_flight, self.next);
        }
    }

    /// A reduction that may have to be taken back.
    pub(super) fn begin_doubt(&mut self, now: Nanos, timeout: bool) {
        self.doubt = Some(Doubt {
            at: now,
            timeout,
            open: true,
            start: self.una,
            end: self.next,
            repeats: 0,
        });
    }

    /// A reduction was unnecessary if all that was taken for lost is
    /// acknowledged because of its first transmission (Eifel, RFC 3522). After
    /// a timeout the first acknowledgement decides: what it does not cover has
    /// not been repeated yet.
    fn check_doubt(&mut self, now: Nanos, advanced: bool, acked: &Acked, echo: Option<Nanos>) {
        let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.open) else {
            return;
        };
        let decides = advanced || (doubt.timeout && acked.sacked);
        if !decides {
            return;
        }
        let original = advanced && echo.is_some_and(|echo| echo < doubt.at);
        let timeout = doubt.timeout;
        doubt.open = original && !timeout;
        if original && (timeout || !self.board.awaits_lost()) {
            self.stats.spurious += 1;
            if !timeout {
                // The path reorders by more than was allowed for.
                self.board.on_dsack(self.una, self.next);
            }
            self.undo(now);
        }
    }

    /// Takes back the last reduction.
    fn undo(&mut self, now: Nanos) {
        self.doubt = None;
        self.board.unlose();
        self.recovery = None;
        self.cc.undo(now);
    }

    /// RFC 8985 §7.4: what the tail loss probe brought to light.
    fn on_tail_probe_ack(&mut self, ctx: &Ctx<'_>, acked: &Acked, seg: &Segment<'_>) {
        let Some(end) = self.tail_end else { return };
        if self.una < end && !acked.sacked {
            return;
        }
        if self.una >= end {
            let duplicate = seg.options.sack_count > 0;
            if self.tail_repeated && !duplicate && self.recovery.is_none() {
                // The probe repaired the loss of the last segment.
                self.doubt = None;
                self.cc
                    .on_congestion(ctx.now, self.board.in_flight(), self.next);
                self.cc.on_recovery_end(ctx.now);
            }
            self.tail_end = None;
        }
    }
}
