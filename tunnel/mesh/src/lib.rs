//! The mesh without IO: WireGuard tunnels, the paths beneath them, and the
//! rule that only granted peers exist.
//!
//! [`Mesh`] holds one entry for each peer the coordinator granted. An entry is
//! a WireGuard tunnel and the set of ways to the peer: its relay, which always works, and UDP
//! addresses that have to prove themselves by answering disco pings. Nothing
//! here opens sockets, reads clocks or spawns tasks.
//!
//! A datagram is accepted only when it opens under the session of a granted
//! peer; the packet inside only when its source address is one of that peer's.

mod inner;
mod mesh;
mod paths;
mod peer;
mod score;
mod tunnel;
mod types;

pub use adit_noise::{Clock, OVERHEAD};
pub use mesh::Mesh;
pub use types::{
    Event, Load, MeshConfig, NotDirect, PeerConfig, PeerError, PeerInfo, Received, Route, Sealed,
    Transmit, Via,
};

/// Largest inner packet that may be sealed or come out.
pub const MAX_MTU: usize = 9216;

/// Output buffers given to the mesh must hold this many bytes.
pub const BUFFER_LEN: usize = MAX_MTU + OVERHEAD;
