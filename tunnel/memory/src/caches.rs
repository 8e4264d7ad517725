//! Free blocks that the GNU allocator keeps for each thread: up to seven of
//! each small size, wherever on the heap they lie. After a burst they lie all
//! over it, and none of the pages around them can be given back. Nothing but
//! the end of a thread empties its cache.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Smallest block, step to the next size, and number of sizes that are cached,
/// in bytes.
const SMALLEST: usize = 24;
const STEP: usize = 16;
const SIZES: usize = 64;
/// Blocks of one size in a cache, and as many again that the allocator moves
/// there from its own lists when it is asked for one more.
const CACHED: usize = 7 + 1 + 7;
/// Stack of the thread that frees them, in bytes.
const STACK: usize = 64 << 10;

/// How often caches were to be emptied.
static ASKED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// What this thread has seen of that.
    static DONE: Cell<u32> = const { Cell::new(0) };
}

pub(crate) fn ask() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn empty_if_asked() {
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        empty();
    }
}

/// Takes all blocks out of the cache and has a thread free them that ends with
/// its own.
fn empty() {
    let mut taken: Vec<Vec<u8>> = Vec::with_capacity(SIZES * CACHED);
    for size in (0..SIZES).map(|n| SMALLEST + n * STEP) {
        taken.extend((0..CACHED).map(|_| Vec::with_capacity(size)));
    }
    // Without a thread they go back where they were.
    if let Ok(thread) = thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || drop(taken))
    {
        let _ = thread.join();
    }
}
