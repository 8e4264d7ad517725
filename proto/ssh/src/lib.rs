//! SSH: transport, authentication, connections; for servers and clients.
//!
//! [`Session`] is the protocol without I/O, for either side; [`serve`] and
//! [`connect`] run it on a byte stream and hand out [`Channel`]s. There is one
//! task per connection and none per packet.
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
//! A client needs three round trips to the output of a command, the one of
//! the byte stream included:
//!
//! ```text
//! client ── identification, KEXINIT, guessed KEX_CLIENT ──▶
//!        ◀── identification, KEXINIT, KEX_REPLY, NEWKEYS ── server
//! client ── NEWKEYS, service, login, channel, requests ───▶
//!        ◀── answers, output, exit status ──────────────── server
//! ```
//!
//! Sources: RFC 4250 to 4254, 5656, 6668, 8268, 8308, 8332, 8709, 8731;
//! draft-ietf-sshm-mlkem-hybrid-kex; OpenSSH's PROTOCOL and
//! PROTOCOL.chacha20poly1305. Compression is not offered, and peers are
//! authenticated before SSH begins: the method `none` succeeds, and a client
//! checks that the server holds its host key but not which key that is.

mod algo;
mod channel;
mod cipher;
mod config;
mod driver;
mod error;
mod handle;
mod hostkey;
mod kex;
mod msg;
mod random;
mod relay;
mod request;
mod rsa;
mod session;
mod transport;
mod wire;

pub use channel::Stream;
pub use config::Config;
pub use driver::{Handler, connect, serve};
pub use error::{Deadline, Error};
pub use handle::{Channel, Connection, GlobalReply, Gone, OpenError, Opening};
pub use random::{Random, SystemRandom};
pub use relay::relay;
pub use request::{ChannelId, Global, GlobalAnswer, Open, OpenOut, Refusal, Request, RequestOut};
pub use rsa::RsaKey;
pub use session::{Event, Session};
