//! One client's connection.
//!
//! A single task reads, writes and keeps the time, so that an idle client
//! costs one small allocation of each. Reading never waits for writing.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adit_keys::{KEY_LEN, NodePublic};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::Core;
use super::outbox::Outbox;
use super::registry::{Conn, Route};
use crate::alarm::Alarm;
use crate::carrier::{Carrier, CarrierError};
use crate::frame::{
    self, Decoder, FrameError, MAX_PACKET, PING_LEN, PeerGoneReason, Policy, RawFrame, kind,
};
use crate::handshake::{
    self, ClientInfo, HandshakeError, MAX_CLIENT_INFO, MIN_CLIENT_INFO, ServerInfo,
};

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The client closed the connection.
    Closed,
    /// The relay is closing.
    Stopped,
    /// The client was too slow: in the handshake, or in taking what is
    /// written to it.
    TimedOut,
    /// The connection broke.
    Broken(String),
    /// The client's first frame is no valid client information.
    Handshake(Option<HandshakeError>),
    /// The client broke the protocol.
    Frame(FrameError),
    /// The client used a frame that only relays of a mesh may use.
    MeshOnly(u8),
}

impl From<CarrierError> for SessionEnd {
    fn from(error: CarrierError) -> Self {
        Self::Broken(match error {
            CarrierError::Io(error) => error.to_string(),
            CarrierError::Protocol(reason) => reason,
        })
    }
}

impl From<FrameError> for SessionEnd {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// Read buffer of an idle connection, in bytes.
const SMALL_READ: usize = 1 << 10;

/// Read buffer of a busy connection, in bytes.
const LARGE_READ: usize = 64 << 10;

/// How many reads or batches are handled before other tasks get a turn.
const TURNS: usize = 16;

/// PeerGone answers to packets for unknown nodes: so many at once, and one
/// more each second.
const GONE_BURST: f64 = 3.0;

/// Longest ping that is answered.
const MAX_PING: usize = 1000;

/// Runs a session from the server's first frame to its end.
pub(super) async fn run<IO>(core: Arc<Core>, mut carrier: Carrier<IO>) -> SessionEnd
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut decoder = Decoder::new(|kind, len| match kind {
        kind::CLIENT_INFO if len as usize <= MAX_CLIENT_INFO => Policy::Take,
        _ => Policy::Refuse,
    });
    let limit = core.config.handshake_timeout;
    let stopped = core.stopped.notified();
    let mut stopped = std::pin::pin!(stopped);
    stopped.as_mut().enable();
    if core.stopping.load(Ordering::SeqCst) {
        return SessionEnd::Stopped;
    }
    let key = tokio::select! {
        greeted = greet(&core, &mut carrier, &mut decoder, limit) => match greeted {
            Ok(key) => key,
            Err(end) => return end,
        },
        () = &mut stopped => return SessionEnd::Stopped,
    };
    decoder.set_policy(after_handshake);

    let outbox = Outbox::new(core.config.queue_depth, core.config.queue_bytes);
    let conn = core.registry.add(key, outbox);
    let registered = Registered {
        core: core.clone(),
        conn,
    };
    let now = Instant::now();
    let period = keep_alive_period(core.config.keep_alive);
    let mut out = BytesMut::new();
    ServerInfo::ours().put(&mut out, &core.config.key, &key, &handshake::nonce());
    let mut session = Session {
        carrier,
        decoder,
        out,
        dirty: true,
        read_size: SMALL_READ,
        period,
        keep_alive_at: now + period,
        stuck_since: None,
        busy: true,
        alarm: Alarm::new(now + period),
        route: None,
        gone_tokens: GONE_BURST,
        gone_at: now,
        wakers: Vec::new(),
        registered: &registered,
    };
    let end = poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(SessionEnd::Stopped),
        Poll::Pending => session.poll(cx),
    })
    .await;
    session.say_goodbye(&end).await;
    end
}

/// Takes the connection out of the registry whatever ends the task.
struct Registered {
    core: Arc<Core>,
    conn: Arc<Conn>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.core.registry.remove(&self.conn);
    }
}

