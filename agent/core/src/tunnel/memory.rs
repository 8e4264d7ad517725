//! Giving back what traffic needed.

use std::time::Duration;

use adit_engine::Node;
use adit_memory::GiveBack;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Time between looks at the traffic: usually, and while there is some.
const RARELY: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(1);
/// How long connections that are closed may still be remembered.
const LINGER: Duration = Duration::from_secs(30);
/// Tasks that make it worth waking the other threads, and how long those may
/// take until they idle again.
const TASKS: usize = 8;
const MOMENT: Duration = Duration::from_millis(50);

/// Gives memory back after the start and whenever traffic is over; and again
/// once nothing remembers it.
pub(super) async fn give_back(node: Node) {
    let mut memory = GiveBack::default();
    let mut pause = RARELY;
    let mut again: Option<Instant> = None;
    loop {
        tokio::time::sleep(pause).await;
        let now = node.connection_stats().await;
        let due = memory.is_due(now.rx_bytes + now.tx_bytes);
        if due || again.is_some_and(|at| at <= Instant::now()) {
            again = due.then(|| Instant::now() + LINGER);
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
