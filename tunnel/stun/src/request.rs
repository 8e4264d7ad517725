//! Binding requests.

use std::fmt;

use crate::attributes::{Attributes, FINGERPRINT, SOFTWARE};
use crate::{HEADER_LEN, MAGIC_COOKIE, is_stun};

/// Matches a response to its request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxId(pub [u8; 12]);

impl TxId {
    /// A random transaction id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Why a datagram is not a binding request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not STUN, or not a binding request.
    #[error("not a STUN binding request")]
    NotBindingRequest,
    /// The attributes do not fit the message.
    #[error("STUN request has malformed attributes")]
    Malformed,
}

const BINDING_REQUEST: [u8; 2] = [0, 1];
const SOFTWARE_NAME: &[u8; 8] = b"tailnode";
const REQUEST_LEN: usize = HEADER_LEN + 12 + 8;

/// FINGERPRINT is the checksum XORed with this, so that it differs from a
/// checksum in the payload (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Makes a binding request.
pub fn binding_request(tx: TxId) -> [u8; REQUEST_LEN] {
    let mut packet = Vec::with_capacity(REQUEST_LEN);
    packet.extend_from_slice(&BINDING_REQUEST);
    packet.extend_from_slice(&((REQUEST_LEN - HEADER_LEN) as u16).to_be_bytes());
    packet.extend_from_slice(&MAGIC_COOKIE);
    packet.extend_from_slice(&tx.0);
    packet.extend_from_slice(&SOFTWARE.to_be_bytes());
    packet.extend_from_slice(&(SOFTWARE_NAME.len() as u16).to_be_bytes());
    packet.extend_from_slice(SOFTWARE_NAME);
    let fingerprint = crc32(&packet) ^ FINGERPRINT_XOR;
    packet.extend_from_slice(&FINGERPRINT.to_be_bytes());
    packet.extend_from_slice(&4u16.to_be_bytes());
    packet.extend_from_slice(&fingerprint.to_be_bytes());

    let mut out = [0; REQUEST_LEN];
    out.copy_from_slice(&packet);
    out
}

/// Reads a binding request from any client, as a server does.
pub fn parse_binding_request(datagram: &[u8]) -> Result<TxId, RequestError> {
    if !is_stun(datagram) || !datagram.starts_with(&BINDING_REQUEST) {
        return Err(RequestError::NotBindingRequest);
    }
    let (header, attributes) = datagram.split_at(HEADER_LEN);
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let attributes = attributes.get(..len).ok_or(RequestError::Malformed)?;
    if Attributes(attributes).any(|attribute| attribute.is_none()) {
        return Err(RequestError::Malformed);
    }
    let mut tx = [0; 12];
    tx.copy_from_slice(&header[8..]);
    Ok(TxId(tx))
}

/// CRC-32 as in ISO 3309, bit by bit: requests are rare and short.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let lowest = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 * lowest);
        }
    }
    !crc
}