/// Sends the relay's key and waits for the client to prove its own.
async fn greet<IO: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    carrier: &mut Carrier<IO>,
    decoder: &mut Decoder,
    limit: Duration,
) -> Result<NodePublic, SessionEnd> {
    let mut out = BytesMut::new();
    frame::put_server_key(&mut out, &core.public);
    timeout(limit, poll_fn(|cx| carrier.poll_send(cx, &mut out)))
        .await
        .map_err(|_| SessionEnd::TimedOut)??;
    let first = async {
        loop {
            if let Some(frame) = decoder
                .next_frame()
                .map_err(|_| SessionEnd::Handshake(None))?
            {
                return Ok::<_, SessionEnd>(frame);
            }
            let missing = decoder.missing();
            let buffer = decoder.buffer();
            buffer.reserve(missing.clamp(SMALL_READ, LARGE_READ));
            if !poll_fn(|cx| carrier.poll_recv(cx, buffer)).await? {
                return Err(SessionEnd::Closed);
            }
        }
    };
    let info = timeout(limit, first)
        .await
        .map_err(|_| SessionEnd::TimedOut)??;
    if info.body.len() < MIN_CLIENT_INFO {
        return Err(SessionEnd::Handshake(Some(HandshakeError::Short)));
    }
    ClientInfo::open(&info.body, &core.config.key)
        .map(|(key, _)| key)
        .map_err(|error| SessionEnd::Handshake(Some(error)))
}

fn after_handshake(kind: u8, len: u32) -> Policy {
    let len = len as usize;
    let fits = match kind {
        kind::SEND_PACKET => (KEY_LEN..=KEY_LEN + MAX_PACKET).contains(&len),
        kind::PING => (PING_LEN..=MAX_PING).contains(&len),
        kind::NOTE_PREFERRED => len == 1,
        // Refused whatever they say; no need to read them.
        kind::WATCH_CONNS | kind::CLOSE_PEER | kind::FORWARD_PACKET => false,
        _ => return Policy::Skip,
    };
    if fits { Policy::Take } else { Policy::Refuse }
}

/// A minute and up to five seconds, fixed for the connection.
fn keep_alive_period(base: Duration) -> Duration {
    base + base.mul_f64(rand::random::<f64>() / 12.0)
}

