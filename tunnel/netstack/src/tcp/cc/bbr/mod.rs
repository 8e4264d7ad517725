//! A model-based controller after draft-ietf-ccwg-bbr (BBR version 3): it paces
//! at the measured delivery rate, keeps about one bandwidth-delay product in
//! flight, and bounds itself when loss shows that this is too much.
//!
//! Where it differs from the draft:
//! - Loss at a rate the path shows without any queue is taken as the path's
//!   own. It neither lowers the short-term bounds nor ends a probe; the
//!   threshold of 2 % is widened by the statistical spread of such losses.
//! - A probe ends with the first queue of half a round trip that brings no more
//!   rate, and comes every 0.3 to 2 s, the later the larger the window: queues
//!   stay short, and flows that start late get their share sooner.
//! - While a queue stands that the flows together have caused, every second
//!   probe gives way to draining it.
//! - Where queues are too short to be seen by a probe, probes are what others
//!   suffer from: after one that cost too many losses the next comes later, in
//!   proportion to the window, so that flows with a small share catch up. If a
//!   queue had grown while this flow did not, which others must have filled, it
//!   sends at 65 % of its rate until then.
//! - Losses that a probe causes count for the probe alone: those in the round
//!   that follows do not lower the short-term bounds, and the upper bound on the
//!   volume never stays below what the measured rate needs.
//! - The short-term bounds are never raised by a loss.
//! - The upper bound on the volume in flight grows from 1/32 of the window per
//!   round on, not from one segment.
//! - RTT samples as good as the minimum postpone the next drain of the path.

mod model;
mod probe;

use std::ops::RangeInclusive;

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
/// Growth per round that shows that there is more: in startup, and while
/// probing, where the pacing gain allows no more than 1.24.
const FULL_BW_GROWTH: f64 = 1.25;
const UP_BW_GROWTH: f64 = 1.1;
/// Fewer lost segments than this say nothing about the volume in flight.
const LEAST_LOSSES: u64 = 3;
const FULL_BW_ROUNDS: u32 = 3;
/// Lost segments in a round that end startup if the rate is above the threshold.
const STARTUP_LOSSES: u64 = 6;
/// Round trips per segment of the window to the next probe, and the bounds of
/// that time; the same after a probe that cost too many losses.
const PROBE_ROUNDS: f64 = 0.08;
const PROBE_WAIT: RangeInclusive<Nanos> = 300 * MILLIS..=1500 * MILLIS;
const COSTLY_ROUNDS: f64 = 0.35;
const COSTLY_WAIT: RangeInclusive<Nanos> = SECS..=4 * SECS;
/// Queue, as a part of the least RTT and at least, that is drained in the place
/// of a probe.
const QUEUE_TO_DRAIN: f64 = 0.7;
const LEAST_QUEUE: Nanos = 10 * MILLIS;
/// Queue, as a part of the least RTT, that a costly probe has seen.
const QUEUE_SEEN: f64 = 0.375;
/// Rounds with a growing queue that show that others use the path.
const CROWD_ROUNDS: u32 = 2;
/// Part of its rate at which a flow goes on after it cost others losses.
const YIELD: f64 = 0.65;
const PROBE_RTT_INTERVAL: Nanos = 5 * SECS;
const MIN_RTT_WINDOW: Nanos = 10 * SECS;
const PROBE_RTT_DURATION: Nanos = 200 * MILLIS;
/// RTT below which scheduling, not the path, sets the pace.
const LEAST_RTT: Nanos = MILLIS;
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
    /// The last probe that was due gave way to draining.
    made_room: bool,
    /// The last probe cost too many losses.
    costly: bool,
    /// Rounds since then in which others filled the queue, and the least RTT of
    /// a round of the cruise.
    crowd_rounds: u32,
    cruise_rtt: Nanos,
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
    pub(crate) fn new(mss: u64, seed: u64, now: Nanos) -> Self {
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
            min_rtt_at: now,
            probe_rtt_min: Nanos::MAX,
            probe_rtt_min_at: now,
            probe_rtt_expired: false,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            idle_restart: false,
            cycle_at: now,
            probe_wait: 2 * SECS,
            made_room: false,
            costly: false,
            crowd_rounds: 0,
            cruise_rtt: Nanos::MAX,
            rounds_since_probe: 0,
            ack_phase: AckPhase::Init,
            probe_samples: false,
            up_rounds: 0,
            up_acks: 0,
            up_count: UNLIMITED,
            extra_start: now,
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
        let rtt = self.min_rtt.max(LEAST_RTT);
        (gain * bw as f64 * rtt as f64 / 1e9) as u64
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
        let growth = if self.state == State::Up {
            UP_BW_GROWTH
        } else {
            FULL_BW_GROWTH
        };
        if sample.rate as f64 >= self.full_bw as f64 * growth {
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
            State::Cruise | State::ProbeRtt => self.inflight_with_headroom(),
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
        if !self.full_bw_reached {
            // A pause is no plateau.
            self.reset_full_bw(0);
        }
        self.prior_cwnd = self.prior_cwnd.max(self.cwnd);
        self.cwnd = (in_flight + self.mss).max(4 * self.mss);
    }

    pub(crate) fn undo(&mut self, _now: Nanos) {
        if let Some((bw_lo, inflight_lo, inflight_hi)) = self.saved.take() {
            self.bw_lo = self.bw_lo.max(bw_lo);
            self.inflight_lo = self.inflight_lo.max(inflight_lo);
            self.inflight_hi = self.inflight_hi.max(inflight_hi);
        }
        self.loss_in_round = false;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.prior_cwnd = 0;
    }

    pub(crate) fn on_path_change(&mut self, now: Nanos) {
        *self = Self::new(self.mss, self.rng, now);
    }
}
