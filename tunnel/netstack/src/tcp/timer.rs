//! Timers of a connection.

use super::{Ctx, MILLIS, Nanos, SECS, Tcb, nanos};
use crate::{CloseReason, MIN_MTU, TcpState};

/// Idle time after which grown buffers are given back.
pub(super) const IDLE_SHRINK: Nanos = 5 * SECS;
/// Allowance for the peer's delayed acknowledgement in the tail loss probe
/// timeout when only one segment is in flight.
const PEER_ACK_DELAY: Nanos = 40 * MILLIS;
/// Least tail loss probe timeout.
const MIN_TAIL: Nanos = 2 * MILLIS;
/// Unanswered retransmissions before the user timeout applies.
const LEAST_RETRIES: u32 = 5;

impl Tcb {
    /// When the connection wants [`on_timer`](Self::on_timer), at the latest.
    pub(crate) fn deadline(&self, pacing_blocked: bool) -> Option<Nanos> {
        let pace = pacing_blocked.then(|| self.pace_deadline());
        [
            pace,
            self.ack_at,
            self.retransmit_at().map(|(at, _)| at),
            self.persist_at,
            self.life_at,
            self.handshake_at,
            self.keepalive_at(),
            self.idle_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time and kind of the next retransmission timer.
    fn retransmit_at(&self) -> Option<(Nanos, Kind)> {
        if self.board.is_empty() {
            return None;
        }
        if let Some(at) = self.reorder_at {
            return Some((at, Kind::Reorder));
        }
        let rto = self.rto_base + self.rtt.rto();
        match self.tail_timeout() {
            Some(timeout) if self.tail_base + timeout < rto => {
                Some((self.tail_base + timeout, Kind::Tail))
            }
            _ => Some((rto, Kind::Timeout)),
        }
    }

    /// RFC 8985 §7.2.
    fn tail_timeout(&self) -> Option<Nanos> {
        let eligible = self.sack_on
            && self.tail_end.is_none()
            && self.recovery.is_none()
            && !self.board.has_lost()
            && !self.board.has_sacked()
            && self.rtt.backoff() == 0;
        let srtt = self.rtt.srtt().filter(|_| eligible)?;
        let delay = if self.board.len() == 1 {
            PEER_ACK_DELAY
        } else {
            0
        };
        Some((2 * srtt + delay).max(MIN_TAIL))
    }

    fn keepalive_at(&self) -> Option<Nanos> {
        let keepalive = self.keepalive?;
        if !matches!(
            self.state,
            TcpState::Established | TcpState::CloseWait | TcpState::FinWait2
        ) || !self.board.is_empty()
        {
            return None;
        }
        let idle = self.last_received + nanos(keepalive.idle);
        Some(idle + u64::from(self.keepalive_probes) * nanos(keepalive.interval))
    }

    /// Runs what is due.
    pub(crate) fn on_timer(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let due = |at: Option<Nanos>| at.is_some_and(|at| at <= now);
        if due(self.life_at) {
            self.on_life_end(ctx);
            return;
        }
        if due(self.handshake_at) {
            self.handshake_at = None;
            self.send_syn = true;
            self.rtt.back_off();
        }
        if due(self.ack_at) {
            self.ack_at = None;
            self.ack_now = true;
        }
        if due(self.persist_at) {
            self.persist_at = None;
            self.on_persist(ctx);
        }
        if due(self.idle_at) {
            self.on_idle(ctx);
        }
        if due(self.keepalive_at()) {
            self.on_keepalive(ctx);
        }
        if let Some((at, kind)) = self.retransmit_at()
            && at <= now
        {
            match kind {
                Kind::Reorder => {
                    let before = self.board.in_flight();
                    let lost = self.detect_losses(now);
                    self.update_recovery(ctx, lost, before);
                }
                Kind::Tail => {
                    self.send_tail_probe = true;
                    self.tail_end = Some(self.next);
                    self.rto_base = now;
                }
                Kind::Timeout => self.on_timeout(ctx),
            }
        }
    }

    fn on_life_end(&mut self, ctx: &mut Ctx<'_>) {
        self.life_at = None;
        match self.state {
            TcpState::Pending => {
                self.finish(ctx, CloseReason::TimedOut);
                self.send_reset = true;
            }
            TcpState::TimeWait => self.finish(ctx, CloseReason::Finished),
            _ => self.reset(ctx, CloseReason::TimedOut),
        }
    }

    /// Retransmission timeout (RFC 6298 §5.4 to §5.7).
    fn on_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        if self.rtt.backoff() >= LEAST_RETRIES
            && now.saturating_sub(self.last_progress) > nanos(ctx.cfg.user_timeout)
        {
            self.reset(ctx, CloseReason::TimedOut);
            return;
        }
        self.stats.timeouts += 1;
        self.timeouts += 1;
        self.timeout_at = now;
        // One may have been too early; several in a row are an outage.
        self.doubt = None;
        if self.timeouts == 1 {
            self.begin_doubt(now, true);
        }
        // An outage is no measure of the path's loss rate.
        let lost = self.rate.lost;
        self.board.lose_all(&mut self.rate);
        self.rate.lost = lost;
        if self.timeouts >= 2 && self.mtu > MIN_MTU {
            // Perhaps only small packets get through (RFC 8899 §4.3).
            self.set_mtu(MIN_MTU);
        }
        self.rate.restart(now);
        self.rtt.back_off();
        self.cc.on_timeout(now, self.board.in_flight());
        self.recovery = Some(self.next);
        self.rto_base = now;
        self.reorder_at = None;
        self.tail_end = None;
        self.duplicates = 0;
        self.pace_at = now;
    }

    /// Data waits for the peer's window with nothing in flight.
    pub(super) fn arm_persist(&mut self, now: Nanos) {
        if self.persist_at.is_none() {
            self.persist_at = Some(now + self.rtt.rto());
        }
    }

    fn on_persist(&mut self, ctx: &mut Ctx<'_>) {
        // Without an application to close it, a connection whose peer answers
        // but never takes data would stay for ever.
        let since = if self.released {
            self.last_progress
        } else {
            self.last_received
        };
        if self.rtt.backoff() >= LEAST_RETRIES
            && ctx.now.saturating_sub(since) > nanos(ctx.cfg.user_timeout)
        {
            self.reset(ctx, CloseReason::TimedOut);
            return;
        }
        self.rtt.back_off();
        if self.window > self.next - self.una {
            self.force_window = true;
        } else {
            self.send_probe = true;
        }
    }

    /// The peer is alive; back-off of window probes goes on only while it
    /// keeps the window shut.
    pub(super) fn persist_answered(&mut self) {
        if self.persist_at.is_some() && self.board.is_empty() && self.window > 0 {
            self.rtt.reset_backoff();
        }
    }

    fn on_keepalive(&mut self, ctx: &mut Ctx<'_>) {
        let Some(keepalive) = self.keepalive else {
            return;
        };
        if self.keepalive_probes >= keepalive.probes {
            self.reset(ctx, CloseReason::TimedOut);
            return;
        }
        self.keepalive_probes += 1;
        self.send_probe = true;
    }

    fn on_idle(&mut self, ctx: &mut Ctx<'_>) {
        self.idle_at = None;
        if self.board.is_empty() && self.send.len() == 0 {
            ctx.pool.release(self.send_reserved);
            self.send_reserved = 0;
        }
        self.recv.shrink(ctx.pool);
        self.drs_copied = 0;
    }

    /// The path to the peer works again or is another one: what waits in
    /// back-off is tried at once.
    pub(crate) fn on_path_change(&mut self, ctx: &Ctx<'_>) {
        self.cc.on_path_change(ctx.now);
        let waiting = self.rtt.backoff() > 0;
        self.rtt.restart();
        if self.handshake_at.is_some() {
            self.send_syn = true;
        } else if waiting && !self.board.is_empty() {
            self.rto_base = 0;
        } else if self.persist_at.is_some() {
            self.persist_at = Some(ctx.now);
        }
    }

    /// Arms the timer of a SYN or SYN-ACK that was sent.
    pub(super) fn arm_handshake(&mut self, now: Nanos) {
        self.handshake_tries += 1;
        self.handshake_sent = now;
        self.handshake_at = Some(now + self.rtt.rto());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reorder,
    Tail,
    Timeout,
}
