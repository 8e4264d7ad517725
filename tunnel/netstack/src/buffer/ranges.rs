//! A set of disjoint, non-adjacent half-open ranges of stream offsets.

/// Sorted ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.ranges.shrink_to(16);
    }

    /// Index of the first range that ends at or behind `at`.
    fn index(&self, at: u64) -> usize {
        self.ranges.partition_point(|&(_, end)| end < at)
    }

    /// The range that contains `at`.
    pub(crate) fn containing(&self, at: u64) -> Option<(u64, u64)> {
        let (start, end) = *self
            .ranges
            .get(self.ranges.partition_point(|r| r.1 <= at))?;
        (start <= at).then_some((start, end))
    }

    /// Whether all of `start..end` is in the set.
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        start >= end || self.containing(start).is_some_and(|(_, last)| last >= end)
    }

    /// The first part of `start..end` that is not in the set.
    pub(crate) fn first_gap(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let from = match self.containing(start) {
            Some((_, last)) => last,
            None => start,
        };
        if from >= end {
            return None;
        }
        let next = self.ranges.partition_point(|r| r.0 < from);
        let to = self.ranges.get(next).map_or(end, |r| r.0.min(end));
        Some((from, to))
    }

    /// Whether `insert(start, end)` would add a range rather than grow one.
    pub(crate) fn is_separate(&self, start: u64, end: u64) -> bool {
        self.ranges
            .get(self.index(start))
            .is_none_or(|&(first, _)| first > end)
    }

    /// Adds `start..end` and returns the range it became part of.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> (u64, u64) {
        let at = self.index(start);
        let mut merged = (start, end);
        let mut stop = at;
        while let Some(&(first, last)) = self.ranges.get(stop) {
            if first > merged.1 {
                break;
            }
            merged = (merged.0.min(first), merged.1.max(last));
            stop += 1;
        }
        if stop == at {
            self.ranges.insert(at, merged);
        } else {
            self.ranges[at] = merged;
            self.ranges.drain(at + 1..stop);
        }
        merged
    }

    /// Removes everything before `at`.
    pub(crate) fn remove_before(&mut self, at: u64) {
        let gone = self.ranges.partition_point(|&(_, end)| end <= at);
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(ops in prop::collection::vec((0u64..200, 1u64..20), 1..60), cut in 0u64..200) {
            let mut set = RangeSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (start, len) in ops {
                let separate = set.is_separate(start, start + len);
                let before = set.len();
                let merged = set.insert(start, start + len);
                prop_assert_eq!(separate, set.len() == before + 1);
                prop_assert!(merged.0 <= start && merged.1 >= start + len);
                model.extend(start..start + len);
                prop_assert!(set.ranges.windows(2).all(|w| w[0].1 < w[1].0));
                let flat: Vec<u64> = set.iter().flat_map(|(a, b)| a..b).collect();
                prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
            }
            for start in 0..200 {
                let gap = (start..220).find(|n| !model.contains(n)).map(|from| {
                    (from, (from..220).find(|n| model.contains(n)).unwrap_or(220))
                });
                prop_assert_eq!(set.first_gap(start, 220), gap);
                prop_assert_eq!(set.covers(start, start + 5), (start..start + 5).all(|n| model.contains(&n)));
            }
            set.remove_before(cut);
            let flat: Vec<u64> = set.iter().flat_map(|(a, b)| a..b).collect();
            prop_assert_eq!(flat, model.range(cut..).copied().collect::<Vec<_>>());
        }
    }
}
