//! Forms of the coordination messages that keep a Node as the bytes it came
//! in, so that a coordinator passes on fields it does not know.

use bytes::Bytes;
use prost::Message as _;

/// One entry of a [`CoordinateResponse`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerUpdate {
    /// UUID of the other peer, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Encoded [`crate::tailnet::Node`].
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub node: Option<Bytes>,
    /// What happened to the peer.
    #[prost(
        enumeration = "crate::tailnet::coordinate_response::peer_update::Kind",
        tag = "3"
    )]
    pub kind: i32,
    /// Text for people.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// [`crate::tailnet::CoordinateResponse`] with encoded nodes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CoordinateResponse {
    /// Changes of peers, at most 1024 per message.
    #[prost(message, repeated, tag = "1")]
    pub peer_updates: Vec<PeerUpdate>,
    /// Text for people; empty when nothing is wrong.
    #[prost(string, tag = "2")]
    pub error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateSelf {
    #[prost(bytes = "bytes", optional, tag = "1")]
    node: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CoordinateRequest {
    #[prost(message, optional, tag = "1")]
    update_self: Option<UpdateSelf>,
}

/// The encoded Node of an encoded [`crate::tailnet::CoordinateRequest`] that
/// has one. Shares the request's buffer.
///
/// # Errors
/// When the request is not such a message.
pub fn update_self_node(request: Bytes) -> Result<Option<Bytes>, prost::DecodeError> {
    let request = CoordinateRequest::decode(request)?;
    Ok(request.update_self.and_then(|update| update.node))
}
