//! The boxed JSON that both sides exchange when a connection begins.
//!
//! `ClientInfo` proves to the relay that the client owns its key, and
//! `ServerInfo` the same the other way round.

use adit_keys::{BOX_OVERHEAD, KEY_LEN, NONCE_LEN, NodePrivate, NodePublic};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use crate::frame::{self, kind};

/// The protocol version both sides name. Neither checks the other's.
pub const VERSION: u32 = 2;

/// Largest `ClientInfo` frame body that a relay reads, in bytes.
pub const MAX_CLIENT_INFO: usize = 256 << 10;

/// Smallest one: key and nonce.
pub const MIN_CLIENT_INFO: usize = KEY_LEN + NONCE_LEN;

/// What a client says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// Protocol version.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u32,
    /// Shared secret of relays that form a mesh.
    #[serde(rename = "meshKey", skip_serializing_if = "String::is_empty")]
    pub mesh_key: String,
    /// Answers pings.
    #[serde(rename = "CanAckPings")]
    pub can_ack_pings: bool,
    /// Only probes the relay.
    #[serde(rename = "IsProber", skip_serializing_if = "std::ops::Not::not")]
    pub is_prober: bool,
}

/// What a relay says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Protocol version.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u32,
    /// How many bytes a client may send per second; 0 for any number.
    #[serde(rename = "TokenBucketBytesPerSecond", skip_serializing_if = "is_zero")]
    pub bytes_per_second: u32,
    /// How many bytes a client may send at once.
    #[serde(rename = "TokenBucketBytesBurst", skip_serializing_if = "is_zero")]
    pub bytes_burst: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A handshake frame that does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Too short for its fixed fields.
    #[error("handshake frame is too short")]
    Short,
    /// The box was not sealed by the key it names, or not for us.
    #[error("handshake box does not open")]
    Box,
    /// The box holds something else than the expected JSON.
    #[error("handshake box does not hold the expected JSON")]
    Json,
}

impl ClientInfo {
    /// What this program's clients say.
    pub fn ours() -> Self {
        Self {
            version: VERSION,
            can_ack_pings: true,
            ..Self::default()
        }
    }

    /// Appends the frame, sealed from `client` to the relay. The nonce must be
    /// fresh.
    pub fn put(
        &self,
        out: &mut BytesMut,
        client: &NodePrivate,
        server: &NodePublic,
        nonce: &[u8; NONCE_LEN],
    ) {
        let sealed = client.shared(server).seal(nonce, &json(self));
        let key = client.public();
        frame::put(out, kind::CLIENT_INFO, &[key.as_bytes(), nonce, &sealed]);
    }

    /// Opens a frame body as the relay `server`; gives the proven client key.
    pub fn open(body: &[u8], server: &NodePrivate) -> Result<(NodePublic, Self), HandshakeError> {
        let (key, rest) = body.split_first_chunk().ok_or(HandshakeError::Short)?;
        let client = NodePublic::from_bytes(*key);
        let info = open(rest, server, &client)?;
        Ok((client, info))
    }
}

impl ServerInfo {
    /// What this program's relays say.
    pub fn ours() -> Self {
        Self {
            version: VERSION,
            ..Self::default()
        }
    }

    /// Appends the frame, sealed from the relay to `client`. The nonce must be
    /// fresh.
    pub fn put(
        &self,
        out: &mut BytesMut,
        server: &NodePrivate,
        client: &NodePublic,
        nonce: &[u8; NONCE_LEN],
    ) {
        let sealed = server.shared(client).seal(nonce, &json(self));
        frame::put(out, kind::SERVER_INFO, &[nonce, &sealed]);
    }

    /// Opens a frame body as `client`.
    pub fn open(
        body: &[u8],
        client: &NodePrivate,
        server: &NodePublic,
    ) -> Result<Self, HandshakeError> {
        open(body, client, server)
    }
}

/// A random nonce for one box.
pub fn nonce() -> [u8; NONCE_LEN] {
    rand::random()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs of numbers, flags and text always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

fn open<T: for<'de> Deserialize<'de>>(
    boxed: &[u8],
    ours: &NodePrivate,
    theirs: &NodePublic,
) -> Result<T, HandshakeError> {
    let (nonce, sealed) = boxed.split_first_chunk().ok_or(HandshakeError::Short)?;
    if sealed.len() < BOX_OVERHEAD {
        return Err(HandshakeError::Short);
    }
    let content = ours
        .shared(theirs)
        .open(nonce, sealed)
        .map_err(|_| HandshakeError::Box)?;
    serde_json::from_slice(&content).map_err(|_| HandshakeError::Json)
}
