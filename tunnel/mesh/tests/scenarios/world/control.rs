//! What nodes do by themselves: relay connections, coordination, their own
//! addresses.

use super::*;

impl World {
    pub(super) fn drop_relay(&mut self, n: usize) {
        if let Some(conn) = self.nodes[n].relay.take() {
            self.relay.conns.retain(|_, c| c.1 != conn);
            let life = self.nodes[n].life;
            let wait = MS(self.rng.random_range(20..200));
            self.later(wait, Happening::TryRelay(n, life));
        }
    }

    pub(super) fn busy(&self, n: usize) -> bool {
        self.nodes[n]
            .last_data
            .is_some_and(|at| self.now < at + BUSY)
    }

    pub(super) fn try_relay(&mut self, n: usize, life: u32) {
        let node = &self.nodes[n];
        if node.life != life || node.relay.is_some() {
            return;
        }
        if node.asleep || !self.relay.up || !self.sites[node.site].relay {
            let most = if self.busy(n) { 500 } else { 5000 };
            let wait = MS(self.rng.random_range(most / 2..most));
            self.later(wait, Happening::TryRelay(n, life));
            return;
        }
        self.relay.last_conn += 1;
        let conn = self.relay.last_conn;
        self.relay.conns.insert(node.key, (n, conn));
        self.nodes[n].relay = Some(conn);
        for (at, to, data) in std::mem::take(&mut self.nodes[n].backlog) {
            if self.now < at + FRESH {
                self.send_derp(n, to, data);
            }
        }
        let clock = self.nodes[n].clock(self.now);
        self.nodes[n].mesh.relay_up(clock, REGION);
        self.settle(n);
    }

    pub(super) fn try_coordinator(&mut self, n: usize, life: u32) {
        let node = &self.nodes[n];
        if node.life != life || node.coord {
            return;
        }
        if !self.coordinator.up || node.asleep {
            let wait = MS(self.rng.random_range(100..1500));
            self.later(wait, Happening::TryCoordinator(n, life));
            return;
        }
        self.nodes[n].coord = true;
        self.publish(n);
        for about in 0..self.nodes.len() {
            if about != n
                && self.granted(n, about)
                && let Some(info) = self.coordinator.known.get(&about).cloned()
            {
                self.tell(n, about, Some(info));
            }
        }
    }

    pub(super) fn publish(&mut self, n: usize) {
        let life = self.nodes[n].life;
        self.later(MS(30), Happening::Publish(n, life));
    }

    pub(super) fn published(&mut self, n: usize, life: u32) {
        let node = &self.nodes[n];
        if node.life != life || !node.coord || !self.coordinator.up {
            return;
        }
        let info = node.published();
        self.coordinator.known.insert(n, info.clone());
        for to in 0..self.nodes.len() {
            if to != n && self.granted(to, n) {
                self.tell(to, n, Some(info.clone()));
            }
        }
    }

    pub(super) fn tell(&mut self, to: usize, about: usize, info: Option<Published>) {
        if self.nodes[to].coord {
            let life = self.nodes[to].life;
            self.later(
                MS(30),
                Happening::Update {
                    node: to,
                    life,
                    about,
                    info,
                },
            );
        }
    }

    pub(super) fn update(&mut self, n: usize, life: u32, about: usize, info: Option<Published>) {
        if self.nodes[n].life != life {
            return;
        }
        if self.nodes[n].asleep {
            self.nodes[n].told.push_back((about, info));
            return;
        }
        let clock = self.nodes[n].clock(self.now);
        let id = self.nodes[about].id;
        match info {
            Some(info) => {
                let config = peer_config(id, &info, n < about);
                self.nodes[n].mesh.upsert_peer(clock, config).unwrap();
                self.nodes[n].installed.insert(about, info.key);
            }
            None => {
                self.nodes[n].mesh.remove_peer(id);
                self.nodes[n].installed.remove(&about);
            }
        }
        self.settle(n);
    }

    pub(super) fn gather(&mut self, n: usize, life: u32) {
        let node = &self.nodes[n];
        if node.life != life || node.asleep {
            return;
        }
        let (addr, site) = (node.addr, &mut self.sites[node.site]);
        let mut endpoints = vec![addr];
        if site.nat.kind != Kind::Open && site.udp {
            endpoints.insert(0, site.nat.outbound(self.now, addr, stun()));
        }
        let clock = self.nodes[n].clock(self.now);
        let changed = self.nodes[n].endpoints != endpoints;
        self.nodes[n].last_gathered = Some(self.now);
        if changed {
            self.nodes[n].endpoints.clone_from(&endpoints);
            self.publish(n);
        }
        self.nodes[n].mesh.set_endpoints(clock, endpoints);
        self.settle(n);
    }
}
