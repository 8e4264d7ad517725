//! Which peers are in force: the rules between what the coordinator says and
//! what the node is told. No IO, no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use adit_messages::tailnet;
use adit_messages::tailnet::coordinate_response::peer_update::Kind;
use uuid::Uuid;

/// How long a destination may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// A lost peer is kept this long after its last handshake.
const LOST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// What the node has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Grant or update the peer.
    Program {
        /// The peer.
        id: Uuid,
        /// What is known of it.
        node: Box<tailnet::Node>,
        /// Whether this side keeps the session open.
        keepalive: bool,
    },
    /// Take the grant back.
    Remove(Uuid),
}

/// What the node knows about a peer when an update is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Something was sent to it lately.
    pub active: bool,
    /// Age of the last handshake.
    pub last_handshake: Option<Duration>,
}

#[derive(Debug, Default)]
struct Record {
    destination: bool,
    node: Option<tailnet::Node>,
    ready: bool,
    ready_at: Option<Instant>,
    lost_at: Option<Instant>,
    programmed: Option<(tailnet::Node, bool)>,
}

impl Record {
    /// Programs the peer if it is eligible and anything changed.
    fn program(&mut self, id: Uuid, active: bool) -> Option<Action> {
        let node = self.node.as_ref()?;
        if self.destination && !self.ready {
            return None;
        }
        let keepalive = active || (self.destination && self.ready);
        let wanted = (node.clone(), keepalive);
        if self.programmed.as_ref() == Some(&wanted) {
            return None;
        }
        self.programmed = Some(wanted.clone());
        Some(Action::Program {
            id,
            node: Box::new(wanted.0),
            keepalive,
        })
    }
}

/// All peers the coordinator told of.
#[derive(Debug, Default)]
pub struct PeerTable {
    peers: HashMap<Uuid, Record>,
}

impl PeerTable {
    /// This side opened (or is about to open) a tunnel to `id`.
    pub fn mark_destination(&mut self, id: Uuid) {
        self.peers.entry(id).or_default().destination = true;
    }

    /// All peers there are records of.
    #[must_use]
    pub fn ids(&self) -> Vec<Uuid> {
        self.peers.keys().copied().collect()
    }

    /// Handles one entry of a response.
    pub fn handle(
        &mut self,
        now: Instant,
        id: Uuid,
        kind: Kind,
        node: Option<&tailnet::Node>,
        traffic: Traffic,
    ) -> Option<Action> {
        match kind {
            Kind::Node => {
                // Without a home relay the peer could not be reached.
                let node = node.filter(|n| n.preferred_derp > 0)?;
                let record = self.peers.entry(id).or_default();
                record.node = Some(node.clone());
                record.lost_at = None;
                if record.destination && !record.ready {
                    record.ready_at = Some(now + READY_TIMEOUT);
                }
                record.program(id, traffic.active)
            }
            Kind::ReadyForHandshake => {
                let record = self.peers.entry(id).or_default();
                record.ready = true;
                record.ready_at = None;
                record.program(id, traffic.active)
            }
            Kind::Lost => {
                let record = self.peers.get_mut(&id)?;
                lose(record, now, traffic.last_handshake);
                None
            }
            Kind::Disconnected => {
                let record = self.peers.remove(&id)?;
                record.programmed.map(|_| Action::Remove(id))
            }
            Kind::Unspecified => None,
        }
    }

    /// The control connection is gone: all peers count as lost. `age` is that
    /// of a peer's last handshake.
    pub fn all_lost(&mut self, now: Instant, age: impl Fn(&Uuid) -> Option<Duration>) {
        for (id, record) in &mut self.peers {
            if record.node.is_some() {
                lose(record, now, age(id));
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peers
            .values()
            .flat_map(|r| [r.ready_at, r.lost_at])
            .flatten()
            .min()
    }

    /// Runs what is due. `age` is that of a peer's last handshake.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        age: impl Fn(&Uuid) -> Option<Duration>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.peers.retain(|id, record| {
            if record.ready_at.is_some_and(|at| at <= now) {
                record.ready_at = None;
                record.ready = true;
                actions.extend(record.program(*id, false));
            }
            if record.lost_at.is_some_and(|at| at <= now) {
                let age = age(id);
                if age.is_none_or(|age| age >= LOST_TIMEOUT) {
                    if record.programmed.take().is_some() {
                        actions.push(Action::Remove(*id));
                    }
                    if !record.destination {
                        return false;
                    }
                    // A tunnel that is still wanted: wait for the peer anew.
                    *record = Record {
                        destination: true,
                        ..Record::default()
                    };
                } else {
                    record.lost_at = None;
                    lose(record, now, age);
                }
            }
            true
        });
        actions
    }
}

