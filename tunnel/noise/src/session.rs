//! Transport messages under one pair of keys (section 5.4.6).

use std::time::Instant;

use ring::aead::{Aad, LessSafeKey};

use crate::Rejected;
use crate::crypto::{cipher, nonce};
use crate::handshake::Agreed;
use crate::limits::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME};
use crate::message::{HEADER, Kind, OVERHEAD, TAG, array, data};
use crate::replay::Window;

/// Content is filled up to a multiple of this.
const PADDING: usize = 16;

/// One pair of keys.
pub(crate) struct Session {
    pub(crate) index: u32,
    /// When it was agreed.
    pub(crate) at: Instant,
    /// This side began.
    pub(crate) initiator: bool,
    remote: u32,
    send: LessSafeKey,
    receive: LessSafeKey,
    /// Counter of the next message.
    counter: u64,
    window: Window,
}

impl Session {
    pub(crate) fn new(index: u32, at: Instant, initiator: bool, agreed: &Agreed) -> Option<Self> {
        Some(Self {
            index,
            at,
            initiator,
            remote: agreed.remote,
            send: cipher(&agreed.send)?,
            receive: cipher(&agreed.receive)?,
            counter: 0,
            window: Window::new(),
        })
    }

    /// Whether keys may be used at all.
    pub(crate) fn in_force(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REJECT_AFTER_TIME
    }

    /// Whether messages may be sent.
    pub(crate) fn can_seal(&self, now: Instant) -> bool {
        self.in_force(now) && self.counter < REJECT_AFTER_MESSAGES
    }

    /// Messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.counter
    }

    /// Seals `content`, filled up with zeros, but to no more than `largest`.
    pub(crate) fn seal(&mut self, content: &[u8], largest: usize, out: &mut [u8]) -> Option<usize> {
        let room = out.len().checked_sub(OVERHEAD)?;
        let padded = content
            .len()
            .next_multiple_of(PADDING)
            .min(largest)
            .min(room)
            .max(content.len());
        let (head, rest) = out.get_mut(..padded + OVERHEAD)?.split_at_mut(HEADER);
        let (body, tag_room) = rest.split_at_mut(padded);
        head[..4].copy_from_slice(&Kind::Data.head());
        head[data::RECEIVER].copy_from_slice(&self.remote.to_le_bytes());
        head[data::COUNTER].copy_from_slice(&self.counter.to_le_bytes());
        let (copy, padding) = body.split_at_mut(content.len());
        copy.copy_from_slice(content);
        padding.fill(0);
        let tag = self
            .send
            .seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), body)
            .ok()?;
        tag_room.copy_from_slice(tag.as_ref());
        self.counter += 1;
        Some(padded + OVERHEAD)
    }

    /// Opens a message into `out`; the length of its padded content.
    pub(crate) fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, Rejected> {
        let counter = array(message, data::COUNTER)
            .map(u64::from_le_bytes)
            .ok_or(Rejected)?;
        if counter >= REJECT_AFTER_MESSAGES || !self.window.is_new(counter) {
            return Err(Rejected);
        }
        let sealed = message.get(HEADER..).ok_or(Rejected)?;
        let room = out.get_mut(..sealed.len()).ok_or(Rejected)?;
        room.copy_from_slice(sealed);
        self.receive
            .open_in_place(nonce(counter), Aad::empty(), room)
            .map_err(|_| Rejected)?;
        self.window.mark(counter);
        Ok(sealed.len() - TAG)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test")]

    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn counters_end_before_they_wrap() {
        let now = Instant::now();
        let agreed = Agreed {
            remote: 1,
            send: Zeroizing::new([1; 32]),
            receive: Zeroizing::new([1; 32]),
        };
        let mut session = Session::new(1, now, true, &agreed).unwrap();
        let mut out = [0; 64];
        let mut opened = [0; 64];
        session.counter = REJECT_AFTER_MESSAGES - 1;
        assert!(session.can_seal(now));
        let len = session.seal(b"last", 16, &mut out).unwrap();
        assert!(!session.can_seal(now));
        assert_eq!(session.open(&out[..len], &mut opened), Ok(16));
        let len = session.seal(b"too much", 16, &mut out).unwrap();
        assert_eq!(session.open(&out[..len], &mut opened), Err(Rejected));
    }
}
