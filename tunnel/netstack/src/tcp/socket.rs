//! Calls of the application on a connection.

use bytes::Bytes;

use super::{Ctx, MILLIS, Nanos, Tcb, nanos};
use crate::{CloseReason, Keepalive, TcpError, TcpState, TcpStats};

/// Least and largest amount of unsent data a connection buffers.
const UNSENT: (usize, usize) = (128 << 10, 4 << 20);

impl Tcb {
    /// The application decided to accept.
    pub(crate) fn accept(&mut self, ctx: &Ctx<'_>) -> Result<(), TcpError> {
        if self.state != TcpState::Pending {
            return Err(self.state_error());
        }
        self.state = TcpState::SynReceived;
        self.send_syn = true;
        self.life_at = Some(ctx.now + nanos(ctx.cfg.connect_timeout));
        Ok(())
    }

    /// The application decided against the connection.
    pub(crate) fn reject(&mut self, ctx: &mut Ctx<'_>, tell: bool) -> Result<(), TcpError> {
        if self.state != TcpState::Pending {
            return Err(self.state_error());
        }
        self.released = true;
        self.finish(ctx, CloseReason::Aborted);
        self.send_reset = tell;
        Ok(())
    }

    fn state_error(&self) -> TcpError {
        match self.reason {
            Some(reason) if self.state == TcpState::Closed => TcpError::Closed(reason),
            _ => TcpError::InvalidState,
        }
    }

    pub(crate) fn read(&mut self, ctx: &mut Ctx<'_>, buf: &mut [u8]) -> Result<usize, TcpError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = self.recv.read(buf, ctx.pool);
        if len > 0 {
            self.read_armed |= self.recv.readable() == 0;
            self.after_read(ctx);
            return Ok(len);
        }
        if self.fin_received {
            self.read_armed = false;
            return Ok(0);
        }
        match (self.state, self.reason) {
            (TcpState::Closed, Some(CloseReason::Finished)) => Ok(0),
            (TcpState::Closed, Some(reason)) => Err(TcpError::Closed(reason)),
            _ => {
                self.read_armed = true;
                Err(TcpError::WouldBlock)
            }
        }
    }

    /// Lets the window follow what the application takes (receive buffer
    /// autotuning): twice what it read in the last round trip, and more while
    /// that grows.
    fn after_read(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let rtt = self.rtt.min().unwrap_or(50 * MILLIS);
        if now.saturating_sub(self.drs_at) >= rtt {
            let copied = self.recv.total_read() - self.drs_read;
            let growth = copied.saturating_sub(self.drs_copied);
            let want = 2 * copied + 4 * growth.min(copied) + 32 * 1024;
            let want = (want as usize).min(ctx.cfg.max_buffer);
            if want > self.recv.limit() {
                self.recv.grow(want, ctx.pool);
            }
            self.drs_copied = self.drs_copied.max(copied);
            let elapsed = (now - self.drs_at).max(1);
            self.per_round = (u128::from(copied) * u128::from(rtt) / u128::from(elapsed)) as u64;
            self.drs_read = self.recv.total_read();
            self.drs_at = now;
        }
        self.check_window_update();
    }

    /// Announces a window that has grown noticeably (RFC 9293 §3.8.6.2.2).
    fn check_window_update(&mut self) {
        if !self.is_synchronized() || self.fin_received {
            return;
        }
        let edge = self.recv.edge();
        let gain = edge.saturating_sub(self.edge);
        let left = self.edge.saturating_sub(self.recv_next());
        let limit = self.recv.limit() as u64;
        let two = 2 * self.segment_seen as u64;
        if gain >= limit / 4 || (left < limit / 2 && gain >= two.min(limit / 2)) {
            self.ack_now = true;
        }
    }

    /// How much more may be written now.
    fn room(&self, ctx: &Ctx<'_>) -> usize {
        let unsent = (self.send.end().saturating_sub(self.next.max(1))) as usize;
        let limit = (self.cc.cwnd() as usize).clamp(UNSENT.0, UNSENT.1);
        let unsent_room = limit.saturating_sub(unsent);
        let allowed = ctx.cfg.initial_buffer.max(UNSENT.0) + self.send_reserved;
        unsent_room.min(allowed.saturating_sub(self.send.len()))
    }

