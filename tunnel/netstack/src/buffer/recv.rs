//! Receive buffer: data is written where it belongs as it arrives, in order or
//! not, into chunks that exist only while they hold something.

use std::collections::VecDeque;

use super::pool::{CHUNK, Pool};
use super::ranges::RangeSet;

/// Most separate out-of-order ranges; what would need more is dropped and
/// sent again by the peer.
const MAX_RANGES: usize = 2048;

/// What became of a segment's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Nothing new.
    Duplicate,
    /// Stored, and the contiguous part grew.
    InOrder,
    /// Stored behind a gap; the range it is part of.
    OutOfOrder(u64, u64),
    /// No room for it.
    Dropped,
}

/// Receive buffer of one connection; offsets count from the peer's SYN = 0.
#[derive(Debug)]
pub(crate) struct RecvBuf {
    chunks: VecDeque<Option<Box<[u8]>>>,
    /// Offset of the first byte of the first chunk.
    base: u64,
    /// Next offset the application reads.
    read: u64,
    /// Next offset expected from the peer.
    next: u64,
    out_of_order: RangeSet,
    /// Bytes that may be held.
    limit: usize,
    /// Part of `limit` that is on the budget.
    reserved: usize,
}

impl RecvBuf {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            base: 1,
            read: 1,
            next: 1,
            out_of_order: RangeSet::default(),
            limit,
            reserved: 0,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn total_read(&self) -> u64 {
        self.read
    }

    pub(crate) fn readable(&self) -> usize {
        (self.next - self.read) as usize
    }

    /// Right edge of what fits.
    pub(crate) fn edge(&self) -> u64 {
        (self.read + self.limit as u64).max(self.next)
    }

    pub(crate) fn out_of_order(&self) -> &RangeSet {
        &self.out_of_order
    }

    /// Raises the limit as far as the budget allows.
    pub(crate) fn grow(&mut self, limit: usize, pool: &mut Pool) {
        let more = limit.saturating_sub(self.limit);
        if more > 0 && pool.reserve(more) {
            self.limit += more;
            self.reserved += more;
        }
    }

    /// Returns everything beyond `limit` to the budget. What the peer was
    /// already promised is honoured if the budget has room when it comes.
    pub(crate) fn shrink(&mut self, pool: &mut Pool) {
        let held = self.held_span();
        let less = self.reserved.min(self.limit.saturating_sub(held));
        self.limit -= less;
        self.reserved -= less;
        pool.release(less);
        self.chunks.shrink_to_fit();
        pool.trim();
    }

    /// Bytes between the read position and the last byte held.
    fn held_span(&self) -> usize {
        let end = self
            .out_of_order
            .iter()
            .next_back()
            .map_or(self.next, |r| r.1);
        (end - self.read) as usize
    }

    /// Frees everything.
    pub(crate) fn release(&mut self, pool: &mut Pool) {
        for chunk in self.chunks.drain(..).flatten() {
            pool.put(chunk);
        }
        self.out_of_order.clear();
        self.read = self.next;
        self.base = self.next;
        pool.release(self.reserved);
        self.limit -= self.reserved;
        self.reserved = 0;
    }

    /// Stores `data` that starts at offset `at`. The caller has cut off what
    /// lies beyond the announced window.
    pub(crate) fn insert(&mut self, mut at: u64, mut data: &[u8], pool: &mut Pool) -> Inserted {
        if at < self.next {
            let known = ((self.next - at) as usize).min(data.len());
            data = &data[known..];
            at += known as u64;
        }
        let end = at + data.len() as u64;
        if data.is_empty() || self.out_of_order.covers(at, end) {
            return Inserted::Duplicate;
        }
        let span = (end - self.read) as usize;
        if span > self.limit {
            self.grow(span, pool);
            if span > self.limit {
                return Inserted::Dropped;
            }
        }
        if at == self.next && self.out_of_order.is_empty() {
            self.store(at, data, pool);
            self.next = end;
            return Inserted::InOrder;
        }
        if self.out_of_order.len() >= MAX_RANGES
            && at != self.next
            && self.out_of_order.is_separate(at, end)
        {
            return Inserted::Dropped;
        }
        self.store(at, data, pool);
        let merged = self.out_of_order.insert(at, end);
        if merged.0 > self.next {
            return Inserted::OutOfOrder(merged.0, merged.1);
        }
        self.next = merged.1;
        self.out_of_order.remove_before(self.next);
        Inserted::InOrder
    }

