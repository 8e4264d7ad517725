//! The messages of the `Coordinate` call, with nodes left encoded.

use adit_messages::tailnet;
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;
use uuid::Uuid;

/// The most peer updates one response carries; longer lists are split.
pub const MAX_UPDATES_PER_RESPONSE: usize = 1024;

/// The largest encoded node a peer may announce, in bytes. Real nodes take some
/// hundreds; each is kept in memory and sent to every tunnel peer.
pub const MAX_NODE_BYTES: usize = 64 * 1024;

/// One request of a peer, decoded and checked for form.
///
/// Any subset of the fields may be set; [`Coordinator::request`] evaluates them
/// in the order they are listed here.
///
/// [`Coordinator::request`]: crate::Coordinator::request
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The new state of the sender.
    pub update_self: Option<EncodedNode>,
    /// Opens a tunnel from the sender to this peer.
    pub add_tunnel: Option<Uuid>,
    /// Closes the tunnel from the sender to this peer.
    pub remove_tunnel: Option<Uuid>,
    /// The sender says goodbye.
    pub disconnect: bool,
    /// The sender can now answer handshakes of these peers.
    pub ready_for_handshake: Vec<Uuid>,
}

/// A node as its owner encoded it, and what this crate reads of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedNode {
    /// The encoded `coder.tailnet.v2.Node`.
    pub bytes: Bytes,
    /// Its `addresses`, in CIDR notation.
    pub addresses: Vec<String>,
    /// Its `allowed_ips`, in CIDR notation.
    pub allowed_ips: Vec<String>,
}

/// A request that cannot be read. It ends the connection of its sender.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidRequest {
    /// The bytes are no `CoordinateRequest`.
    #[error("decode request: {0}")]
    Request(String),
    /// An `update_self` without a node.
    #[error("update self without a node")]
    MissingNode,
    /// The node does not decode, so no receiver could read it either.
    #[error("decode node: {0}")]
    Node(String),
    /// The node is larger than [`MAX_NODE_BYTES`].
    #[error("node of {0} bytes exceeds {MAX_NODE_BYTES} bytes")]
    NodeTooLarge(usize),
    /// An id that is not 16 bytes long.
    #[error("parse {field} id: invalid UUID (got {length} bytes)")]
    Id {
        /// What the id was for.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

impl Request {
    /// Decodes a `coder.tailnet.v2.CoordinateRequest`.
    ///
    /// # Errors
    ///
    /// See [`InvalidRequest`].
    pub fn decode(bytes: Bytes) -> Result<Self, InvalidRequest> {
        let wire = wire::Request::decode(bytes)
            .map_err(|error| InvalidRequest::Request(error.to_string()))?;
        let update_self = match wire.update_self {
            None => None,
            Some(update) => Some(EncodedNode::decode(
                update.node.ok_or(InvalidRequest::MissingNode)?,
            )?),
        };
        let id = |field: &'static str, id: &Bytes| {
            Uuid::from_slice(id).map_err(|_| InvalidRequest::Id {
                field,
                length: id.len(),
            })
        };
        Ok(Self {
            update_self,
            add_tunnel: wire
                .add_tunnel
                .map(|tunnel| id("add tunnel", &tunnel.id))
                .transpose()?,
            remove_tunnel: wire
                .remove_tunnel
                .map(|tunnel| id("remove tunnel", &tunnel.id))
                .transpose()?,
            disconnect: wire.disconnect.is_some(),
            ready_for_handshake: wire
                .ready_for_handshake
                .iter()
                .map(|ready| id("ready for handshake", &ready.id))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl EncodedNode {
    /// Reads what this crate needs of an encoded node and keeps the bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidRequest::Node`] or [`InvalidRequest::NodeTooLarge`].
    pub fn decode(bytes: Bytes) -> Result<Self, InvalidRequest> {
        if bytes.len() > MAX_NODE_BYTES {
            return Err(InvalidRequest::NodeTooLarge(bytes.len()));
        }
        // The whole message, not only the two lists: a receiver that cannot
        // decode a node drops its session, so none such may pass.
        let node = tailnet::Node::decode(bytes.clone())
            .map_err(|error| InvalidRequest::Node(error.to_string()))?;
        Ok(Self {
            bytes,
            addresses: node.addresses,
            allowed_ips: node.allowed_ips,
        })
    }
}

/// What happened to a peer, for the receiver of a [`PeerUpdate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// The peer exists; here is its node.
    Node = 1,
    /// It left, or the tunnel was removed: drop it now.
    Disconnected = 2,
    /// The coordinator lost it: keep it for a while.
    Lost = 3,
    /// It can answer handshakes of the receiver.
    ReadyForHandshake = 4,
}

/// News about one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUpdate {
    /// The peer this is about.
    pub id: Uuid,
    /// Its encoded node, with [`Kind::Node`] only.
    pub node: Option<Bytes>,
    /// What happened.
    pub kind: Kind,
    /// Why, for people.
    pub reason: &'static str,
}

/// One response to a peer: news, or a text about what it did wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// At most [`MAX_UPDATES_PER_RESPONSE`] updates.
    pub updates: Vec<PeerUpdate>,
    /// Not empty if something went wrong.
    pub error: String,
}

impl Response {
    /// A response that carries a text only.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            updates: Vec::new(),
            error: text.into(),
        }
    }

    /// A response with one update.
    #[must_use]
    pub fn update(update: PeerUpdate) -> Self {
        Self {
            updates: vec![update],
            error: String::new(),
        }
    }

    /// The response as an encoded `coder.tailnet.v2.CoordinateResponse`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let wire = wire::Response {
            peer_updates: self
                .updates
                .iter()
                .map(|update| wire::PeerUpdate {
                    id: Bytes::copy_from_slice(update.id.as_bytes()),
                    node: update.node.clone(),
                    kind: update.kind as i32,
                    reason: update.reason.to_owned(),
                })
                .collect(),
            error: self.error.clone(),
        };
        wire.encode_to_vec().into()
    }
}

