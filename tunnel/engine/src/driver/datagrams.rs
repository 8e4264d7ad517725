//! UDP ports inside the tunnel.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddrV6};

use adit_netstack::{Stack, UdpError};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::udp::Datagram;

/// Users of UDP ports.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    bound: HashMap<u16, mpsc::Sender<Datagram>>,
    rest: Option<mpsc::Sender<Datagram>>,
}

impl Datagrams {
    /// Binds a port, 0 for any; returns which.
    pub(crate) fn bind(
        &mut self,
        stack: &mut Stack,
        port: u16,
        incoming: mpsc::Sender<Datagram>,
    ) -> Result<u16, Error> {
        self.bound.retain(|port, user| {
            if user.is_closed() {
                stack.udp_unbind(*port);
            }
            !user.is_closed()
        });
        let port = if port == 0 {
            stack
                .udp_bind_any()
                .map_err(|_| Error::Exhausted("UDP ports"))?
        } else {
            stack.udp_bind(port).map_err(|_| Error::PortInUse(port))?;
            port
        };
        self.bound.insert(port, incoming);
        Ok(port)
    }

    pub(crate) fn set_rest(&mut self, stack: &mut Stack, incoming: mpsc::Sender<Datagram>) {
        stack.udp_accept_any(true);
        self.rest = Some(incoming);
    }

    /// Gives a datagram to its user; drops it when the user is behind.
    pub(crate) fn deliver(
        &mut self,
        stack: &mut Stack,
        local: SocketAddrV6,
        remote: SocketAddrV6,
        data: Bytes,
    ) {
        let datagram = Datagram {
            local,
            remote,
            data,
        };
        let port = local.port();
        if let Some(user) = self.bound.get(&port) {
            if let Err(mpsc::error::TrySendError::Closed(_)) = user.try_send(datagram) {
                self.bound.remove(&port);
                stack.udp_unbind(port);
            }
        } else if let Some(rest) = &self.rest
            && let Err(mpsc::error::TrySendError::Closed(_)) = rest.try_send(datagram)
        {
            self.rest = None;
            stack.udp_accept_any(false);
        }
    }

    /// Sends a datagram, which may be dropped.
    pub(crate) fn send(stack: &mut Stack, datagram: &Datagram) {
        match stack.udp_send(datagram.local, datagram.remote, &datagram.data) {
            Ok(()) | Err(UdpError::QueueFull) => {}
            Err(error) => tracing::debug!(%error, "datagram not sent"),
        }
    }

    /// Source address of a bound port.
    pub(crate) fn local(addresses: &[Ipv6Addr], port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(
            addresses.first().copied().unwrap_or(Ipv6Addr::UNSPECIFIED),
            port,
            0,
            0,
        )
    }
}
