//! The mesh on tokio: one node with UDP sockets, relay connections, WireGuard
//! peers and a userspace IPv6 stack, driven by a single core task.
//!
//! ```text
//! user tasks ── TcpStream (bounded rings) ──┐            ┌── UDP v4 / v6 (GSO, GRO)
//!            ── commands (bounded) ─────────┤ core task ├
//!                                           └────────────┴── relay tasks (batches)
//! ```
//!
//! The core owns every piece of protocol state (`adit_mesh`, `adit_netstack`);
//! nothing on the data path crosses another task or takes a shared lock except
//! a stream's own rings.

mod cell;
mod command;
mod config;
mod driver;
mod error;
mod listener;
mod node;
mod ring;
mod status;
mod stream;
mod udp;

pub use config::NodeConfig;
pub use error::Error;
pub use listener::{PendingConn, RestListener, TcpListener};
pub use node::Node;
pub use status::{ConnectionStats, Flow, NetReport, Path, PeerStatus, PingResult, RelayReason};
pub use stream::{OwnedReadHalf, OwnedWriteHalf, TcpStream};
pub use udp::{Datagram, MAX_DATAGRAM, UdpRest, UdpSender, UdpSocket};
