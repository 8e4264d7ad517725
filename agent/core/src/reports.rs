//! Connection events waiting for the control plane.

use std::collections::VecDeque;
use std::time::SystemTime;

use adit_agent_exec::{ConnectionKind, ConnectionReporter};
use adit_messages::agent;
use adit_messages::time::timestamp_to_proto;
use std::sync::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// Events held while the control plane is away; newer ones are dropped.
const CAPACITY: usize = 2_048;

/// A bounded queue of connection events, filled by the services and emptied by
/// the session.
#[derive(Debug, Default)]
pub struct ConnectionReports {
    queue: Mutex<VecDeque<agent::Connection>>,
    changed: Notify,
}

impl ConnectionReports {
    /// The oldest event, removed. Waits for one. Cancel safe.
    pub async fn next(&self) -> agent::Connection {
        loop {
            let changed = self.changed.notified();
            if let Some(event) = self.lock().pop_front() {
                return event;
            }
            changed.await;
        }
    }

    fn push(&self, event: agent::Connection) {
        let mut queue = self.lock();
        if queue.len() < CAPACITY {
            queue.push_back(event);
            drop(queue);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<agent::Connection>> {
        self.queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn event(id: Uuid, kind: ConnectionKind, ip: &str) -> agent::Connection {
    agent::Connection {
        id: adit_messages::uuid_to_bytes(id.into_bytes()),
        action: agent::connection::Action::Connect as i32,
        r#type: kind as i32,
        timestamp: Some(timestamp_to_proto(SystemTime::now())),
        ip: ip.to_owned(),
        status_code: 0,
        reason: None,
    }
}

impl ConnectionReporter for ConnectionReports {
    fn connected(&self, id: Uuid, kind: ConnectionKind, ip: &str) {
        self.push(event(id, kind, ip));
    }

    fn disconnected(&self, id: Uuid, kind: ConnectionKind, ip: &str, code: i32, reason: &str) {
        self.push(agent::Connection {
            action: agent::connection::Action::Disconnect as i32,
            status_code: code,
            reason: Some(reason.to_owned()),
            ..event(id, kind, ip)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_order_and_drops_the_newest_when_full() {
        let reports = ConnectionReports::default();
        let id = Uuid::new_v4();
        for _ in 0..CAPACITY {
            reports.connected(id, ConnectionKind::Ssh, "::1");
        }
        reports.disconnected(id, ConnectionKind::Ssh, "::1", 3, "gone");
        assert_eq!(reports.lock().len(), CAPACITY);
        assert_eq!(reports.next().await.action, 1);
        reports.disconnected(id, ConnectionKind::Ssh, "::1", 3, "gone");
        let last = reports.lock().back().cloned().expect("an event");
        assert_eq!((last.action, last.status_code), (2, 3));
        assert_eq!(last.reason.as_deref(), Some("gone"));
    }
}
