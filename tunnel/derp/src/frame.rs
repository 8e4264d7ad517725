//! Frames of the DERP byte stream: `type(1) ‖ length(u32 big-endian) ‖ body`.
//!
//! The stream is cut arbitrarily by the carriers below; [`Decoder`] takes any
//! pieces and gives whole frames. Bodies are slices of the read buffer.

use adit_keys::{KEY_LEN, NodePublic};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Type byte and length.
pub const HEADER_LEN: usize = 5;

/// Largest packet inside a send or receive frame, in bytes.
pub const MAX_PACKET: usize = 64 << 10;

/// What a packet frame adds to its packet: header and key.
pub const PACKET_OVERHEAD: usize = HEADER_LEN + KEY_LEN;

/// Largest frame that a client accepts, in bytes.
pub const MAX_CLIENT_FRAME: usize = 1 << 20;

/// `DERP` and U+1F511, the start of a relay's first frame.
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];

/// Length of the payload of pings and pongs.
pub const PING_LEN: usize = 8;

/// Type bytes.
pub mod kind {
    /// Relay's first frame.
    pub const SERVER_KEY: u8 = 0x01;
    /// Client's first frame.
    pub const CLIENT_INFO: u8 = 0x02;
    /// Relay's second frame.
    pub const SERVER_INFO: u8 = 0x03;
    /// Client to relay: a packet for a node.
    pub const SEND_PACKET: u8 = 0x04;
    /// Relay to client: a packet from a node.
    pub const RECV_PACKET: u8 = 0x05;
    /// Relay to client, empty.
    pub const KEEP_ALIVE: u8 = 0x06;
    /// Client to relay: whether this is its home.
    pub const NOTE_PREFERRED: u8 = 0x07;
    /// Relay to client: a node cannot be reached here.
    pub const PEER_GONE: u8 = 0x08;
    /// Relay to another relay: a node is here.
    pub const PEER_PRESENT: u8 = 0x09;
    /// Between relays: a packet with both keys.
    pub const FORWARD_PACKET: u8 = 0x0a;
    /// Between relays: subscribe to who is connected.
    pub const WATCH_CONNS: u8 = 0x10;
    /// Between relays: throw a node out.
    pub const CLOSE_PEER: u8 = 0x11;
    /// Either way: answer with a pong.
    pub const PING: u8 = 0x12;
    /// Answer to a ping.
    pub const PONG: u8 = 0x13;
    /// Relay to client: what is wrong with the relay, empty if nothing.
    pub const HEALTH: u8 = 0x14;
    /// Relay to client: it is about to restart.
    pub const RESTARTING: u8 = 0x15;
}

/// A frame that breaks the protocol so that the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than this side accepts.
    #[error("frame {kind:#04x} of {len} bytes is too long")]
    TooLong {
        /// Type byte.
        kind: u8,
        /// Announced length of the body.
        len: u32,
    },
    /// Shorter or longer than its type demands.
    #[error("frame {kind:#04x} has a malformed body of {len} bytes")]
    Malformed {
        /// Type byte.
        kind: u8,
        /// Length of the body.
        len: usize,
    },
}

/// A frame with its body uninterpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Type byte.
    pub kind: u8,
    /// Everything behind the header.
    pub body: Bytes,
}

/// What an incremental decoder does with a frame of a given type and length,
/// decided from its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Collect the body.
    Take,
    /// Read over the body without keeping it.
    Skip,
    /// End the connection.
    Refuse,
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    skip: usize,
    policy: fn(u8, u32) -> Policy,
}

impl Decoder {
    /// A decoder for a client: no frame beyond [`MAX_CLIENT_FRAME`].
    pub fn for_client() -> Self {
        Self::new(|_, len| {
            if len as usize > MAX_CLIENT_FRAME {
                Policy::Refuse
            } else {
                Policy::Take
            }
        })
    }

    /// A decoder with its own rule for what to keep.
    pub fn new(policy: fn(u8, u32) -> Policy) -> Self {
        Self {
            buffer: BytesMut::new(),
            skip: 0,
            policy,
        }
    }

    /// Changes the rule for the frames to come.
    pub fn set_policy(&mut self, policy: fn(u8, u32) -> Policy) {
        self.policy = policy;
    }

    /// Where received bytes are appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        loop {
            let skipped = self.skip.min(self.buffer.len());
            self.buffer.advance(skipped);
            self.skip -= skipped;
            let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else {
                return Ok(None);
            };
            let [kind, len @ ..] = *header;
            let len = u32::from_be_bytes(len);
            match (self.policy)(kind, len) {
                Policy::Refuse => return Err(FrameError::TooLong { kind, len }),
                Policy::Skip => {
                    self.buffer.advance(HEADER_LEN);
                    self.skip = len as usize;
                }
                Policy::Take => {
                    let whole = HEADER_LEN + len as usize;
                    if self.buffer.len() < whole {
                        return Ok(None);
                    }
                    let mut body = self.buffer.split_to(whole).freeze();
                    body.advance(HEADER_LEN);
                    return Ok(Some(RawFrame { kind, body }));
                }
            }
        }
    }

    /// How many more bytes the frame at hand needs; 0 if unknown.
    pub fn missing(&self) -> usize {
        match self.buffer.first_chunk::<HEADER_LEN>() {
            Some([_, len @ ..]) if self.skip == 0 => {
                let whole = HEADER_LEN + u32::from_be_bytes(*len) as usize;
                whole.saturating_sub(self.buffer.len())
            }
            _ => 0,
        }
    }
}

