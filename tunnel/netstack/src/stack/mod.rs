//! The stack: demultiplexing, timers, transmit scheduling and the public calls.

mod datagram;
mod hash;
mod input;
mod output;
mod table;
mod timers;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::buffer::pool::Pool;
use crate::tcp::{Ctx, Nanos, Open, SECS, Tcb, event};
use crate::wire::ipv6;
use crate::{
    CloseReason, Event, Keepalive, MAX_MTU, MIN_MTU, SocketId, StackConfig, TcpError, TcpState,
    TcpStats,
};
use datagram::Datagrams;
use hash::Key;
use table::{Flow, Table};
use timers::Timers;

/// Packets of the stack itself that may wait for transmission.
const CONTROL_QUEUE: usize = 512;
/// Events other than those of sockets and datagrams that may wait.
const EVENT_QUEUE: usize = 1024;
/// Entries for which queues and tables keep room.
const FEW: usize = 16;
/// First and number of ephemeral ports.
const EPHEMERAL: (u16, u16) = (32_768, 28_232);

/// A userspace IPv6 stack. See the [crate documentation](crate) for the loop
/// that drives it.
#[derive(Debug)]
pub struct Stack {
    config: StackConfig,
    origin: Instant,
    mtus: HashMap<Ipv6Addr, usize>,
    largest_mtu: usize,
    key: Key,
    counter: u64,
    pool: Pool,
    table: Table,
    timers: Timers,
    /// Sockets that may have something to send, and how much the first of them
    /// sent since its turn began.
    ready: VecDeque<u32>,
    turn: usize,
    notified: VecDeque<u32>,
    events: VecDeque<Event>,
    control: VecDeque<(Ipv6Addr, Vec<u8>)>,
    datagrams: Datagrams,
    /// Answers to strays that may still be sent in this second.
    stray_tokens: u32,
    stray_refill: Nanos,
    half_open: usize,
    bound: HashSet<u16>,
}

macro_rules! ctx {
    ($self:ident, $now:expr) => {
        Ctx {
            now: $now,
            cfg: &$self.config.tcp,
            pool: &mut $self.pool,
        }
    };
}
use ctx;

