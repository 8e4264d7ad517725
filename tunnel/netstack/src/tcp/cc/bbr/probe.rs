//! The probing cycle: for more bandwidth, and for the propagation delay.

use std::ops::RangeInclusive;

use super::{
    AckPhase, BETA, Bbr, COSTLY_ROUNDS, COSTLY_WAIT, LEAST_QUEUE, MIN_RTT_WINDOW, PROBE_ROUNDS,
    PROBE_RTT_CWND_GAIN, PROBE_RTT_DURATION, PROBE_RTT_INTERVAL, PROBE_WAIT, QUEUE_SEEN,
    QUEUE_TO_DRAIN, State, UNLIMITED,
};
use crate::tcp::Nanos;
use crate::tcp::cc::Ack;
use crate::tcp::rate::RateSample;

impl Bbr {
    pub(super) fn start_down(&mut self, ack: &Ack) {
        self.reset_signals();
        self.up_count = UNLIMITED;
        self.rounds_since_probe = self.random(2);
        self.probe_wait = self.wait(PROBE_ROUNDS, PROBE_WAIT);
        self.costly = false;
        self.cycle_at = ack.now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round(ack.total_delivered);
        self.loss_round = ack.total_delivered;
        self.state = State::Down;
    }

    pub(super) fn start_refill(&mut self, ack: &Ack) {
        self.reset_lower_bounds();
        self.up_rounds = 0;
        self.up_acks = 0;
        self.ack_phase = AckPhase::Refilling;
        self.start_round(ack.total_delivered);
        self.state = State::Refill;
    }

