//! The sealed datagram around a message.

use adit_keys::{BOX_OVERHEAD, DiscoPublic, NONCE_LEN, OpenError, SharedKey};

use crate::{DecodeError, HEADER_LEN, MAGIC, Message, PADDED_DATAGRAM_LEN};

/// Whether a datagram is a disco datagram and not WireGuard.
///
/// Only the magic and the length of the header are looked at, which is also
/// how a relay decides which of its queues a packet belongs to.
pub fn is_disco(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && datagram.starts_with(&MAGIC)
}

/// A received datagram, split but not yet opened.
///
/// Look up [`sender`](Self::sender) first: boxes of unknown senders must be
/// dropped unopened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Who claims to have sent it; proven by opening the box.
    pub sender: DiscoPublic,
    /// The nonce of the box.
    pub nonce: [u8; NONCE_LEN],
    /// Tag and ciphertext.
    pub sealed: &'a [u8],
}

/// Why an envelope gave no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenMessageError {
    /// The box was not sealed by the sender for us.
    #[error(transparent)]
    Box(#[from] OpenError),
    /// The box opened, but its content is no disco message.
    #[error(transparent)]
    Content(#[from] DecodeError),
}

impl<'a> Envelope<'a> {
    /// Splits a datagram; `None` if it is no disco datagram.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let rest = datagram.strip_prefix(&MAGIC)?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        Some(Self {
            sender: DiscoPublic::from_bytes(*sender),
            nonce: *nonce,
            sealed,
        })
    }

    /// Opens the box with the key shared with [`sender`](Self::sender).
    pub fn open(&self, shared: &SharedKey) -> Result<Message, OpenMessageError> {
        let plaintext = shared.open(&self.nonce, self.sealed)?;
        Ok(Message::decode(&plaintext)?)
    }
}

/// Seals `message` into a datagram. `sender` is our own disco key, `shared`
/// the key shared with the receiver; the nonce must be fresh.
pub fn seal(
    sender: &DiscoPublic,
    shared: &SharedKey,
    nonce: &[u8; NONCE_LEN],
    message: &Message,
) -> Vec<u8> {
    seal_padded(sender, shared, nonce, message, PADDED_DATAGRAM_LEN)
}

/// As [`seal`], with pings and pongs padded to datagrams of `len` bytes, or to
/// the usual length if that is larger: to find out what a path can carry.
pub fn seal_padded(
    sender: &DiscoPublic,
    shared: &SharedKey,
    nonce: &[u8; NONCE_LEN],
    message: &Message,
    len: usize,
) -> Vec<u8> {
    let mut plaintext = Vec::new();
    message.encode_padded_into(len, &mut plaintext);
    let mut datagram = Vec::with_capacity(HEADER_LEN + BOX_OVERHEAD + plaintext.len());
    datagram.extend_from_slice(&MAGIC);
    datagram.extend_from_slice(sender.as_bytes());
    datagram.extend_from_slice(nonce);
    shared.seal_into(nonce, &plaintext, &mut datagram);
    datagram
}
