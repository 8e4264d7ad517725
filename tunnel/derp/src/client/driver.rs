//! The task that reads and writes a connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::queue::Shared;
use super::{CloseReason, Event};
use crate::alarm::Alarm;
use crate::carrier::{Carrier, CarrierError};
use crate::frame::{Decoder, Frame, RawFrame};

/// Relays send at least a keep-alive each 65 s; twice that without a sign is
/// a dead connection.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// A relay that takes no byte for so long is dead or hopelessly slow.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A deadline that is seen so much too late passed while this process did not
/// run: what has arrived since is still to be read, and gets this time.
const SLEPT: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(2);

/// Read buffer when little comes, and at most, in bytes.
const SMALL_READ: usize = 4 << 10;
const LARGE_READ: usize = 64 << 10;

/// Events for which room is kept when little comes.
const FEW_EVENTS: usize = 4;

/// How many reads or batches are handled before other tasks get a turn.
const TURNS: usize = 16;

impl From<CarrierError> for CloseReason {
    fn from(error: CarrierError) -> Self {
        match error {
            CarrierError::Io(error) => Self::Io {
                kind: error.kind(),
                reason: error.to_string(),
            },
            CarrierError::Protocol(reason) => Self::Protocol(reason),
        }
    }
}

/// A connection whose handshake is done.
pub(super) struct Driver<IO> {
    carrier: Carrier<IO>,
    decoder: Decoder,
    shared: Arc<Shared>,
    out: BytesMut,
    dirty: bool,
    read_size: usize,
    events: Vec<Event>,
    /// When silence, and being unable to write, have lasted too long.
    silent_until: Instant,
    stuck_until: Option<Instant>,
    alarm: Alarm,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// `early` are frames that came during the handshake.
    pub(super) fn new(
        carrier: Carrier<IO>,
        decoder: Decoder,
        shared: Arc<Shared>,
        early: Vec<RawFrame>,
    ) -> Self {
        let now = Instant::now();
        let mut new = Self {
            carrier,
            decoder,
            shared,
            out: BytesMut::new(),
            dirty: false,
            read_size: SMALL_READ,
            events: Vec::new(),
            silent_until: now + READ_TIMEOUT,
            stuck_until: None,
            alarm: Alarm::new(now + READ_TIMEOUT),
        };
        early.into_iter().for_each(|frame| new.handle(frame));
        let shared = new.shared.clone();
        shared.push_events(&mut new.events);
        new
    }