/// The wire form, field numbers as in the Coder tailnet API 2.x. An embedded
/// message and a `bytes` field look the same on the wire, which is what lets a
/// node pass through untouched.
mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, optional, tag = "1")]
        pub(super) update_self: Option<UpdateSelf>,
        #[prost(message, optional, tag = "2")]
        pub(super) disconnect: Option<Empty>,
        #[prost(message, optional, tag = "3")]
        pub(super) add_tunnel: Option<Id>,
        #[prost(message, optional, tag = "4")]
        pub(super) remove_tunnel: Option<Id>,
        #[prost(message, repeated, tag = "5")]
        pub(super) ready_for_handshake: Vec<Id>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct UpdateSelf {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) node: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Id {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Response {
        #[prost(message, repeated, tag = "1")]
        pub(super) peer_updates: Vec<PeerUpdate>,
        #[prost(string, tag = "2")]
        pub(super) error: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PeerUpdate {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) id: Bytes,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) node: Option<Bytes>,
        #[prost(int32, tag = "3")]
        pub(super) kind: i32,
        #[prost(string, tag = "4")]
        pub(super) reason: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x3f25_04e0_4f89_41d3_9a0c_0305_e82c_3301);

    fn request(prefix: &[u8]) -> Request {
        Request::decode([prefix, ID.as_bytes()].concat().into()).unwrap()
    }

    #[test]
    fn requests_of_the_protocol_decode() {
        assert_eq!(request(&[0x1a, 0x12, 0x0a, 0x10]).add_tunnel, Some(ID));
        assert_eq!(request(&[0x22, 0x12, 0x0a, 0x10]).remove_tunnel, Some(ID));
        assert_eq!(request(&[0x2a, 0x12, 0x0a, 0x10]).ready_for_handshake, [ID]);
        assert!(
            Request::decode(Bytes::from_static(&[0x12, 0x00]))
                .unwrap()
                .disconnect
        );
        assert_eq!(Request::decode(Bytes::new()).unwrap(), Request::default());
    }

    #[test]
    fn responses_have_the_bytes_of_the_protocol() {
        let ready = Response::update(PeerUpdate {
            id: ID,
            node: None,
            kind: Kind::ReadyForHandshake,
            reason: "",
        });
        assert_eq!(
            ready.encode()[..],
            [&[0x0a, 0x14, 0x0a, 0x10], &ID.as_bytes()[..], &[0x18, 0x04]].concat()[..]
        );
        assert_eq!(
            Response::error("coordinator closed").encode()[..],
            *b"\x12\x12coordinator closed"
        );
    }

    #[test]
    fn hostile_requests_are_refused() {
        // update_self without a node.
        assert_eq!(
            Request::decode(Bytes::from_static(&[0x0a, 0x00])),
            Err(InvalidRequest::MissingNode)
        );
        // A node whose `disco` (field 4) is not UTF-8.
        let bytes = Bytes::from_static(&[0x0a, 0x05, 0x0a, 0x03, 0x22, 0x01, 0xff]);
        assert!(matches!(
            Request::decode(bytes),
            Err(InvalidRequest::Node(_))
        ));
        // An id of three bytes.
        let bytes = Bytes::from_static(&[0x1a, 0x05, 0x0a, 0x03, 1, 2, 3]);
        assert_eq!(
            Request::decode(bytes),
            Err(InvalidRequest::Id {
                field: "add tunnel",
                length: 3
            })
        );
        assert!(matches!(
            Request::decode(Bytes::from_static(&[0xff])),
            Err(InvalidRequest::Request(_))
        ));
    }

    #[test]
    fn unknown_fields_of_a_node_survive() {
        // id = 5, then the unknown field 60 = 1.
        let node = Bytes::from_static(&[0x08, 0x05, 0xe0, 0x03, 0x01]);
        let bytes = [&[0x0a, 0x07, 0x0a, 0x05], &node[..]].concat();
        let decoded = Request::decode(bytes.into()).unwrap().update_self.unwrap();
        let response = Response::update(PeerUpdate {
            id: ID,
            node: Some(decoded.bytes),
            kind: Kind::Node,
            reason: "init",
        });
        assert!(
            response
                .encode()
                .windows(node.len())
                .any(|window| window == node)
        );
    }
}
