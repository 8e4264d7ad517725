//! The TCP endpoint: one connection as a state machine (RFC 9293).

mod ack;
mod cc;
mod input;
mod output;
mod rate;
mod report;
mod rtt;
mod scoreboard;
mod socket;
mod timer;

use std::net::SocketAddrV6;

use crate::buffer::pool::Pool;
use crate::buffer::recv::RecvBuf;
use crate::buffer::send::SendBuf;
use crate::wire::tcp::Segment;
use crate::{CloseReason, Keepalive, TcpConfig, TcpState, TcpStats};
use cc::Controller;
use rate::Rate;
use report::Report;
use rtt::Rtt;
use scoreboard::Scoreboard;

pub(crate) use input::Verdict;
pub(crate) use output::Output;

/// Nanoseconds since the stack was made (plus an offset, so never 0).
pub(crate) type Nanos = u64;
pub(crate) const MILLIS: Nanos = 1_000_000;
pub(crate) const SECS: Nanos = 1_000_000_000;

pub(crate) fn nanos(duration: std::time::Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX / 4)
}

/// Bytes of IPv6 and TCP header without options.
pub(crate) const HEADERS: usize = 60;
/// Bytes of the timestamps option with padding.
const TIMESTAMPS: usize = 12;
/// Least segment size accepted from a peer's MSS option.
const LEAST_MSS: usize = 216;
/// MSS of a peer that does not say (RFC 9293 §3.7.1).
const DEFAULT_PEER_MSS: usize = 1220;
/// Segments at the start of a connection that are acknowledged at once.
const QUICK_ACKS: u32 = 16;

/// Event bits of a connection.
pub(crate) mod event {
    pub(crate) const INCOMING: u8 = 1;
    pub(crate) const CONNECTED: u8 = 2;
    pub(crate) const READABLE: u8 = 4;
    pub(crate) const WRITABLE: u8 = 8;
    pub(crate) const CLOSED: u8 = 16;
}

/// What every call on a connection may use of the stack.
pub(crate) struct Ctx<'a> {
    pub(crate) now: Nanos,
    pub(crate) cfg: &'a TcpConfig,
    pub(crate) pool: &'a mut Pool,
}

/// Parameters of a new connection.
pub(crate) struct Open {
    pub(crate) local: SocketAddrV6,
    pub(crate) remote: SocketAddrV6,
    pub(crate) iss: u32,
    pub(crate) ts_offset: u32,
    pub(crate) mtu: usize,
    /// Largest packet that can be received.
    pub(crate) max_mtu: usize,
    pub(crate) seed: u64,
}

/// A reduction of the sending rate whose need is not yet proven.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When it was decided; no repeat was sent before.
    at: Nanos,
    /// A timeout was the reason, not what the peer reported.
    timeout: bool,
    /// Nothing speaks against it so far (Eifel detection, RFC 3522).
    open: bool,
    /// What was in flight then.
    start: u64,
    end: u64,
    /// Repeats not yet reported as duplicates (RFC 3708).
    repeats: u32,
}

/// One connection. Stream offsets are 64 bits wide and count from the SYN = 0,
/// so that nothing but the wire format ever wraps.
#[derive(Debug)]
pub(crate) struct Tcb {
    pub(crate) local: SocketAddrV6,
    pub(crate) remote: SocketAddrV6,
    pub(crate) state: TcpState,
    pub(crate) events: u8,
    pub(crate) reason: Option<CloseReason>,
    /// The application has given up the handle.
    pub(crate) released: bool,
    /// Occupies a place in the stack's backlog.
    pub(crate) counts_as_half_open: bool,
    read_armed: bool,
    write_armed: bool,