    /// Takes budget for what is in flight, so that it does not count against
    /// what may be written.
    pub(super) fn update_send_limit(&mut self, ctx: &mut Ctx<'_>) {
        let want = (2 * self.cc.cwnd() as usize).min(ctx.cfg.max_buffer);
        if want > self.send_reserved && self.send.len() * 2 > self.send_reserved {
            let more = want - self.send_reserved;
            if ctx.pool.reserve(more) {
                self.send_reserved = want;
            }
        }
        self.idle_at = Some(ctx.now + super::timer::IDLE_SHRINK);
        if self.write_armed && self.room(ctx) >= UNSENT.0 / 2 {
            self.notify_writable();
        }
    }

    /// Data has left the unsent part of the buffer.
    pub(crate) fn after_poll(&mut self, ctx: &Ctx<'_>) {
        if self.write_armed && self.room(ctx) >= UNSENT.0 / 2 {
            self.notify_writable();
        }
    }

    fn check_write(&mut self, ctx: &Ctx<'_>, len: usize) -> Result<usize, TcpError> {
        match self.state {
            TcpState::Established | TcpState::CloseWait if !self.fin_queued => {}
            TcpState::SynSent | TcpState::SynReceived | TcpState::Pending if !self.fin_queued => {
                self.write_armed = true;
                return Err(TcpError::WouldBlock);
            }
            TcpState::Closed => return Err(self.state_error()),
            _ => return Err(TcpError::InvalidState),
        }
        if len == 0 {
            return Ok(0);
        }
        let room = self.room(ctx);
        if room == 0 {
            self.write_armed = true;
            return Err(TcpError::WouldBlock);
        }
        self.write_armed |= room < len;
        Ok(room.min(len))
    }

    pub(crate) fn write(&mut self, ctx: &Ctx<'_>, data: &[u8]) -> Result<usize, TcpError> {
        let len = self.check_write(ctx, data.len())?;
        self.send.push_copy(&data[..len]);
        Ok(len)
    }

    pub(crate) fn write_bytes(
        &mut self,
        ctx: &mut Ctx<'_>,
        data: &mut Bytes,
    ) -> Result<usize, TcpError> {
        let len = self.check_write(ctx, data.len())?;
        self.send.push_bytes(data.split_to(len));
        Ok(len)
    }

    pub(crate) fn shutdown_write(&mut self) -> Result<(), TcpError> {
        match self.state {
            TcpState::Closed => Err(self.state_error()),
            TcpState::Pending => Err(TcpError::InvalidState),
            _ => {
                self.fin_queued = true;
                Ok(())
            }
        }
    }

    /// The application gives up the handle.
    pub(crate) fn release(&mut self, ctx: &mut Ctx<'_>) {
        self.released = true;
        self.events = 0;
        match self.state {
            TcpState::Pending | TcpState::SynSent => {
                let tell = self.state == TcpState::Pending;
                self.finish(ctx, CloseReason::Aborted);
                self.send_reset = tell;
            }
            TcpState::Closed => self.recv.release(ctx.pool),
            _ => {
                self.recv.discard(ctx.pool);
                self.fin_queued = true;
                if self.state == TcpState::FinWait2 {
                    self.life_at = Some(ctx.now + nanos(ctx.cfg.fin_wait));
                }
            }
        }
    }

    /// The application resets the connection.
    pub(crate) fn abort(&mut self, ctx: &mut Ctx<'_>) {
        self.released = true;
        match self.state {
            TcpState::Pending | TcpState::SynSent | TcpState::Closed => self.release(ctx),
            _ => self.reset(ctx, CloseReason::Aborted),
        }
        self.events = 0;
    }

    pub(crate) fn set_keepalive(&mut self, keepalive: Option<Keepalive>) {
        self.keepalive = keepalive;
        self.keepalive_probes = 0;
    }

    pub(crate) fn stats(&self) -> TcpStats {
        let time = |n: Nanos| std::time::Duration::from_nanos(n);
        TcpStats {
            srtt: time(self.rtt.srtt().unwrap_or(0)),
            min_rtt: time(self.rtt.min().unwrap_or(0)),
            cwnd: self.cc.cwnd() as usize,
            in_flight: self.board.in_flight() as usize,
            pacing_rate: self.cc.pacing_rate(self.rtt.srtt()).unwrap_or(0),
            peer_window: self.window as usize,
            recv_buffer: self.recv.limit(),
            send_queued: self.send.len(),
            ..self.stats
        }
    }
}
