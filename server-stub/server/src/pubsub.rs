//! Who is told what, inside this process.
//!
//! Topics are typed and keyed. A message to a key nobody listens to costs a
//! look into a map; a slow listener loses old messages and is told so, which
//! every listener treats as "read the current state again". Nothing here ever
//! blocks a sender or grows without bound.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use adit_rest::ReinitializationEvent;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

/// Messages kept for one listener.
const DEPTH: usize = 16;

/// A set of channels, one per key, that exist only while someone listens.
pub struct Topic<K, T> {
    channels: Arc<Mutex<HashMap<K, broadcast::Sender<T>>>>,
}

impl<K, T> Debug for Topic<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Topic")
    }
}

impl<K, T> Default for Topic<K, T> {
    fn default() -> Self {
        Self {
            channels: Arc::default(),
        }
    }
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// Messages were lost: read the current state.
    Lagged,
}

impl<K: Eq + Hash + Clone, T: Clone> Topic<K, T> {
    /// Tells everyone who listens to `key`.
    pub fn publish(&self, key: &K, message: T) {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(key) {
            // No listener left is no error.
            let _ = channel.send(message);
        }
    }

    /// Listens to `key` from now on.
    #[must_use]
    pub fn subscribe(&self, key: K) -> Subscription<K, T> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels
            .entry(key.clone())
            .or_insert_with(|| broadcast::channel(DEPTH).0);
        Subscription {
            receiver: Some(channel.subscribe()),
            key,
            channels: Arc::clone(&self.channels),
        }
    }

    /// How many keys someone listens to.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One listener; ends when dropped.
pub struct Subscription<K: Eq + Hash, T> {
    receiver: Option<broadcast::Receiver<T>>,
    key: K,
    channels: Arc<Mutex<HashMap<K, broadcast::Sender<T>>>>,
}

impl<K: Eq + Hash, T> Debug for Subscription<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

impl<K: Eq + Hash, T: Clone> Subscription<K, T> {
    /// Waits for the next message. Cancel safe.
    pub async fn recv(&mut self) -> Received<T> {
        let Some(receiver) = self.receiver.as_mut() else {
            return std::future::pending().await;
        };
        match receiver.recv().await {
            Ok(message) => Received::Message(message),
            Err(RecvError::Lagged(_)) => Received::Lagged,
            // The map holds the sender as long as this listener exists.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Forgets what is queued; for listeners that read the state anyway.
    pub fn drain(&mut self) {
        if let Some(receiver) = self.receiver.as_mut() {
            *receiver = receiver.resubscribe();
        }
    }
}

impl<K: Eq + Hash, T> Drop for Subscription<K, T> {
    fn drop(&mut self) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        self.receiver = None;
        if channels
            .get(&self.key)
            .is_some_and(|channel| channel.receiver_count() == 0)
        {
            channels.remove(&self.key);
        }
    }
}

/// What happened to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceEvent {
    /// Which one.
    pub workspace_id: Uuid,
    /// What.
    pub kind: WorkspaceEventKind,
}

/// What happened to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkspaceEventKind {
    /// A build was queued, taken, ended or cancelled.
    Build,
    /// Name, schedule or another field changed.
    Metadata,
    /// An agent connected, disconnected or changed its lifecycle state.
    Agent,
    /// First log lines of an agent, or its log is full.
    AgentLogs,
    /// Health of an app.
    AppHealth,
    /// Report of a task.
    AppStatus,
    /// Agents report use.
    Stats,
    /// The owner changed: published to the old and to the new one.
    Owner,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// There are lines with this id or a greater one.
    Logs(i64),
    /// Someone asked for its end.
    Cancel,
    /// It ended.
    Done,
}

/// All topics.
#[derive(Debug, Default)]
pub struct PubSub {
    /// Workspaces, by the id of their **owner**.
    pub workspaces: Topic<Uuid, WorkspaceEvent>,
    /// Jobs, by job id.
    pub jobs: Topic<Uuid, JobEvent>,
    /// Log lines of agents, by agent id; the message is the first new line's
    /// id.
    pub agent_logs: Topic<Uuid, i64>,
    /// New metadata values, by agent id.
    pub agent_metadata: Topic<Uuid, ()>,
    /// Claims that are complete, by workspace id.
    pub claims: Topic<Uuid, ReinitializationEvent>,
    /// The build of this workspace is not the newest any more: control
    /// sessions of its agents end. By workspace id.
    pub outdated: Topic<Uuid, ()>,
    /// Wakes the provisioner: a job is waiting.
    pub queue: tokio::sync::Notify,
    /// Wakes the prebuild reconciler: presets or unclaimed workspaces changed.
    pub prebuilds: tokio::sync::Notify,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn channels_live_as_long_as_their_listeners() {
        let topic: Topic<u8, u8> = Topic::default();
        topic.publish(&1, 1);
        let mut one = topic.subscribe(1);
        let two = topic.subscribe(1);
        topic.publish(&1, 2);
        assert_eq!(one.recv().await, Received::Message(2));
        assert_eq!(topic.len(), 1);
        drop(one);
        assert_eq!(topic.len(), 1);
        drop(two);
        assert!(topic.is_empty());
    }

    #[tokio::test]
    async fn slow_listeners_are_told() {
        let topic: Topic<u8, usize> = Topic::default();
        let mut slow = topic.subscribe(1);
        for n in 0..DEPTH + 5 {
            topic.publish(&1, n);
        }
        assert_eq!(slow.recv().await, Received::Lagged);
        slow.drain();
        topic.publish(&1, 99);
        assert_eq!(slow.recv().await, Received::Message(99));
    }
}
