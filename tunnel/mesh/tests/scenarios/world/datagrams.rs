//! The way of datagrams: over lines and through translators, or the relay.

use super::*;

impl World {
    pub(super) fn send_udp(&mut self, n: usize, to: SocketAddr, data: Vec<u8>) {
        self.nodes[n].sent += 1;
        self.datagrams += 1;
        let from = self.nodes[n].addr;
        let here = self.nodes[n].site;
        if data.len() + HEADERS > self.sites[here].mtu {
            let clock = self.nodes[n].clock(self.now);
            self.nodes[n].mesh.send_too_long(clock, to, data.len());
            return;
        }
        let neighbour = (0..self.nodes.len())
            .find(|m| *m != n && self.nodes[*m].site == here && self.nodes[*m].addr == to);
        if let Some(lan) = neighbour {
            let lan = Some(lan);
            self.later(
                MS(1),
                Happening::Udp {
                    from,
                    to,
                    lan,
                    data,
                },
            );
            return;
        }
        let IpAddr::V4(ip) = to.ip() else { return };
        let site = &mut self.sites[here];
        if ip.octets()[0] == 10 || ip == site.nat.public || !site.udp {
            return;
        }
        let from = site.nat.outbound(self.now, from, to);
        let Some(far) = self.site_of(ip) else { return };
        let rate = self.sites[here].rate.min(self.sites[far].rate);
        let lost = self.sites[here].loss + self.sites[far].loss;
        let jitter = self.sites[here].jitter + self.sites[far].jitter;
        let delay = self.sites[here].delay + self.sites[far].delay;
        let fits = data.len() + HEADERS <= self.sites[far].mtu;
        let leaves = self.sites[here].free_at.max(self.now);
        if leaves - self.now > QUEUE {
            return;
        }
        let busy = Duration::from_nanos((data.len() + HEADERS) as u64 * 8_000_000_000 / rate);
        self.sites[here].free_at = leaves + busy;
        if !fits || self.rng.random_range(0..1000) < lost || self.cut.contains(&pair(here, far)) {
            return;
        }
        let duplicate = self.rng.random_range(0..1000) < self.sites[here].duplicate;
        for _ in 0..=usize::from(duplicate) {
            let wander = Duration::from_micros(
                self.rng
                    .random_range(0..=u64::try_from(jitter.as_micros()).unwrap()),
            );
            let wait = leaves + busy + delay + wander - self.now;
            self.later(
                wait,
                Happening::Udp {
                    from,
                    to,
                    lan: None,
                    data: data.clone(),
                },
            );
        }
    }

    pub(super) fn site_of(&self, ip: Ipv4Addr) -> Option<usize> {
        let [a, _, c, _] = ip.octets();
        if a == 203 {
            return self.sites.iter().position(|s| s.nat.public == ip);
        }
        (a == 198).then(|| usize::from(c) - 100)
    }

    pub(super) fn send_derp(&mut self, n: usize, to: NodePublic, data: Vec<u8>) {
        self.nodes[n].sent += 1;
        self.datagrams += 1;
        let Some(conn) = self.nodes[n].relay else {
            let now = self.now;
            self.nodes[n].keep_for_relay(now, to, data);
            return;
        };
        let from = self.nodes[n].key;
        let site = &self.sites[self.nodes[n].site];
        let wait = site.delay + MS(1);
        self.later(
            wait,
            Happening::ToRelay {
                conn,
                from,
                to,
                data,
            },
        );
    }

    pub(super) fn relayed(&mut self, conn: u64, from: NodePublic, to: NodePublic, data: Vec<u8>) {
        // A connection that broke takes along what was in it.
        if self.relay.conns.get(&from).is_none_or(|c| c.1 != conn) {
            return;
        }
        if let Some((node, conn)) = self.relay.conns.get(&to).copied() {
            let wait = self.sites[self.nodes[node].site].delay + MS(1);
            self.later(
                wait,
                Happening::FromRelay {
                    node,
                    conn,
                    from,
                    data,
                },
            );
        }
    }

    pub(super) fn udp(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        lan: Option<usize>,
        data: Vec<u8>,
    ) {
        let target = if let Some(n) = lan {
            (self.nodes[n].addr == to).then_some(n)
        } else {
            let IpAddr::V4(ip) = to.ip() else { return };
            let Some(site) = self.site_of(ip).filter(|s| self.sites[*s].udp) else {
                return;
            };
            let Some(inner) = self.sites[site].nat.inbound(self.now, from, to) else {
                return;
            };
            (0..self.nodes.len())
                .find(|n| self.nodes[*n].site == site && self.nodes[*n].addr == inner)
        };
        if let Some(n) = target {
            self.arrive(n, Arrival::Udp { from, data });
        }
    }
}
