//! A model-based controller after draft-ietf-ccwg-bbr (BBR version 3): it paces
//! at the measured delivery rate, keeps about one bandwidth-delay product in
//! flight, and bounds itself when loss shows that this is too much.

use super::{Ack, INITIAL_SEGMENTS};
use crate::tcp::rate::RateSample;
use crate::tcp::{MILLIS, Nanos, SECS};

const STARTUP_PACING_GAIN: f64 = 2.77;
const DRAIN_PACING_GAIN: f64 = 0.5;
const DOWN_PACING_GAIN: f64 = 0.9;
const UP_PACING_GAIN: f64 = 1.25;
const CWND_GAIN: f64 = 2.0;
const UP_CWND_GAIN: f64 = 2.25;
const PROBE_RTT_CWND_GAIN: f64 = 0.5;
/// Part of the estimated rate that is not used, to drain queues.
const PACING_MARGIN: f64 = 0.99;
/// Loss rate above which the volume in flight is taken to be too high.
const LOSS_THRESHOLD: f64 = 0.02;
/// Standard deviations of random loss that are tolerated on top.
const LOSS_DEVIATIONS: f64 = 3.0;
/// Packets over which the path's own loss rate is averaged.
const BASE_LOSS_PACKETS: f64 = 16384.0;
/// Loss rate that ends startup once the rate stops growing.
const STARTUP_LOSS_THRESHOLD: f64 = 0.06;
const BETA: f64 = 0.7;
/// Part of the upper bound left free for other flows.
const HEADROOM: f64 = 0.15;
const FULL_BW_GROWTH: f64 = 1.25;
const FULL_BW_ROUNDS: u32 = 3;
/// Lost segments in a round that end startup if the rate is above the threshold.
const STARTUP_LOSSES: u64 = 6;
const PROBE_RTT_INTERVAL: Nanos = 5 * SECS;
const MIN_RTT_WINDOW: Nanos = 10 * SECS;
const PROBE_RTT_DURATION: Nanos = 200 * MILLIS;
/// Largest window before the model has an estimate.
const MAX_CWND: u64 = 64 << 20;
const UNLIMITED: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

/// Where the acknowledgements being processed stem from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// State of the controller; windows in bytes, rates in bytes per second.
#[derive(Clone, Debug)]
pub(crate) struct Bbr {
    mss: u64,
    state: State,
    cwnd: u64,
    prior_cwnd: u64,
    pacing_rate: Option<u64>,
    rng: u64,
    // Rounds.
    next_round: u64,
    round_start: bool,
    rounds: u64,
    // Rate model: the maximum over the last two probing cycles.
    max_bw: [u64; 2],
    bw: u64,
    bw_lo: u64,
    // Volume model.
    inflight_hi: u64,
    inflight_lo: u64,
    // Latest signals.
    loss_round: u64,
    loss_round_start: bool,
    loss_in_round: bool,
    bw_latest: u64,
    inflight_latest: u64,
    round_lost: u64,
    round_delivered: u64,
    /// Least RTT of the loss round, of the one before, and the loss rate that
    /// the path shows without any queue.
    round_rtt: Nanos,
    base_lost: f64,
    base_sent: f64,
    loss_mark: (u64, u64),
    // Startup.
    full_bw: u64,
    full_bw_count: u32,
    full_bw_now: bool,
    full_bw_reached: bool,
    // Propagation delay.
    min_rtt: Nanos,
    min_rtt_at: Nanos,
    probe_rtt_min: Nanos,
    probe_rtt_min_at: Nanos,
    probe_rtt_expired: bool,
    probe_rtt_done: Option<Nanos>,
    probe_rtt_round_done: bool,
    idle_restart: bool,
    // Probing cycle.
    cycle_at: Nanos,
    probe_wait: Nanos,
    rounds_since_probe: u64,
    ack_phase: AckPhase,
    probe_samples: bool,
    up_rounds: u32,
    up_acks: u64,
    up_count: u64,
    // Aggregation of acknowledgements.
    extra_start: Nanos,
    extra_delivered: u64,
    extra: [u64; 2],
    extra_rounds: u32,
    saved: Option<(u64, u64, u64)>,
}

