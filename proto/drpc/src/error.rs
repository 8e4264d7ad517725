//! What can go wrong in a call.

use std::{io, string::FromUtf8Error};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Error code of a method that the server does not have.
pub const CODE_UNIMPLEMENTED: u64 = 12;

/// An error that crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// 0 for ordinary errors; [`CODE_UNIMPLEMENTED`] is the only other one in
    /// use.
    pub code: u64,
    /// Text for people; some peers match on parts of it.
    pub message: String,
}

impl Status {
    /// An ordinary error.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: 0,
            message: message.into(),
        }
    }

    /// The method is not there, so that the peer does not try again.
    #[must_use]
    pub fn unimplemented() -> Self {
        Self {
            code: CODE_UNIMPLEMENTED,
            message: "Unimplemented".into(),
        }
    }

    /// Whether the server lacks the method: by code, or by the text with which
    /// DRPC's own dispatcher answers unknown paths.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        self.code == CODE_UNIMPLEMENTED || self.message.contains("unknown rpc: ")
    }

    /// Body of an Error packet: big-endian code and text.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(8 + self.message.len());
        body.put_u64(self.code);
        body.put_slice(self.message.as_bytes());
        body.freeze()
    }

    /// Reads the body of an Error packet. Any body is an error of some kind.
    #[must_use]
    pub fn decode(mut body: &[u8]) -> Self {
        match body.try_get_u64() {
            Ok(code) => Self {
                code,
                message: String::from_utf8_lossy(body).into_owned(),
            },
            Err(_) => Self::new(format!(
                "{} (drpcwire note: invalid error data)",
                String::from_utf8_lossy(body)
            )),
        }
    }
}

/// How the peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A number has more than 64 bits.
    #[error("varint too long")]
    Varint,
    /// A packet is larger than allowed.
    #[error("data overflow")]
    Overflow,
    /// A packet is older than the last one.
    #[error("id monotonicity violation")]
    Monotonicity,
    /// Frames of one packet differ in kind.
    #[error("packet kind change")]
    KindChange,
    /// A packet of a kind that does not exist.
    #[error("unknown packet kind {0}")]
    UnknownKind(u8),
    /// A second Invoke on a running stream.
    #[error("invoke on existing stream")]
    SecondInvoke,
    /// The body of an Invoke is not text.
    #[error("path is not UTF-8")]
    Path(#[from] FromUtf8Error),
    /// The body of an InvokeMetadata is not a list of pairs.
    #[error("invalid metadata")]
    Metadata,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other side answered with an error.
    #[error(transparent)]
    Status(#[from] Status),
    /// The other side broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(#[from] ProtocolError),
    /// A message is not what the method promises.
    #[error("invalid message")]
    Decode(#[from] prost::DecodeError),
    /// The transport failed.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// The transport ended before the call did.
    #[error("connection closed before the call was complete")]
    Eof,
    /// The other side gave the call up.
    #[error("call cancelled")]
    Cancelled,
    /// A message was expected, and the other side ended the call.
    #[error("the call ended without an answer")]
    NoMessage,
    /// A message to be sent is larger than a peer accepts.
    #[error("message of {0} bytes is too large")]
    TooLarge(usize),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

impl Error {
    /// The error the other side answered with, if it did.
    #[must_use]
    pub const fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the server lacks the method.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        self.status().is_some_and(Status::is_unimplemented)
    }
}
