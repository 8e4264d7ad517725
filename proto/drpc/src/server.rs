//! Answering calls.
//!
//! A transport carries calls one after the other. While a call runs, packets
//! go on being read, so that the peer's cancellation is seen; a message that
//! the handler does not take stops the reading, which is DRPC's back-pressure.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
    time::timeout,
};

use crate::{
    call::{Requests, Responses},
    codec::{Kind, Packet},
    error::{Error, ProtocolError, Status},
    exchange::{Caller, Exchange},
    metadata::{self, Metadata},
    transport::{PacketReader, PacketWriter},
};

/// How long a handler may go on after its call was cancelled. Its requests
/// and responses fail from then on, so it ends by itself if it uses them.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// How long the last packet of a call may take to be sent.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`Options::idle`], the time after which a half-closed yamux
/// stream ends too.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// Dispatches calls to methods.
pub trait Handler: Sync {
    /// Runs one call. The future is dropped when the peer is gone.
    ///
    /// # Errors
    /// The error is sent to the peer.
    fn call(&self, call: Call) -> impl Future<Output = Result<Reply, Status>> + Send;
}

/// A call of a peer.
#[derive(Debug)]
pub struct Call {
    /// Path of the method.
    pub path: String,
    /// What the peer sent along.
    pub metadata: Metadata,
    /// Messages of the peer.
    pub requests: Requests,
    /// Messages to the peer.
    pub responses: Responses,
}

/// How a call that succeeded ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// With one encoded message.
    Unary(Bytes),
    /// All messages were sent.
    Stream,
}

/// How to serve a transport.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Longest wait for the next call. `None` waits for ever.
    pub idle: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { idle: Some(IDLE) }
    }
}

/// Serves the calls of one transport until it ends.
///
/// # Errors
/// When the transport fails or the peer breaks the protocol. The transport is
/// closed in any case.
pub async fn serve_stream<IO, H>(io: IO, handler: &H, options: Options) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
    H: Handler,
{
    let (read, write) = tokio::io::split(io);
    let writer = Arc::new(Mutex::new(PacketWriter::new(Box::new(write))));
    let mut server = Server {
        handler,
        reader: PacketReader::new(Box::new(read)),
        writer: Arc::clone(&writer),
        next: None,
        invoked: 0,
    };
    let outcome = server.run(options.idle).await;
    writer.lock().await.shutdown().await;
    outcome
}

struct Server<'a, H> {
    handler: &'a H,
    reader: PacketReader,
    writer: Arc<Mutex<PacketWriter>>,
    /// A packet that was read and belongs to the next call.
    next: Option<Packet>,
    /// Highest stream id that was invoked.
    invoked: u64,
}

/// Why a running call was given up.
enum Stop {
    /// The transport ended.
    Eof,
    /// The peer ended the call, the transport goes on.
    Call,
    /// The transport cannot go on.
    Failed(Error),
}

