//! Packets from peers.

use std::time::Instant;

use super::table::{Flow, Owner};
use super::{Stack, ctx};
use crate::tcp::{Ctx, Nanos, SECS, Tcb, Verdict};
use crate::wire::tcp::{ACK, FIN, Options, RST, SYN, Segment};
use crate::wire::{checksum, ipv6, tcp};

/// Answers to packets without a socket (RST, ICMPv6 errors) per second.
const STRAYS_PER_SECOND: u32 = 1000;

impl Stack {
    /// Takes one packet from a peer. Anything malformed or not addressed to
    /// this stack is dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let now = self.nanos(now);
        let Some(ip) = ipv6::parse(packet) else {
            return;
        };
        if !self.config.addresses.contains(&ip.dst)
            || !ipv6::is_unicast(&ip.src)
            || self.config.addresses.contains(&ip.src)
        {
            return;
        }
        let checked = matches!(ip.next, ipv6::TCP | ipv6::UDP | ipv6::ICMP);
        if checked
            && self.config.verify_checksums
            && checksum::transport(&ip.src, &ip.dst, ip.next, ip.payload) != 0
        {
            return;
        }
        match ip.next {
            ipv6::TCP => {
                if let Some(segment) = tcp::parse(ip.payload) {
                    self.on_tcp(now, &ip, &segment);
                }
            }
            ipv6::UDP => self.on_udp(now, &ip, packet),
            ipv6::ICMP => self.on_icmp(now, &ip),
            ipv6::TSMP => self.on_tsmp(now, &ip),
            _ => {}
        }
    }

    fn on_tcp(&mut self, now: Nanos, ip: &ipv6::Packet<'_>, segment: &Segment<'_>) {
        let flow = Flow {
            local: (ip.dst, segment.dst_port),
            remote: (ip.src, segment.src_port),
        };
        if let Some(index) = self.table.socket(&flow) {
            let verdict = match &mut self.table.slot(index).tcb {
                Some(tcb) => tcb.on_segment(&mut ctx!(self, now), segment),
                None => Verdict::Done,
            };
            if verdict == Verdict::Reset {
                self.send_stray_reset(now, &flow, segment);
            }
            self.settle(now, index);
            return;
        }
        let opens = segment.flags & (SYN | ACK | RST | FIN) == SYN;
        if let Some(Owner::TimeWait(remains)) = self.table.find(&flow) {
            let remains = *remains;
            if segment.has(RST) {
                // RFC 1337: no assassination.
                return;
            }
            if opens && remains.allows(segment) {
                self.table.remove_time_wait(&flow);
            } else {
                if segment.seq_len() > 0 && self.take_stray_token(now) {
                    let answer = remains.answer(now, segment);
                    self.send_segment(&flow, &answer);
                }
                return;
            }
        }
        if opens {
            self.on_syn(now, &flow, segment);
        } else if !segment.has(RST) {
            self.send_stray_reset(now, &flow, segment);
        }
    }

    fn on_syn(&mut self, now: Nanos, flow: &Flow, segment: &Segment<'_>) {
        if self.half_open >= self.config.backlog
            || self.table.len() >= self.config.max_sockets
            || flow.remote.1 == 0
            || flow.local.1 == 0
        {
            return;
        }
        let open = self.open(now, flow);
        let mut tcb = Tcb::pending(&open, &ctx!(self, now), segment);
        tcb.counts_as_half_open = true;
        self.half_open += 1;
        let index = self.table.insert(tcb);
        self.settle(now, index);
    }

    /// One of the answers that anybody can provoke.
    pub(super) fn take_stray_token(&mut self, now: Nanos) -> bool {
        if now >= self.stray_refill {
            self.stray_refill = now + SECS;
            self.stray_tokens = STRAYS_PER_SECOND;
        }
        let left = self.stray_tokens.checked_sub(1);
        self.stray_tokens = left.unwrap_or(0);
        left.is_some()
    }

    /// RFC 9293 §3.10.7.1.
    fn send_stray_reset(&mut self, now: Nanos, flow: &Flow, segment: &Segment<'_>) {
        if !self.take_stray_token(now) {
            return;
        }
        let (seq, ack, flags) = if segment.has(ACK) {
            (segment.ack, 0, RST)
        } else {
            let ack = segment.seq.wrapping_add(segment.seq_len() as u32);
            (0, ack, RST | ACK)
        };
        let reset = Segment {
            src_port: flow.local.1,
            dst_port: flow.remote.1,
            seq,
            ack,
            flags,
            window: 0,
            options: Options::default(),
            payload: &[],
        };
        self.send_segment(flow, &reset);
    }

    fn send_segment(&mut self, flow: &Flow, segment: &Segment<'_>) {
        let mut packet = vec![0; crate::tcp::HEADERS + tcp::options_len(&segment.options)];
        tcp::write_packet(
            &mut packet,
            &flow.local.0,
            &flow.remote.0,
            segment,
            0,
            |_| {},
        );
        self.push_control(flow.remote.0, packet);
    }
}