    fn store(&mut self, mut at: u64, mut data: &[u8], pool: &mut Pool) {
        if self.chunks.is_empty() {
            self.base = self.read;
        }
        while !data.is_empty() {
            let position = (at - self.base) as usize;
            let (index, offset) = (position / CHUNK, position % CHUNK);
            while self.chunks.len() <= index {
                self.chunks.push_back(None);
            }
            let chunk = self.chunks[index].get_or_insert_with(|| pool.take());
            let len = data.len().min(CHUNK - offset);
            chunk[offset..offset + len].copy_from_slice(&data[..len]);
            data = &data[len..];
            at += len as u64;
        }
    }

    /// Moves bytes in order to `buf`.
    pub(crate) fn read(&mut self, buf: &mut [u8], pool: &mut Pool) -> usize {
        let total = buf.len().min(self.readable());
        let mut done = 0;
        while done < total {
            let position = (self.read - self.base) as usize;
            let len = (total - done).min(CHUNK - position);
            if let Some(Some(chunk)) = self.chunks.front() {
                buf[done..done + len].copy_from_slice(&chunk[position..position + len]);
            }
            self.advance(len, pool);
            done += len;
        }
        total
    }

    /// Drops what can be read.
    pub(crate) fn discard(&mut self, pool: &mut Pool) {
        while self.readable() > 0 {
            let position = (self.read - self.base) as usize;
            let len = self.readable().min(CHUNK - position);
            self.advance(len, pool);
        }
    }

    /// Moves the read position by `len`, which stays inside the first chunk.
    fn advance(&mut self, len: usize, pool: &mut Pool) {
        self.read += len as u64;
        if (self.read - self.base) as usize == CHUNK {
            if let Some(Some(chunk)) = self.chunks.pop_front() {
                pool.put(chunk);
            }
            self.base += CHUNK as u64;
        }
        if self.read == self.next && self.out_of_order.is_empty() {
            for chunk in self.chunks.drain(..).flatten() {
                pool.put(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_out_of_order_and_reads_in_order() {
        let mut pool = Pool::new(1 << 20);
        let mut buf = RecvBuf::new(64 << 10);
        let data: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
        let mut order: Vec<usize> = (0..60).collect();
        order.reverse();
        for i in order {
            let got = buf.insert(
                1 + 1000 * i as u64,
                &data[1000 * i..1000 * (i + 1)],
                &mut pool,
            );
            assert_eq!(matches!(got, Inserted::InOrder), i == 0);
        }
        assert_eq!(buf.insert(1, &data[..500], &mut pool), Inserted::Duplicate);
        let mut out = vec![0; 70_000];
        assert_eq!(buf.read(&mut out, &mut pool), 60_000);
        assert_eq!(&out[..60_000], &data[..]);
        assert!(buf.chunks.is_empty());
    }

    #[test]
    fn beyond_the_limit_needs_budget() {
        let mut pool = Pool::new(100);
        let mut buf = RecvBuf::new(1000);
        assert_eq!(
            buf.insert(1051, &[1; 50], &mut pool),
            Inserted::OutOfOrder(1051, 1101)
        );
        assert_eq!(buf.insert(1101, &[1; 50], &mut pool), Inserted::Dropped);
        assert_eq!(pool.used(), 100);
        buf.release(&mut pool);
        assert_eq!(pool.used(), 0);
    }
}