impl<H: Handler> Server<'_, H> {
    async fn run(&mut self, idle: Option<Duration>) -> Result<(), Error> {
        let mut metadata = None;
        while let Some(packet) = self.packet(idle).await? {
            match packet.kind {
                Kind::InvokeMetadata => {
                    metadata = Some((packet.stream, metadata::decode(&packet.data)?));
                }
                Kind::Invoke if packet.stream <= self.invoked => {
                    return Err(ProtocolError::SecondInvoke.into());
                }
                Kind::Invoke => {
                    let pairs = metadata
                        .take()
                        .filter(|(stream, _)| *stream == packet.stream)
                        .map(|(_, pairs)| pairs)
                        .unwrap_or_default();
                    if !self.serve_call(packet, pairs).await? {
                        return Ok(());
                    }
                }
                // A peer that does not begin with a call gets no answer.
                _ if self.invoked == 0 && metadata.is_none() => {
                    let drained = self.reader.drain();
                    match idle {
                        Some(idle) => timeout(idle, drained).await.or(Err(Error::Timeout))?,
                        None => drained.await,
                    }
                    return Ok(());
                }
                Kind::Unknown(kind) if !packet.control => {
                    return Err(ProtocolError::UnknownKind(kind).into());
                }
                // Rest of a call that is over.
                _ => {}
            }
        }
        Ok(())
    }

    async fn packet(&mut self, idle: Option<Duration>) -> Result<Option<Packet>, Error> {
        if let Some(packet) = self.next.take() {
            return Ok(Some(packet));
        }
        match idle {
            Some(idle) => timeout(idle, self.reader.next())
                .await
                .unwrap_or(Err(Error::Timeout)),
            None => self.reader.next().await,
        }
    }

    /// Runs one call to its end. Returns whether the transport can carry
    /// another one.
    async fn serve_call(&mut self, invoke: Packet, metadata: Metadata) -> Result<bool, Error> {
        let stream = invoke.stream;
        self.invoked = stream;
        self.writer.lock().await.start(stream);
        let path = String::from_utf8(invoke.data.into()).map_err(ProtocolError::from)?;

        let caller = Caller::default();
        let exchange = || Arc::clone(caller.exchange());
        let call = Call {
            path,
            metadata,
            requests: Requests::new(exchange()),
            responses: Responses::new(Arc::clone(&self.writer), stream, exchange()),
        };
        let handler = self.handler;
        let mut handler = pin!(handler.call(call));
        let mut feed = Feed {
            stream,
            exchange: caller.exchange(),
            complete: false,
            waiting: None,
        };
        let stop = loop {
            tokio::select! {
                biased;
                reply = &mut handler => return send_reply(&self.writer, reply).await,
                stop = feed.step(&mut self.reader, &mut self.next) => {
                    if let Some(stop) = stop {
                        break stop;
                    }
                }
            }
        };
        drop(caller);
        if matches!(stop, Stop::Eof) {
            // The peer waits for our end of the transport, not for the handler.
            if let Ok(mut writer) = self.writer.try_lock() {
                writer.shutdown().await;
            }
        }
        if timeout(CANCEL_GRACE, &mut handler).await.is_err() {
            tracing::debug!("handler dropped after cancellation");
        }
        match stop {
            Stop::Eof => Ok(false),
            Stop::Call => Ok(!self.writer.lock().await.is_broken()),
            Stop::Failed(error) => Err(error),
        }
    }
}

/// Ends a call. Returns that the transport can carry another one.
async fn send_reply(
    writer: &Mutex<PacketWriter>,
    reply: Result<Reply, Status>,
) -> Result<bool, Error> {
    let mut writer = writer.lock().await;
    match reply {
        Ok(Reply::Unary(message)) => match writer.queue(Kind::Message, message) {
            Ok(()) => writer.queue(Kind::CloseSend, Bytes::new())?,
            Err(error) => {
                writer.queue(Kind::Error, Status::new(error.to_string()).encode())?;
            }
        },
        Ok(Reply::Stream) => writer.queue(Kind::Close, Bytes::new())?,
        Err(status) => writer.queue(Kind::Error, status.encode())?,
    }
    timeout(REPLY_TIMEOUT, writer.flush())
        .await
        .unwrap_or(Err(Error::Timeout))?;
    Ok(true)
}

/// Carries the peer's messages to the handler.
struct Feed<'a> {
    stream: u64,
    exchange: &'a Exchange,
    /// The peer said that no more messages follow.
    complete: bool,
    /// A message for which the handler has no room yet.
    waiting: Option<Bytes>,
}

impl Feed<'_> {
    /// One step: hands a message over or reads a packet. Cancel-safe.
    async fn step(&mut self, reader: &mut PacketReader, next: &mut Option<Packet>) -> Option<Stop> {
        if self.waiting.is_some() {
            if !self.exchange.offer(&mut self.waiting).await {
                // The handler wants no more; the rest is dropped.
                self.waiting = None;
            }
            return None;
        }
        let packet = match reader.next().await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Some(Stop::Eof),
            // A reset transport is a cancelled call, too.
            Err(Error::Io(_)) => return Some(Stop::Eof),
            Err(error) => return Some(Stop::Failed(error)),
        };
        if packet.stream != self.stream {
            *next = Some(packet);
            return Some(Stop::Call);
        }
        match packet.kind {
            Kind::Message if self.complete => {}
            Kind::Message => self.waiting = Some(packet.data),
            Kind::CloseSend => {
                self.complete = true;
                self.exchange.complete();
            }
            Kind::Close | Kind::Cancel | Kind::Error => return Some(Stop::Call),
            Kind::Invoke => return Some(Stop::Failed(ProtocolError::SecondInvoke.into())),
            Kind::Unknown(kind) if !packet.control => {
                return Some(Stop::Failed(ProtocolError::UnknownKind(kind).into()));
            }
            Kind::InvokeMetadata | Kind::Unknown(_) => {}
        }
        None
    }
}
