//! Why a connection ended.

use thiserror::Error;

/// Codes of `SSH_MSG_DISCONNECT` (RFC 4253 §11.1).
pub(crate) mod reason {
    pub(crate) const PROTOCOL_ERROR: u32 = 2;
    pub(crate) const KEY_EXCHANGE_FAILED: u32 = 3;
    pub(crate) const MAC_ERROR: u32 = 5;
    pub(crate) const SERVICE_NOT_AVAILABLE: u32 = 7;
    pub(crate) const VERSION_NOT_SUPPORTED: u32 = 8;
    pub(crate) const CONNECTION_LOST: u32 = 10;
    pub(crate) const BY_APPLICATION: u32 = 11;
    pub(crate) const NO_MORE_AUTH_METHODS: u32 = 14;
}

/// What the peer was too slow for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Identification, key exchange and authentication.
    Login,
    /// A later key exchange.
    KeyExchange,
    /// Signs of life.
    Keepalive,
}

/// Why a connection ended, other than by the peer closing it in order.
#[derive(Debug, Error)]
pub enum Error {
    /// The peer does not speak SSH 2 (RFC 4253 §4.2).
    #[error("peer did not identify itself as SSH 2")]
    Identification,
    /// A packet is longer than allowed, or has an impossible length.
    #[error("packet of {0} bytes")]
    PacketLength(u32),
    /// A packet was altered on its way.
    #[error("packet does not authenticate")]
    Integrity,
    /// A message that cannot be read; names the message.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// No algorithm in common; names the kind of algorithm.
    #[error("no common {0}")]
    NoCommonAlgorithm(&'static str),
    /// The peer's part of the key exchange is invalid.
    #[error("key exchange: {0}")]
    KeyExchange(&'static str),
    /// A message the state of the connection does not allow.
    #[error("unexpected message {0}")]
    Unexpected(u8),
    /// A message names a channel that does not exist.
    #[error("message {message} for unknown channel {channel}")]
    UnknownChannel {
        /// Message number.
        message: u8,
        /// Our number of the channel.
        channel: u32,
    },
    /// The peer sent more on a channel than it was granted, or granted more
    /// than 4 GiB.
    #[error("channel window exceeded")]
    Window,
    /// A service other than user authentication and connections.
    #[error("unknown service")]
    UnknownService,
    /// Too many refused attempts to authenticate.
    #[error("too many authentication attempts")]
    Authentication,
    /// The server wants more than that the method `none` is asked for.
    #[error("the server refused the login")]
    Refused,
    /// The peer makes this side queue more than it may.
    #[error("too many unanswered {0}")]
    TooMany(&'static str),
    /// The peer was too slow.
    #[error("deadline passed: {0:?}")]
    Deadline(Deadline),
    /// The peer sent `SSH_MSG_DISCONNECT`.
    #[error("peer disconnected: {description} (code {code})")]
    Disconnected {
        /// RFC 4253 §11.1.
        code: u32,
        /// The peer's words, at most 256 characters.
        description: String,
    },
    /// The application ended the connection.
    #[error("closed")]
    Closed,
    /// The byte stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No randomness; or a cipher refused its input, which cannot happen.
    #[error("cryptography failed: {0}")]
    Crypto(&'static str),
}

impl Error {
    /// What to tell the peer, if anything.
    pub(crate) fn disconnect_reason(&self) -> Option<u32> {
        Some(match self {
            Self::Identification => reason::VERSION_NOT_SUPPORTED,
            Self::PacketLength(_)
            | Self::Malformed(_)
            | Self::Unexpected(_)
            | Self::UnknownChannel { .. }
            | Self::Window
            | Self::TooMany(_) => reason::PROTOCOL_ERROR,
            Self::Integrity => reason::MAC_ERROR,
            Self::NoCommonAlgorithm(_) | Self::KeyExchange(_) | Self::Crypto(_) => {
                reason::KEY_EXCHANGE_FAILED
            }
            Self::UnknownService => reason::SERVICE_NOT_AVAILABLE,
            Self::Authentication | Self::Refused => reason::NO_MORE_AUTH_METHODS,
            Self::Deadline(_) => reason::CONNECTION_LOST,
            Self::Closed => reason::BY_APPLICATION,
            Self::Disconnected { .. } | Self::Io(_) => return None,
        })
    }
}
