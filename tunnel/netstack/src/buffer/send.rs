//! Send buffer: a queue of chunks, as the application handed them over or
//! filled by copying, from which any range can be copied to a packet.

use std::collections::VecDeque;

use bytes::Bytes;

/// Largest chunk made for copied data.
const CHUNK: usize = 64 << 10;
/// Smallest chunk made for copied data.
const MIN_CHUNK: usize = 2 << 10;

#[derive(Debug)]
enum Data {
    /// Filled by copying; grows up to its capacity.
    Copied(Vec<u8>),
    /// Handed over.
    Shared(Bytes),
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(data) => data,
            Self::Shared(data) => data,
        }
    }
}

#[derive(Debug)]
struct Chunk {
    start: u64,
    data: Data,
}

/// Send buffer of one connection; offsets count from the own SYN = 0.
#[derive(Debug)]
pub(crate) struct SendBuf {
    chunks: VecDeque<Chunk>,
    /// First offset held (unacknowledged).
    start: u64,
    /// Offset behind the last byte written.
    end: u64,
}

impl SendBuf {
    pub(crate) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            start: 1,
            end: 1,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub(crate) fn push_copy(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if let Some(Chunk {
                data: Data::Copied(tail),
                ..
            }) = self.chunks.back_mut()
                && tail.len() < tail.capacity()
            {
                let len = data.len().min(tail.capacity() - tail.len());
                tail.extend_from_slice(&data[..len]);
                self.end += len as u64;
                data = &data[len..];
            } else {
                let size = data.len().clamp(MIN_CHUNK, CHUNK);
                self.chunks.push_back(Chunk {
                    start: self.end,
                    data: Data::Copied(Vec::with_capacity(size)),
                });
            }
        }
    }

    pub(crate) fn push_bytes(&mut self, data: Bytes) {
        if data.len() < MIN_CHUNK {
            self.push_copy(&data);
            return;
        }
        let len = data.len() as u64;
        self.chunks.push_back(Chunk {
            start: self.end,
            data: Data::Shared(data),
        });
        self.end += len;
    }

    /// Copies the bytes from offset `at` to `buf`; they must be held.
    pub(crate) fn copy(&self, at: u64, buf: &mut [u8]) {
        let mut index = self
            .chunks
            .partition_point(|c| c.start <= at)
            .saturating_sub(1);
        let mut at = at;
        let mut done = 0;
        while done < buf.len() {
            let Some(chunk) = self.chunks.get(index) else {
                return;
            };
            let from = (at - chunk.start) as usize;
            let bytes = chunk.data.bytes();
            let len = (buf.len() - done).min(bytes.len() - from);
            buf[done..done + len].copy_from_slice(&bytes[from..from + len]);
            done += len;
            at += len as u64;
            index += 1;
        }
    }

    /// Forgets what lies before `to`.
    pub(crate) fn acknowledge(&mut self, to: u64) {
        self.start = to.clamp(self.start, self.end);
        while let Some(chunk) = self.chunks.front() {
            if chunk.start + chunk.data.bytes().len() as u64 > self.start {
                break;
            }
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 64 {
            self.chunks.shrink_to_fit();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.start = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_can_be_copied_until_it_is_acknowledged() {
        let mut buf = SendBuf::new();
        let data: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
        buf.push_copy(&data[..10]);
        buf.push_copy(&data[10..70_000]);
        buf.push_bytes(Bytes::copy_from_slice(&data[70_000..150_000]));
        buf.push_bytes(Bytes::copy_from_slice(&data[150_000..150_100]));
        buf.push_copy(&data[150_100..]);
        assert_eq!(buf.len(), 200_000);
        for at in (0..198_000).step_by(997) {
            let mut out = [0; 1208];
            buf.copy(1 + at as u64, &mut out);
            assert_eq!(out[..], data[at..at + 1208]);
        }
        buf.acknowledge(1 + 149_000);
        assert_eq!(buf.len(), 51_000);
        let mut out = [0; 1208];
        buf.copy(1 + 149_500, &mut out);
        assert_eq!(out[..], data[149_500..150_708]);
        buf.acknowledge(1 + 200_000);
        assert!(buf.chunks.is_empty());
    }
}
