//! Byte ring that grows on demand up to a bound and gives its memory back.

use std::io::IoSlice;
use std::sync::{Mutex, PoisonError};

/// Smallest allocation, in bytes.
const MIN: usize = 4 * 1024;
/// Allocations from this size on come from the pool.
const LARGE: usize = 64 * 1024;
/// Large buffers kept for reuse.
const KEPT: usize = 4;

/// Full-size buffers of rings that ran empty, for those that fill up: a bulk
/// transfer would otherwise allocate and clear one for each wake-up.
static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn take_buffer(len: usize) -> Vec<u8> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match pool.pop() {
        Some(buffer) if buffer.len() == len => buffer,
        _ => {
            drop(pool);
            vec![0; len]
        }
    }
}

fn give_back(buffer: Vec<u8>, full_size: usize) {
    if buffer.len() == full_size {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(buffer);
        }
    }
}

/// Frees the buffers that are kept for reuse.
pub(crate) fn free_kept() {
    *POOL.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
}

/// First-in first-out bytes, bounded.
#[derive(Debug)]
pub(crate) struct Ring {
    buf: Vec<u8>,
    head: usize,
    len: usize,
    max: usize,
}

impl Ring {
    /// Empty ring that holds at most `max` bytes (a power of two).
    pub(crate) fn new(max: usize) -> Self {
        debug_assert!(max.is_power_of_two() && max >= MIN);
        Self {
            buf: Vec::new(),
            head: 0,
            len: 0,
            max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub(crate) fn space(&self) -> usize {
        self.max - self.len
    }

    /// Copies as much of `src` as fits; returns how much that was.
    pub(crate) fn push(&mut self, src: &[u8]) -> usize {
        let n = src.len().min(self.space());
        self.reserve(n);
        let mut done = 0;
        while done < n {
            let (at, room) = self.tail();
            let step = room.min(n - done);
            self.buf[at..at + step].copy_from_slice(&src[done..done + step]);
            self.len += step;
            done += step;
        }
        n
    }

    /// Lets `fill` write into the free room, contiguous piece by piece, until
    /// it returns 0 or the ring is full. Returns the bytes added.
    pub(crate) fn fill_with(
        &mut self,
        want: usize,
        mut fill: impl FnMut(&mut [u8]) -> usize,
    ) -> usize {
        let want = want.min(self.space());
        self.reserve(want);
        let mut done = 0;
        while done < want {
            let (at, room) = self.tail();
            let step = room.min(want - done);
            let n = fill(&mut self.buf[at..at + step]).min(step);
            if n == 0 {
                break;
            }
            self.len += n;
            done += n;
        }
        self.shrink_if_empty();
        done
    }

    /// The stored bytes, oldest first, in at most two pieces.
    pub(crate) fn slices(&self) -> (&[u8], &[u8]) {
        if self.len == 0 {
            return (&[], &[]);
        }
        let first = (self.buf.len() - self.head).min(self.len);
        (
            &self.buf[self.head..self.head + first],
            &self.buf[..self.len - first],
        )
    }

    /// Copies the oldest bytes out; returns how many.
    #[cfg(test)]
    pub(crate) fn pop(&mut self, dst: &mut [u8]) -> usize {
        let (a, b) = self.slices();
        let n = a.len().min(dst.len());
        dst[..n].copy_from_slice(&a[..n]);
        let m = b.len().min(dst.len() - n);
        dst[n..n + m].copy_from_slice(&b[..m]);
        self.consume(n + m);
        n + m
    }

    /// Forgets the `n` oldest bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.len);
        self.len -= n;
        self.head = if self.len == 0 {
            0
        } else {
            (self.head + n) & (self.buf.len() - 1)
        };
        self.shrink_if_empty();
    }

    /// Copies several slices; returns the bytes taken.
    pub(crate) fn push_vectored(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let mut total = 0;
        for buf in bufs {
            let n = self.push(buf);
            total += n;
            if n < buf.len() {
                break;
            }
        }
        total
    }

    /// Forgets everything and frees the memory.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.shrink_if_empty();
        self.head = 0;
        self.buf = Vec::new();
    }

    fn tail(&self) -> (usize, usize) {
        let cap = self.buf.len();
        let at = (self.head + self.len) & (cap - 1);
        let room = if at >= self.head && self.len < cap {
            cap - at
        } else {
            self.head - at
        };
        (at, room.min(cap - self.len))
    }

    fn reserve(&mut self, extra: usize) {
        let need = self.len + extra;
        if need <= self.buf.len() {
            return;
        }
        let mut cap = need.next_power_of_two().clamp(MIN, self.max);
        if cap > LARGE {
            cap = self.max;
        }
        let mut next = if cap > LARGE {
            take_buffer(cap)
        } else {
            vec![0; cap]
        };
        let (a, b) = self.slices();
        next[..a.len()].copy_from_slice(a);
        next[a.len()..a.len() + b.len()].copy_from_slice(b);
        self.buf = next;
        self.head = 0;
    }

    fn shrink_if_empty(&mut self) {
        if self.len == 0 && self.buf.len() > LARGE {
            // Large buffers are only worth keeping while they are in use.
            give_back(std::mem::take(&mut self.buf), self.max);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::Ring;

    proptest! {
        #[test]
        fn behaves_like_a_queue(ops in prop::collection::vec((any::<bool>(), 0usize..20_000), 1..80)) {
            let mut ring = Ring::new(32 * 1024);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for (push, n) in ops {
                if push {
                    let data: Vec<u8> = (0..n).map(|_| { next = next.wrapping_add(1); next }).collect();
                    let taken = ring.push(&data);
                    prop_assert_eq!(taken, n.min(32 * 1024 - model.len()));
                    model.extend(&data[..taken]);
                    next = next.wrapping_sub(u8::try_from((n - taken) & 0xff).unwrap_or(0));
                } else {
                    let mut out = vec![0; n];
                    let got = ring.pop(&mut out);
                    let want: Vec<u8> = model.drain(..n.min(model.len())).collect();
                    prop_assert_eq!(&out[..got], &want[..]);
                }
                prop_assert_eq!(ring.len(), model.len());
            }
        }
    }
}