impl Stack {
    /// A stack with the given settings; `now` is the origin of its clock.
    #[must_use]
    pub fn new(mut config: StackConfig, now: Instant) -> Self {
        config.mtu = config.mtu.clamp(MIN_MTU, MAX_MTU);
        config.max_mtu = config.max_mtu.clamp(config.mtu, MAX_MTU);
        config.tcp.initial_buffer = config.tcp.initial_buffer.max(8 << 10);
        config.tcp.max_buffer = config
            .tcp
            .max_buffer
            .clamp(config.tcp.initial_buffer, 512 << 20);
        Self {
            origin: now,
            mtus: HashMap::new(),
            largest_mtu: config.mtu,
            key: Key::from_seed(config.seed),
            counter: 0,
            pool: Pool::new(config.memory_budget),
            table: Table::default(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            turn: 0,
            notified: VecDeque::new(),
            events: VecDeque::new(),
            control: VecDeque::new(),
            datagrams: Datagrams::default(),
            stray_tokens: 0,
            stray_refill: 0,
            half_open: 0,
            bound: HashSet::new(),
            config,
        }
    }

    /// Nanoseconds on the stack's clock; starts at one second.
    fn nanos(&self, now: Instant) -> Nanos {
        SECS + crate::tcp::nanos(now.saturating_duration_since(self.origin))
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.origin + Duration::from_nanos(at.saturating_sub(SECS))
    }

    /// Replaces the own addresses. Connections from removed ones stay until
    /// they are closed, but receive nothing any more.
    pub fn set_addresses(&mut self, addresses: &[Ipv6Addr]) {
        self.config.addresses = addresses.to_vec();
    }

    /// Sets the largest inner packet that reaches `dst`, in bytes. Open
    /// connections follow at once in both directions: what is sent or repeated
    /// from now on fits, as far as the peer's MSS allows. Values are kept
    /// between [`MIN_MTU`] and [`max_mtu`](StackConfig::max_mtu).
    pub fn set_path_mtu(&mut self, dst: Ipv6Addr, mtu: u16) {
        let mtu = self.note_path_mtu(dst, usize::from(mtu));
        for index in self.sockets_to(&dst) {
            if let Some(tcb) = &mut self.table.slot(index).tcb {
                tcb.set_mtu(mtu);
            }
        }
    }

    /// Remembers a path MTU; returns the one that is valid.
    fn note_path_mtu(&mut self, dst: Ipv6Addr, mtu: usize) -> usize {
        let mtu = mtu.clamp(MIN_MTU, self.config.max_mtu);
        if mtu == self.config.mtu {
            self.mtus.remove(&dst);
        } else {
            self.largest_mtu = self.largest_mtu.max(mtu);
            self.mtus.insert(dst, mtu);
        }
        mtu
    }

    fn mtu(&self, peer: &Ipv6Addr) -> usize {
        self.mtus.get(peer).copied().unwrap_or(self.config.mtu)
    }

    fn sockets_to(&self, peer: &Ipv6Addr) -> Vec<u32> {
        self.table
            .indices()
            .filter(|(_, tcb)| tcb.remote.ip() == peer)
            .map(|(index, _)| index)
            .collect()
    }

    /// Says that the path to `peer` works again or has changed: connections
    /// waiting in retransmission back-off try at once, and what was learned
    /// about the old path is forgotten.
    pub fn path_changed(&mut self, now: Instant, peer: Ipv6Addr) {
        let now = self.nanos(now);
        for index in self.sockets_to(&peer) {
            let mtu = self.mtu(&peer);
            if let Some(tcb) = &mut self.table.slot(index).tcb {
                tcb.set_mtu(mtu);
                tcb.on_path_change(&ctx!(self, now));
            }
            self.settle(now, index);
        }
    }

    /// Says that `peer` is gone for good: its connections end with
    /// [`CloseReason::Unreachable`], without a word to it. Those that are being
    /// opened go on until their own limit.
    pub fn peer_gone(&mut self, now: Instant, peer: Ipv6Addr) {
        let now = self.nanos(now);
        for index in self.sockets_to(&peer) {
            if let Some(tcb) = &mut self.table.slot(index).tcb
                && tcb.is_synchronized()
            {
                tcb.finish(&mut ctx!(self, now), CloseReason::Unreachable);
            }
            self.settle(now, index);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.next();
        let time_wait = self.table.time_wait_end();
        let at = match (timer, time_wait) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(self.instant(at))
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.table.expire_time_wait(now);
        while let Some(index) = self.timers.pop(now) {
            let slot = self.table.slot(index);
            slot.paced = false;
            if let Some(tcb) = &mut slot.tcb {
                tcb.on_timer(&mut ctx!(self, now));
            }
            self.settle(now, index);
        }
        if self.table.len() == 0 {
            self.shrink();
        }
    }

    /// Frees what is kept for bursts: idle chunks, and the room of queues and
    /// tables that only a burst needed. Happens by itself once there is no
    /// socket.
    pub fn shrink(&mut self) {
        self.pool.trim();
        self.table.shrink();
        self.timers.shrink();
        self.ready.shrink_to(FEW);
        self.notified.shrink_to(FEW);
        self.events.shrink_to(FEW);
        self.control.shrink_to(FEW);
        self.datagrams.shrink();
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(&index) = self.notified.front() {
            let id = self.table.id(index);
            let slot = self.table.slot(index);
            if let Some(tcb) = &mut slot.tcb
                && let Some(event) = take_event(tcb, id)
            {
                return Some(event);
            }
            slot.notified = false;
            self.notified.pop_front();
            self.table.reuse(index);
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.datagrams.next_event()
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() < EVENT_QUEUE {
            self.events.push_back(event);
        }
    }

    /// Queues a packet of the stack itself; drops it if too many wait.
    fn push_control(&mut self, dst: Ipv6Addr, packet: Vec<u8>) {
        if self.control.len() < CONTROL_QUEUE {
            self.control.push_back((dst, packet));
        }
    }

    /// Follows up on anything that may have changed a socket: events, transmit
    /// queue, timer, end.
    fn settle(&mut self, now: Nanos, index: u32) {
        let slot = self.table.slot(index);
        let Some(tcb) = &mut slot.tcb else { return };
        if tcb.counts_as_half_open && !tcb.is_half_open() {
            tcb.counts_as_half_open = false;
            self.half_open -= 1;
        }
        if tcb.events != 0 && !slot.notified {
            slot.notified = true;
            self.notified.push_back(index);
        }
        if !slot.ready && tcb.wants_poll() {
            slot.ready = true;
            self.ready.push_back(index);
        }
        if tcb.is_over() {
            self.remove(index);
            return;
        }
        if tcb.released && tcb.state == TcpState::TimeWait && !tcb.owes_ack() {
            let (flow, remains) = (Flow::of(tcb), tcb.remains());
            self.remove(index);
            let until = now + crate::tcp::nanos(self.config.tcp.time_wait);
            self.table
                .add_time_wait(flow, remains, until, self.config.max_time_wait);
            return;
        }
        // A socket about to be polled gets its timer then.
        if !slot.ready
            && let Some(at) = tcb.deadline(slot.paced)
        {
            self.timers.arm(index, at);
        }
    }

    fn remove(&mut self, index: u32) {
        self.timers.remove(index);
        if let Some(mut tcb) = self.table.remove(index) {
            if tcb.counts_as_half_open {
                self.half_open -= 1;
            }
            tcb.dispose(&mut self.pool);
        }
    }

    /// Runs a call on the socket of a handle.
    fn with<T>(
        &mut self,
        now: Instant,
        id: SocketId,
        call: impl FnOnce(&mut Tcb, &mut Ctx<'_>) -> Result<T, TcpError>,
    ) -> Result<T, TcpError> {
        let now = self.nanos(now);
        let index = self.table.index(id).ok_or(TcpError::UnknownSocket)?;
        let Some(tcb) = &mut self.table.slot(index).tcb else {
            return Err(TcpError::UnknownSocket);
        };
        let result = call(tcb, &mut ctx!(self, now));
        self.settle(now, index);
        result
    }

    /// Secrets and addresses of a new connection.
    fn open(&self, now: Nanos, flow: &Flow) -> Open {
        let bytes = flow.bytes();
        // RFC 6528: a keyed hash plus a clock that ticks every 4 µs.
        let iss = (self.key.hash(1, &bytes) as u32).wrapping_add((now / 4000) as u32);
        Open {
            local: flow.local(),
            remote: flow.remote(),
            iss,
            ts_offset: self.key.hash(2, &bytes) as u32,
            mtu: self.mtu(&flow.remote.0),
            max_mtu: self.config.max_mtu,
            seed: self.key.hash(3, &bytes),
        }
    }

    /// Opens a connection. `local_port` 0 picks one; the source is the first
    /// own address.
    ///
    /// # Errors
    /// [`TcpError::BadAddress`], [`TcpError::PortInUse`], [`TcpError::Limit`].
    pub fn connect(
        &mut self,
        now: Instant,
        local_port: u16,
        remote: SocketAddrV6,
    ) -> Result<SocketId, TcpError> {
        let now = self.nanos(now);
        let local = *self.config.addresses.first().ok_or(TcpError::BadAddress)?;
        if !ipv6::is_unicast(remote.ip()) || remote.port() == 0 {
            return Err(TcpError::BadAddress);
        }
        if self.table.len() >= self.config.max_sockets {
            return Err(TcpError::Limit);
        }
        let mut flow = Flow {
            local: (local, local_port),
            remote: (*remote.ip(), remote.port()),
        };
        if local_port == 0 {
            flow.local.1 = self.ephemeral(|stack, port| {
                let local = (local, port);
                !stack.table.contains(&Flow { local, ..flow })
            })?;
        } else if self.table.contains(&flow) {
            return Err(TcpError::PortInUse);
        }
        let open = self.open(now, &flow);
        let tcb = Tcb::connect(&open, &ctx!(self, now));
        let index = self.table.insert(tcb);
        self.settle(now, index);
        Ok(self.table.id(index))
    }

    /// A free port from the ephemeral range, in an unpredictable order.
    fn ephemeral(&mut self, free: impl Fn(&Self, u16) -> bool) -> Result<u16, TcpError> {
        self.counter += 1;
        let start = self.key.hash(4, &self.counter.to_be_bytes());
        (0..u64::from(EPHEMERAL.1))
            .map(|n| EPHEMERAL.0 + (start.wrapping_add(n) % u64::from(EPHEMERAL.1)) as u16)
            .find(|&port| free(self, port))
            .ok_or(TcpError::PortInUse)
    }

    /// Answers a pending connection with SYN-ACK.
    ///
    /// # Errors
    /// [`TcpError::UnknownSocket`], or [`TcpError::InvalidState`] if not pending.
    pub fn accept(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        self.with(now, id, |tcb, ctx| tcb.accept(ctx))
    }

    /// Answers a pending connection with RST and forgets it.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn reject(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        self.with(now, id, |tcb, ctx| tcb.reject(ctx, true))
    }

    /// Forgets a pending connection without an answer.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn ignore(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        self.with(now, id, |tcb, ctx| tcb.reject(ctx, false))
    }

    /// Reads received bytes; `Ok(0)` is the end of the stream (for a non-empty
    /// `buf`).
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`], or the end of the connection.
    pub fn read(&mut self, now: Instant, id: SocketId, buf: &mut [u8]) -> Result<usize, TcpError> {
        self.with(now, id, |tcb, ctx| tcb.read(ctx, buf))
    }

    /// Copies as much of `data` as there is room for to the send buffer.
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`] (also before the connection is established), or
    /// the end of the connection.
    pub fn write(&mut self, now: Instant, id: SocketId, data: &[u8]) -> Result<usize, TcpError> {
        self.with(now, id, |tcb, ctx| tcb.write(ctx, data))
    }

    /// As [`write`](Self::write) without a copy: takes what there is room for
    /// off the front of `data`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_bytes(
        &mut self,
        now: Instant,
        id: SocketId,
        data: &mut Bytes,
    ) -> Result<usize, TcpError> {
        self.with(now, id, |tcb, ctx| tcb.write_bytes(ctx, data))
    }

