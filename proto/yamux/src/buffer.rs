//! Queue of received or outgoing bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces below this size are copied together, so that a peer sending single
/// bytes costs neither a handle nor a pinned read buffer per byte.
const SMALL: usize = 512;

/// Byte queue that keeps large pieces without copying them.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl Buffer {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        self.len += data.len();
        if data.len() < SMALL {
            self.tail.extend_from_slice(&data);
        } else {
            self.seal();
            self.pieces.push_back(data);
        }
    }

    pub(crate) fn push_slice(&mut self, data: &[u8]) {
        self.len += data.len();
        self.tail.extend_from_slice(data);
        if self.tail.len() >= 64 * SMALL {
            self.seal();
        }
    }

    /// Takes at most `max` bytes from the front; `None` when there is nothing.
    pub(crate) fn pop(&mut self, max: usize) -> Option<Bytes> {
        if self.len == 0 || max == 0 {
            return None;
        }
        if self.pieces.is_empty() {
            self.seal();
        }
        let front = self.pieces.front_mut()?;
        let data = if front.len() <= max {
            self.pieces.pop_front()?
        } else {
            front.split_to(max)
        };
        self.len -= data.len();
        Some(data)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}
