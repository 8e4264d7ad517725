//! Who has a tunnel to whom.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

/// Ordered pairs of peers, neither of which needs to be connected.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    by_source: HashMap<Uuid, BTreeSet<Uuid>>,
    by_destination: HashMap<Uuid, BTreeSet<Uuid>>,
}

impl Tunnels {
    pub(crate) fn add(&mut self, source: Uuid, destination: Uuid) {
        self.by_source
            .entry(source)
            .or_default()
            .insert(destination);
        self.by_destination
            .entry(destination)
            .or_default()
            .insert(source);
    }

    pub(crate) fn remove(&mut self, source: Uuid, destination: Uuid) {
        remove(&mut self.by_source, source, destination);
        remove(&mut self.by_destination, destination, source);
    }

    /// Removes every tunnel that starts at `source`; those towards it stay, so
    /// that a peer that comes back finds who waits for it.
    pub(crate) fn remove_all_from(&mut self, source: Uuid) {
        for destination in self.by_source.remove(&source).unwrap_or_default() {
            remove(&mut self.by_destination, destination, source);
        }
    }

    /// Whether there is a tunnel between the two, in either direction.
    pub(crate) fn shared(&self, a: Uuid, b: Uuid) -> bool {
        let has = |source: Uuid, destination: Uuid| {
            self.by_source
                .get(&source)
                .is_some_and(|destinations| destinations.contains(&destination))
        };
        has(a, b) || has(b, a)
    }

    /// Every peer that shares a tunnel with `peer`, each once, in order of id.
    pub(crate) fn peers_of(&self, peer: Uuid) -> Vec<Uuid> {
        let empty = BTreeSet::new();
        let destinations = self.by_source.get(&peer).unwrap_or(&empty);
        let sources = self.by_destination.get(&peer).unwrap_or(&empty);
        destinations.union(sources).copied().collect()
    }

    /// The number of tunnels.
    pub(crate) fn len(&self) -> usize {
        self.by_source.values().map(BTreeSet::len).sum()
    }
}

fn remove(map: &mut HashMap<Uuid, BTreeSet<Uuid>>, key: Uuid, value: Uuid) {
    if let Some(set) = map.get_mut(&key) {
        set.remove(&value);
        if set.is_empty() {
            map.remove(&key);
        }
    }
}
