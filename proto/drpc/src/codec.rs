//! Frames and packets.
//!
//! ```text
//! control(1) | stream id (varint) | message id (varint) | length (varint) | data
//! control: bit 7 = control packet, bits 6..1 = kind, bit 0 = last frame
//! ```
//!
//! A packet is the data of all frames with one (stream, message) id.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::error::ProtocolError;

/// Largest packet either side takes, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Data bytes of one outgoing frame.
const FRAME_DATA: usize = 64 * 1024;
/// Longest encoded number.
const MAX_VARINT: usize = 10;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Starts a call; the data is the path of the method.
    Invoke,
    /// One message of the call.
    Message,
    /// Ends the call with an error.
    Error,
    /// Gives the call up.
    Cancel,
    /// Ends the call.
    Close,
    /// The sender sends no more messages.
    CloseSend,
    /// Key-value pairs of the Invoke that follows.
    InvokeMetadata,
    /// Something this version does not know.
    Unknown(u8),
}

impl Kind {
    /// Kind by its number on the wire.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Invoke,
            2 => Self::Message,
            3 => Self::Error,
            4 => Self::Cancel,
            5 => Self::Close,
            6 => Self::CloseSend,
            7 => Self::InvokeMetadata,
            other => Self::Unknown(other),
        }
    }

    /// Number of the kind on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Invoke => 1,
            Self::Message => 2,
            Self::Error => 3,
            Self::Cancel => 4,
            Self::Close => 5,
            Self::CloseSend => 6,
            Self::InvokeMetadata => 7,
            Self::Unknown(other) => other & 0x3f,
        }
    }
}

/// A complete packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Call the packet belongs to, from 1.
    pub stream: u64,
    /// Position of the packet in its direction of the call, from 1.
    pub message: u64,
    /// What it is for.
    pub kind: Kind,
    /// A receiver that does not know the kind ignores the packet.
    pub control: bool,
    /// Meaning depends on the kind.
    pub data: Bytes,
}

/// Assembles packets from a byte stream.
#[derive(Debug)]
pub struct Decoder {
    /// The lowest id the next frame may have.
    next: (u64, u64),
    partial: Option<Partial>,
    limit: usize,
}

#[derive(Debug)]
struct Partial {
    id: (u64, u64),
    kind: u8,
    control: bool,
    data: BytesMut,
}

struct Frame {
    id: (u64, u64),
    kind: u8,
    control: bool,
    done: bool,
    data: Bytes,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MAX_MESSAGE)
    }
}

impl Decoder {
    /// A decoder for packets of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            next: (1, 0),
            partial: None,
            limit,
        }
    }

    /// Takes frames off the front of `input` until a packet is complete.
    /// `None` when more input is needed; an incomplete frame stays in `input`,
    /// which never has to grow beyond the limit and a header.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, ProtocolError> {
        while let Some(frame) = self.frame(input)? {
            if let Some(packet) = self.assemble(frame)? {
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }

    fn frame(&self, input: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        let Some((&control, mut rest)) = input.split_first() else {
            return Ok(None);
        };
        let (Some(stream), Some(message), Some(length)) =
            (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?)
        else {
            return Ok(None);
        };
        let length = usize::try_from(length).map_err(|_| ProtocolError::Overflow)?;
        if length > self.limit {
            return Err(ProtocolError::Overflow);
        }
        let header = input.len() - rest.len();
        if rest.len() < length {
            // The announced length is not reserved: it costs the peer nothing.
            return Ok(None);
        }
        let mut data = input.split_to(header + length);
        let data = data.split_off(header).freeze();
        Ok(Some(Frame {
            id: (stream, message),
            kind: (control & 0x7e) >> 1,
            control: control & 0x80 != 0,
            done: control & 1 != 0,
            data,
        }))
    }

    fn assemble(&mut self, frame: Frame) -> Result<Option<Packet>, ProtocolError> {
        if frame.id < self.next {
            return Err(ProtocolError::Monotonicity);
        }
        self.next = frame.id;
        // A newer packet replaces an unfinished one.
        let partial = self.partial.take().filter(|partial| partial.id == frame.id);
        let (control, data) = match partial {
            None => (frame.control, frame.data),
            Some(mut partial) => {
                if partial.kind != frame.kind {
                    return Err(ProtocolError::KindChange);
                }
                if partial.data.len() + frame.data.len() > self.limit {
                    return Err(ProtocolError::Overflow);
                }
                partial.data.extend_from_slice(&frame.data);
                let control = partial.control | frame.control;
                if !frame.done {
                    partial.control = control;
                    self.partial = Some(partial);
                    return Ok(None);
                }
                (control, partial.data.freeze())
            }
        };
        if !frame.done {
            self.partial = Some(Partial {
                id: frame.id,
                kind: frame.kind,
                control,
                data: BytesMut::from(data),
            });
            return Ok(None);
        }
        let (stream, message) = frame.id;
        self.next = (stream, message.saturating_add(1));
        Ok(Some(Packet {
            stream,
            message,
            kind: Kind::from_number(frame.kind),
            control,
            data,
        }))
    }
}

/// Reads a number; `None` when it is cut off.
fn varint(input: &mut &[u8]) -> Result<Option<u64>, ProtocolError> {
    let mut value = 0u64;
    for (index, byte) in input.iter().enumerate() {
        if index >= MAX_VARINT {
            return Err(ProtocolError::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *input = input.get(index + 1..).unwrap_or_default();
            return Ok(Some(value));
        }
    }
    if input.len() >= MAX_VARINT {
        return Err(ProtocolError::Varint);
    }
    Ok(None)
}

/// Appends a packet, split into frames.
pub fn encode_packet(out: &mut BytesMut, packet: &Packet) {
    let mut rest = &packet.data[..];
    loop {
        let (data, left) = rest.split_at(rest.len().min(FRAME_DATA));
        out.reserve(1 + 3 * MAX_VARINT + data.len());
        out.put_u8(
            u8::from(packet.control) << 7 | packet.kind.number() << 1 | u8::from(left.is_empty()),
        );
        put_varint(out, packet.stream);
        put_varint(out, packet.message);
        put_varint(out, data.len() as u64);
        out.put_slice(data);
        if left.is_empty() {
            return;
        }
        rest = left;
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
