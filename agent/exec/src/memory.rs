//! Memory that the allocator keeps for later.

/// Traffic after which memory is worth looking for, in bytes.
const WORTH: u64 = 1 << 20;

/// Decides when to give memory back to the system: once it is quiet after
/// traffic, because the GNU allocator keeps what bursts needed for good.
#[derive(Debug, Default)]
pub struct GiveBack {
    /// Traffic when it was looked at last.
    seen: u64,
    /// Traffic when memory was given back last.
    done: u64,
}

impl GiveBack {
    /// Whether now is the time, given all `traffic` so far in bytes: none
    /// worth naming since the last call, but some since memory was given back.
    pub fn is_due(&mut self, traffic: u64) -> bool {
        let quiet = traffic.saturating_sub(self.seen) < WORTH;
        self.seen = traffic;
        let due = quiet && traffic.saturating_sub(self.done) >= WORTH;
        if due {
            self.done = traffic;
        }
        due
    }

    /// Whether traffic went by since memory was given back, so that the next
    /// quiet moment is worth waiting for.
    pub fn is_pending(&self) -> bool {
        self.seen.saturating_sub(self.done) >= WORTH
    }

    /// Gives unused memory back; does nothing with other allocators than
    /// GNU's. Takes about a millisecond for each 10 MB of heap.
    pub fn now() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            // SAFETY: malloc_trim(3) locks what it works on and touches free
            // memory only.
            #[expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]
            unsafe {
                libc::malloc_trim(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_each_burst() {
        let mut memory = GiveBack::default();
        assert!(!memory.is_due(0), "nothing happened");
        assert!(!memory.is_due(WORTH / 2), "too little happened");
        assert!(!memory.is_due(10 * WORTH), "a burst goes on");
        assert!(!memory.is_due(20 * WORTH), "a burst goes on");
        assert!(memory.is_pending());
        assert!(memory.is_due(20 * WORTH + 1), "quiet");
        assert!(!memory.is_pending());
        assert!(!memory.is_due(20 * WORTH + 2), "given back already");
        assert!(!memory.is_due(30 * WORTH), "another burst");
        assert!(memory.is_due(30 * WORTH), "quiet again");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_was_freed_leaves_the_process() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").expect("statm");
            let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
            pages.expect("a number of pages") * 4096
        };
        // Blocks below the threshold from which each would be a mapping of
        // its own; the last of them keeps the heap from shrinking by itself.
        let mut blocks: Vec<Vec<u8>> = (0..1_000).map(|_| vec![1; 64 << 10]).collect();
        let full = resident();
        let last = blocks.pop();
        drop(blocks);
        GiveBack::now();
        assert!(resident() + (32 << 20) < full, "half of 64 MB and more");
        drop(last);
    }
}
