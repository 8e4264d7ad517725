//! Signals from acknowledgements, and the bounds drawn from them.

use super::{
    AckPhase, BASE_LOSS_PACKETS, BETA, Bbr, CROWD_ROUNDS, LEAST_LOSSES, LOSS_DEVIATIONS,
    LOSS_THRESHOLD, State, UNLIMITED, YIELD,
};
use crate::tcp::cc::Ack;
use crate::tcp::rate::RateSample;
use crate::tcp::{MILLIS, Nanos};

impl Bbr {
    pub(super) fn update_signals(&mut self, ack: &Ack, sample: Option<&RateSample>) {
        self.loss_round_start = false;
        self.round_start = false;
        if ack.lost > 0 {
            self.loss_in_round = true;
        }
        if let Some(rtt) = ack.rtt {
            self.round_rtt = self.round_rtt.min(rtt);
        }
        let Some(sample) = sample else { return };
        self.bw_latest = self.bw_latest.max(sample.rate);
        self.inflight_latest = self.inflight_latest.max(sample.delivered);
        if sample.prior_delivered >= self.loss_round {
            self.loss_round = ack.total_delivered;
            self.loss_round_start = true;
        }
        if sample.prior_delivered >= self.next_round {
            self.next_round = ack.total_delivered;
            self.rounds += 1;
            self.rounds_since_probe += 1;
            self.round_start = true;
        }
        if sample.rate >= self.best_bw() || !sample.app_limited {
            self.max_bw[0] = self.max_bw[0].max(sample.rate);
        }
        if self.loss_round_start {
            self.adapt_lower_bounds(ack);
            self.loss_in_round = false;
            self.loss_mark = (ack.total_lost, ack.total_delivered);
            self.round_rtt = Nanos::MAX;
        }
    }

    /// Whether the round that ended saw a standing queue.
    pub(super) fn saw_queue(&self) -> bool {
        self.round_rtt != Nanos::MAX
            && self.min_rtt != Nanos::MAX
            && self.round_rtt > self.min_rtt + (self.min_rtt / 4).max(2 * MILLIS)
    }

    /// Loss in a round bounds rate and volume from above until the next probe.
    /// Unlike the draft, loss at a rate below the threshold on a path without a
    /// queue is taken as the path's own: yielding to it would not reduce it.
    pub(super) fn adapt_lower_bounds(&mut self, ack: &Ack) {
        let lost = ack.total_lost - self.loss_mark.0;
        let sent = lost + ack.total_delivered - self.loss_mark.1;
        let queue = self.saw_queue();
        self.watch_for_others();
        if !queue {
            self.base_sent += sent as f64;
            self.base_lost += (lost as f64).min(LOSS_THRESHOLD * sent as f64);
            if self.base_sent > BASE_LOSS_PACKETS * self.mss as f64 {
                self.base_sent /= 2.0;
                self.base_lost /= 2.0;
            }
        }
        // In the round after a probe, losses are still those of the probe.
        let probing = matches!(self.state, State::Startup | State::Refill | State::Up);
        if probing || self.ack_phase == AckPhase::ProbeStopping {
            return;
        }
        let too_much = self.too_much_loss(lost, sent);
        // While draining, the queue is the flow's own and the rate its choice.
        let others = queue && self.state == State::Cruise;
        if !self.loss_in_round || !(others || too_much) {
            return;
        }
        if self.bw_lo == UNLIMITED {
            self.bw_lo = self.best_bw();
        }
        if self.inflight_lo == UNLIMITED {
            self.inflight_lo = self.cwnd;
        }
        let bw = self.bw_latest.max((self.bw_lo as f64 * BETA) as u64);
        self.bw_lo = self.bw_lo.min(bw);
        let inflight = self
            .inflight_latest
            .max((self.inflight_lo as f64 * BETA) as u64);
        self.inflight_lo = self.inflight_lo.min(inflight);
    }

    /// Counts rounds of a cruise in which the queue grew. Alone on the path the
    /// flow's own queue can only shrink then, so others fill it.
    fn watch_for_others(&mut self) {
        if self.state != State::Cruise || !self.costly || self.round_rtt == Nanos::MAX {
            return;
        }
        self.cruise_rtt = self.cruise_rtt.min(self.round_rtt);
        let grown = self.round_rtt - self.cruise_rtt > self.min_rtt / 64;
        let queued = self.round_rtt.saturating_sub(self.min_rtt) > self.min_rtt / 32;
        if grown && queued {
            self.crowd_rounds += 1;
        }
    }

    /// After a probe that cost too many losses: leaves a part of the rate to
    /// those that filled the queue between it and the one before. Where the
    /// queue can be `seen`, it may be the flow's own.
    pub(super) fn yield_to_others(&mut self, seen: bool) {
        if self.crowd_rounds >= CROWD_ROUNDS && !seen {
            self.bw_lo = self.bw_lo.min((self.best_bw() as f64 * YIELD) as u64);
        }
        self.crowd_rounds = 0;
        self.cruise_rtt = Nanos::MAX;
    }

    /// Whether `lost` out of `sent` bytes is more than the threshold, with an
    /// allowance of some standard deviations for the path's own losses.
    pub(super) fn too_much_loss(&self, lost: u64, sent: u64) -> bool {
        let packets = (sent / self.mss) as f64;
        let base = self.base_lost / self.base_sent.max(1.0);
        let noise = LOSS_DEVIATIONS * (packets * base).sqrt() * self.mss as f64;
        lost >= LEAST_LOSSES * self.mss && lost as f64 > LOSS_THRESHOLD * sent as f64 + noise
    }

    pub(super) fn reset_lower_bounds(&mut self) {
        self.bw_lo = UNLIMITED;
        self.inflight_lo = UNLIMITED;
    }

    pub(super) fn reset_signals(&mut self) {
        self.loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn start_round(&mut self, delivered: u64) {
        self.next_round = delivered;
    }

    pub(super) fn update_aggregation(&mut self, ack: &Ack) {
        let interval = ack.now.saturating_sub(self.extra_start);
        let mut expected = (self.bw as f64 * interval as f64 / 1e9) as u64;
        if self.extra_delivered <= expected {
            self.extra_delivered = 0;
            self.extra_start = ack.now;
            expected = 0;
        }
        self.extra_delivered += ack.delivered;
        let extra = self.extra_delivered.saturating_sub(expected).min(self.cwnd);
        if self.round_start {
            self.extra_rounds += 1;
            let window = if self.full_bw_reached { 5 } else { 1 };
            if self.extra_rounds >= window {
                self.extra_rounds = 0;
                self.extra = [0, self.extra[0]];
            }
        }
        self.extra[0] = self.extra[0].max(extra);
    }
}