impl Bbr {
    pub(crate) fn new(mss: u64, seed: u64) -> Self {
        Self {
            mss,
            state: State::Startup,
            cwnd: INITIAL_SEGMENTS * mss,
            prior_cwnd: 0,
            pacing_rate: None,
            rng: seed | 1,
            next_round: 0,
            round_start: false,
            rounds: 0,
            max_bw: [0; 2],
            bw: 0,
            bw_lo: UNLIMITED,
            inflight_hi: UNLIMITED,
            inflight_lo: UNLIMITED,
            loss_round: 0,
            loss_round_start: false,
            loss_in_round: false,
            bw_latest: 0,
            inflight_latest: 0,
            round_lost: 0,
            round_delivered: 0,
            round_rtt: Nanos::MAX,
            base_lost: 0.0,
            base_sent: 0.0,
            loss_mark: (0, 0),
            full_bw: 0,
            full_bw_count: 0,
            full_bw_now: false,
            full_bw_reached: false,
            min_rtt: Nanos::MAX,
            min_rtt_at: 0,
            probe_rtt_min: Nanos::MAX,
            probe_rtt_min_at: 0,
            probe_rtt_expired: false,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            idle_restart: false,
            cycle_at: 0,
            probe_wait: 2 * SECS,
            rounds_since_probe: 0,
            ack_phase: AckPhase::Init,
            probe_samples: false,
            up_rounds: 0,
            up_acks: 0,
            up_count: UNLIMITED,
            extra_start: 0,
            extra_delivered: 0,
            extra: [0; 2],
            extra_rounds: 0,
            saved: None,
        }
    }

    pub(crate) fn cwnd(&self) -> u64 {
        self.cwnd
    }