/// Why a node is gone. Unknown numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerGoneReason {
    /// It was connected and left.
    Disconnected,
    /// The relay does not know it.
    NotHere,
    /// A reason of a later protocol.
    Other(u8),
}

impl From<u8> for PeerGoneReason {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }
}

impl From<PeerGoneReason> for u8 {
    fn from(reason: PeerGoneReason) -> Self {
        match reason {
            PeerGoneReason::Disconnected => 0,
            PeerGoneReason::NotHere => 1,
            PeerGoneReason::Other(other) => other,
        }
    }
}

/// A frame that a relay sends to a client, interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First frame: the relay's key.
    ServerKey(NodePublic),
    /// The sealed server information; see [`handshake`](crate::handshake).
    ServerInfo(Bytes),
    /// A packet from a node.
    RecvPacket {
        /// Who sent it, as authenticated by the relay.
        src: NodePublic,
        /// The packet.
        packet: Bytes,
    },
    /// The relay is still there.
    KeepAlive,
    /// A node cannot be reached here; forget the route, nothing more.
    PeerGone {
        /// The node.
        peer: NodePublic,
        /// Why.
        reason: PeerGoneReason,
    },
    /// To be answered with a pong.
    Ping([u8; PING_LEN]),
    /// Answer to our ping.
    Pong([u8; PING_LEN]),
    /// Trouble of the relay in words; empty when healthy.
    Health(String),
    /// The relay is about to restart.
    Restarting {
        /// When to reconnect, in milliseconds from now.
        reconnect_in_ms: u32,
        /// For how long to try, in milliseconds.
        try_for_ms: u32,
    },
    /// A frame without meaning for clients.
    Ignored(u8),
}

impl Frame {
    /// Interprets a frame that a client received. Malformed frames without
    /// weight are ignored, as the original client does.
    pub fn parse(raw: RawFrame) -> Self {
        let RawFrame { kind, body } = raw;
        Self::parse_known(kind, &body).unwrap_or(Self::Ignored(kind))
    }

    fn parse_known(kind: u8, body: &Bytes) -> Option<Self> {
        Some(match kind {
            kind::SERVER_KEY => {
                let (magic, rest) = body.split_first_chunk()?;
                let key = rest.first_chunk()?;
                if *magic != MAGIC {
                    return None;
                }
                Self::ServerKey(NodePublic::from_bytes(*key))
            }
            kind::SERVER_INFO => Self::ServerInfo(body.clone()),
            kind::RECV_PACKET => Self::RecvPacket {
                src: NodePublic::from_bytes(*body.first_chunk()?),
                packet: body.slice(KEY_LEN..),
            },
            kind::KEEP_ALIVE => Self::KeepAlive,
            kind::PEER_GONE => Self::PeerGone {
                peer: NodePublic::from_bytes(*body.first_chunk()?),
                reason: body.get(KEY_LEN).copied().unwrap_or(0).into(),
            },
            kind::PING => Self::Ping(*body.first_chunk()?),
            kind::PONG => Self::Pong(*body.first_chunk()?),
            kind::HEALTH => Self::Health(String::from_utf8_lossy(body).into_owned()),
            kind::RESTARTING => {
                let (reconnect, rest) = body.split_first_chunk()?;
                Self::Restarting {
                    reconnect_in_ms: u32::from_be_bytes(*reconnect),
                    try_for_ms: u32::from_be_bytes(*rest.first_chunk()?),
                }
            }
            _ => return None,
        })
    }
}

/// Appends a frame of any type.
pub fn put(out: &mut BytesMut, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(HEADER_LEN + len);
    out.put_u8(kind);
    out.put_u32(len as u32);
    for part in parts {
        out.put_slice(part);
    }
}

/// Appends a relay's first frame.
pub fn put_server_key(out: &mut BytesMut, key: &NodePublic) {
    put(out, kind::SERVER_KEY, &[&MAGIC, key.as_bytes()]);
}

/// Appends a packet on its way to the relay. Packets beyond [`MAX_PACKET`]
/// would end the connection and must not be given.
pub fn put_send_packet(out: &mut BytesMut, dst: &NodePublic, packet: &[u8]) {
    put(out, kind::SEND_PACKET, &[dst.as_bytes(), packet]);
}

/// Appends a packet on its way from the relay.
pub fn put_recv_packet(out: &mut BytesMut, src: &NodePublic, packet: &[u8]) {
    put(out, kind::RECV_PACKET, &[src.as_bytes(), packet]);
}

/// Appends a keep-alive.
pub fn put_keep_alive(out: &mut BytesMut) {
    put(out, kind::KEEP_ALIVE, &[]);
}

/// Appends the note whether this relay is the sender's home.
pub fn put_note_preferred(out: &mut BytesMut, home: bool) {
    put(out, kind::NOTE_PREFERRED, &[&[u8::from(home)]]);
}

/// Appends the news that a node cannot be reached.
pub fn put_peer_gone(out: &mut BytesMut, peer: &NodePublic, reason: PeerGoneReason) {
    put(out, kind::PEER_GONE, &[peer.as_bytes(), &[reason.into()]]);
}

/// Appends a ping.
pub fn put_ping(out: &mut BytesMut, data: &[u8; PING_LEN]) {
    put(out, kind::PING, &[data]);
}

/// Appends a pong.
pub fn put_pong(out: &mut BytesMut, data: &[u8; PING_LEN]) {
    put(out, kind::PONG, &[data]);
}
