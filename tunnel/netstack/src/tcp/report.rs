//! What a receiver has to report in SACK blocks (RFC 2018 §4, RFC 2883).
//!
//! One acknowledgement answers a whole batch of segments, but a header holds
//! only three blocks. So that nothing that arrived goes unreported (a sender
//! would take it for lost), further acknowledgements follow until each change
//! was told once.

use crate::buffer::ranges::RangeSet;
use crate::wire::tcp::MAX_SACKS;

/// Most changes remembered; of more, the oldest are told when their turn comes
/// in the usual repetition only.
const MAX_UNTOLD: usize = 256;

type Block = (u64, u64);

/// Reporting state of one connection.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Most recently changed ranges, newest first.
    recent: [Block; MAX_SACKS],
    /// An offset inside each range that changed since it was last told.
    untold: Vec<u64>,
    duplicate: Option<Block>,
}

/// Blocks of one acknowledgement, first things first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blocks {
    list: [Block; MAX_SACKS],
    len: usize,
}

impl Blocks {
    fn put(&mut self, block: Block) {
        if self.len < MAX_SACKS {
            self.list[self.len] = block;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[Block] {
        &self.list[..self.len]
    }

    fn tells(&self, offset: u64) -> bool {
        self.as_slice().iter().any(|b| (b.0..b.1).contains(&offset))
    }
}

impl Report {
    /// Data arrived that had arrived before.
    pub(super) fn duplicate(&mut self, left: u64, right: u64) {
        self.duplicate = Some((left, right));
    }

    /// A range behind a gap came into being or grew.
    pub(super) fn changed(&mut self, left: u64, right: u64) {
        let mut recent = [(left, right), (0, 0), (0, 0)];
        let mut count = 1;
        for block in self.recent {
            let apart = block.1 < left || block.0 > right;
            if block.1 > block.0 && apart && count < recent.len() {
                recent[count] = block;
                count += 1;
            }
        }
        self.recent = recent;
        let known = self
            .untold
            .last()
            .is_some_and(|o| (left..right).contains(o));
        if !known {
            if self.untold.len() >= MAX_UNTOLD {
                self.untold.remove(0);
            }
            self.untold.push(left);
        }
    }

    /// Whether something was not told yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.untold.is_empty()
    }

    pub(super) fn has_duplicate(&self) -> bool {
        self.duplicate.is_some()
    }

    /// Blocks for the next acknowledgement, given the ranges behind gaps.
    pub(super) fn take(&mut self, gaps: &RangeSet) -> Blocks {
        let mut blocks = Blocks::default();
        if let Some(block) = self.duplicate.take() {
            blocks.put(block);
        }
        if gaps.is_empty() {
            self.recent = Default::default();
            self.untold.clear();
            return blocks;
        }
        let mut told = Blocks::default();
        let untold = self.untold.iter().rev().copied();
        let recent = self.recent.iter().filter(|b| b.1 > b.0).map(|b| b.0);
        // Ranges grow and merge: what counts is what they are part of now.
        for offset in untold.chain(recent) {
            if let Some(block) = gaps.containing(offset)
                && !told.as_slice().contains(&block)
            {
                told.put(block);
                blocks.put(block);
            }
        }
        self.untold
            .retain(|&o| gaps.containing(o).is_some() && !blocks.tells(o));
        blocks
    }
}
