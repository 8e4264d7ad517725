//! WireGuard's handshake, cookies and transport sessions, without IO.
//!
//! Written from the WireGuard paper (Donenfeld, "WireGuard: Next Generation
//! Kernel Network Tunnel"); section numbers in this crate are the paper's. The
//! optional pre-shared key is always zero.
//!
//! * [`Identity`] is this node: its key, and the clock of its initiations.
//! * [`Guard`] looks at every handshake message first: it drops forgeries
//!   cheaply and asks for cookies under load.
//! * [`Peer`] is the other side: handshakes under way and session keys.
//! * [`Random`] is where secrets and session numbers come from.
//!
//! The owner decides *when* to shake hands or to send a keepalive; this crate
//! decides what may be sent or accepted with which key, and for how long.
//! Nothing here reads a clock, draws system randomness or allocates for a
//! transport packet.
//!
//! Secrets are overwritten when they are dropped. The two expanded keys inside
//! a session belong to the cipher library, which offers no way to do that.

#![forbid(unsafe_code)]

mod clock;
mod cookie;
mod crypto;
mod guard;
mod handshake;
mod identity;
pub mod limits;
mod message;
mod peer;
mod random;
mod replay;
mod session;
mod sessions;

pub use clock::Clock;
pub use guard::{Admission, Guard, Origin};
pub use handshake::Incoming;
pub use identity::Identity;
pub use message::{COOKIE_LEN, INITIATION_LEN, Kind, OVERHEAD, RESPONSE_LEN, kind, receiver_index};
pub use peer::{Opened, Peer, Standing};
pub use random::Random;
pub use x25519_dalek::{PublicKey, StaticSecret};

/// A message that gave nothing: forged, replayed, late, or out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;
