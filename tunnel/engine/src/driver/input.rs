//! Everything that comes in: datagrams, relay batches, findings, events.

use std::task::{Context, Poll};
use std::time::Instant;

use adit_mesh::{Received, Via};
use adit_netstack::Event as StackEvent;

use super::netcheck::Finding;
use super::relays::RelayEvent;
use super::{Core, netcheck};
use crate::status::{Path, PingResult};

/// Relay reports handled in one round.
const RELAY_BATCH: usize = 8;

impl Core {
    /// Receives one batch from a UDP socket.
    pub(super) fn take_datagrams(&mut self, cx: &mut Context<'_>, now: Instant, v6: bool) -> bool {
        let Self {
            sockets,
            mesh,
            stack,
            netcheck,
            plain,
            counters,
            flows,
            endpoints,
            ..
        } = self;
        let mut reflected = false;
        let got = sockets.poll_recv(cx, v6, |from, datagram| {
            match mesh.handle_udp(now, from, datagram, plain) {
                Received::Packet { len } => {
                    counters.rx_packets += 1;
                    counters.rx_bytes += len as u64;
                    if let Some(flows) = flows {
                        flows.note(&plain[..len], true);
                    }
                    stack.handle_packet(now, &plain[..len]);
                }
                Received::Stun => {
                    if let Some(seen) = netcheck.response(datagram) {
                        endpoints.reflected(now, seen);
                        reflected = true;
                    }
                }
                Received::Nothing => {}
            }
        });
        if reflected {
            self.refresh(now);
        }
        got.is_ready()
    }

    /// Handles what the relays report.
    pub(super) fn take_relay_events(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..RELAY_BATCH {
            let Poll::Ready(event) = self.relays.poll_event(cx) else {
                break;
            };
            any = true;
            match event {
                RelayEvent::Packets { region, packets } => {
                    for (key, packet) in packets {
                        let received =
                            self.mesh
                                .handle_derp(now, region, key, &packet, &mut self.plain);
                        if let Received::Packet { len } = received {
                            self.counters.rx_packets += 1;
                            self.counters.rx_bytes += len as u64;
                            if let Some(flows) = &mut self.flows {
                                flows.note(&self.plain[..len], true);
                            }
                            self.stack.handle_packet(now, &self.plain[..len]);
                        }
                    }
                }
                RelayEvent::Up { region, .. } => {
                    tracing::debug!(region, "relay connected");
                    self.mesh.relay_up(now, region);
                    if region == self.home {
                        self.home_since = None;
                    }
                    self.refresh(now);
                }
                RelayEvent::Down { region, error } => {
                    tracing::debug!(region, %error, "relay connection lost");
                    if region == self.home && self.map.relays.len() > 1 {
                        // Another region may have to be home.
                        self.check_network(now, true);
                    }
                }
            }
        }
        any
    }

    /// Handles finished parts of the network check.
    pub(super) fn take_findings(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Some(finding) = self.netcheck.poll_finding(cx) {
            any = true;
            match finding {
                Finding::Latencies(latencies) => {
                    self.netcheck.measured(now, &latencies);
                    let home = self.netcheck.choose_home(self.home, &self.map, &latencies);
                    self.set_home(now, home);
                    self.refresh(now);
                }
                Finding::StunServers(servers) => self.netcheck.ask(now, servers),
            }
        }
        any
    }

    /// Reacts to changes of the machine's addresses.
    pub(super) fn watch_link(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.link.poll_changed(cx).is_pending() {
            return false;
        }
        if self.endpoints.scan(self.sockets.ports()) {
            tracing::debug!("addresses of this machine changed");
            self.link_changed(now);
        }
        true
    }

    /// Nothing learned about the network before holds any more.
    pub(super) fn link_changed(&mut self, now: Instant) {
        self.endpoints.forget_reflected();
        self.relays.link_changed();
        self.check_network(now, true);
        self.mesh.link_changed(now);
    }

    pub(super) fn set_home(&mut self, now: Instant, home: u32) {
        if home == 0 || home == self.home {
            return;
        }
        tracing::debug!(region = home, "home relay chosen");
        self.home = home;
        self.relays.set_home(home, now);
        let waits = !self.speaks_first && !self.relays.is_up(home);
        self.home_since = waits.then_some(now);
    }

    /// Begins a network check.
    pub(super) fn check_network(&mut self, now: Instant, full: bool) {
        self.endpoints.scan(self.sockets.ports());
        self.netcheck
            .start(now, &self.http, &self.map, full, !self.blocked);
        if self.map.relays.len() == 1 {
            // No choice, no need to wait for the measurement.
            self.set_home(now, netcheck::lowest(&self.map));
        }
        self.refresh(now);
    }

    /// Hands the stack's events to their users.
    pub(super) fn take_stack_events(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.stack.poll_event() {
            any = true;
            match event {
                StackEvent::Datagram {
                    local,
                    remote,
                    payload,
                } => {
                    self.datagrams
                        .deliver(&mut self.stack, local, remote, payload);
                }
                StackEvent::TsmpPong { id, rtt, .. } => {
                    if let Some(reply) = self.tsmp.remove(&id) {
                        let _ = reply.send(Ok(rtt));
                    }
                }
                StackEvent::DatagramUnreachable { .. } | StackEvent::EchoReply { .. } => {}
                tcp => self.tcp.handle_event(now, &mut self.stack, &tcp),
            }
        }
        any
    }

    /// Handles the mesh's events.
    pub(super) fn take_mesh_events(&mut self, now: Instant) {
        while let Some(event) = self.mesh.poll_event() {
            match event {
                adit_mesh::Event::Pong {
                    token,
                    latency,
                    via,
                } => {
                    if let Some(reply) = self.pings.remove(&token) {
                        let path = match via {
                            Via::Udp(addr) => Path::Direct(addr),
                            Via::Derp { region, .. } => Path::Derp(region),
                        };
                        let _ = reply.send(Ok(PingResult { latency, path }));
                    }
                }
                adit_mesh::Event::Path { id, direct } => {
                    tracing::debug!(peer = %id, ?direct, "path changed");
                    if let Some(peer) = self.mesh.peer(now, &id) {
                        for ip in peer.allowed_ips {
                            self.stack.path_changed(now, ip);
                        }
                    }
                }
                adit_mesh::Event::Mtu { id, mtu } => {
                    tracing::debug!(peer = %id, mtu, "packets may have another size");
                    if let Some(peer) = self.mesh.peer(now, &id) {
                        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                        for ip in peer.allowed_ips {
                            self.stack.set_path_mtu(ip, mtu);
                        }
                    }
                }
                adit_mesh::Event::Established { id } => {
                    tracing::debug!(peer = %id, "handshake complete")
                }
            }
        }
    }
}