    // Sending.
    iss: u32,
    /// First unacknowledged offset.
    una: u64,
    /// Next offset to be sent.
    next: u64,
    window: u64,
    max_window: u64,
    /// Receive and send offset of the segment that last set the window.
    wl1: u64,
    wl2: u64,
    peer_scale: u8,
    peer_mss: usize,
    mtu: usize,
    /// MSS offered to the peer.
    own_mss: u16,
    /// Payload bytes of a full segment.
    mss: usize,
    send: SendBuf,
    send_reserved: usize,
    fin_queued: bool,
    board: Scoreboard,
    rate: Rate,
    rtt: Rtt,
    cc: Controller,
    recovery: Option<u64>,
    doubt: Option<Doubt>,
    /// Timeouts since the last progress, and the time of the latest.
    timeouts: u32,
    timeout_at: Nanos,
    duplicates: u32,
    cwnd_limited_until: u64,
    pace_at: Nanos,
    /// Pacing alone kept back what there was to send.
    pace_blocked: bool,
    last_progress: Nanos,

    // Receiving.
    irs: u32,
    recv: RecvBuf,
    fin_received: bool,
    scale: u8,
    /// Right edge of the window as announced.
    edge: u64,
    report: Report,
    segment_seen: usize,
    drs_at: Nanos,
    drs_read: u64,
    drs_copied: u64,
    /// Bytes that arrived per round trip lately.
    per_round: u64,

    // Options.
    ts_on: bool,
    ts_offset: u32,
    ts_recent: u32,
    ts_recent_at: Nanos,
    sack_on: bool,
    last_ack_sent: u64,

    // Output flags.
    send_syn: bool,
    send_reset: bool,
    send_probe: bool,
    send_tail_probe: bool,
    force_window: bool,
    /// The first repeat of a recovery is sent whatever the window says.
    force_repeat: bool,
    ack_now: bool,
    unacked: usize,
    quick: u32,
    last_challenge: Nanos,

    // Timers.
    ack_at: Option<Nanos>,
    reorder_at: Option<Nanos>,
    rto_base: Nanos,
    tail_base: Nanos,
    /// Offset that ends the current tail loss probe episode.
    tail_end: Option<u64>,
    tail_repeated: bool,
    persist_at: Option<Nanos>,
    life_at: Option<Nanos>,
    handshake_at: Option<Nanos>,
    handshake_sent: Nanos,
    handshake_tries: u32,
    keepalive: Option<Keepalive>,
    keepalive_probes: u32,
    last_received: Nanos,
    idle_at: Option<Nanos>,

    stats: TcpStats,
}

impl Tcb {
    fn new(open: &Open, ctx: &Ctx<'_>, state: TcpState) -> Self {
        let mss = open.mtu - HEADERS;
        let edge = 1 + ctx.cfg.initial_buffer.min(65_535) as u64;
        Self {
            local: open.local,
            remote: open.remote,
            state,
            events: 0,
            reason: None,
            released: false,
            counts_as_half_open: false,
            read_armed: true,
            write_armed: false,
            iss: open.iss,
            una: 0,
            next: 0,
            window: 0,
            max_window: 0,
            wl1: 0,
            wl2: 0,
            peer_scale: 0,
            peer_mss: DEFAULT_PEER_MSS,
            mtu: open.mtu,
            own_mss: (open.max_mtu - HEADERS) as u16,
            mss,
            send: SendBuf::new(),
            send_reserved: 0,
            fin_queued: false,
            board: Scoreboard::new(),
            rate: Rate::default(),
            rtt: Rtt::new(nanos(ctx.cfg.min_rto), nanos(ctx.cfg.max_rto)),
            cc: Controller::new(ctx.cfg.congestion, mss as u64, open.seed, ctx.now),
            recovery: None,
            doubt: None,
            timeouts: 0,
            timeout_at: 0,
            duplicates: 0,
            cwnd_limited_until: 0,
            pace_at: 0,
            pace_blocked: false,
            last_progress: ctx.now,
            irs: 0,
            recv: RecvBuf::new(ctx.cfg.initial_buffer),
            fin_received: false,
            scale: scale_for(ctx.cfg.max_buffer),
            edge,
            report: Report::default(),
            segment_seen: 536,
            drs_at: ctx.now,
            drs_read: 1,
            drs_copied: 0,
            per_round: 0,
            ts_on: true,
            ts_offset: open.ts_offset,
            ts_recent: 0,
            ts_recent_at: ctx.now,
            sack_on: true,
            last_ack_sent: 0,
            send_syn: false,
            send_reset: false,
            send_probe: false,
            send_tail_probe: false,
            force_window: false,
            force_repeat: false,
            ack_now: false,
            unacked: 0,
            quick: QUICK_ACKS,
            last_challenge: 0,
            ack_at: None,
            reorder_at: None,
            rto_base: ctx.now,
            tail_base: ctx.now,
            tail_end: None,
            tail_repeated: false,
            persist_at: None,
            life_at: None,
            handshake_at: None,
            handshake_sent: 0,
            handshake_tries: 0,
            keepalive: None,
            keepalive_probes: 0,
            last_received: ctx.now,
            idle_at: None,
            stats: TcpStats::default(),
        }
    }

