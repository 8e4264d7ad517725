//! One deadline per socket in a binary heap that can be updated in place.

use crate::tcp::Nanos;

const ABSENT: u32 = u32::MAX;

/// Deadlines by socket index.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: Vec<(Nanos, u32)>,
    /// Position in the heap by socket index.
    position: Vec<u32>,
}

impl Timers {
    /// Deadline of the earliest timer.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.heap.first().map(|&(at, _)| at)
    }

    /// Makes sure that the socket is looked at by `at`. A timer that is set to
    /// go off earlier stays: setting it costs more than one early look.
    pub(super) fn arm(&mut self, index: u32, at: Nanos) {
        let slot = index as usize;
        if self.position.len() <= slot {
            self.position.resize(slot + 1, ABSENT);
        }
        let position = self.position[slot];
        if position == ABSENT {
            self.heap.push((at, index));
            self.up(self.heap.len() - 1);
        } else if self.heap[position as usize].0 > at {
            self.heap[position as usize].0 = at;
            self.up(position as usize);
        }
    }

    /// Gives back what a burst of connections needed.
    pub(super) fn shrink(&mut self) {
        self.heap.shrink_to(super::FEW);
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(&position) = self.position.get(index as usize) else {
            return;
        };
        if position != ABSENT {
            self.take(position as usize);
        }
    }

    /// The next socket whose timer is due.
    pub(super) fn pop(&mut self, now: Nanos) -> Option<u32> {
        let &(at, index) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.take(0);
        Some(index)
    }

    fn take(&mut self, position: usize) {
        let (_, index) = self.heap.swap_remove(position);
        self.position[index as usize] = ABSENT;
        if position < self.heap.len() {
            self.place(position);
            self.up(position);
            self.down(position);
        }
    }

    fn place(&mut self, position: usize) {
        self.position[self.heap[position].1 as usize] = position as u32;
    }

    fn up(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= self.heap[position] {
                break;
            }
            self.heap.swap(parent, position);
            self.place(position);
            position = parent;
        }
        self.place(position);
    }

    fn down(&mut self, mut position: usize) {
        loop {
            let mut least = position;
            for child in [2 * position + 1, 2 * position + 2] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == position {
                return;
            }
            self.heap.swap(least, position);
            self.place(position);
            self.place(least);
            position = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pops_in_order(ops in prop::collection::vec((0u32..20, 0u64..100, prop::bool::ANY), 1..200)) {
            let mut timers = Timers::default();
            let mut model = std::collections::BTreeMap::new();
            for (index, at, remove) in ops {
                if remove {
                    timers.remove(index);
                    model.remove(&index);
                } else {
                    timers.arm(index, at);
                    let entry = model.entry(index).or_insert(at);
                    *entry = at.min(*entry);
                }
                prop_assert_eq!(timers.next(), model.values().min().copied());
            }
            let mut expected: Vec<_> = model.into_iter().map(|(i, at)| (at, i)).collect();
            expected.sort_unstable();
            for (at, index) in expected {
                if at > 0 {
                    prop_assert_eq!(timers.pop(at - 1), None);
                }
                prop_assert_eq!(timers.pop(at), Some(index));
            }
            prop_assert_eq!(timers.pop(u64::MAX), None);
        }
    }
}
