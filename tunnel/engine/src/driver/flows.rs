//! Which flows carried packets since somebody last asked.

use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddrV6};

use crate::status::Flow;

/// Flows remembered; further ones are not counted until the next question.
const MOST: usize = 2_048;
/// Flows that are recognised without a look into the set; a power of two.
const RECENT: usize = 16;

const HEADER: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Tailscale's messages between nodes, which are no traffic.
const TSMP: u8 = 99;

/// The flows of one period.
#[derive(Debug, Default)]
pub(super) struct Flows {
    seen: HashSet<Flow>,
    recent: [Option<Flow>; RECENT],
}

impl Flows {
    /// Notes an inner packet.
    pub(super) fn note(&mut self, packet: &[u8], incoming: bool) {
        let Some(flow) = parse(packet, incoming) else {
            return;
        };
        let ports = flow.local.port() ^ flow.remote.port();
        let slot = &mut self.recent[usize::from(ports) % RECENT];
        if *slot == Some(flow) {
            return;
        }
        *slot = Some(flow);
        if self.seen.len() < MOST {
            self.seen.insert(flow);
        }
    }

    /// All flows with packets since the last call.
    pub(super) fn take(&mut self) -> Vec<Flow> {
        self.recent = Default::default();
        std::mem::take(&mut self.seen).into_iter().collect()
    }
}

fn parse(packet: &[u8], incoming: bool) -> Option<Flow> {
    let header: &[u8; HEADER] = packet.first_chunk()?;
    if header[0] >> 4 != 6 || header[6] == TSMP {
        return None;
    }
    let address = |at: usize| {
        let octets: Option<&[u8; 16]> = header[at..].first_chunk();
        octets.map(|octets| Ipv6Addr::from(*octets))
    };
    let protocol = header[6];
    let ports: Option<&[u8; 4]> = packet[HEADER..].first_chunk();
    let (from, to) = match ports {
        Some([a, b, c, d]) if matches!(protocol, TCP | UDP) => {
            (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => (0, 0),
    };
    let from = SocketAddrV6::new(address(8)?, from, 0, 0);
    let to = SocketAddrV6::new(address(24)?, to, 0, 0);
    let (local, remote) = if incoming { (to, from) } else { (from, to) };
    Some(Flow {
        protocol,
        local,
        remote,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(protocol: u8, from: u16, to: u16) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet[0] = 0x60;
        packet[6] = protocol;
        // The side with the low port is us.
        packet[23] = u8::from(from < to);
        packet[39] = u8::from(to < from);
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet
    }

    #[test]
    fn both_directions_are_one_flow() {
        let mut flows = Flows::default();
        for _ in 0..3 {
            flows.note(&packet(TCP, 5000, 22), true);
            flows.note(&packet(TCP, 22, 5000), false);
        }
        flows.note(&packet(UDP, 5000, 22), true);
        flows.note(&packet(TSMP, 1, 2), true);
        let mut all = flows.take();
        all.sort_by_key(|f| f.protocol);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].protocol, all[1].protocol), (TCP, UDP));
        assert_eq!((all[0].local.port(), all[0].remote.port()), (22, 5000));
        assert!(flows.take().is_empty());
        flows.note(&packet(TCP, 22, 5000), false);
        assert_eq!(flows.take().len(), 1, "counted anew");
    }

    #[test]
    fn flows_that_share_a_place_are_told_apart_and_bounded() {
        let mut flows = Flows::default();
        for _ in 0..2 {
            for port in 10_000..10_100 {
                flows.note(&packet(TCP, port, 22), true);
            }
        }
        assert_eq!(flows.take().len(), 100);
        for port in 10_000..20_000 {
            flows.note(&packet(TCP, port, 22), true);
        }
        assert_eq!(flows.take().len(), MOST);
    }

    proptest! {
        #[test]
        fn anything_is_looked_at_safely(bytes: Vec<u8>, incoming: bool) {
            let mut flows = Flows::default();
            flows.note(&bytes, incoming);
            prop_assert!(flows.take().len() <= 1);
        }
    }
}