    pub(super) fn start_up(&mut self, ack: &Ack, sample: Option<&RateSample>) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round(ack.total_delivered);
        self.reset_full_bw(sample.map_or(0, |s| s.rate));
        self.state = State::Up;
        self.raise_slope();
    }

    pub(super) fn raise_slope(&mut self) {
        let growth = self.mss.max(self.cwnd / 32) << self.up_rounds;
        self.up_rounds = (self.up_rounds + 1).min(16);
        self.up_count = (self.cwnd / growth.max(1)).max(1);
    }

    pub(super) fn update_cycle(&mut self, ack: &Ack, sample: Option<&RateSample>) {
        if !self.full_bw_reached {
            return;
        }
        if let Some(sample) = sample {
            self.adapt_upper_bounds(ack, sample);
        }
        match self.state {
            State::Down => {
                if !self.check_time_to_probe(ack, sample) && self.time_to_cruise(ack) {
                    self.state = State::Cruise;
                }
            }
            State::Cruise => {
                self.check_time_to_probe(ack, sample);
            }
            State::Refill => {
                if self.round_start {
                    self.probe_samples = true;
                    self.start_up(ack, sample);
                }
            }
            State::Up => {
                if self.time_to_go_down(ack, sample) {
                    self.start_down(ack);
                }
            }
            State::Startup | State::Drain | State::ProbeRtt => {}
        }
    }

    pub(super) fn check_time_to_probe(&mut self, ack: &Ack, sample: Option<&RateSample>) -> bool {
        // As often as a Reno flow of this size would have recovered its window.
        let reno_rounds = (self.target_inflight() / self.mss).min(63);
        let due = ack.now.saturating_sub(self.cycle_at) > self.probe_wait
            || (!self.costly && self.rounds_since_probe >= reno_rounds.max(1));
        if due && !self.makes_room(ack, sample) {
            self.start_refill(ack);
        }
        due
    }

    /// Drains instead of probing while there is a queue: all flows together
    /// have taken the path for faster than it is, and a probe could only cost
    /// losses. The rate is what arrives, not what once did. But every second
    /// probe takes place, as the delay may be the path's own.
    fn makes_room(&mut self, ack: &Ack, sample: Option<&RateSample>) -> bool {
        let queue = self.queue(ack);
        let standing = queue > LEAST_QUEUE && queue as f64 > self.min_rtt as f64 * QUEUE_TO_DRAIN;
        self.made_room = standing && !self.made_room;
        if self.made_room {
            let least = (self.best_bw() as f64 * BETA) as u64;
            let rate = sample.map_or(0, |sample| sample.rate);
            self.max_bw = [least.max(rate).max(self.bw_latest), 0];
            self.reset_lower_bounds();
            self.start_down(ack);
            self.ack_phase = AckPhase::Init;
        }
        self.made_room
    }

    pub(super) fn time_to_cruise(&self, ack: &Ack) -> bool {
        ack.in_flight <= self.inflight_with_headroom()
            && ack.in_flight <= self.inflight(self.best_bw(), 1.0)
    }

    pub(super) fn time_to_go_down(&mut self, ack: &Ack, sample: Option<&RateSample>) -> bool {
        if ack.cwnd_limited && self.cwnd >= self.inflight_hi {
            self.reset_full_bw(sample.map_or(0, |s| s.rate));
            false
        } else {
            // The draft waits for three rounds without growth; a queue of half
            // a round trip says the same sooner.
            let queue = ack
                .rtt
                .is_some_and(|rtt| rtt > self.min_rtt + self.min_rtt / 2);
            self.full_bw_now || (self.full_bw_count > 0 && queue)
        }
    }

    pub(super) fn adapt_upper_bounds(&mut self, ack: &Ack, sample: &RateSample) {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.probe_samples = false;
            self.ack_phase = AckPhase::Init;
            // A burst into a short queue is lost before the volume is reached.
            self.inflight_hi = self.inflight_hi.max(self.bdp(self.best_bw(), 1.0));
            if self.in_probe_bw() && !sample.app_limited {
                self.max_bw = [0, self.max_bw[0]];
                self.max_bw[0] = self.max_bw[0].max(sample.rate);
            }
        }
        if self.too_much_loss(sample.lost, sample.tx_in_flight) {
            if self.probe_samples {
                self.inflight_too_high(ack, sample);
            }
            return;
        }
        if self.inflight_hi == UNLIMITED {
            return;
        }
        self.inflight_hi = self.inflight_hi.max(sample.tx_in_flight);
        if self.state == State::Up {
            self.raise_inflight_hi(ack);
        }
    }

    pub(super) fn inflight_too_high(&mut self, ack: &Ack, sample: &RateSample) {
        self.probe_samples = false;
        if !sample.app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.inflight_hi = sample.tx_in_flight.max(least);
        }
        if self.state == State::Up {
            self.start_down(ack);
        }
        self.probe_wait = self.wait(COSTLY_ROUNDS, COSTLY_WAIT);
        self.costly = true;
        let seen = self.queue(ack) as f64 > self.min_rtt as f64 * QUEUE_SEEN;
        self.yield_to_others(seen);
    }

    /// Delay of the acknowledged segment in queues.
    fn queue(&self, ack: &Ack) -> Nanos {
        let rtt = ack.rtt.unwrap_or(ack.srtt);
        rtt.saturating_sub(self.min_rtt)
    }

    /// Time to the next probe: so many round trips for each segment of the
    /// window, within bounds. Flows with a larger share wait longer.
    fn wait(&mut self, rounds: f64, bounds: RangeInclusive<Nanos>) -> Nanos {
        let rounds = (self.target_inflight() / self.mss) as f64 * rounds;
        let wait = (rounds * self.min_rtt as f64) as Nanos;
        let wait = wait.clamp(*bounds.start(), *bounds.end());
        wait + self.random(300) * (wait / 1000)
    }

    pub(super) fn raise_inflight_hi(&mut self, ack: &Ack) {
        if !ack.cwnd_limited || self.cwnd < self.inflight_hi {
            return;
        }
        self.up_acks += ack.delivered;
        if self.up_acks >= self.up_count {
            let delta = self.up_acks / self.up_count;
            self.up_acks -= delta * self.up_count;
            self.inflight_hi = self.inflight_hi.saturating_add(delta);
        }
        if self.round_start {
            self.raise_slope();
        }
    }

    pub(super) fn update_min_rtt(&mut self, ack: &Ack) {
        self.probe_rtt_expired = ack.now > self.probe_rtt_min_at + PROBE_RTT_INTERVAL;
        if let Some(rtt) = ack.rtt {
            if rtt < self.probe_rtt_min || self.probe_rtt_expired {
                self.probe_rtt_min = rtt;
                self.probe_rtt_min_at = ack.now;
            } else if rtt <= self.probe_rtt_min + self.probe_rtt_min / 64 {
                // As good as the minimum: no need to drain the path to see it.
                self.probe_rtt_min_at = ack.now;
            }
        }
        let expired = ack.now > self.min_rtt_at + MIN_RTT_WINDOW;
        if self.probe_rtt_min <= self.min_rtt || expired {
            self.min_rtt = self.probe_rtt_min;
            self.min_rtt_at = self.probe_rtt_min_at;
        }
    }

    pub(super) fn check_probe_rtt(&mut self, ack: &Ack) {
        if self.state != State::ProbeRtt
            && self.probe_rtt_expired
            && !self.idle_restart
            && self.best_bw() > 0
        {
            self.prior_cwnd = self.prior_cwnd.max(self.cwnd);
            self.state = State::ProbeRtt;
            self.probe_rtt_done = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round(ack.total_delivered);
        }
        if self.state != State::ProbeRtt {
            return;
        }
        match self.probe_rtt_done {
            None => {
                if ack.in_flight <= self.probe_rtt_cwnd() {
                    self.probe_rtt_done = Some(ack.now + PROBE_RTT_DURATION);
                    self.probe_rtt_round_done = false;
                    self.start_round(ack.total_delivered);
                }
            }
            Some(_) => {
                self.probe_rtt_round_done |= self.round_start;
                if self.probe_rtt_round_done && self.check_probe_rtt_done(ack.now) {
                    self.exit_probe_rtt(ack);
                }
            }
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, now: Nanos) -> bool {
        if self.probe_rtt_done.is_none_or(|at| now <= at) {
            return false;
        }
        self.probe_rtt_min_at = now;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.prior_cwnd = 0;
        true
    }

    pub(super) fn exit_probe_rtt(&mut self, ack: &Ack) {
        self.reset_lower_bounds();
        if self.full_bw_reached {
            self.start_down(ack);
            self.state = State::Cruise;
        } else {
            self.state = State::Startup;
        }
    }

    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp(self.bw, PROBE_RTT_CWND_GAIN).max(4 * self.mss)
    }
}
