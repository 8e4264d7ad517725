//! Plaintext of disco messages.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use adit_keys::{BOX_OVERHEAD, KEY_LEN, NodePublic};

use crate::{HEADER_LEN, PADDED_DATAGRAM_LEN};

/// Matches a pong to its ping; use a fresh one for every ping sent.
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

/// One disco message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "Can you hear me on this path?"
    Ping {
        /// Echoed by the pong.
        tx: TxId,
        /// Who asks; helps a receiver that knows several nodes with one disco
        /// key.
        node_key: Option<NodePublic>,
    },
    /// Answer to a ping, sent back the way it came.
    Pong {
        /// The ping's transaction id.
        tx: TxId,
        /// Where the ping came from, as the answering side saw it. For a relay
        /// this is 127.3.3.40 with the region number as port.
        src: SocketAddr,
    },
    /// "Ping me at these addresses now": only ever sent through a relay. It
    /// replaces the addresses of the message before.
    CallMeMaybe {
        /// Addresses at which the sender may be reached.
        endpoints: Vec<SocketAddr>,
    },
}

/// Why a plaintext is not a disco message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message ends before its fixed fields do.
    #[error("disco message too short")]
    Short,
    /// A message type of a later protocol; ignore it.
    #[error("unknown disco message type {0:#04x}")]
    UnknownType(u8),
}

const PING: u8 = 1;
const PONG: u8 = 2;
const CALL_ME_MAYBE: u8 = 3;

/// Version of the padded form of pings and pongs. Receivers ignore it.
const PADDED_VERSION: u8 = 1;

/// An address in a message: 16 address bytes and the port.
const ENDPOINT_LEN: usize = 18;

impl Message {
    /// Appends the plaintext, padded where the protocol wants padding.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.encode_padded_into(PADDED_DATAGRAM_LEN, out);
    }

    /// As [`encode_into`](Self::encode_into), with pings and pongs padded to
    /// datagrams of `len` bytes, or to the usual length if that is larger.
    pub fn encode_padded_into(&self, len: usize, out: &mut Vec<u8>) {
        let plain = len.max(PADDED_DATAGRAM_LEN) - HEADER_LEN - BOX_OVERHEAD;
        let start = out.len();
        match self {
            Self::Ping { tx, node_key } => {
                out.extend_from_slice(&[PING, PADDED_VERSION]);
                out.extend_from_slice(&tx.0);
                if let Some(key) = node_key {
                    out.extend_from_slice(key.as_bytes());
                }
                out.resize(start + plain, 0);
            }
            Self::Pong { tx, src } => {
                out.extend_from_slice(&[PONG, PADDED_VERSION]);
                out.extend_from_slice(&tx.0);
                put_endpoint(out, *src);
                out.resize(start + plain, 0);
            }
            Self::CallMeMaybe { endpoints } => {
                out.extend_from_slice(&[CALL_ME_MAYBE, 0]);
                for endpoint in endpoints {
                    put_endpoint(out, *endpoint);
                }
            }
        }
    }

    /// The plaintext as its own buffer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Reads a plaintext. The versions of pings and pongs and everything after
    /// their fixed fields are ignored; a call-me-maybe of another version or
    /// of odd length counts as an empty list.
    pub fn decode(plaintext: &[u8]) -> Result<Self, DecodeError> {
        let [kind, version, body @ ..] = plaintext else {
            return Err(DecodeError::Short);
        };
        match *kind {
            PING => decode_ping(body),
            PONG => decode_pong(body),
            CALL_ME_MAYBE => Ok(decode_call_me_maybe(*version, body)),
            other => Err(DecodeError::UnknownType(other)),
        }
    }
}

fn decode_ping(body: &[u8]) -> Result<Message, DecodeError> {
    let (tx, rest) = body.split_first_chunk().ok_or(DecodeError::Short)?;
    let node_key = rest
        .first_chunk::<KEY_LEN>()
        .map(|key| NodePublic::from_bytes(*key))
        .filter(|key| !key.is_zero());
    Ok(Message::Ping {
        tx: TxId(*tx),
        node_key,
    })
}

fn decode_pong(body: &[u8]) -> Result<Message, DecodeError> {
    let (tx, rest) = body.split_first_chunk().ok_or(DecodeError::Short)?;
    let src = rest.first_chunk().ok_or(DecodeError::Short)?;
    Ok(Message::Pong {
        tx: TxId(*tx),
        src: endpoint(src),
    })
}

fn decode_call_me_maybe(version: u8, body: &[u8]) -> Message {
    let (chunks, rest) = body.as_chunks();
    let endpoints = if version == 0 && rest.is_empty() {
        chunks.iter().map(endpoint).collect()
    } else {
        Vec::new()
    };
    Message::CallMeMaybe { endpoints }
}

fn put_endpoint(out: &mut Vec<u8>, endpoint: SocketAddr) {
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&endpoint.port().to_be_bytes());
}

fn endpoint(bytes: &[u8; ENDPOINT_LEN]) -> SocketAddr {
    let [ip @ .., high, low] = *bytes;
    let ip = Ipv6Addr::from(ip).to_canonical();
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}
