//! Why a session or a stream ended.

use std::{fmt, io, sync::Arc};

use crate::frame::HeaderError;

/// Why a session ended, or why a call on it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This side closed the session.
    #[error("session closed")]
    Closed,
    /// The transport ended.
    #[error("the peer closed the connection")]
    Eof,
    /// The transport failed.
    #[error("connection failed")]
    Io(#[source] Arc<io::Error>),
    /// The peer broke the protocol.
    #[error("yamux protocol violation")]
    Protocol(#[source] Violation),
    /// The peer ended the session.
    #[error("the peer ended the session: {0}")]
    RemoteGoAway(GoAwayCode),
    /// The peer takes no new streams; existing ones go on.
    #[error("the peer is not accepting streams")]
    NotAccepting,
    /// No answer to a keepalive ping in time.
    #[error("no answer to keepalive")]
    KeepaliveTimeout,
    /// No answer to a ping in time. The session goes on.
    #[error("no answer to ping")]
    PingTimeout,
    /// The transport took no data for the write timeout.
    #[error("connection write timeout")]
    WriteTimeout,
    /// The peer neither accepted nor refused a stream in time.
    #[error("the peer did not accept a stream in time")]
    OpenTimeout,
    /// All stream ids of this session are used up.
    #[error("stream ids are exhausted")]
    StreamsExhausted,
    /// Too many pings are waiting for an answer.
    #[error("too many outstanding pings")]
    TooManyPings,
}

/// What the peer did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header is not of protocol version 0.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// More data than the receive window allows.
    #[error("receive window exceeded on stream {0}")]
    Window(u32),
    /// SYN for a stream that exists.
    #[error("duplicate stream {0}")]
    DuplicateStream(u32),
    /// FIN for a stream that had one.
    #[error("unexpected flag on stream {0}")]
    UnexpectedFlag(u32),
    /// A stream or a frame that uses stream 0 in a forbidden way.
    #[error("invalid stream id {0}")]
    StreamId(u32),
    /// Too much data is waiting to be read over all streams.
    #[error("receive budget of the session exceeded")]
    Budget,
}

/// Reason code of a GoAway frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAwayCode(pub u32);

impl GoAwayCode {
    /// Orderly end: no new streams, existing ones go on.
    pub const NORMAL: Self = Self(0);
    /// The receiver of the frame broke the protocol.
    pub const PROTOCOL: Self = Self(1);
    /// The sender of the frame has an internal error.
    pub const INTERNAL: Self = Self(2);
}

impl fmt::Display for GoAwayCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("normal"),
            1 => f.write_str("protocol error"),
            2 => f.write_str("internal error"),
            other => write!(f, "code {other}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Protocol(violation)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io(inner) => inner.kind(),
            Error::Eof => io::ErrorKind::UnexpectedEof,
            Error::Closed => io::ErrorKind::BrokenPipe,
            Error::KeepaliveTimeout
            | Error::PingTimeout
            | Error::WriteTimeout
            | Error::OpenTimeout => io::ErrorKind::TimedOut,
            Error::Protocol(_) => io::ErrorKind::InvalidData,
            Error::RemoteGoAway(_) | Error::NotAccepting => io::ErrorKind::ConnectionAborted,
            Error::StreamsExhausted | Error::TooManyPings => io::ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}
