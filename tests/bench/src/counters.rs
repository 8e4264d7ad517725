//! What the kernel and the link counted.

use std::ops::{AddAssign, Sub};

use serde_json::{Value, json};

/// Sums over both namespaces and both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Segments that the kernel's TCP sent again.
    pub(crate) tcp_retransmits: u64,
    /// Datagrams received, datagrams sent.
    pub(crate) udp_packets: u64,
    /// Datagrams dropped because a socket's receive buffer was full.
    pub(crate) rcvbuf_errors: u64,
    /// Datagrams refused because a socket's send buffer was full.
    pub(crate) sndbuf_errors: u64,
    /// Packets dropped by the network devices.
    pub(crate) device_drops: u64,
    /// Bytes received and sent by both devices: what crosses counts twice.
    pub(crate) device_bytes: u64,
    /// Packets the link lost at random, as it was told to.
    pub(crate) link_lost: u64,
    /// Packets the link's full queue dropped.
    pub(crate) link_overflowed: u64,
    /// Packets the link delivered more than a millisecond late.
    pub(crate) link_late: u64,
    /// Bytes the link delivered to the near side.
    pub(crate) link_bytes_to_near: u64,
}

impl Counters {
    /// From the texts of `/proc/net/snmp` and `dev`.
    pub(crate) fn parse(snmp: &str, dev: &str, device: &str) -> Self {
        let at = |column| device_field(dev, device, column);
        Self {
            tcp_retransmits: field(snmp, "Tcp:", "RetransSegs"),
            udp_packets: field(snmp, "Udp:", "InDatagrams") + field(snmp, "Udp:", "OutDatagrams"),
            rcvbuf_errors: field(snmp, "Udp:", "RcvbufErrors"),
            sndbuf_errors: field(snmp, "Udp:", "SndbufErrors"),
            device_drops: at(3) + at(11),
            device_bytes: at(0) + at(8),
            ..Self::default()
        }
    }

    /// Whether packets got lost that the case did not mean to lose.
    pub(crate) fn unexpected(&self) -> bool {
        self.rcvbuf_errors > 0 || self.device_drops > 0
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "tcp_retransmits": self.tcp_retransmits,
            "udp_packets": self.udp_packets,
            "rcvbuf_errors": self.rcvbuf_errors,
            "sndbuf_errors": self.sndbuf_errors,
            "device_drops": self.device_drops,
            "device_bytes": self.device_bytes,
            "link_lost": self.link_lost,
            "link_overflowed": self.link_overflowed,
            "link_late": self.link_late,
        })
    }

    fn each(&mut self, other: &Self, apply: impl Fn(&mut u64, u64)) {
        for (mine, theirs) in [
            (&mut self.tcp_retransmits, other.tcp_retransmits),
            (&mut self.udp_packets, other.udp_packets),
            (&mut self.rcvbuf_errors, other.rcvbuf_errors),
            (&mut self.sndbuf_errors, other.sndbuf_errors),
            (&mut self.device_drops, other.device_drops),
            (&mut self.device_bytes, other.device_bytes),
            (&mut self.link_lost, other.link_lost),
            (&mut self.link_overflowed, other.link_overflowed),
            (&mut self.link_late, other.link_late),
            (&mut self.link_bytes_to_near, other.link_bytes_to_near),
        ] {
            apply(mine, theirs);
        }
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.each(&other, |mine, theirs| *mine += theirs);
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self.each(&other, |mine, theirs| *mine = mine.saturating_sub(theirs));
        self
    }
}

/// A field of a file in which each line of names is followed by one of values.
fn field(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let found = names
            .split_whitespace()
            .zip(values.split_whitespace())
            .find(|(candidate, _)| *candidate == name);
        if let Some((_, value)) = found {
            return value.parse().unwrap_or(0);
        }
    }
    0
}

/// A column of what the kernel tells of a device.
fn device_field(dev: &str, device: &str, column: usize) -> u64 {
    dev.lines()
        .filter_map(|line| line.trim_start().split_once(':'))
        .find_map(|(name, rest)| (name == device).then_some(rest))
        .and_then(|rest| rest.split_whitespace().nth(column)?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 2 64\n\
        Tcp: RtoAlgorithm RetransSegs\nTcp: 1 17\n\
        Udp: InDatagrams NoPorts OutDatagrams RcvbufErrors SndbufErrors\nUdp: 10 1 20 3 4\n";
    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n\
        bench0:  100       2    0    5    0     0          0         0      200       3    0    7    0     0       0          0\n";

    #[test]
    fn files_are_read() {
        let counters = Counters::parse(SNMP, DEV, "bench0");
        assert_eq!(counters.tcp_retransmits, 17);
        assert_eq!(counters.udp_packets, 30);
        assert_eq!(counters.rcvbuf_errors, 3);
        assert_eq!(counters.sndbuf_errors, 4);
        assert_eq!(counters.device_drops, 12);
        assert_eq!(counters.device_bytes, 300);
        assert!(counters.unexpected());
        assert_eq!(Counters::parse("", "", "bench0"), Counters::default());
    }

    #[test]
    fn differences_never_underflow() {
        let one = Counters {
            link_lost: 5,
            ..Counters::default()
        };
        assert_eq!((Counters::default() - one).link_lost, 0);
        assert_eq!((one - Counters::default()).link_lost, 5);
    }
}
