//! STUN binding requests and responses (RFC 8489), as far as a node needs them
//! to learn its public address.
//!
//! Requests carry the attributes SOFTWARE `tailnode` and FINGERPRINT and no
//! others: the STUN servers of stand-alone DERP relays answer only this form.

mod attributes;
mod request;
mod response;

pub use request::{RequestError, TxId, binding_request, parse_binding_request};
pub use response::{ResponseError, binding_response, parse_binding_response};

/// The fixed value in bytes 4 to 8 of every message.
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Length of the message header, in bytes.
pub const HEADER_LEN: usize = 20;

/// Whether a datagram looks like STUN and not like disco or WireGuard.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && datagram[0] & 0xc0 == 0 && datagram[4..8] == MAGIC_COOKIE
}
