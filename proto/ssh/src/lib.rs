//! The server's side of SSH: transport, authentication, connections.
//!
//! [`Session`] is the protocol without I/O; [`serve`] runs it on a byte
//! stream and hands out [`Channel`]s. There is one task per connection and
//! none per packet.
//!
//! ```text
//! bytes ─▶ identification ─▶ packets ─▶ key exchange    ─▶ events ─▶ Handler
//!           (transport)      (cipher)   login, channels
//! bytes ◀─ one buffer, sealed in place ◀─ channels in turn ◀─ Channel::send
//! ```
//!
//! Flow control is per channel: a peer may send one window ahead and is
//! granted more when the application has taken the data; the application may
//! queue a little and then waits for the peer. A channel nobody reads stops
//! its own sender and no other.
//!
//! Sources: RFC 4250 to 4254, 5656, 6668, 8268, 8308, 8332, 8731;
//! draft-ietf-sshm-mlkem-hybrid-kex; OpenSSH's PROTOCOL and
//! PROTOCOL.chacha20poly1305. Compression is not offered, and peers are
//! authenticated before SSH begins: the method `none` succeeds.

mod algo;
mod channel;
mod cipher;
mod config;
mod driver;
mod error;
mod handle;
mod kex;
mod msg;
mod random;
mod request;
mod rsa;
mod session;
mod transport;
mod wire;

pub use channel::Stream;
pub use config::Config;
pub use driver::{Handler, serve};
pub use error::{Deadline, Error};
pub use handle::{Channel, Connection, GlobalReply, Gone, OpenError, Opening};
pub use random::{Random, SystemRandom};
pub use request::{ChannelId, Global, GlobalAnswer, Open, OpenOut, Refusal, Request};
pub use rsa::RsaKey;
pub use session::{Event, Session};
