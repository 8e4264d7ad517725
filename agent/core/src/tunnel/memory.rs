//! Giving back what traffic needed.

use std::time::{Duration, Instant};

use adit_engine::Node;
use adit_memory::GiveBack;
use tokio::task::JoinSet;

/// Time between looks at the traffic: usually, and while there is some.
const RARELY: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(1);
/// Tasks that make it worth waking the other threads, and how long those may
/// take until they idle again.
const TASKS: usize = 8;
const MOMENT: Duration = Duration::from_millis(500);

/// Gives memory back after the start and whenever traffic is over.
pub(super) async fn give_back(node: Node) {
    let mut memory = GiveBack::default();
    let mut pause = RARELY;
    loop {
        tokio::time::sleep(pause).await;
        let so_far = node.connection_stats().await;
        if memory.is_due(Instant::now(), so_far.rx_bytes + so_far.tx_bytes) {
            node.give_back().await;
            // Asked after that, so once it is done.
            node.connection_stats().await;
            adit_memory::empty_caches();
            stir().await;
            adit_memory::give_back();
        }
        pause = if memory.is_pending() { OFTEN } else { RARELY };
    }
}

/// Has all threads wake up and idle anew.
async fn stir() {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(tokio::task::yield_now());
    }
    tasks.join_all().await;
    tokio::time::sleep(MOMENT).await;
}
