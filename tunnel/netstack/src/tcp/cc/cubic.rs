//! CUBIC (RFC 9438) with HyStart++ (RFC 9406) and proportional rate reduction
//! (RFC 9937).

use super::{Ack, INITIAL_SEGMENTS};
use crate::tcp::{MILLIS, Nanos};

/// Multiplicative decrease.
const BETA: f64 = 0.7;
/// Scaling constant, segments per second cubed.
const C: f64 = 0.4;

/// HyStart++ constants (RFC 9406 §4.3).
const MIN_RTT_THRESH: Nanos = 4 * MILLIS;
const MAX_RTT_THRESH: Nanos = 16 * MILLIS;
const RTT_SAMPLES: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

#[derive(Clone, Copy, Debug)]
struct Saved {
    cwnd: u64,
    ssthresh: u64,
    w_max: f64,
    epoch: Option<Nanos>,
}

/// Slow-start exit by delay increase.
#[derive(Clone, Copy, Debug)]
struct HyStart {
    round_end: u64,
    last_round_min: Nanos,
    round_min: Nanos,
    samples: u32,
    /// In conservative slow start: rounds left and the baseline RTT.
    css: Option<(u32, Nanos)>,
}

/// Proportional rate reduction during one recovery.
#[derive(Clone, Copy, Debug)]
struct Reduction {
    /// In flight when it began.
    flight: u64,
    delivered: u64,
    out: u64,
    una: u64,
}

/// CUBIC; windows in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Cubic {
    mss: u64,
    cwnd: u64,
    ssthresh: u64,
    w_max: f64,
    /// Start of the current congestion avoidance epoch.
    epoch: Option<Nanos>,
    k: f64,
    w_est: f64,
    cwnd_epoch: f64,
    /// Fraction of a byte not yet added.
    remainder: f64,
    hystart: HyStart,
    saved: Option<Saved>,
    reduction: Option<Reduction>,
    last_send: Nanos,
}

impl Cubic {
    pub(crate) fn new(mss: u64) -> Self {
        Self {
            mss,
            cwnd: INITIAL_SEGMENTS * mss,
            ssthresh: u64::MAX,
            w_max: 0.0,
            epoch: None,
            k: 0.0,
            w_est: 0.0,
            cwnd_epoch: 0.0,
            remainder: 0.0,
            hystart: HyStart {
                round_end: 0,
                last_round_min: Nanos::MAX,
                round_min: Nanos::MAX,
                samples: 0,
                css: None,
            },
            saved: None,
            reduction: None,
            last_send: 0,
        }
    }

    pub(crate) fn cwnd(&self) -> u64 {
        self.cwnd
    }

    /// Twice the window per RTT in slow start, 1.2 times afterwards.
    pub(crate) fn pacing_rate(&self, srtt: Option<Nanos>) -> Option<u64> {
        let srtt = srtt?.max(1);
        let percent = if self.cwnd < self.ssthresh { 200 } else { 120 };
        Some((u128::from(self.cwnd) * percent * 10_000_000 / u128::from(srtt)) as u64)
    }

    pub(crate) fn set_mss(&mut self, mss: u64) {
        self.mss = mss;
        self.cwnd = self.cwnd.max(2 * mss);
    }

    pub(crate) fn on_send(&mut self, now: Nanos, in_flight: u64, _app_limited: bool) {
        // After an idle time the window is no longer validated; a second
        // is taken for that, pacing spreads what is left.
        if in_flight == 0 && self.last_send != 0 {
            let mut idle = now.saturating_sub(self.last_send);
            while idle > 1000 * MILLIS && self.cwnd > INITIAL_SEGMENTS * self.mss {
                self.cwnd = (self.cwnd / 2).max(INITIAL_SEGMENTS * self.mss);
                idle -= 1000 * MILLIS;
                self.epoch = None;
            }
        }
        self.last_send = now;
    }

    pub(crate) fn on_ack(&mut self, ack: &Ack) {
        if ack.delivered == 0 {
            return;
        }
        if self.reduction.is_some() {
            self.reduce_further(ack);
        } else if self.cwnd < self.ssthresh {
            self.slow_start(ack);
        } else if ack.cwnd_limited {
            self.avoidance(ack);
        }
    }

    pub(crate) fn on_sent(&mut self, bytes: u64) {
        if let Some(reduction) = &mut self.reduction {
            reduction.out += bytes;
        }
    }

    /// RFC 9937 §6: what may be sent in answer to this acknowledgement.
    fn reduce_further(&mut self, ack: &Ack) {
        let Some(r) = &mut self.reduction else { return };
        r.delivered += ack.delivered;
        let safe = ack.una > r.una && ack.lost == 0;
        r.una = ack.una;
        let count = if ack.in_flight > self.ssthresh {
            let allowed = u128::from(r.delivered) * u128::from(self.ssthresh);
            let allowed = allowed.div_ceil(u128::from(r.flight)) as u64;
            allowed.saturating_sub(r.out)
        } else {
            let extra = if safe { self.mss } else { 0 };
            let count = r.delivered.saturating_sub(r.out).max(ack.delivered) + extra;
            count.min(self.ssthresh - ack.in_flight)
        };
        self.cwnd = ack.in_flight + count;
    }

