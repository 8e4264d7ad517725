//! Memory that a process holds without using it, and giving it back.
//!
//! The GNU allocator keeps what bursts needed for good, and the kernel maps a
//! program's code in large steps: a process that idles holds several times
//! what it works with. All of it does nothing on other systems.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod caches;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod gnu;

use std::time::{Duration, Instant};

/// Traffic after which memory is worth looking for, in bytes.
const WORTH: u64 = 1 << 20;

/// For how long after a burst something still happens because of it: closed
/// connections are forgotten, the network is checked.
const LINGER: Duration = Duration::from_secs(60);

/// Decides when to give memory back to the system: in the first quiet moment,
/// in the first one after each burst of traffic, and for a minute after each of
/// them, as not all of it is free at once.
#[derive(Debug, Default)]
pub struct GiveBack {
    /// Traffic when it was looked at last.
    seen: u64,
    /// Traffic when memory was given back last; `None` before the first time.
    done: Option<u64>,
    /// When nothing is left of the burst.
    until: Option<Instant>,
}

impl GiveBack {
    /// Whether it is time at `now`, given all `traffic` so far in bytes: none
    /// worth naming since the last call, but some in the minute before memory
    /// was given back or since then.
    pub fn is_due(&mut self, now: Instant, traffic: u64) -> bool {
        let quiet = traffic.saturating_sub(self.seen) < WORTH;
        self.seen = traffic;
        if !quiet {
            return false;
        }
        if self.is_pending() {
            self.done = Some(traffic);
            self.until = Some(now + LINGER);
            return true;
        }
        let due = self.until.is_some();
        self.until = self.until.filter(|until| now < *until);
        due
    }

    /// Whether traffic went by since memory was given back, so that the next
    /// quiet moment is worth waiting for.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.done
            .is_none_or(|done| self.seen.saturating_sub(done) >= WORTH)
    }
}

/// Has the allocator hold little: one heap for all threads, as each heap keeps
/// its own free blocks, and large blocks outside of it, where they cannot keep
/// it from shrinking. For programs that allocate little while they move data;
/// to be called before there are threads.
pub fn economise() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::economise();
}

/// Asks every thread to empty its cache of free blocks, which keep the memory
/// around them from being given back. Those that call [`thread_idles`] do.
pub fn empty_caches() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    caches::ask();
}

/// To be called by a thread before it waits for work. Takes no time worth
/// naming unless [`empty_caches`] was called, then a fraction of a
/// millisecond.
pub fn thread_idles() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    caches::empty_if_asked();
}

/// Gives back what is free on the heap, and forgets which pages of the program
/// are in memory: those in use come back one by one, from the page cache.
/// Takes about a millisecond for each 10 MB of heap.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        gnu::trim();
        gnu::unmap_program();
    }
}

/// Gives back the memory behind a buffer that stays: the pages that lie wholly
/// within it. What it held is lost; what it holds then is not to be relied on.
pub fn release(buffer: &mut [u8]) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    gnu::release(buffer);
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = buffer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_each_burst() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut memory = GiveBack::default();
        assert!(memory.is_pending());
        assert!(memory.is_due(at(0), 0), "quiet after the start");
        assert!(!memory.is_pending());
        assert!(memory.is_due(at(5), WORTH / 2), "something may be left");
        assert!(memory.is_due(at(60), WORTH / 2), "the last time");
        assert!(!memory.is_due(at(65), WORTH / 2), "too little happened");
        assert!(!memory.is_due(at(70), 10 * WORTH), "a burst goes on");
        assert!(!memory.is_due(at(71), 20 * WORTH), "a burst goes on");
        assert!(memory.is_pending());
        assert!(memory.is_due(at(72), 20 * WORTH + 1), "quiet");
        assert!(!memory.is_pending());
        assert!(
            memory.is_due(at(77), 20 * WORTH + 2),
            "something may be left"
        );
        assert!(!memory.is_due(at(82), 30 * WORTH), "another burst");
        assert!(memory.is_due(at(83), 30 * WORTH), "quiet again");
        assert!(memory.is_due(at(140), 30 * WORTH), "its own minute");
        assert!(memory.is_due(at(200), 30 * WORTH), "the last time");
        assert!(!memory.is_due(at(205), 30 * WORTH), "nothing is left");
    }

    /// One test, as what it measures is the whole process.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_is_not_used_leaves_the_process() {
        let pages = |field: usize| {
            let pages = std::fs::read_to_string("/proc/self/statm").expect("statm");
            let pages = pages.split(' ').nth(field);
            pages.and_then(|n| n.parse::<u64>().ok()).expect("pages")
        };
        let (resident, shared) = (|| pages(1) * 4096, || pages(2));
        // Blocks below the threshold from which each would be a mapping of
        // its own; the last of them keeps the heap from shrinking by itself.
        let mut blocks: Vec<Vec<u8>> = (0..1_000).map(|_| vec![1; 64 << 10]).collect();
        let (full, mapped) = (resident(), shared());
        let last = blocks.pop();
        drop(blocks);
        give_back();
        assert!(resident() + (32 << 20) < full, "half of 64 MB and more");
        assert!(shared() < mapped, "some of the program is not in use");
        assert_eq!(last.map(|block| block[0]), Some(1), "all goes on");
        // What stays, but not with what it held.
        let mut buffer = vec![1; 16 << 20];
        let full = resident();
        release(&mut buffer[1..]);
        assert!(resident() + (12 << 20) < full, "most of 16 MB");
        assert_eq!(buffer[0], 1, "what is not of the buffer stays");
        buffer.fill(2);
        assert!(buffer.iter().all(|byte| *byte == 2), "it can be used again");
        release(&mut buffer[..10]);
        assert_eq!(buffer[..20], [2; 20], "not a page");
        // Blocks in the cache of this thread, each with a page around it.
        let idle = || {
            empty_caches();
            thread_idles();
            give_back();
        };
        idle();
        let sizes = (0..7).flat_map(|_| (24..=1_032).step_by(16));
        let spread: Vec<_> = sizes
            .map(|size| (vec![1_u8; size], Vec::<u8>::with_capacity(8 << 10)))
            .collect();
        drop(spread);
        give_back();
        let full = resident();
        thread_idles();
        give_back();
        assert!(resident() + (1 << 20) > full, "nobody asked");
        idle();
        assert!(resident() + (1 << 20) < full, "most of 448 pages");
    }
}