    /// A connection opened from this side; its SYN is ready to be sent.
    pub(crate) fn connect(open: &Open, ctx: &Ctx<'_>) -> Self {
        let mut tcb = Self::new(open, ctx, TcpState::SynSent);
        tcb.send_syn = true;
        tcb.life_at = Some(ctx.now + nanos(ctx.cfg.connect_timeout));
        tcb
    }

    /// A connection asked for by `syn`; the application has to decide.
    pub(crate) fn pending(open: &Open, ctx: &Ctx<'_>, syn: &Segment<'_>) -> Self {
        let mut tcb = Self::new(open, ctx, TcpState::Pending);
        tcb.keepalive = ctx.cfg.keepalive;
        tcb.take_syn(ctx.now, syn);
        tcb.life_at = Some(ctx.now + nanos(ctx.cfg.pending_timeout));
        tcb.events = event::INCOMING;
        tcb
    }

    /// Takes the peer's initial sequence number and options.
    fn take_syn(&mut self, now: Nanos, syn: &Segment<'_>) {
        self.irs = syn.seq;
        self.window = u64::from(syn.window);
        self.max_window = self.window;
        let options = &syn.options;
        self.peer_mss = options
            .mss
            .map_or(DEFAULT_PEER_MSS, usize::from)
            .max(LEAST_MSS);
        if let Some(scale) = options.window_scale {
            self.peer_scale = scale;
        } else {
            self.scale = 0;
        }
        self.sack_on = options.sack_permitted;
        match options.timestamps {
            Some((value, _)) => {
                self.ts_recent = value;
                self.ts_recent_at = now;
            }
            None => self.ts_on = false,
        }
        self.update_mss();
    }

    fn update_mss(&mut self) {
        let options = if self.ts_on { TIMESTAMPS } else { 0 };
        self.mss = self.peer_mss.min(self.mtu - HEADERS) - options;
        self.cc.set_mss(self.mss as u64);
    }