    fn slow_start(&mut self, ack: &Ack) {
        self.hystart(ack);
        if ack.cwnd_limited && self.cwnd < self.ssthresh {
            let divisor = if self.hystart.css.is_some() {
                CSS_GROWTH_DIVISOR
            } else {
                1
            };
            self.cwnd += ack.delivered / divisor;
        }
    }

    /// RFC 9406 §4.2.
    fn hystart(&mut self, ack: &Ack) {
        let h = &mut self.hystart;
        if ack.una >= h.round_end {
            h.round_end = ack.next;
            h.last_round_min = h.round_min;
            h.round_min = Nanos::MAX;
            h.samples = 0;
            if let Some((rounds, _)) = &mut h.css {
                *rounds = rounds.saturating_sub(1);
                if *rounds == 0 {
                    self.ssthresh = self.cwnd;
                    return;
                }
            }
        }
        let Some(rtt) = ack.rtt else { return };
        h.round_min = h.round_min.min(rtt);
        h.samples += 1;
        if h.samples < RTT_SAMPLES {
            return;
        }
        match h.css {
            None => {
                if h.round_min != Nanos::MAX && h.last_round_min != Nanos::MAX {
                    let thresh = (h.last_round_min / 8).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                    if h.round_min >= h.last_round_min + thresh {
                        h.css = Some((CSS_ROUNDS, h.round_min));
                    }
                }
            }
            Some((_, baseline)) => {
                if h.round_min < baseline {
                    h.css = None;
                }
            }
        }
    }

    /// RFC 9438 §4.2 to §4.5.
    fn avoidance(&mut self, ack: &Ack) {
        let mss = self.mss as f64;
        let cwnd = self.cwnd as f64 / mss;
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.cwnd_epoch = cwnd;
            self.w_est = cwnd;
            if self.w_max < cwnd {
                self.w_max = cwnd;
            }
            self.k = ((self.w_max - cwnd) / C).cbrt();
            ack.now
        });
        let acked = ack.delivered as f64 / mss;
        let alpha = if self.w_est < self.w_max {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        } else {
            1.0
        };
        self.w_est += alpha * acked / cwnd;
        let t = (ack.now.saturating_sub(epoch) + ack.srtt) as f64 / 1e9;
        let w_cubic = C * (t - self.k).powi(3) + self.w_max;
        let target = w_cubic.clamp(cwnd, 1.5 * cwnd).max(self.w_est);
        let grow =
            ((target - cwnd) / cwnd * acked * mss).min(ack.delivered as f64) + self.remainder;
        let whole = grow.max(0.0) as u64;
        self.remainder = grow - whole as f64;
        self.cwnd += whole;
    }

    fn save(&mut self) {
        self.saved = Some(Saved {
            cwnd: self.cwnd,
            ssthresh: self.ssthresh,
            w_max: self.w_max,
            epoch: self.epoch,
        });
    }

    fn reduce(&mut self) {
        let mss = self.mss as f64;
        let cwnd = self.cwnd as f64 / mss;
        // Fast convergence (RFC 9438 §4.7).
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.ssthresh = ((self.cwnd as f64 * BETA) as u64).max(2 * self.mss);
        self.epoch = None;
        self.hystart.css = None;
    }

    pub(crate) fn on_congestion(&mut self, _now: Nanos, in_flight: u64, _next: u64) {
        self.save();
        self.reduce();
        self.cwnd = self.ssthresh;
        self.reduction = Some(Reduction {
            flight: in_flight.max(self.mss),
            delivered: 0,
            out: 0,
            una: 0,
        });
    }

    pub(crate) fn on_recovery_end(&mut self, _now: Nanos) {
        if self.reduction.take().is_some() {
            self.cwnd = self.ssthresh;
        }
    }

    pub(crate) fn on_timeout(&mut self, _now: Nanos, _in_flight: u64) {
        self.save();
        self.reduce();
        self.reduction = None;
        self.cwnd = 2 * self.mss;
    }

    pub(crate) fn undo(&mut self, _now: Nanos) {
        self.reduction = None;
        if let Some(saved) = self.saved.take() {
            self.cwnd = self.cwnd.max(saved.cwnd);
            self.ssthresh = self.ssthresh.max(saved.ssthresh);
            self.w_max = saved.w_max;
            self.epoch = saved.epoch;
        }
    }

    pub(crate) fn on_path_change(&mut self, _now: Nanos) {
        *self = Self::new(self.mss);
    }
}
