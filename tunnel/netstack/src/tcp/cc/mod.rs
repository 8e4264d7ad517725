//! Congestion control.

mod bbr;
mod cubic;

use super::Nanos;
use super::rate::RateSample;
use crate::CongestionControl;
use bbr::Bbr;
use cubic::Cubic;

/// Initial window in segments (RFC 6928).
pub(crate) const INITIAL_SEGMENTS: u64 = 10;

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) now: Nanos,
    /// Bytes newly delivered.
    pub(crate) delivered: u64,
    /// Bytes newly marked lost.
    pub(crate) lost: u64,
    /// Bytes in flight now.
    pub(crate) in_flight: u64,
    /// RTT sample of this acknowledgement.
    pub(crate) rtt: Option<Nanos>,
    pub(crate) srtt: Nanos,
    pub(crate) rate: Option<RateSample>,
    /// All bytes delivered so far.
    pub(crate) total_delivered: u64,
    /// All bytes marked lost so far.
    pub(crate) total_lost: u64,
    /// Acknowledged offset and the next to be sent.
    pub(crate) una: u64,
    pub(crate) next: u64,
    pub(crate) in_recovery: bool,
    /// The window, not the application, limited the sender.
    pub(crate) cwnd_limited: bool,
}

/// The controller of one connection.
#[derive(Debug)]
pub(crate) enum Controller {
    Bbr(Box<Bbr>),
    Cubic(Box<Cubic>),
}

macro_rules! each {
    ($self:ident, $cc:ident => $call:expr) => {
        match $self {
            Self::Bbr($cc) => $call,
            Self::Cubic($cc) => $call,
        }
    };
}

impl Controller {
    pub(crate) fn new(kind: CongestionControl, mss: u64, seed: u64, now: Nanos) -> Self {
        match kind {
            CongestionControl::Bbr => Self::Bbr(Box::new(Bbr::new(mss, seed, now))),
            CongestionControl::Cubic => Self::Cubic(Box::new(Cubic::new(mss))),
        }
    }

    /// Congestion window in bytes.
    pub(crate) fn cwnd(&self) -> u64 {
        each!(self, cc => cc.cwnd())
    }

    /// Bytes per second, if the controller wants pacing.
    pub(crate) fn pacing_rate(&self, srtt: Option<Nanos>) -> Option<u64> {
        each!(self, cc => cc.pacing_rate(srtt))
    }

    pub(crate) fn set_mss(&mut self, mss: u64) {
        each!(self, cc => cc.set_mss(mss));
    }

    /// A segment is about to be sent, `in_flight` bytes being out already.
    pub(crate) fn on_send(&mut self, now: Nanos, in_flight: u64, app_limited: bool) {
        each!(self, cc => cc.on_send(now, in_flight, app_limited));
    }

    /// `bytes` were sent, new or again.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        match self {
            // What is in flight tells it all it wants to know.
            Self::Bbr(_) => {}
            Self::Cubic(cubic) => cubic.on_sent(bytes),
        }
    }

    pub(crate) fn on_ack(&mut self, ack: &Ack) {
        each!(self, cc => cc.on_ack(ack));
    }

    /// First loss of a recovery episode.
    pub(crate) fn on_congestion(&mut self, now: Nanos, in_flight: u64, next: u64) {
        each!(self, cc => cc.on_congestion(now, in_flight, next));
    }

    pub(crate) fn on_recovery_end(&mut self, now: Nanos) {
        each!(self, cc => cc.on_recovery_end(now));
    }

    /// Retransmission timeout; everything in flight was marked lost.
    pub(crate) fn on_timeout(&mut self, now: Nanos, in_flight: u64) {
        each!(self, cc => cc.on_timeout(now, in_flight));
    }

    /// The last reduction was unnecessary.
    pub(crate) fn undo(&mut self, now: Nanos) {
        each!(self, cc => cc.undo(now));
    }

    /// The path is a new one.
    pub(crate) fn on_path_change(&mut self, now: Nanos) {
        each!(self, cc => cc.on_path_change(now));
    }
}
