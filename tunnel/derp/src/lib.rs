//! DERP: relaying of packets between nodes that are addressed by their public
//! keys.
//!
//! [`frame`] and [`handshake`] are the codec without I/O. [`client`] keeps one
//! connection to a relay, over `Upgrade: DERP` or WebSocket, whichever works.
//! [`relay`] is the server side: an engine that takes upgraded connections,
//! and helpers that make the HTTP answers leading there.

mod alarm;
mod carrier;
pub mod client;
pub mod frame;
pub mod handshake;
pub mod relay;

pub use carrier::CarrierKind;
pub use client::{
    Client, CloseReason, ConnectError, ConnectOptions, Event, Memory, relay_endpoint,
};
pub use frame::{Frame, FrameError, PeerGoneReason};
pub use relay::{Relay, RelayConfig};

pub use adit_rest::{DerpHomeParams, DerpMap, DerpNode, DerpRegion};
