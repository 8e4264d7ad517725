//! What was sent and not yet acknowledged: one record per segment, with SACK
//! marks (RFC 2018, RFC 6675) and time-based loss detection (RACK, RFC 8985).

use std::collections::{BTreeSet, VecDeque};

use super::Nanos;
use super::rate::Rate;
use crate::buffer::ranges::RangeSet;

const SACKED: u8 = 1;
const LOST: u8 = 2;
/// A repeat is in flight.
const REPEATED: u8 = 4;
/// Was repeated at least once.
const EVER_REPEATED: u8 = 8;
/// The last offset is a FIN.
const FIN: u8 = 16;

/// One segment.
#[derive(Clone, Debug)]
pub(crate) struct Seg {
    pub(crate) start: u64,
    /// Offsets it occupies, a FIN included.
    pub(crate) len: u32,
    flags: u8,
    pub(crate) app_limited: bool,
    pub(crate) sent_at: Nanos,
    pub(crate) first_sent_at: Nanos,
    pub(crate) delivered_at: Nanos,
    pub(crate) delivered: u64,
    pub(crate) tx_in_flight: u64,
    pub(crate) lost_at_send: u64,
}

impl Seg {
    pub(crate) fn new(start: u64, len: u32, fin: bool) -> Self {
        Self {
            start,
            len,
            flags: if fin { FIN } else { 0 },
            app_limited: false,
            sent_at: 0,
            first_sent_at: 0,
            delivered_at: 0,
            delivered: 0,
            tx_in_flight: 0,
            lost_at_send: 0,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    pub(crate) fn has_fin(&self) -> bool {
        self.flags & FIN != 0
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.len as usize - usize::from(self.has_fin())
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// State of RACK.
#[derive(Clone, Debug)]
struct Rack {
    /// Send time and end of the most recently sent segment known delivered.
    sent_at: Nanos,
    end: u64,
    rtt: Nanos,
    /// Highest offset delivered; something below arriving later = reordering.
    forward: u64,
    reordering_seen: bool,
    /// Multiplier of the reordering window, raised by DSACKs.
    mult: u64,
    /// Recoveries until the multiplier falls back.
    persist: u32,
    /// Offset that ends the round in which the multiplier was raised.
    round_end: Option<u64>,
}

/// What an acknowledgement changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acked {
    /// Bytes newly known to be delivered.
    pub(crate) delivered: u64,
    /// RTT of a never repeated segment, newest first.
    pub(crate) rtt: Option<Nanos>,
    /// A segment that had been repeated was among those cumulatively acked.
    pub(crate) repeated: bool,
    /// Some data was newly SACKed.
    pub(crate) sacked: bool,
}

/// Segments in flight.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    segs: VecDeque<Seg>,
    /// Number of the first segment; numbers never repeat.
    base: u64,
    /// Transmissions in order of time: number and time. Entries are stale when
    /// the segment is gone, delivered, lost, or was sent again.
    by_time: VecDeque<(u64, Nanos)>,
    sacked: RangeSet,
    /// Lost and not repeated since.
    to_repeat: BTreeSet<u64>,
    sacked_bytes: u64,
    sacked_count: usize,
    lost_bytes: u64,
    repeated_bytes: u64,
    bytes: u64,
    rack: Rack,
}

impl Scoreboard {
    pub(crate) fn new() -> Self {
        Self {
            segs: VecDeque::new(),
            base: 0,
            by_time: VecDeque::new(),
            sacked: RangeSet::default(),
            to_repeat: BTreeSet::new(),
            sacked_bytes: 0,
            sacked_count: 0,
            lost_bytes: 0,
            repeated_bytes: 0,
            bytes: 0,
            rack: Rack {
                sent_at: 0,
                end: 0,
                rtt: 0,
                forward: 0,
                reordering_seen: false,
                mult: 1,
                persist: 0,
                round_end: None,
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.segs.len()
    }

    /// Bytes believed to be in the network (RFC 6675 "pipe").
    pub(crate) fn in_flight(&self) -> u64 {
        self.bytes + self.repeated_bytes - self.sacked_bytes - self.lost_bytes
    }

    pub(crate) fn has_sacked(&self) -> bool {
        self.sacked_count > 0
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.to_repeat.is_empty()
    }

    /// Whether anything taken for lost has not arrived yet.
    pub(crate) fn awaits_lost(&self) -> bool {
        self.lost_bytes > 0
    }

    fn seg(&self, number: u64) -> Option<&Seg> {
        self.segs.get(number.checked_sub(self.base)? as usize)
    }

    /// Records a new segment that was just sent.
    pub(crate) fn push(&mut self, seg: Seg) {
        let number = self.base + self.segs.len() as u64;
        self.bytes += u64::from(seg.len);
        self.by_time.push_back((number, seg.sent_at));
        self.segs.push_back(seg);
    }

    /// Next lost segment to send again.
    pub(crate) fn next_repeat(&self) -> Option<(u64, &Seg)> {
        let number = *self.to_repeat.first()?;
        self.seg(number).map(|seg| (number, seg))
    }

    /// Last segment that is not delivered, for a tail loss probe.
    pub(crate) fn last_undelivered(&self) -> Option<(u64, &Seg)> {
        let last = self.segs.iter().rposition(|s| !s.is(SACKED))?;
        Some((self.base + last as u64, &self.segs[last]))
    }

    /// Records that a segment was sent again.
    pub(crate) fn repeated(&mut self, now: Nanos, number: u64, rate: &mut Rate) {
        let in_flight = self.in_flight();
        self.to_repeat.remove(&number);
        let index = (number - self.base) as usize;
        let Some(seg) = self.segs.get_mut(index) else {
            return;
        };
        if seg.is(LOST) && !seg.is(REPEATED) {
            seg.flags |= REPEATED;
            self.repeated_bytes += u64::from(seg.len);
        }
        seg.flags |= EVER_REPEATED;
        rate.on_send(now, in_flight, seg);
        self.by_time.push_back((number, now));
    }

    /// Removes a segment's bytes from the loss counters.
    fn forget_loss(&mut self, index: usize) {
        let seg = &mut self.segs[index];
        if seg.is(LOST) {
            self.lost_bytes -= u64::from(seg.len);
            if seg.is(REPEATED) {
                self.repeated_bytes -= u64::from(seg.len);
            } else {
                self.to_repeat.remove(&(self.base + index as u64));
            }
        }
        seg.flags &= !(LOST | REPEATED);
    }

    /// Accounts for the delivery of one segment.
    fn delivered(
        &mut self,
        now: Nanos,
        index: usize,
        echo: Option<Nanos>,
        rate: &mut Rate,
        acked: &mut Acked,
    ) {
        self.forget_loss(index);
        let seg = &self.segs[index];
        acked.delivered += u64::from(seg.len);
        rate.on_delivered(now, seg);
        let rtt = now.saturating_sub(seg.sent_at);
        let (sent_at, end, ever) = (seg.sent_at, seg.end(), seg.is(EVER_REPEATED));
        if !ever {
            acked.rtt = Some(acked.rtt.map_or(rtt, |r| r.min(rtt)));
        }
        self.rack_update(sent_at, end, rtt, ever, echo);
    }

    /// RFC 8985 §6.2 steps 2 and 3.
    fn rack_update(
        &mut self,
        sent_at: Nanos,
        end: u64,
        rtt: Nanos,
        repeated: bool,
        echo: Option<Nanos>,
    ) {
        let rack = &mut self.rack;
        if end > rack.forward {
            rack.forward = end;
        } else if !repeated && end < rack.forward {
            rack.reordering_seen = true;
        }
        if repeated {
            // The acknowledgement may be of the first transmission.
            if echo.is_some_and(|echo| echo < sent_at) || (rack.rtt != 0 && rtt < rack.rtt / 2) {
                return;
            }
        }
        if (sent_at, end) > (rack.sent_at, rack.end) {
            rack.sent_at = sent_at;
            rack.end = end;
            rack.rtt = rtt;
        }
    }

    /// Applies a cumulative acknowledgement up to `ack`. `echo` is the time the
    /// acknowledged segment was sent according to the echoed timestamp.
    pub(crate) fn acknowledge(
        &mut self,
        now: Nanos,
        ack: u64,
        echo: Option<Nanos>,
        rate: &mut Rate,
        acked: &mut Acked,
    ) {
        while let Some(seg) = self.segs.front() {
            if seg.end() > ack {
                break;
            }
            acked.repeated |= seg.is(EVER_REPEATED);
            let len = u64::from(seg.len);
            if seg.is(SACKED) {
                self.sacked_bytes -= len;
                self.sacked_count -= 1;
            } else {
                self.delivered(now, 0, echo, rate, acked);
            }
            self.bytes -= len;
            self.segs.pop_front();
            self.base += 1;
        }
        // Part of a segment: the peer or something between cut it.
        if let Some(seg) = self.segs.front()
            && seg.start < ack
        {
            let cut = (ack - seg.start) as u32;
            let (sacked, lost, repeated) = (seg.is(SACKED), seg.is(LOST), seg.is(REPEATED));
            let seg = &mut self.segs[0];
            seg.start = ack;
            seg.len -= cut;
            let cut = u64::from(cut);
            self.bytes -= cut;
            self.sacked_bytes -= if sacked { cut } else { 0 };
            self.lost_bytes -= if lost { cut } else { 0 };
            self.repeated_bytes -= if lost && repeated { cut } else { 0 };
            if !sacked {
                acked.delivered += cut;
                rate.delivered += cut;
            }
        }
        self.sacked.remove_before(ack);
        if self.segs.is_empty() {
            self.by_time.clear();
            if self.segs.capacity() > 1024 {
                self.segs = VecDeque::new();
                self.by_time = VecDeque::new();
            }
        }
        self.drop_stale();
    }

    /// Applies one SACK block that lies inside what is outstanding.
    pub(crate) fn sack(
        &mut self,
        now: Nanos,
        left: u64,
        right: u64,
        echo: Option<Nanos>,
        rate: &mut Rate,
        acked: &mut Acked,
    ) {
        let mut from = left;
        while let Some((start, end)) = self.sacked.first_gap(from, right) {
            let mut index = self.segs.partition_point(|s| s.start < start);
            // A block counts for the segments it covers entirely.
            while let Some(seg) = self.segs.get(index) {
                if seg.end() > right {
                    break;
                }
                if seg.start >= end {
                    break;
                }
                let len = u64::from(seg.len);
                if !seg.is(SACKED) {
                    self.delivered(now, index, echo, rate, acked);
                    self.segs[index].flags |= SACKED;
                    self.sacked_bytes += len;
                    self.sacked_count += 1;
                    acked.sacked = true;
                }
                index += 1;
            }
            from = end;
        }
        // Remember only whole segments, so that the rest is looked at again.
        let first = self.segs.partition_point(|s| s.start < left);
        let last = self.segs.partition_point(|s| s.end() <= right);
        if first < last {
            self.sacked
                .insert(self.segs[first].start, self.segs[last - 1].end());
        }
    }

    fn is_stale(&self, number: u64, sent_at: Nanos) -> bool {
        self.seg(number).is_none_or(|seg| {
            seg.is(SACKED) || seg.sent_at != sent_at || (seg.is(LOST) && !seg.is(REPEATED))
        })
    }

    fn drop_stale(&mut self) {
        while let Some(&(number, sent_at)) = self.by_time.front() {
            if !self.is_stale(number, sent_at) {
                break;
            }
            self.by_time.pop_front();
        }
    }

    /// Marks a segment (or its repeat) as lost.
    fn mark_lost(&mut self, number: u64, rate: &mut Rate) {
        let index = (number - self.base) as usize;
        let Some(seg) = self.segs.get_mut(index) else {
            return;
        };
        if seg.is(SACKED) {
            return;
        }
        let len = u64::from(seg.len);
        if seg.is(LOST) {
            if !seg.is(REPEATED) {
                return;
            }
            seg.flags &= !REPEATED;
            self.repeated_bytes -= len;
        } else {
            seg.flags |= LOST;
            self.lost_bytes += len;
        }
        rate.lost += len;
        self.to_repeat.insert(number);
    }

    /// RFC 8985 §6.2 step 4.
    fn reorder_window(&self, min_rtt: Nanos, srtt: Nanos, in_recovery: bool) -> Nanos {
        if !self.rack.reordering_seen && (in_recovery || self.sacked_count >= 3) {
            return 0;
        }
        (self.rack.mult * min_rtt / 4).min(srtt)
    }

    /// RFC 8985 §6.2 step 5. Returns the bytes newly marked and when to look
    /// again.
    pub(crate) fn detect_losses(
        &mut self,
        now: Nanos,
        min_rtt: Nanos,
        srtt: Nanos,
        in_recovery: bool,
        rate: &mut Rate,
    ) -> (u64, Option<Nanos>) {
        if self.rack.sent_at == 0 {
            return (0, None);
        }
        let window = self.reorder_window(min_rtt, srtt, in_recovery);
        let before = rate.lost;
        let mut again = None;
        while let Some(&(number, sent_at)) = self.by_time.front() {
            if !self.is_stale(number, sent_at) {
                let end = self.seg(number).map_or(0, Seg::end);
                if (sent_at, end) >= (self.rack.sent_at, self.rack.end) {
                    break;
                }
                let due = sent_at + self.rack.rtt + window;
                if due > now {
                    again = Some(due);
                    break;
                }
                self.mark_lost(number, rate);
            }
            self.by_time.pop_front();
        }
        (rate.lost - before, again)
    }

    /// Marks the first segment lost: three duplicate acknowledgements from a
    /// peer without SACK, or a partial one (RFC 6582).
    pub(crate) fn lose_first(&mut self, rate: &mut Rate) -> u64 {
        let before = rate.lost;
        self.mark_lost(self.base, rate);
        self.drop_stale();
        rate.lost - before
    }

    /// Marks everything not delivered as lost (retransmission timeout). If even
    /// the first segment was reported as received, the peer has thrown away
    /// what it reported (RFC 2018 §8), and nothing is believed any more.
    pub(crate) fn lose_all(&mut self, rate: &mut Rate) -> u64 {
        let before = rate.lost;
        if self.segs.front().is_some_and(|s| s.is(SACKED)) {
            for seg in &mut self.segs {
                seg.flags &= !SACKED;
            }
            self.sacked.clear();
            self.sacked_bytes = 0;
            self.sacked_count = 0;
        }
        for index in 0..self.segs.len() {
            if !self.segs[index].is(SACKED) {
                self.mark_lost(self.base + index as u64, rate);
            }
        }
        self.by_time.clear();
        rate.lost - before
    }

    /// Takes back the loss marks of segments that were not repeated: the
    /// timeout was spurious.
    pub(crate) fn unlose(&mut self) {
        let numbers: Vec<u64> = self.to_repeat.iter().copied().collect();
        for number in numbers {
            let index = (number - self.base) as usize;
            if let Some(seg) = self.segs.get(index) {
                self.by_time.push_back((number, seg.sent_at));
                self.forget_loss(index);
            }
        }
        self.sort_by_time();
        self.drop_stale();
    }

    /// A repeat was needless: widen the reordering window once per round.
    pub(crate) fn on_dsack(&mut self, una: u64, next: u64) {
        if self.rack.round_end.is_none_or(|end| una >= end) {
            self.rack.round_end = Some(next);
            self.rack.mult = (self.rack.mult + 1).min(20);
        }
        self.rack.reordering_seen = true;
        self.rack.persist = 16;
    }

    /// A recovery ended: the widened window falls back after 16 of them.
    pub(crate) fn on_recovery_end(&mut self) {
        self.rack.persist = self.rack.persist.saturating_sub(1);
        if self.rack.persist == 0 {
            self.rack.mult = 1;
        }
    }

    /// Marks what is in flight with more than `mss` bytes of payload as lost.
    pub(crate) fn lose_larger(&mut self, mss: usize, rate: &mut Rate) {
        for index in 0..self.segs.len() {
            if self.segs[index].payload_len() > mss {
                self.mark_lost(self.base + index as u64, rate);
            }
        }
        self.drop_stale();
    }

    /// Cuts recorded segments to at most `mss` bytes of payload each, so that
    /// what is repeated fits a path whose MTU fell.
    pub(crate) fn recut(&mut self, mss: usize) {
        if self.segs.iter().all(|s| s.payload_len() <= mss) {
            return;
        }
        let old = std::mem::take(&mut self.segs);
        self.base += old.len() as u64;
        for mut seg in old {
            let fin = seg.has_fin();
            let (mut start, end) = (seg.start, seg.start + seg.payload_len() as u64);
            seg.flags &= !FIN;
            loop {
                let len = (end - start).min(mss as u64) as u32;
                let mut piece = seg.clone();
                piece.start = start;
                piece.len = len;
                start += u64::from(len);
                if start == end && fin {
                    piece.flags |= FIN;
                    piece.len += 1;
                }
                self.segs.push_back(piece);
                if start >= end {
                    break;
                }
            }
        }
        let numbered = (self.base..).zip(&self.segs);
        let waits = |seg: &Seg| seg.is(LOST) && !seg.is(REPEATED);
        self.to_repeat = numbered
            .clone()
            .filter(|(_, seg)| waits(seg))
            .map(|(number, _)| number)
            .collect();
        self.by_time = numbered
            .filter(|(_, seg)| !seg.is(SACKED) && !waits(seg))
            .map(|(number, seg)| (number, seg.sent_at))
            .collect();
        self.sort_by_time();
        self.sacked_count = self.segs.iter().filter(|seg| seg.is(SACKED)).count();
    }

    fn sort_by_time(&mut self) {
        self.by_time
            .make_contiguous()
            .sort_unstable_by_key(|&(number, sent_at)| (sent_at, number));
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
#[path = "scoreboard_tests.rs"]
mod tests;