    /// Sends FIN after what is buffered; reading goes on.
    ///
    /// # Errors
    /// [`TcpError::UnknownSocket`] or the end of the connection.
    pub fn shutdown_write(&mut self, now: Instant, id: SocketId) -> Result<(), TcpError> {
        self.with(now, id, |tcb, _| tcb.shutdown_write())
    }

    /// Releases the handle. Buffered data and FIN are still delivered; what was
    /// received and not read is discarded.
    pub fn close(&mut self, now: Instant, id: SocketId) {
        let _ = self.with(now, id, |tcb, ctx| {
            tcb.release(ctx);
            Ok(())
        });
    }

    /// Resets the connection at once and releases the handle.
    pub fn abort(&mut self, now: Instant, id: SocketId) {
        let _ = self.with(now, id, |tcb, ctx| {
            tcb.abort(ctx);
            Ok(())
        });
    }

    /// State of the connection; [`TcpState::Closed`] for unknown handles.
    #[must_use]
    pub fn state(&self, id: SocketId) -> TcpState {
        self.table.get(id).map_or(TcpState::Closed, |tcb| tcb.state)
    }

    /// Why the connection ended, if it did.
    #[must_use]
    pub fn close_reason(&self, id: SocketId) -> Option<CloseReason> {
        self.table.get(id)?.reason
    }