    /// Uses another path MTU from now on. What is in flight in larger segments
    /// may still arrive; if not, it is repeated in smaller ones.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
        self.update_mss();
        self.board.recut(self.mss);
    }

    /// The path reported a packet of this connection as too big: what is in
    /// flight in larger ones did not arrive. That says nothing of congestion.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        let lost = self.rate.lost;
        self.mtu = mtu;
        self.update_mss();
        self.board.lose_larger(self.mss, &mut self.rate);
        self.rate.lost = lost;
        self.board.recut(self.mss);
    }

    /// Next offset expected from the peer.
    fn recv_next(&self) -> u64 {
        self.recv.next() + u64::from(self.fin_received)
    }

    /// Whether the own FIN was sent.
    fn fin_sent(&self) -> bool {
        self.next > self.send.end()
    }

    /// Whether everything written, and FIN if there is one, was acknowledged.
    fn all_acknowledged(&self) -> bool {
        self.una >= self.send.end() + u64::from(self.fin_queued)
    }

    fn seq(&self, offset: u64) -> u32 {
        self.iss.wrapping_add(offset as u32)
    }

    fn peer_seq(&self, offset: u64) -> u32 {
        self.irs.wrapping_add(offset as u32)
    }

    fn timestamp(&self, now: Nanos) -> u32 {
        ((now / MILLIS) as u32).wrapping_add(self.ts_offset)
    }

    /// Whether segments may carry data and acknowledgements.
    pub(crate) fn is_synchronized(&self) -> bool {
        !matches!(
            self.state,
            TcpState::Pending | TcpState::SynSent | TcpState::SynReceived | TcpState::Closed
        )
    }

    /// Ends the connection.
    pub(crate) fn finish(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        if self.state == TcpState::Closed {
            return;
        }
        let was_time_wait = self.state == TcpState::TimeWait;
        self.state = TcpState::Closed;
        self.board.clear();
        self.send.clear();
        ctx.pool.release(self.send_reserved);
        self.send_reserved = 0;
        self.send_syn = false;
        self.send_probe = false;
        self.send_tail_probe = false;
        self.ack_now = false;
        self.life_at = None;
        self.handshake_at = None;
        self.persist_at = None;
        self.ack_at = None;
        self.idle_at = None;
        if self.released {
            self.recv.release(ctx.pool);
        }
        if !was_time_wait || self.reason.is_none() {
            self.reason = Some(reason);
            self.events |= event::CLOSED;
            self.notify_readable();
            self.notify_writable();
        }
    }

    /// Ends the connection and tells the peer.
    pub(crate) fn reset(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        let tell = self.is_synchronized() || self.state == TcpState::SynReceived;
        let tell = tell && self.state != TcpState::TimeWait;
        self.finish(ctx, reason);
        self.send_reset = tell;
    }

    /// Whether the handshake of an incoming connection is not complete.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.state, TcpState::Pending | TcpState::SynReceived)
    }

    /// Gives everything back before the connection is forgotten.
    pub(crate) fn dispose(&mut self, pool: &mut Pool) {
        self.recv.release(pool);
        pool.release(self.send_reserved);
        self.send_reserved = 0;
    }

    /// Nothing is left to do: the stack may forget the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.released && self.state == TcpState::Closed && !self.send_reset
    }

    fn notify_readable(&mut self) {
        if self.read_armed {
            self.read_armed = false;
            self.events |= event::READABLE;
        }
    }

    fn notify_writable(&mut self) {
        if self.write_armed {
            self.write_armed = false;
            self.events |= event::WRITABLE;
        }
    }
}

/// Window scale that lets a window of `max` bytes be announced.
fn scale_for(max: usize) -> u8 {
    (0..14).find(|s| (65_535usize << s) >= max).unwrap_or(14)
}

/// What must be remembered of a connection in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// Sequence numbers expected from, and next to be sent to, the peer.
    pub(crate) recv_next: u32,
    pub(crate) next: u32,
    ts_on: bool,
    ts_offset: u32,
    ts_recent: u32,
}

impl Tcb {
    /// What stays after the handle was released in TIME-WAIT.
    pub(crate) fn remains(&self) -> Remains {
        Remains {
            recv_next: self.peer_seq(self.recv_next()),
            next: self.seq(self.next),
            ts_on: self.ts_on,
            ts_offset: self.ts_offset,
            ts_recent: self.ts_recent,
        }
    }

    /// Whether an acknowledgement is still owed.
    pub(crate) fn owes_ack(&self) -> bool {
        self.ack_now
    }
}

impl Remains {
    /// The acknowledgement that answers a repeated FIN, or anything else that
    /// does not fit.
    pub(crate) fn answer(&self, now: Nanos, to: &Segment<'_>) -> Segment<'static> {
        let timestamps = self.ts_on.then(|| {
            let value = ((now / MILLIS) as u32).wrapping_add(self.ts_offset);
            (value, self.ts_recent)
        });
        Segment {
            src_port: to.dst_port,
            dst_port: to.src_port,
            seq: self.next,
            ack: self.recv_next,
            flags: crate::wire::tcp::ACK,
            window: 0,
            options: crate::wire::tcp::Options {
                timestamps,
                ..crate::wire::tcp::Options::default()
            },
            payload: &[],
        }
    }

    /// Whether a SYN may open the next connection of the same flow (RFC 9293
    /// §3.10.7.4, RFC 6191).
    pub(crate) fn allows(&self, syn: &Segment<'_>) -> bool {
        match syn.options.timestamps {
            Some((value, _)) if self.ts_on => (value.wrapping_sub(self.ts_recent) as i32) > 0,
            _ => (syn.seq.wrapping_sub(self.recv_next) as i32) > 0,
        }
    }
}
