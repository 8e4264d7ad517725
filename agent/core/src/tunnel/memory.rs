//! Giving back what traffic needed.

use std::time::Duration;

use adit_engine::Node;
use adit_memory::GiveBack;

/// Time between looks at the traffic: usually, and while there is some.
const RARELY: Duration = Duration::from_secs(5);
const OFTEN: Duration = Duration::from_secs(1);

/// Gives memory back whenever traffic is over, and once after the start.
pub(super) async fn give_back(node: Node) {
    let mut memory = GiveBack::default();
    let mut pause = RARELY;
    loop {
        tokio::time::sleep(pause).await;
        let now = node.connection_stats().await;
        if memory.is_due(now.rx_bytes + now.tx_bytes) {
            node.give_back().await;
            // Asked after that, so once it is done.
            node.connection_stats().await;
            adit_memory::give_back();
        }
        pause = if memory.is_pending() { OFTEN } else { RARELY };
    }
}