struct Session<'a, IO> {
    carrier: Carrier<IO>,
    decoder: Decoder,
    out: BytesMut,
    /// `out` was given to the carrier, but it has not said it is flushed.
    dirty: bool,
    read_size: usize,
    period: Duration,
    keep_alive_at: Instant,
    stuck_since: Option<Instant>,
    /// Something happened since the last keep-alive.
    busy: bool,
    alarm: Alarm,
    route: Option<(NodePublic, Route, u64)>,
    gone_tokens: f64,
    gone_at: Instant,
    wakers: Vec<Waker>,
    registered: &'a Registered,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Session<'_, IO> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        match self.poll_all(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        for _ in 0..TURNS {
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            if !wrote && !read {
                return self.wait(cx);
            }
            self.busy = true;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Writes a batch; `true` if there may be more to write at once.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, SessionEnd> {
        if self.out.is_empty() && !self.dirty {
            self.registered.conn.outbox.drain(cx, &mut self.out);
            if self.out.is_empty() {
                return Ok(false);
            }
            self.dirty = true;
        }
        let before = self.out.len();
        match self.carrier.poll_send(cx, &mut self.out) {
            Poll::Ready(sent) => {
                sent?;
                self.dirty = false;
                self.stuck_since = None;
                Ok(true)
            }
            Poll::Pending => {
                if self.out.len() < before || self.stuck_since.is_none() {
                    self.stuck_since = Some(Instant::now());
                }
                Ok(false)
            }
        }
    }

    /// Reads once and handles all whole frames; `true` if there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, SessionEnd> {
        let missing = self.decoder.missing();
        let buffer = self.decoder.buffer();
        if buffer.capacity() - buffer.len() < self.read_size.min(SMALL_READ).max(missing) {
            buffer.reserve(self.read_size.max(missing));
        }
        let before = buffer.len();
        let room = buffer.capacity() - before;
        match self.carrier.poll_recv(cx, buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(received) => {
                if !received? {
                    return Err(SessionEnd::Closed);
                }
            }
        }
        if self.decoder.buffer().len() - before >= room.min(self.read_size) {
            self.read_size = (self.read_size * 4).min(LARGE_READ);
        }
        let result = self.handle_frames();
        self.wakers.drain(..).for_each(Waker::wake);
        result.map(|()| true)
    }

    fn handle_frames(&mut self) -> Result<(), SessionEnd> {
        let now = Instant::now();
        loop {
            match self.decoder.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => self.handle(now, &frame),
                Err(FrameError::TooLong {
                    kind: kind @ (kind::WATCH_CONNS | kind::CLOSE_PEER | kind::FORWARD_PACKET),
                    ..
                }) => return Err(SessionEnd::MeshOnly(kind)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn handle(&mut self, now: Instant, frame: &RawFrame) {
        let conn = &self.registered.conn;
        if conn.contended.load(Ordering::Relaxed) {
            self.registered.core.registry.note_sender(conn);
        }
        match frame.kind {
            kind::SEND_PACKET => {
                if let Some(dst) = frame.body.first_chunk() {
                    let dst = NodePublic::from_bytes(*dst);
                    self.forward(now, dst, &frame.body.slice(KEY_LEN..));
                }
            }
            kind::PING => {
                if let Some(data) = frame.body.first_chunk() {
                    conn.outbox.push_pong(*data);
                }
            }
            // A note of preference is of statistical interest only.
            _ => {}
        }
    }

    fn forward(&mut self, now: Instant, dst: NodePublic, packet: &Bytes) {
        let core = &self.registered.core;
        let conn = &self.registered.conn;
        let known = matches!(&self.route, Some((key, _, epoch))
            if *key == dst && *epoch == core.registry.epoch());
        if !known {
            let (route, epoch) = core.registry.route(conn, &dst);
            self.route = Some((dst, route, epoch));
        }
        match &self.route {
            Some((_, Route::To(receiver), _)) => {
                let (dropped, waker) = receiver.outbox.push(conn.key, packet);
                self.wakers.extend(waker);
                let counters = &core.counters;
                counters.packets.fetch_add(1, Ordering::Relaxed);
                counters
                    .bytes
                    .fetch_add(packet.len() as u64, Ordering::Relaxed);
                if dropped > 0 {
                    counters.dropped.fetch_add(dropped, Ordering::Relaxed);
                }
            }
            Some((_, Route::Unknown, _)) => {
                core.counters.unknown.fetch_add(1, Ordering::Relaxed);
                if adit_disco::is_disco(packet) && self.may_say_gone(now) {
                    // Our own outbox: the next write drains it.
                    conn.outbox.push_gone(dst, PeerGoneReason::NotHere);
                }
            }
            _ => {}
        }
    }

    fn may_say_gone(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.gone_at).as_secs_f64();
        self.gone_tokens = (self.gone_tokens + gained).min(GONE_BURST);
        self.gone_at = now;
        let may = self.gone_tokens >= 1.0;
        if may {
            self.gone_tokens -= 1.0;
        }
        may
    }

    /// Nothing can be done now: acts on the clock and sleeps.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), SessionEnd> {
        loop {
            let now = Instant::now();
            let stuck_until = self
                .stuck_since
                .map(|at| at + self.registered.core.config.write_timeout);
            if stuck_until.is_some_and(|at| at <= now) {
                return Err(SessionEnd::TimedOut);
            }
            if self.keep_alive_at <= now {
                self.keep_alive_at = now + self.period;
                self.rest();
                if self.out.is_empty() {
                    frame::put_keep_alive(&mut self.out);
                    self.dirty = true;
                    self.write(cx)?;
                    continue;
                }
            }
            if self
                .alarm
                .poll(cx, self.keep_alive_at, stuck_until)
                .is_pending()
            {
                return Ok(());
            }
        }
    }

    /// Gives back the memory of a busy time once a whole period was idle.
    fn rest(&mut self) {
        if !std::mem::take(&mut self.busy) {
            self.read_size = SMALL_READ;
            if self.decoder.buffer().is_empty() {
                *self.decoder.buffer() = BytesMut::new();
            }
            if self.out.is_empty() {
                self.out = BytesMut::new();
            }
            self.wakers = Vec::new();
            self.route = None;
            self.registered.conn.outbox.shrink();
        }
    }

    async fn say_goodbye(&mut self, end: &SessionEnd) {
        let code = match end {
            SessionEnd::Broken(_) => 1003,
            SessionEnd::Closed | SessionEnd::Stopped => 1000,
            _ => 1008,
        };
        if matches!(end, SessionEnd::TimedOut) {
            return;
        }
        // A stopped relay just ends its streams.
        if !matches!(end, SessionEnd::Stopped) {
            self.carrier.start_close(code);
        }
        let limit = self.registered.core.config.write_timeout;
        let _ = timeout(limit, poll_fn(|cx| self.carrier.poll_close(cx))).await;
    }
}
