//! Address translators.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// A mapping without outgoing traffic is forgotten after this.
const LIFETIME: Duration = Duration::from_secs(60);

/// How a site is connected to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Public addresses.
    Open,
    /// One mapping per socket, open to everybody.
    FullCone,
    /// One mapping per socket, open to whom something was sent.
    Restricted,
    /// One mapping per socket and destination, open to that destination.
    Symmetric,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::Open,
        Self::FullCone,
        Self::Restricted,
        Self::Symmetric,
    ];

    /// Whether two sites can be connected straight.
    pub(crate) fn meets(self, other: Self) -> bool {
        let easy = |kind| matches!(kind, Self::Open | Self::FullCone);
        easy(self) || easy(other) || (self == Self::Restricted && other == Self::Restricted)
    }
}

#[derive(Clone, Copy, Debug)]
struct Mapping {
    port: u16,
    used: Instant,
}

/// Inner socket, and the destination where mappings depend on it.
type Flow = (SocketAddr, Option<SocketAddr>);

#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) kind: Kind,
    pub(crate) public: Ipv4Addr,
    next_port: u16,
    mappings: BTreeMap<Flow, Mapping>,
    flows: BTreeMap<u16, Flow>,
    /// Who may send to a port, and since when.
    open: BTreeMap<(u16, SocketAddr), Instant>,
}

impl Nat {
    pub(crate) fn new(kind: Kind, public: Ipv4Addr) -> Self {
        Self {
            kind,
            public,
            next_port: 20_000,
            mappings: BTreeMap::new(),
            flows: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// The address `to` sees.
    pub(crate) fn outbound(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> SocketAddr {
        if self.kind == Kind::Open {
            return from;
        }
        let flow = (from, (self.kind == Kind::Symmetric).then_some(to));
        let fresh = self
            .mappings
            .get(&flow)
            .is_none_or(|m| now > m.used + LIFETIME);
        if fresh {
            if let Some(old) = self.mappings.remove(&flow) {
                self.flows.remove(&old.port);
            }
            self.next_port += 1;
            let port = self.next_port;
            self.mappings.insert(flow, Mapping { port, used: now });
            self.flows.insert(port, flow);
        }
        let mapping = self.mappings.get_mut(&flow).unwrap();
        mapping.used = now;
        self.open.insert((mapping.port, to), now);
        SocketAddr::from((self.public, mapping.port))
    }

    /// Whom a datagram to `to` reaches.
    pub(crate) fn inbound(
        &self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        if self.kind == Kind::Open {
            return Some(to);
        }
        let flow = self.flows.get(&to.port())?;
        let mapping = self.mappings.get(flow)?;
        if now > mapping.used + LIFETIME {
            return None;
        }
        let welcome = self.kind == Kind::FullCone
            || self
                .open
                .get(&(to.port(), from))
                .is_some_and(|at| now <= *at + LIFETIME);
        welcome.then_some(flow.0)
    }

    /// All mappings are lost.
    pub(crate) fn rebind(&mut self) {
        self.mappings.clear();
        self.flows.clear();
        self.open.clear();
    }
}
