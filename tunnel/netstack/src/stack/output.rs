//! Transmit scheduling.

use std::net::Ipv6Addr;
use std::time::Instant;

use super::{Stack, ctx};
use crate::Transmit;
use crate::tcp::{Ctx, Output};

/// Packets a socket may send before it is another one's turn.
const TURN: usize = 16;

impl Stack {
    /// Writes the next packet to `buf`, which must hold the largest MTU in use
    /// (with less, nothing is written). Leave head room in front of `buf` to
    /// encrypt in place.
    ///
    /// Sockets take turns of a few packets, so that one with much to send does
    /// not delay the others.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> Option<Transmit> {
        self.poll_transmit_to(now, buf, |_| true)
    }

    /// As [`poll_transmit`](Self::poll_transmit), but connections with peers
    /// for which `open` says no keep their turn for a later call.
    pub fn poll_transmit_to(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        open: impl Fn(&Ipv6Addr) -> bool,
    ) -> Option<Transmit> {
        if buf.len() < self.largest_mtu {
            return None;
        }
        if let Some((dst, packet)) = self.control.pop_front() {
            return put(buf, dst, &packet);
        }
        let now = self.nanos(now);
        let mut shut = 0;
        while shut < self.ready.len()
            && let Some(&index) = self.ready.front()
        {
            let slot = self.table.slot(index);
            let Some(tcb) = &mut slot.tcb else {
                slot.ready = false;
                self.ready.pop_front();
                self.turn = 0;
                self.table.reuse(index);
                continue;
            };
            if !open(tcb.remote.ip()) {
                self.turn = 0;
                self.ready.rotate_left(1);
                shut += 1;
                continue;
            }
            match tcb.poll(&mut ctx!(self, now), buf) {
                Output::Packet(len) => {
                    let dst = *tcb.remote.ip();
                    tcb.after_poll(&ctx!(self, now));
                    self.turn += 1;
                    if self.turn >= TURN {
                        self.turn = 0;
                        self.ready.pop_front();
                        self.ready.push_back(index);
                    }
                    if tcb.events != 0 || tcb.released {
                        self.settle(now, index);
                    }
                    return Some(Transmit { dst, len });
                }
                output => {
                    slot.ready = false;
                    slot.paced = output == Output::Paced;
                    let deadline = tcb.deadline(slot.paced);
                    self.ready.pop_front();
                    self.turn = 0;
                    if let Some(at) = deadline {
                        self.timers.arm(index, at);
                    }
                }
            }
        }
        let (dst, packet) = self.datagrams.next_packet()?;
        put(buf, dst, &packet)
    }
}

fn put(buf: &mut [u8], dst: Ipv6Addr, packet: &[u8]) -> Option<Transmit> {
    let len = packet.len();
    buf.get_mut(..len)?.copy_from_slice(packet);
    Some(Transmit { dst, len })
}
