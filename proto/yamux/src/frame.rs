//! Frame headers of yamux protocol version 0.
//!
//! ```text
//!  0        1        2                 4                        8                       12
//!  +--------+--------+-----------------+------------------------+------------------------+
//!  | version| type   | flags           | stream id              | length                 |
//!  +--------+--------+-----------------+------------------------+------------------------+
//! ```
//!
//! All numbers are big-endian. Only Data frames have a body.

use bytes::{BufMut as _, BytesMut};

/// Encoded size of a frame header.
pub const HEADER_LEN: usize = 12;

/// What `length` means and where the frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameType {
    /// `length` bytes of stream data follow.
    Data,
    /// `length` more bytes may be sent on the stream.
    WindowUpdate,
    /// `length` is an opaque value to be sent back.
    Ping,
    /// `length` is the reason why no more streams are wanted.
    GoAway,
}

/// Flag bits of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Opens a stream, or asks for a pong.
    pub const SYN: Self = Self(1);
    /// Accepts a stream, or is a pong.
    pub const ACK: Self = Self(2);
    /// The sender writes no more data.
    pub const FIN: Self = Self(4);
    /// The stream is gone.
    pub const RST: Self = Self(8);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Type of the frame.
    pub frame_type: FrameType,
    /// Flag bits; unknown ones are kept and ignored.
    pub flags: Flags,
    /// Stream the frame belongs to, 0 for Ping and GoAway.
    pub stream: u32,
    /// Depends on the type.
    pub length: u32,
}

/// A header that cannot be of protocol version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The version byte is not 0.
    #[error("unknown yamux version {0}")]
    Version(u8),
    /// The type byte is above 3.
    #[error("unknown yamux frame type {0}")]
    Type(u8),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// When version or type are unknown.
    pub fn decode(raw: [u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = raw;
        if version != 0 {
            return Err(HeaderError::Version(version));
        }
        let frame_type = match kind {
            0 => FrameType::Data,
            1 => FrameType::WindowUpdate,
            2 => FrameType::Ping,
            3 => FrameType::GoAway,
            other => return Err(HeaderError::Type(other)),
        };
        Ok(Self {
            frame_type,
            flags: Flags(u16::from_be_bytes([f0, f1])),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// Appends the encoded header.
    pub fn encode(self, out: &mut BytesMut) {
        out.reserve(HEADER_LEN);
        out.put_u8(0);
        out.put_u8(match self.frame_type {
            FrameType::Data => 0,
            FrameType::WindowUpdate => 1,
            FrameType::Ping => 2,
            FrameType::GoAway => 3,
        });
        out.put_u16(self.flags.0);
        out.put_u32(self.stream);
        out.put_u32(self.length);
    }
}

/// Splits a byte stream into frames without collecting whole bodies: a Data
/// body is handed out in the pieces it arrived in.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: [u8; HEADER_LEN],
    filled: usize,
    body: Option<Body>,
}

/// The Data frame that is being received.
#[derive(Debug)]
struct Body {
    stream: u32,
    left: u32,
    fin: bool,
}

/// One step of the decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A complete header. A Data frame's body follows as [`Item::Body`].
    Header(Header),
    /// The next piece of the body of the Data frame on this stream.
    Body {
        /// Stream the data belongs to.
        stream: u32,
        /// At least one byte.
        data: bytes::Bytes,
        /// The peer's direction ends after this piece, see
        /// [`Decoder::delay_fin`].
        fin: bool,
    },
}

impl Decoder {
    /// Takes the next item off the front of `input`; `None` when all of it is
    /// used up.
    ///
    /// # Errors
    /// When a header is invalid; the session cannot go on.
    pub fn next(&mut self, input: &mut bytes::Bytes) -> Result<Option<Item>, HeaderError> {
        if input.is_empty() {
            return Ok(None);
        }
        if let Some(mut body) = self.body.take() {
            let take = input
                .len()
                .min(usize::try_from(body.left).unwrap_or(usize::MAX));
            let data = input.split_to(take);
            let stream = body.stream;
            body.left -= u32::try_from(take).unwrap_or(body.left);
            let fin = body.fin && body.left == 0;
            if body.left > 0 {
                self.body = Some(body);
            }
            return Ok(Some(Item::Body { stream, data, fin }));
        }
        let take = input.len().min(HEADER_LEN - self.filled);
        let piece = input.split_to(take);
        for (slot, byte) in self.partial.iter_mut().skip(self.filled).zip(&piece) {
            *slot = *byte;
        }
        self.filled += take;
        if self.filled < HEADER_LEN {
            return Ok(None);
        }
        self.filled = 0;
        let header = Header::decode(self.partial)?;
        if header.frame_type == FrameType::Data && header.length > 0 {
            self.body = Some(Body {
                stream: header.stream,
                left: header.length,
                fin: false,
            });
        }
        Ok(Some(Item::Header(header)))
    }

    /// Makes the last piece of the current body carry the end of the stream:
    /// the FIN of a Data frame takes effect after its body.
    pub const fn delay_fin(&mut self) {
        if let Some(body) = &mut self.body {
            body.fin = true;
        }
    }
}
