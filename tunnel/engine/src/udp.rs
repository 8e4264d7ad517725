//! UDP inside the tunnel.

use std::net::SocketAddrV6;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::command::Command;
use crate::error::Error;

/// Largest UDP payload that fits the tunnel's 1280 byte MTU.
pub const MAX_DATAGRAM: usize = 1232;

/// One datagram and its two ends.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Own overlay address and port.
    pub local: SocketAddrV6,
    /// The peer's overlay address and port.
    pub remote: SocketAddrV6,
    /// Payload.
    pub data: Bytes,
}

/// Sends datagrams from any own address and port. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UdpSender {
    pub(crate) commands: mpsc::Sender<Command>,
}

impl UdpSender {
    /// Queues a datagram; like UDP everywhere it is dropped when the queue is
    /// full.
    ///
    /// # Errors
    /// The payload exceeds [`MAX_DATAGRAM`], or the node closed.
    pub fn send(&self, datagram: Datagram) -> Result<(), Error> {
        if datagram.data.len() > MAX_DATAGRAM {
            return Err(Error::Io(std::io::Error::from_raw_os_error(EMSGSIZE)));
        }
        match self.commands.try_send(Command::UdpSend(datagram)) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Error::Closed),
            _ => Ok(()),
        }
    }
}

#[cfg(windows)]
const EMSGSIZE: i32 = 10040;
#[cfg(not(windows))]
const EMSGSIZE: i32 = nix::libc::EMSGSIZE;

/// A bound UDP port.
///
/// The port is free again when the socket is dropped. Datagrams that arrive
/// faster than they are received are dropped, newest first.
#[derive(Debug)]
pub struct UdpSocket {
    pub(crate) local: SocketAddrV6,
    pub(crate) incoming: mpsc::Receiver<Datagram>,
    pub(crate) sender: UdpSender,
}

impl UdpSocket {
    /// Own address (the node's first) and port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV6 {
        self.local
    }

    /// Next datagram; `None` once the node closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<Datagram> {
        self.incoming.recv().await
    }

    /// Sends `data` to `remote` from this port.
    ///
    /// # Errors
    /// As [`UdpSender::send`].
    pub fn send_to(&self, data: Bytes, remote: SocketAddrV6) -> Result<(), Error> {
        self.sender.send(Datagram {
            local: self.local,
            remote,
            data,
        })
    }

    /// A sender that may live in another task.
    #[must_use]
    pub fn sender(&self) -> UdpSender {
        self.sender.clone()
    }
}

/// Datagrams to every UDP port that is not bound.
#[derive(Debug)]
pub struct UdpRest {
    pub(crate) incoming: mpsc::Receiver<Datagram>,
    pub(crate) sender: UdpSender,
}

impl UdpRest {
    /// Next datagram; `None` once the node closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<Datagram> {
        self.incoming.recv().await
    }

    /// Sends answers: `local` is the port the peer wrote to.
    #[must_use]
    pub fn sender(&self) -> UdpSender {
        self.sender.clone()
    }
}
