//! The last bytes of a stream.

use std::collections::VecDeque;

use bytes::Bytes;

/// Keeps the newest bytes up to a limit.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Ring {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            limit,
        }
    }

    /// Appends, dropping the oldest bytes beyond the limit.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let data = data
            .get(data.len().saturating_sub(self.limit)..)
            .unwrap_or_default();
        let excess = (self.bytes.len() + data.len()).saturating_sub(self.limit);
        self.bytes.drain(..excess);
        self.bytes.extend(data);
    }

    /// Everything that is kept, oldest first.
    pub(crate) fn content(&self) -> Bytes {
        let (older, newer) = self.bytes.as_slices();
        [older, newer].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_newest_bytes_stay(pieces: Vec<Vec<u8>>, limit in 1usize..64) {
            let mut ring = Ring::new(limit);
            for piece in &pieces {
                ring.push(piece);
            }
            let all = pieces.concat();
            let expected = &all[all.len().saturating_sub(limit)..];
            proptest::prop_assert_eq!(&ring.content()[..], expected);
        }
    }
}
