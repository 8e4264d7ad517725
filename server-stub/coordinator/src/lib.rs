//! Tells the peers of a tailnet about each other.
//!
//! A *peer* is an agent or a client, known by a UUID; what it is reachable by
//! (keys, endpoints, relay region) is its *node*. A client opens a *tunnel* to
//! an agent, and from then on each hears of the other's node, of changes to it,
//! and of the other going away:
//!
//! ```text
//!   client                     coordinator                      agent
//!     │ add_tunnel(agent)           │                              │
//!     │────────────────────────────▶│                              │
//!     │◀── NODE(agent, add tunnel) ─│                              │
//!     │ update_self(node)           │                              │
//!     │────────────────────────────▶│── NODE(client, node update) ▶│
//!     │                             │◀── ready_for_handshake ──────│
//!     │◀── READY_FOR_HANDSHAKE ─────│                              │
//! ```
//!
//! [`Coordinator`] is the state machine: no sockets, no clock, no tasks. It
//! speaks the `Coordinate` call of the Coder tailnet API 2.x. [`Service`] puts a
//! lock and one bounded queue per connection around it.
//!
//! Nodes are forwarded byte for byte as their owner encoded them, so that fields
//! this program does not know survive the trip.

mod auth;
mod core;
mod message;
mod service;
mod tunnels;

pub use crate::{
    auth::{Denied, Permission, Role},
    core::{ConnId, Coordinator, Output, PeerInfo},
    message::{
        EncodedNode, InvalidRequest, Kind, MAX_NODE_BYTES, MAX_UPDATES_PER_RESPONSE, PeerUpdate,
        Request, Response,
    },
    service::{Connection, Responses, Service},
};
