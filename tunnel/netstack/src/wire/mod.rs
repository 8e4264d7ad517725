//! Packet formats: IPv6, TCP, UDP, ICMPv6 and TSMP headers.

pub(crate) mod checksum;
pub(crate) mod icmp;
pub(crate) mod ipv6;
pub(crate) mod tcp;
pub(crate) mod tsmp;
pub(crate) mod udp;