    /// Own and peer's address of a connection.
    #[must_use]
    pub fn addresses_of(&self, id: SocketId) -> Option<(SocketAddrV6, SocketAddrV6)> {
        self.table.get(id).map(|tcb| (tcb.local, tcb.remote))
    }

    /// Counters and estimates of a connection.
    #[must_use]
    pub fn tcp_stats(&self, id: SocketId) -> Option<TcpStats> {
        self.table.get(id).map(Tcb::stats)
    }

    /// Replaces the keepalive setting of a connection.
    pub fn set_keepalive(&mut self, now: Instant, id: SocketId, keepalive: Option<Keepalive>) {
        let _ = self.with(now, id, |tcb, _| {
            tcb.set_keepalive(keepalive);
            Ok(())
        });
    }

    /// Number of TCP sockets, TIME-WAIT entries not counted.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.table.len()
    }

    /// Buffer bytes taken from the global budget.
    #[must_use]
    pub fn memory_used(&self) -> usize {
        self.pool.used()
    }
}

/// Takes one event bit of a socket.
fn take_event(tcb: &mut Tcb, id: SocketId) -> Option<Event> {
    let bits = [
        event::INCOMING,
        event::CONNECTED,
        event::READABLE,
        event::WRITABLE,
        event::CLOSED,
    ];
    let bit = bits.into_iter().find(|bit| tcb.events & bit != 0)?;
    tcb.events &= !bit;
    Some(match bit {
        event::INCOMING => Event::Incoming {
            id,
            local: tcb.local,
            remote: tcb.remote,
        },
        event::CONNECTED => Event::Connected(id),
        event::READABLE => Event::Readable(id),
        event::WRITABLE => Event::Writable(id),
        _ => Event::Closed {
            id,
            reason: tcb.reason.unwrap_or(CloseReason::Finished),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use super::*;

    #[test]
    fn a_burst_leaves_no_room_behind() {
        let now = Instant::now();
        let [own, peer] = [1, 2].map(|last| Ipv6Addr::new(0xfd7a, 0, 0, 0, 0, 0, 0, last));
        let mut stack = Stack::new(StackConfig::new(vec![own], 7), now);
        let remote = SocketAddrV6::new(peer, 1, 0, 0);
        let ids: Vec<_> = (0..500)
            .map(|_| stack.connect(now, 0, remote).unwrap())
            .collect();
        let chunks: Vec<_> = (0..8).map(|_| stack.pool.take()).collect();
        chunks.into_iter().for_each(|chunk| stack.pool.put(chunk));
        for id in &ids[1..] {
            stack.abort(now, *id);
        }
        let mut buf = vec![0; MAX_MTU];
        while stack.poll_transmit(now, &mut buf).is_some() {}
        while stack.poll_event().is_some() {}
        assert!(stack.ready.capacity() >= 500 && stack.pool.kept() == 8);
        stack.shrink();
        assert_eq!(stack.pool.kept(), 0);
        assert!(stack.ready.capacity() <= FEW);
        assert_eq!(stack.state(ids[0]), TcpState::SynSent, "what is open stays");
        assert_eq!(stack.state(ids[1]), TcpState::Closed);
        let timeout = stack.poll_timeout().unwrap();
        stack.handle_timeout(timeout);
        assert!(stack.poll_transmit(timeout, &mut buf).is_some(), "again");
    }
}
