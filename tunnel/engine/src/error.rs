//! What can go wrong on a node.

use std::io;

/// A failed operation on a [`Node`](crate::Node).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node was closed, or its core task ended.
    #[error("the tunnel node is closed")]
    Closed,
    /// No peer granted by the coordinator owns the address.
    #[error("no peer has the address {0}")]
    UnknownPeer(std::net::Ipv6Addr),
    /// The peer (or the service behind it) refused the connection: a TCP reset
    /// answered the SYN.
    #[error("connection refused by the peer")]
    Refused,
    /// The peer did not answer in time.
    #[error("timed out waiting for {0}")]
    Timeout(&'static str),
    /// The local port is taken by another listener or connection.
    #[error("port {0} is already in use on this node")]
    PortInUse(u16),
    /// A bounded resource of the node is used up.
    #[error("{0} exhausted")]
    Exhausted(&'static str),
    /// A node message of the coordinator cannot be used.
    #[error("unusable peer description: {0}")]
    BadPeer(String),
    /// Any other operating system error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Closed => io::ErrorKind::NotConnected,
            Error::UnknownPeer(_) => io::ErrorKind::HostUnreachable,
            Error::Refused => io::ErrorKind::ConnectionRefused,
            Error::Timeout(_) => io::ErrorKind::TimedOut,
            Error::PortInUse(_) => io::ErrorKind::AddrInUse,
            Error::Exhausted(_) => io::ErrorKind::OutOfMemory,
            Error::BadPeer(_) => io::ErrorKind::InvalidInput,
            Error::Io(inner) => inner.kind(),
        };
        Self::new(kind, error)
    }
}
