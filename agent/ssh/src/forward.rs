//! Port and socket forwarding.
//!
//! | Request | Module |
//! |---|---|
//! | `direct-tcpip`, `direct-streamlocal@openssh.com` | [`direct`] |
//! | `tcpip-forward`, `streamlocal-forward@openssh.com` | [`listen`] |
//!
//! Both end in `ChannelIo::relay`, which copies in both directions with
//! half-close.

mod direct;
mod listen;

pub(crate) use direct::Direct;
pub(crate) use listen::Listeners;