    /// Runs to the end of the connection and notes its reason.
    pub(super) async fn run(mut self) {
        let reason = poll_fn(|cx| match self.poll_all(cx) {
            Ok(()) => Poll::Pending,
            Err(reason) => Poll::Ready(reason),
        })
        .await;
        let code = match &reason {
            CloseReason::Local | CloseReason::Eof => 1000,
            CloseReason::Protocol(_) => 1003,
            _ => 1002,
        };
        self.carrier.start_close(code);
        self.shared.close(reason);
        let limit = Duration::from_millis(500);
        let _ = timeout(limit, poll_fn(|cx| self.carrier.poll_close(cx))).await;
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        for _ in 0..TURNS {
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            if !wrote && !read {
                return self.wait(cx);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.out.is_empty() && !self.dirty {
            if self.shared.drain(cx, &mut self.out) {
                return Err(CloseReason::Local);
            }
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
                self.stuck_until = None;
                Ok(true)
            }
            Poll::Pending => {
                if self.out.len() < before || self.stuck_until.is_none() {
                    self.stuck_until = Some(Instant::now() + WRITE_TIMEOUT);
                }
                Ok(false)
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let missing = self.decoder.missing();
        let buffer = self.decoder.buffer();
        if buffer.capacity() - buffer.len() < SMALL_READ.max(missing) {
            buffer.reserve(self.read_size.max(missing));
        }
        let before = buffer.len();
        let room = buffer.capacity() - before;
        match self.carrier.poll_recv(cx, buffer) {
            Poll::Pending => {
                self.read_size = SMALL_READ.max(self.read_size / 2);
                if self.read_size == SMALL_READ {
                    self.events.shrink_to(FEW_EVENTS);
                }
                return Ok(false);
            }
            Poll::Ready(received) => {
                if !received? {
                    return Err(CloseReason::Eof);
                }
            }
        }
        if self.decoder.buffer().len() - before >= room.min(self.read_size) {
            self.read_size = (self.read_size * 4).min(LARGE_READ);
        }
        self.silent_until = Instant::now() + READ_TIMEOUT;
        while let Some(frame) = self.decoder.next_frame()? {
            self.handle(frame);
        }
        let shared = self.shared.clone();
        shared.push_events(&mut self.events);
        Ok(true)
    }

    fn handle(&mut self, frame: RawFrame) {
        match Frame::parse(frame) {
            Frame::RecvPacket { src, packet } => self.events.push(Event::Packet { src, packet }),
            Frame::PeerGone { peer, reason } => {
                self.events.push(Event::PeerGone { peer, reason });
            }
            Frame::Ping(data) => self.shared.push_pong(data),
            Frame::Pong(data) => self.shared.end_ping(data),
            Frame::Health(text) => self.events.push(Event::Health(text)),
            Frame::Restarting {
                reconnect_in_ms,
                try_for_ms,
            } => {
                self.events.push(Event::Restarting {
                    reconnect_in: Duration::from_millis(reconnect_in_ms.into()),
                    try_for: Duration::from_millis(try_for_ms.into()),
                });
            }
            Frame::KeepAlive | Frame::ServerKey(_) | Frame::ServerInfo(_) | Frame::Ignored(_) => {}
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        loop {
            let now = Instant::now();
            for until in [Some(&mut self.silent_until), self.stuck_until.as_mut()]
                .into_iter()
                .flatten()
            {
                if now >= *until + SLEPT {
                    *until = now + GRACE;
                }
            }
            if self.silent_until <= now {
                return Err(CloseReason::ReadTimeout);
            }
            if self.stuck_until.is_some_and(|at| at <= now) {
                return Err(CloseReason::WriteTimeout);
            }
            let (silent, stuck) = (self.silent_until, self.stuck_until);
            if self.alarm.poll(cx, silent, stuck).is_pending() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{advance, sleep};

    use adit_keys::NodePublic;

    use super::*;
    use crate::frame;

    const ROOM: usize = 256;

    /// A connection, what it shares with its handle, and the relay's end.
    fn connection() -> (impl Future<Output = ()>, Arc<Shared>, DuplexStream) {
        let (io, relay) = duplex(ROOM);
        let shared = Arc::new(Shared::new(NodePublic::from_bytes([1; 32]), None));
        let carrier = Carrier::Upgrade(io);
        let driver = Driver::new(carrier, Decoder::for_client(), shared.clone(), Vec::new());
        (driver.run(), shared, relay)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        let (run, shared, _relay) = connection();
        let began = Instant::now();
        run.await;
        assert!(matches!(
            shared.close_reason(),
            Some(CloseReason::ReadTimeout)
        ));
        assert!(began.elapsed() < READ_TIMEOUT + SLEPT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_stop_alone_does_not() {
        let (run, shared, mut relay) = connection();
        let run = tokio::spawn(run);
        // More than there is room for: it waits to be written.
        let packets = (0..4).map(|_| (NodePublic::from_bytes([2; 32]), vec![0; ROOM].into()));
        shared.push_packets(packets);
        sleep(Duration::from_secs(1)).await;
        advance(READ_TIMEOUT * 3).await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(shared.close_reason(), None);
        // What has come meanwhile is read a moment later.
        let mut out = BytesMut::new();
        frame::put_keep_alive(&mut out);
        relay.write_all(&out).await.unwrap();
        let mut got = vec![0; 4 * ROOM];
        relay.read_exact(&mut got).await.unwrap();
        sleep(READ_TIMEOUT / 2).await;
        assert_eq!(shared.close_reason(), None);
        run.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_after_a_stop_too_is_gone() {
        let (run, shared, _relay) = connection();
        let run = tokio::spawn(run);
        sleep(Duration::from_secs(1)).await;
        advance(READ_TIMEOUT * 3).await;
        run.await.unwrap();
        assert_eq!(shared.close_reason(), Some(CloseReason::ReadTimeout));
    }
}
