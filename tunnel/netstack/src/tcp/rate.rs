//! Delivery rate estimation
//! (draft-ietf-ccwg-bbr, "Delivery Rate Samples"): how fast the path delivered
//! what was in flight around the time of an acknowledgement.

use super::Nanos;
use super::scoreboard::Seg;

/// Connection-wide counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    /// Bytes delivered so far.
    pub(crate) delivered: u64,
    delivered_at: Nanos,
    first_sent_at: Nanos,
    /// Bytes marked lost so far.
    pub(crate) lost: u64,
    /// The sender had nothing to send until `delivered` passes this; 0 = not.
    app_limited: u64,
    /// Segments sent before this time say nothing about the path.
    valid_from: Nanos,
    sample: Pending,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    valid: bool,
    prior_delivered: u64,
    prior_at: Nanos,
    sent_at: Nanos,
    app_limited: bool,
    send_elapsed: Nanos,
    ack_elapsed: Nanos,
    tx_in_flight: u64,
    lost_at_send: u64,
}

/// What one acknowledgement says about the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateSample {
    /// Bytes delivered over the interval.
    pub(crate) delivered: u64,
    /// Bytes lost over the interval.
    pub(crate) lost: u64,
    /// Bytes per second; 0 if the interval is too short to tell.
    pub(crate) rate: u64,
    /// Whether the application limited it.
    pub(crate) app_limited: bool,
    /// `delivered` when the newest acknowledged segment was sent.
    pub(crate) prior_delivered: u64,
    /// Bytes in flight when that segment was sent, itself included.
    pub(crate) tx_in_flight: u64,
}

impl Rate {
    /// Stamps a segment about to be sent; `in_flight` does not include it yet.
    pub(crate) fn on_send(&mut self, now: Nanos, in_flight: u64, seg: &mut Seg) {
        if in_flight == 0 {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        seg.sent_at = now;
        seg.first_sent_at = self.first_sent_at;
        seg.delivered_at = self.delivered_at;
        seg.delivered = self.delivered;
        seg.app_limited = self.app_limited != 0;
        seg.tx_in_flight = in_flight + u64::from(seg.len);
        seg.lost_at_send = self.lost;
    }

    /// Notes that all data is sent and the window has room.
    pub(crate) fn set_app_limited(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    /// A timeout: what was sent before, and is acknowledged later, may have
    /// arrived at any time since.
    pub(crate) fn restart(&mut self, now: Nanos) {
        self.valid_from = now;
    }

    /// Counts a segment that was delivered (for the first time).
    pub(crate) fn on_delivered(&mut self, now: Nanos, seg: &Seg) {
        if seg.sent_at < self.valid_from {
            return;
        }
        self.delivered += u64::from(seg.len);
        self.delivered_at = now;
        let s = &mut self.sample;
        let newer = seg.delivered > s.prior_delivered
            || (seg.delivered == s.prior_delivered && seg.sent_at >= s.sent_at);
        if !s.valid || newer {
            *s = Pending {
                valid: true,
                prior_delivered: seg.delivered,
                prior_at: seg.delivered_at,
                sent_at: seg.sent_at,
                app_limited: seg.app_limited,
                send_elapsed: seg.sent_at.saturating_sub(seg.first_sent_at),
                ack_elapsed: now.saturating_sub(seg.delivered_at),
                tx_in_flight: seg.tx_in_flight,
                lost_at_send: seg.lost_at_send,
            };
            self.first_sent_at = seg.sent_at;
        }
    }

    /// Closes the sample of one acknowledgement.
    pub(crate) fn take_sample(&mut self, now: Nanos, min_rtt: Option<Nanos>) -> Option<RateSample> {
        if self.app_limited != 0 && self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        let s = std::mem::take(&mut self.sample);
        if !s.valid {
            return None;
        }
        let ack_elapsed = now.saturating_sub(s.prior_at).max(s.ack_elapsed);
        let interval = s.send_elapsed.max(ack_elapsed);
        let delivered = self.delivered - s.prior_delivered;
        let plausible = interval > 0 && min_rtt.is_none_or(|min| interval >= min);
        let rate = if plausible {
            (u128::from(delivered) * 1_000_000_000 / u128::from(interval)) as u64
        } else {
            0
        };
        Some(RateSample {
            delivered,
            lost: self.lost.saturating_sub(s.lost_at_send),
            rate,
            app_limited: s.app_limited,
            prior_delivered: s.prior_delivered,
            tx_in_flight: s.tx_in_flight,
        })
    }
}
