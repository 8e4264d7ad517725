//! Layout of the four messages (section 5.4).

use std::ops::Range;

/// Length of a handshake initiation.
pub const INITIATION_LEN: usize = 148;

/// Length of a handshake response.
pub const RESPONSE_LEN: usize = 92;

/// Length of a cookie reply.
pub const COOKIE_LEN: usize = 64;

/// Bytes a transport message is longer than its padded content.
pub const OVERHEAD: usize = HEADER + TAG;

/// Bytes in front of a transport message's content.
pub(crate) const HEADER: usize = 16;

/// Length of an authentication tag.
pub(crate) const TAG: usize = 16;

/// Length of each of the two codes that end a handshake message.
pub(crate) const MAC: usize = 16;

/// Length of a sealed public key.
pub(crate) const SEALED_KEY: usize = 32 + TAG;

/// Length of a sealed time stamp.
pub(crate) const SEALED_STAMP: usize = 12 + TAG;

/// Fields of an initiation.
pub(crate) mod initiation {
    use super::{Range, SEALED_KEY, SEALED_STAMP};

    pub(crate) const SENDER: Range<usize> = 4..8;
    pub(crate) const EPHEMERAL: Range<usize> = 8..40;
    pub(crate) const STATIC: Range<usize> = 40..40 + SEALED_KEY;
    pub(crate) const STAMP: Range<usize> = 88..88 + SEALED_STAMP;
}

/// Fields of a response.
pub(crate) mod response {
    use super::{Range, TAG};

    pub(crate) const SENDER: Range<usize> = 4..8;
    pub(crate) const RECEIVER: Range<usize> = 8..12;
    pub(crate) const EPHEMERAL: Range<usize> = 12..44;
    pub(crate) const EMPTY: Range<usize> = 44..44 + TAG;
}

/// Fields of a cookie reply.
pub(crate) mod cookie {
    use super::Range;

    pub(crate) const RECEIVER: Range<usize> = 4..8;
    pub(crate) const NONCE: Range<usize> = 8..32;
    pub(crate) const COOKIE: Range<usize> = 32..64;
}

/// Fields of a transport message.
pub(crate) mod data {
    use super::Range;

    pub(crate) const RECEIVER: Range<usize> = 4..8;
    pub(crate) const COUNTER: Range<usize> = 8..16;
}

/// Message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// First handshake message.
    Initiation,
    /// Second handshake message.
    Response,
    /// Answer to a handshake message by a node under load.
    Cookie,
    /// Transport message.
    Data,
}

impl Kind {
    pub(crate) const fn head(self) -> [u8; 4] {
        match self {
            Self::Initiation => [1, 0, 0, 0],
            Self::Response => [2, 0, 0, 0],
            Self::Cookie => [3, 0, 0, 0],
            Self::Data => [4, 0, 0, 0],
        }
    }
}

/// Type of a datagram, with its length checked; `None` if it is no WireGuard
/// message.
#[must_use]
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    let head = datagram.first_chunk::<4>()?;
    match (u32::from_le_bytes(*head), datagram.len()) {
        (1, INITIATION_LEN) => Some(Kind::Initiation),
        (2, RESPONSE_LEN) => Some(Kind::Response),
        (3, COOKIE_LEN) => Some(Kind::Cookie),
        (4, OVERHEAD..) => Some(Kind::Data),
        _ => None,
    }
}

/// The session number a message is addressed to; an initiation has none.
#[must_use]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    let field = match kind(datagram)? {
        Kind::Initiation => return None,
        Kind::Response => response::RECEIVER,
        Kind::Cookie => cookie::RECEIVER,
        Kind::Data => data::RECEIVER,
    };
    number(datagram, field)
}

/// A field of fixed length.
pub(crate) fn array<const N: usize>(message: &[u8], field: Range<usize>) -> Option<[u8; N]> {
    message.get(field)?.try_into().ok()
}

/// A 32-bit field.
pub(crate) fn number(message: &[u8], field: Range<usize>) -> Option<u32> {
    array(message, field).map(u32::from_le_bytes)
}

/// What the first code of a handshake message covers, that code, and the
/// second one.
pub(crate) fn macs(message: &[u8]) -> Option<(&[u8], &[u8; MAC], &[u8; MAC])> {
    let (rest, second) = message.split_last_chunk()?;
    let (covered, first) = rest.split_last_chunk()?;
    Some((covered, first, second))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use super::*;

    #[test]
    fn kinds_have_their_lengths() {
        let with = |first: u8, len: usize| {
            let mut message = vec![0; len];
            message[0] = first;
            kind(&message)
        };
        assert_eq!(with(1, 148), Some(Kind::Initiation));
        assert_eq!(with(2, 92), Some(Kind::Response));
        assert_eq!(with(3, 64), Some(Kind::Cookie));
        assert_eq!(with(4, 32), Some(Kind::Data));
        for (first, len) in [
            (1, 147),
            (1, 149),
            (2, 148),
            (3, 65),
            (4, 31),
            (0, 64),
            (5, 64),
        ] {
            assert_eq!(with(first, len), None, "{first} {len}");
        }
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&[4, 1, 0, 0]), None);
    }

    #[test]
    fn the_receiver_is_found_in_each_kind() {
        let mut message = [0u8; 148];
        message[4..8].copy_from_slice(&7u32.to_le_bytes());
        message[8..12].copy_from_slice(&9u32.to_le_bytes());
        for (first, len, want) in [
            (1, 148, None),
            (2, 92, Some(9)),
            (3, 64, Some(7)),
            (4, 40, Some(7)),
        ] {
            message[0] = first;
            assert_eq!(receiver_index(&message[..len]), want);
        }
    }
}
