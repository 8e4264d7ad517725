//! Disco: the path discovery messages that two nodes exchange over UDP and
//! over relays.
//!
//! A datagram is `magic(6) ‖ sender key(32) ‖ nonce(24) ‖ tag(16) ‖ ciphertext`;
//! the plaintext is `type(1) ‖ version(1) ‖ body`. Pings and pongs are padded
//! to [`PADDED_DATAGRAM_LEN`] bytes, so that a path which cannot carry
//! full-size tunnel packets fails the probe already.

mod envelope;
mod message;

pub use envelope::{Envelope, OpenMessageError, is_disco, seal, seal_padded};
pub use message::{DecodeError, Message, TxId};

/// First bytes of every disco datagram: `TS` and U+1F4AC.
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// Bytes before the sealed box: magic, sender's key and nonce.
pub const HEADER_LEN: usize = MAGIC.len() + adit_keys::KEY_LEN + adit_keys::NONCE_LEN;

/// Length of a whole datagram with a ping or a pong in it, in bytes.
pub const PADDED_DATAGRAM_LEN: usize = 1310;
