//! Everything that goes out.

use std::net::{Ipv6Addr, SocketAddr};
use std::task::Context;
use std::time::Instant;

use adit_keys::NodePublic;
use adit_mesh::{Sealed, Via};
use bytes::Bytes;

use super::Core;
use super::sockets::SendResult;

/// Packets taken from the stack in one round.
const PACKETS: usize = 256;

impl Core {
    /// Sends what mesh and stack have; whether there was anything.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = self.transmit_control(now);
        if self.resume(cx, now) {
            any |= self.transmit_packets(now);
            // Sealing may have begun a handshake or a probe.
            self.transmit_control(now);
        }
        self.relays.flush(cx, now);
        any
    }

    /// Sends a batch the socket had no room for; whether it is gone.
    fn resume(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        loop {
            if let Some(to) = self.batch.destination().filter(|_| !self.batch.is_empty()) {
                let sent = self.batch.flush(&mut self.sockets);
                if sent == SendResult::Blocked {
                    if self.sockets.poll_writable(cx, to).is_pending() {
                        return false;
                    }
                    continue;
                }
                self.note_sent(now, to, sent);
            }
            let Some((to, data)) = self.held.take() else {
                return true;
            };
            self.batch.slot()[..data.len()].copy_from_slice(&data);
            self.batch.push(to, data.len());
        }
    }

    /// Tells the mesh what came of a send.
    fn note_sent(&mut self, now: Instant, to: SocketAddr, sent: SendResult) {
        match sent {
            SendResult::Done | SendResult::Blocked => {}
            SendResult::Unreachable => self.mesh.send_failed(now, to),
            SendResult::TooLong(len) => self.mesh.send_too_long(now, to, len),
        }
    }

    /// Sends over a peer's home relay, or the one it was heard through.
    fn relay(&mut self, now: Instant, region: u32, key: NodePublic, data: Bytes) {
        let region = if self.relays.knows(region) {
            region
        } else {
            self.mesh.seen_region(&key).unwrap_or(region)
        };
        self.relays.send(now, region, key, data);
    }

    /// Sends handshakes, pings and the like.
    fn transmit_control(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(transmit) = self.mesh.poll_transmit() {
            any = true;
            match transmit.via {
                Via::Udp(to) => {
                    // Control traffic is repeated; a full socket may drop it.
                    let sent = self.sockets.send(to, &transmit.data, transmit.data.len());
                    self.note_sent(now, to, sent);
                }
                Via::Derp { region, key } => self.relay(now, region, key, transmit.data.into()),
            }
        }
        any
    }

    /// Seals and sends packets of the stack.
    fn transmit_packets(&mut self, now: Instant) -> bool {
        let mut any = false;
        let congested = self.relays.congested(now).is_some();
        for _ in 0..PACKETS {
            let (mesh, relays) = (&self.mesh, &self.relays);
            // Who is reached through a relay that has no room waits, and nobody
            // else.
            let open = |dst: &Ipv6Addr| {
                !congested
                    || mesh
                        .relay_only(now, dst)
                        .is_none_or(|region| !relays.is_congested(now, region))
            };
            let packet = self.stack.poll_transmit_to(now, &mut self.inner, open);
            let Some(packet) = packet else {
                break;
            };
            any = true;
            self.counters.tx_packets += 1;
            self.counters.tx_bytes += packet.len as u64;
            let inner = &self.inner[..packet.len];
            if let Some(flows) = &mut self.flows {
                flows.note(inner, false);
            }
            let Sealed::Ready { len, route } =
                self.mesh.seal(now, &packet.dst, inner, self.batch.slot())
            else {
                continue;
            };
            if let Some((region, key)) = route.relay {
                let data = Bytes::copy_from_slice(self.batch.written(len));
                self.relay(now, region, key, data);
            }
            let Some(to) = route.direct else {
                continue;
            };
            if self.batch.fits(to, len) {
                self.batch.push(to, len);
                continue;
            }
            let at = self.batch.position();
            let before = self.batch.destination();
            let sent = self.batch.flush(&mut self.sockets);
            if sent == SendResult::Blocked {
                self.held = Some((to, self.batch.written(len).to_vec()));
                break;
            }
            if let Some(before) = before {
                self.note_sent(now, before, sent);
            }
            self.batch.restart(at, to, len);
        }
        if any {
            self.last_data = Some(now);
            if let Some(to) = self.batch.destination()
                && self.held.is_none()
            {
                let sent = self.batch.flush(&mut self.sockets);
                self.note_sent(now, to, sent);
            }
        }
        any
    }
}
