//! A userspace IPv6 stack for the inside of a tunnel: TCP, UDP, ICMPv6 and TSMP
//! as one state machine without I/O, threads or clock.
//!
//! The caller owns the loop:
//!
//! 1. for each decrypted packet: [`Stack::handle_packet`];
//! 2. after each batch, each application call and each timer:
//!    [`Stack::poll_transmit`] until it returns `None` (or until the link has no
//!    room: whatever is not taken stays in the stack, nothing is dropped);
//! 3. [`Stack::poll_event`] until `None`;
//! 4. sleep until [`Stack::poll_timeout`], then [`Stack::handle_timeout`].
//!
//! Acknowledgements are made when packets are polled, so a batch of segments is
//! answered by one of them. No fragments and no extension headers are ever
//! sent; received ones are dropped.
//!
//! Explicit congestion notification (RFC 3168) is declined: marks are put on the
//! packets that carry the tunnel, of which the stack sees nothing, relays would
//! lose them, and offering it would only spend header bits.

mod api;
mod buffer;
mod config;
mod stack;
mod tcp;
mod wire;

pub use api::{
    CloseReason, Event, PingId, SocketId, TcpError, TcpState, TcpStats, Transmit, UdpError,
};
pub use config::{CongestionControl, Keepalive, MAX_MTU, MIN_MTU, StackConfig, TcpConfig};
pub use stack::Stack;
