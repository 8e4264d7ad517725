//! The task that keeps one region's relay connection.

use std::sync::Arc;
use std::time::Duration;

use adit_derp::{Client, ConnectOptions, Event, Memory};
use adit_http::Endpoint;
use adit_keys::NodePrivate;
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::relays::RelayEvent;

/// Events taken from the connection at once.
const BATCH: usize = 256;
/// First wait before a new attempt, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Longest wait while traffic wants to go this way, and for how long such
/// hurry makes sense.
const BUSY_MAX: Duration = Duration::from_millis(250);
const BUSY_SPAN: Duration = Duration::from_secs(60);
/// A connection that lasted this long resets the wait.
const HEALTHY: Duration = Duration::from_secs(10);
/// After a change of networks the relay has to answer within this.
const PROBE: Duration = Duration::from_secs(3);

/// Where a region's relays are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelayConfig {
    pub(crate) region: u32,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What the core wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The region is home.
    pub(crate) home: bool,
    /// Counts changes of networks.
    pub(crate) link: u64,
    /// Traffic wants to go this way.
    pub(crate) busy: bool,
}

/// One region's task.
pub(crate) struct RelayTask {
    pub(crate) config: RelayConfig,
    pub(crate) http: adit_http::Client,
    pub(crate) key: NodePrivate,
    pub(crate) websocket_only: bool,
    pub(crate) memory: Memory,
    pub(crate) wish: watch::Receiver<Wish>,
    pub(crate) events: mpsc::Sender<RelayEvent>,
}

impl RelayTask {
    /// Connects, and connects again, until the task is aborted.
    pub(crate) async fn run(mut self) {
        let region = self.config.region;
        let mut options = ConnectOptions::new(self.key.clone(), self.config.endpoints.clone());
        options.websocket_only = self.websocket_only;
        let mut wait = Duration::ZERO;
        let mut down_since = Instant::now();
        loop {
            let error = match Client::connect(&self.http, &options, &self.memory).await {
                Ok(client) => {
                    let since = Instant::now();
                    let error = self.serve(Arc::new(client)).await;
                    if since.elapsed() >= HEALTHY {
                        wait = Duration::ZERO;
                    }
                    down_since = Instant::now();
                    error
                }
                Err(error) => error.to_string(),
            };
            if self
                .events
                .send(RelayEvent::Down { region, error })
                .await
                .is_err()
            {
                return;
            }
            let jitter = rand::rng().random_range(0.5..1.0);
            let hurry = self.wish.borrow().busy && down_since.elapsed() < BUSY_SPAN;
            let most = if hurry { BUSY_MAX } else { BACKOFF_MAX };
            // A change of networks is worth a try at once.
            let pause = wait.min(most).mul_f64(jitter);
            let _ = tokio::time::timeout(pause, self.changed(hurry)).await;
            wait = (wait * 17 / 10).clamp(BACKOFF_MIN, BACKOFF_MAX);
        }
    }

    /// Forwards what the relay sends until the connection ends.
    async fn serve(&mut self, client: Arc<Client>) -> String {
        let region = self.config.region;
        let Wish {
            mut home, mut link, ..
        } = *self.wish.borrow_and_update();
        client.note_preferred(home);
        let up = RelayEvent::Up {
            region,
            client: Arc::clone(&client),
        };
        if self.events.send(up).await.is_err() {
            return String::new();
        }
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                got = client.recv_batch(&mut batch, BATCH) => {
                    if let Err(reason) = got {
                        return reason.to_string();
                    }
                    let packets: Vec<_> = batch
                        .into_iter()
                        .filter_map(|event| match event {
                            Event::Packet { src, packet } => Some((src, packet)),
                            // Nothing here is proof that a peer is dead.
                            _ => None,
                        })
                        .collect();
                    if !packets.is_empty() && self.events.send(RelayEvent::Packets { region, packets }).await.is_err() {
                        return String::new();
                    }
                }
                changed = self.wish.changed() => {
                    if changed.is_err() {
                        return String::new();
                    }
                    let wish = *self.wish.borrow();
                    if std::mem::replace(&mut home, wish.home) != wish.home {
                        client.note_preferred(home);
                    }
                    if std::mem::replace(&mut link, wish.link) != wish.link
                        && !matches!(tokio::time::timeout(PROBE, client.ping()).await, Ok(Some(_)))
                    {
                        return "the relay does not answer after a change of networks".to_owned();
                    }
                }
            }
        }
    }

    /// Waits for a change of networks, or (if not known before) for hurry.
    async fn changed(&mut self, hurry: bool) {
        let link = self.wish.borrow_and_update().link;
        while self.wish.changed().await.is_ok() {
            let wish = *self.wish.borrow_and_update();
            if wish.link != link || (wish.busy && !hurry) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
