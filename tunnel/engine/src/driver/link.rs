//! News of the machine's network from the kernel.

use std::task::{Context, Poll};

/// Tells when addresses or links of the machine change. Silent where the
/// system offers no such news; the periodic check finds changes there.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    /// A route netlink socket. The type only lends it the datagram calls of
    /// tokio, which work on any datagram socket.
    #[cfg(target_os = "linux")]
    socket: Option<tokio::net::UnixDatagram>,
}

#[cfg(target_os = "linux")]
impl LinkWatch {
    pub(crate) fn new() -> Self {
        let socket = subscribe()
            .map_err(|error| tracing::debug!(%error, "no news of network changes"))
            .ok();
        Self { socket }
    }

    /// Ready when something changed since the last call.
    pub(crate) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        use std::io::ErrorKind;

        let mut changed = false;
        let mut buffer = [0; 4096];
        while let Some(socket) = &self.socket {
            if socket.poll_recv_ready(cx).is_pending() {
                break;
            }
            match socket.try_recv(&mut buffer) {
                // What exactly happened is read from the interfaces.
                Ok(_) => changed = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The kernel had more news than the socket had room for.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => changed = true,
                Err(_) => self.socket = None,
            }
        }
        if changed {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Groups of route netlink messages: links, IPv4 and IPv6 addresses.
#[cfg(target_os = "linux")]
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

#[cfg(target_os = "linux")]
fn subscribe() -> std::io::Result<tokio::net::UnixDatagram> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
    };

    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    tokio::net::UnixDatagram::from_std(fd.into())
}

#[cfg(not(target_os = "linux"))]
impl LinkWatch {
    pub(crate) fn new() -> Self {
        Self {}
    }

    pub(crate) fn poll_changed(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}