fn lose(record: &mut Record, now: Instant, last_handshake: Option<Duration>) {
    if record.lost_at.is_none() {
        let left = last_handshake.map_or(Duration::ZERO, |age| LOST_TIMEOUT.saturating_sub(age));
        record.lost_at = Some(now + left);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: Uuid = Uuid::from_u128(7);
    const QUIET: Traffic = Traffic {
        active: false,
        last_handshake: None,
    };

    fn node(home: i32) -> tailnet::Node {
        tailnet::Node {
            preferred_derp: home,
            ..tailnet::Node::default()
        }
    }

    fn programs(action: &Option<Action>, keepalive: bool) -> bool {
        matches!(action, Some(Action::Program { keepalive: k, .. }) if *k == keepalive)
    }

    #[test]
    fn a_destination_waits_until_it_is_ready() {
        let mut table = PeerTable::default();
        let now = Instant::now();
        table.mark_destination(ID);
        assert_eq!(
            table.handle(now, ID, Kind::Node, Some(&node(1)), QUIET),
            None
        );
        assert!(programs(
            &table.handle(now, ID, Kind::ReadyForHandshake, None, QUIET),
            true
        ));
        assert_eq!(
            table.handle(now, ID, Kind::ReadyForHandshake, None, QUIET),
            None,
            "nothing new"
        );
        assert_eq!(table.poll_timeout(), None);
    }

    #[test]
    fn readiness_may_come_first() {
        let mut table = PeerTable::default();
        let now = Instant::now();
        table.mark_destination(ID);
        assert_eq!(
            table.handle(now, ID, Kind::ReadyForHandshake, None, QUIET),
            None
        );
        assert!(programs(
            &table.handle(now, ID, Kind::Node, Some(&node(1)), QUIET),
            true
        ));
    }

    #[test]
    fn a_silent_destination_is_programmed_after_five_seconds() {
        let mut table = PeerTable::default();
        let now = Instant::now();
        table.mark_destination(ID);
        table.handle(now, ID, Kind::Node, Some(&node(1)), QUIET);
        let later = now + Duration::from_secs(3);
        table.handle(later, ID, Kind::Node, Some(&node(2)), QUIET);
        assert_eq!(
            table.poll_timeout(),
            Some(later + READY_TIMEOUT),
            "each node starts the wait anew"
        );
        assert!(
            table
                .handle_timeout(now + READY_TIMEOUT, |_| None)
                .is_empty()
        );
        let actions = table.handle_timeout(later + READY_TIMEOUT, |_| None);
        assert!(
            matches!(&actions[..], [Action::Program { keepalive: true, node, .. }] if node.preferred_derp == 2)
        );
    }

    #[test]
    fn peers_that_opened_the_tunnel_are_programmed_at_once() {
        let mut table = PeerTable::default();
        let now = Instant::now();
        assert!(programs(
            &table.handle(now, ID, Kind::Node, Some(&node(1)), QUIET),
            false
        ));
        assert_eq!(
            table.handle(now, ID, Kind::Node, Some(&node(0)), QUIET),
            None,
            "no home, no change"
        );
        assert_eq!(
            table.handle(now, ID, Kind::Disconnected, None, QUIET),
            Some(Action::Remove(ID))
        );
        assert_eq!(table.handle(now, ID, Kind::Disconnected, None, QUIET), None);
        assert_eq!(table.handle(now, ID, Kind::Lost, None, QUIET), None);
    }

    #[test]
    fn a_lost_peer_lives_as_long_as_its_session() {
        let mut table = PeerTable::default();
        let now = Instant::now();
        table.handle(now, ID, Kind::Node, Some(&node(1)), QUIET);
        let minute = Duration::from_secs(60);
        let traffic = Traffic {
            active: true,
            last_handshake: Some(minute),
        };
        table.handle(now, ID, Kind::Lost, None, traffic);
        let due = now + LOST_TIMEOUT - minute;
        assert_eq!(table.poll_timeout(), Some(due));
        // Meanwhile the two shook hands again.
        assert!(table.handle_timeout(due, |_| Some(minute)).is_empty());
        assert_eq!(table.poll_timeout(), Some(due + LOST_TIMEOUT - minute));
        // Its return ends the count.
        table.handle(due, ID, Kind::Node, Some(&node(1)), QUIET);
        assert_eq!(table.poll_timeout(), None);
        table.all_lost(due, |_| None);
        assert_eq!(table.handle_timeout(due, |_| None), [Action::Remove(ID)]);
        assert!(table.ids().is_empty());
    }

    proptest! {
        /// Whatever a coordinator says: only programmed peers are removed, and
        /// a destination is never programmed before node and readiness (or the
        /// timeout).
        #[test]
        fn actions_are_consistent(steps in prop::collection::vec((0u8..6, 0u128..3, 0i32..3, 0u64..9), 0..60)) {
            let mut table = PeerTable::default();
            let mut now = Instant::now();
            let mut programmed = std::collections::HashSet::new();
            table.mark_destination(Uuid::from_u128(1));
            for (kind, id, home, wait) in steps {
                let id = Uuid::from_u128(id);
                let node = node(home);
                let mut actions: Vec<Action> = match kind {
                    0 => table.handle(now, id, Kind::Node, Some(&node), QUIET).into_iter().collect(),
                    1 => table.handle(now, id, Kind::ReadyForHandshake, None, QUIET).into_iter().collect(),
                    2 => table.handle(now, id, Kind::Lost, None, QUIET).into_iter().collect(),
                    3 => table.handle(now, id, Kind::Disconnected, None, QUIET).into_iter().collect(),
                    4 => { table.all_lost(now, |_| None); Vec::new() }
                    _ => table.handle(now, id, Kind::Node, None, QUIET).into_iter().collect(),
                };
                now += Duration::from_secs(wait);
                actions.extend(table.handle_timeout(now, |_| None));
                for action in actions {
                    match action {
                        Action::Program { id, node, .. } => {
                            prop_assert!(node.preferred_derp > 0);
                            programmed.insert(id);
                        }
                        Action::Remove(id) => prop_assert!(programmed.remove(&id)),
                    }
                }
                prop_assert!(table.poll_timeout().is_none_or(|at| at > now));
            }
        }
    }
}