    pub(crate) fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(4 * mss);
    }

    /// Before the first sample the initial window is spread over the smoothed
    /// RTT of the handshake.
    pub(crate) fn pacing_rate(&self, srtt: Option<Nanos>) -> Option<u64> {
        self.pacing_rate.or_else(|| {
            let srtt = srtt?.max(MILLIS / 10);
            Some((STARTUP_PACING_GAIN * self.cwnd as f64 * 1e9 / srtt as f64) as u64)
        })
    }

    fn pacing_gain(&self) -> f64 {
        match self.state {
            State::Startup => STARTUP_PACING_GAIN,
            State::Drain => DRAIN_PACING_GAIN,
            State::Down => DOWN_PACING_GAIN,
            State::Up => UP_PACING_GAIN,
            State::Cruise | State::Refill | State::ProbeRtt => 1.0,
        }
    }

    fn cwnd_gain(&self) -> f64 {
        match self.state {
            State::Up => UP_CWND_GAIN,
            State::ProbeRtt => PROBE_RTT_CWND_GAIN,
            _ => CWND_GAIN,
        }
    }

    fn best_bw(&self) -> u64 {
        self.max_bw[0].max(self.max_bw[1])
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.rng % below
    }

    fn in_probe_bw(&self) -> bool {
        matches!(
            self.state,
            State::Down | State::Cruise | State::Refill | State::Up
        )
    }

    /// Bytes of one bandwidth-delay product times `gain`.
    fn bdp(&self, bw: u64, gain: f64) -> u64 {
        if self.min_rtt == Nanos::MAX {
            return INITIAL_SEGMENTS * self.mss;
        }
        (gain * bw as f64 * self.min_rtt as f64 / 1e9) as u64
    }

    fn send_quantum(&self) -> u64 {
        let rate = self.pacing_rate.unwrap_or(0);
        (rate / 1000).clamp(2 * self.mss, 64 << 10)
    }

    /// Volume that keeps the pipe full at `bw`, with allowance for batching.
    fn inflight(&self, bw: u64, gain: f64) -> u64 {
        let mut inflight = self
            .bdp(bw, gain)
            .max(3 * self.send_quantum())
            .max(4 * self.mss);
        if self.state == State::Up {
            inflight += 2 * self.mss;
        }
        inflight
    }

    fn inflight_with_headroom(&self) -> u64 {
        if self.inflight_hi == UNLIMITED {
            return UNLIMITED;
        }
        let headroom = ((self.inflight_hi as f64 * HEADROOM) as u64).max(self.mss);
        self.inflight_hi.saturating_sub(headroom).max(4 * self.mss)
    }

    fn target_inflight(&self) -> u64 {
        self.bdp(self.bw, 1.0).min(self.cwnd)
    }

    pub(crate) fn on_send(&mut self, now: Nanos, in_flight: u64, app_limited: bool) {
        if in_flight == 0 && app_limited {
            self.idle_restart = true;
            self.extra_start = now;
            self.extra_delivered = 0;
            if self.in_probe_bw() {
                self.pacing_rate = Some((self.bw as f64 * PACING_MARGIN) as u64).filter(|&r| r > 0);
            }
        }
    }

    pub(crate) fn on_ack(&mut self, ack: &Ack) {
        let sample = ack.rate;
        self.update_signals(ack, sample.as_ref());
        self.update_aggregation(ack);
        self.check_full_bw(sample.as_ref());
        self.check_startup_loss(ack);
        if self.state == State::Startup && self.full_bw_reached {
            self.state = State::Drain;
        }
        if self.state == State::Drain && ack.in_flight <= self.inflight(self.best_bw(), 1.0) {
            self.start_down(ack);
        }
        self.update_cycle(ack, sample.as_ref());
        self.update_min_rtt(ack);
        self.check_probe_rtt(ack);
        if self.loss_round_start {
            self.bw_latest = sample.map_or(0, |s| s.rate);
            self.inflight_latest = sample.map_or(0, |s| s.delivered);
        }
        if self.round_start {
            self.round_lost = ack.total_lost;
            self.round_delivered = ack.total_delivered;
        }
        self.bw = self.best_bw().min(self.bw_lo);
        self.set_pacing_rate(ack);
        self.set_cwnd(ack);
        if ack.delivered > 0 {
            self.idle_restart = false;
        }
    }

    // Signals ---------------------------------------------------------------

    fn update_signals(&mut self, ack: &Ack, sample: Option<&RateSample>) {
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
    fn saw_queue(&self) -> bool {
        self.round_rtt != Nanos::MAX
            && self.min_rtt != Nanos::MAX
            && self.round_rtt > self.min_rtt + (self.min_rtt / 4).max(2 * MILLIS)
    }

    /// Loss in a round bounds rate and volume from above until the next probe.
    /// Unlike the draft, loss at a rate below the threshold on a path without a
    /// queue is taken as the path's own: yielding to it would not reduce it.
    fn adapt_lower_bounds(&mut self, ack: &Ack) {
        let lost = ack.total_lost - self.loss_mark.0;
        let sent = lost + ack.total_delivered - self.loss_mark.1;
        let queue = self.saw_queue();
        if !queue {
            self.base_sent += sent as f64;
            self.base_lost += (lost as f64).min(LOSS_THRESHOLD * sent as f64);
            if self.base_sent > BASE_LOSS_PACKETS * self.mss as f64 {
                self.base_sent /= 2.0;
                self.base_lost /= 2.0;
            }
        }
        let probing = matches!(self.state, State::Startup | State::Refill | State::Up);
        if probing {
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
        self.bw_lo = self.bw_latest.max((self.bw_lo as f64 * BETA) as u64);
        self.inflight_lo = self
            .inflight_latest
            .max((self.inflight_lo as f64 * BETA) as u64);
    }

    /// Whether `lost` out of `sent` bytes is more than the threshold, with an
    /// allowance of some standard deviations for the path's own losses.
    fn too_much_loss(&self, lost: u64, sent: u64) -> bool {
        let packets = (sent / self.mss) as f64;
        let base = self.base_lost / self.base_sent.max(1.0);
        let noise = LOSS_DEVIATIONS * (packets * base).sqrt() * self.mss as f64;
        lost as f64 > LOSS_THRESHOLD * sent as f64 + noise
    }

    fn reset_lower_bounds(&mut self) {
        self.bw_lo = UNLIMITED;
        self.inflight_lo = UNLIMITED;
    }

    fn reset_signals(&mut self) {
        self.loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    fn start_round(&mut self, delivered: u64) {
        self.next_round = delivered;
    }

    fn update_aggregation(&mut self, ack: &Ack) {
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

    // Startup ---------------------------------------------------------------

    fn reset_full_bw(&mut self, bw: u64) {
        self.full_bw = bw;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    fn check_full_bw(&mut self, sample: Option<&RateSample>) {
        let Some(sample) = sample else { return };
        if self.full_bw_now || !self.round_start || sample.app_limited {
            return;
        }
        if sample.rate as f64 >= self.full_bw as f64 * FULL_BW_GROWTH {
            self.reset_full_bw(sample.rate);
            return;
        }
        self.full_bw_count += 1;
        self.full_bw_now = self.full_bw_count >= FULL_BW_ROUNDS;
        self.full_bw_reached |= self.full_bw_now;
    }

    fn check_startup_loss(&mut self, ack: &Ack) {
        if self.full_bw_reached || !self.round_start || !ack.in_recovery {
            return;
        }
        let lost = ack.total_lost - self.round_lost;
        let delivered = ack.total_delivered - self.round_delivered;
        if lost >= STARTUP_LOSSES * self.mss
            && lost as f64 > STARTUP_LOSS_THRESHOLD * (lost + delivered) as f64
            && self.full_bw_count > 0
        {
            self.full_bw_reached = true;
            self.inflight_hi = self.bdp(self.best_bw(), 1.0).max(self.inflight_latest);
        }
    }

    // Probing for bandwidth -------------------------------------------------

    fn start_down(&mut self, ack: &Ack) {
        self.reset_signals();
        self.up_count = UNLIMITED;
        self.rounds_since_probe = self.random(2);
        self.probe_wait = 2 * SECS + self.random(1000) * MILLIS;
        self.cycle_at = ack.now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round(ack.total_delivered);
        self.state = State::Down;
    }

    fn start_refill(&mut self, ack: &Ack) {
        self.reset_lower_bounds();
        self.up_rounds = 0;
        self.up_acks = 0;
        self.ack_phase = AckPhase::Refilling;
        self.start_round(ack.total_delivered);
        self.state = State::Refill;
    }

    fn start_up(&mut self, ack: &Ack, sample: Option<&RateSample>) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round(ack.total_delivered);
        self.reset_full_bw(sample.map_or(0, |s| s.rate));
        self.state = State::Up;
        self.raise_slope();
    }

    fn raise_slope(&mut self) {
        let growth = self.mss.max(self.cwnd / 32) << self.up_rounds;
        self.up_rounds = (self.up_rounds + 1).min(16);
        self.up_count = (self.cwnd / growth.max(1)).max(1);
    }

    fn update_cycle(&mut self, ack: &Ack, sample: Option<&RateSample>) {
        if !self.full_bw_reached {
            return;
        }
        if let Some(sample) = sample {
            self.adapt_upper_bounds(ack, sample);
        }
        match self.state {
            State::Down => {
                if !self.check_time_to_probe(ack) && self.time_to_cruise(ack) {
                    self.state = State::Cruise;
                }
            }
            State::Cruise => {
                self.check_time_to_probe(ack);
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

    fn check_time_to_probe(&mut self, ack: &Ack) -> bool {
        // As often as a Reno flow of this size would have recovered its window.
        let reno_rounds = (self.target_inflight() / self.mss).min(63);
        let due = ack.now.saturating_sub(self.cycle_at) > self.probe_wait
            || self.rounds_since_probe >= reno_rounds.max(1);
        if due {
            self.start_refill(ack);
        }
        due
    }

    fn time_to_cruise(&self, ack: &Ack) -> bool {
        ack.in_flight <= self.inflight_with_headroom()
            && ack.in_flight <= self.inflight(self.best_bw(), 1.0)
    }

    fn time_to_go_down(&mut self, ack: &Ack, sample: Option<&RateSample>) -> bool {
        if ack.cwnd_limited && self.cwnd >= self.inflight_hi {
            self.reset_full_bw(sample.map_or(0, |s| s.rate));
            false
        } else {
            self.full_bw_now
        }
    }

    fn adapt_upper_bounds(&mut self, ack: &Ack, sample: &RateSample) {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.probe_samples = false;
            self.ack_phase = AckPhase::Init;
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

    fn inflight_too_high(&mut self, ack: &Ack, sample: &RateSample) {
        self.probe_samples = false;
        if !sample.app_limited {
            let least = (self.target_inflight() as f64 * BETA) as u64;
            self.inflight_hi = sample.tx_in_flight.max(least);
        }
        if self.state == State::Up {
            self.start_down(ack);
        }
    }

    fn raise_inflight_hi(&mut self, ack: &Ack) {
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

    // Probing for the propagation delay --------------------------------------

    fn update_min_rtt(&mut self, ack: &Ack) {
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

    fn check_probe_rtt(&mut self, ack: &Ack) {
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

    fn check_probe_rtt_done(&mut self, now: Nanos) -> bool {
        if self.probe_rtt_done.is_none_or(|at| now <= at) {
            return false;
        }
        self.probe_rtt_min_at = now;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.prior_cwnd = 0;
        true
    }

    fn exit_probe_rtt(&mut self, ack: &Ack) {
        self.reset_lower_bounds();
        if self.full_bw_reached {
            self.start_down(ack);
            self.state = State::Cruise;
        } else {
            self.state = State::Startup;
        }
    }

    fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp(self.bw, PROBE_RTT_CWND_GAIN).max(4 * self.mss)
    }

    // Control ---------------------------------------------------------------

    fn set_pacing_rate(&mut self, ack: &Ack) {
        if self.bw == 0 {
            return;
        }
        let rate = (self.pacing_gain() * self.bw as f64 * PACING_MARGIN) as u64;
        let current = self.pacing_rate(Some(ack.srtt)).unwrap_or(0);
        if self.full_bw_reached || rate > current {
            self.pacing_rate = Some(rate.max(1));
        } else {
            self.pacing_rate = Some(current.max(1));
        }
    }

    fn set_cwnd(&mut self, ack: &Ack) {
        let max_inflight =
            self.inflight(self.bw, self.cwnd_gain()) + self.extra[0].max(self.extra[1]);
        if self.full_bw_reached {
            self.cwnd = (self.cwnd + ack.delivered).min(max_inflight);
        } else if (self.cwnd < max_inflight || ack.total_delivered < INITIAL_SEGMENTS * self.mss)
            && self.cwnd < MAX_CWND
        {
            self.cwnd += ack.delivered;
        }
        self.cwnd = self.cwnd.max(4 * self.mss);
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        let cap = match self.state {
            State::Down | State::Refill | State::Up => self.inflight_hi,
            // What the model says fits without a queue needs no headroom.
            State::Cruise => self
                .inflight_with_headroom()
                .max(self.inflight_hi.min(self.inflight(self.bw, 1.0))),
            State::ProbeRtt => self.inflight_with_headroom(),
            State::Startup | State::Drain => UNLIMITED,
        };
        let cap = cap.min(self.inflight_lo).max(4 * self.mss);
        self.cwnd = self.cwnd.min(cap);
    }

    fn save(&mut self) {
        self.saved = Some((self.bw_lo, self.inflight_lo, self.inflight_hi));
    }

    pub(crate) fn on_congestion(&mut self, _now: Nanos, _in_flight: u64, _next: u64) {
        self.save();
    }

    pub(crate) fn on_recovery_end(&mut self, _now: Nanos) {
        if self.state != State::ProbeRtt && self.prior_cwnd > 0 {
            self.cwnd = self.cwnd.max(self.prior_cwnd);
            self.prior_cwnd = 0;
        }
    }

    pub(crate) fn on_timeout(&mut self, _now: Nanos, in_flight: u64) {
        self.save();
        self.prior_cwnd = self.prior_cwnd.max(self.cwnd);
        self.cwnd = (in_flight + self.mss).max(4 * self.mss);
    }

    pub(crate) fn undo(&mut self, _now: Nanos) {
        if let Some((bw_lo, inflight_lo, inflight_hi)) = self.saved.take() {
            self.bw_lo = self.bw_lo.max(bw_lo);
            self.inflight_lo = self.inflight_lo.max(inflight_lo);
            self.inflight_hi = self.inflight_hi.max(inflight_hi);
        }
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.prior_cwnd = 0;
    }

    pub(crate) fn on_path_change(&mut self, _now: Nanos) {
        *self = Self::new(self.mss, self.rng);
    }
}
