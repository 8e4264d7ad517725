//! The UDP header (RFC 768).

use std::net::{Ipv6Addr, SocketAddrV6};

use super::{checksum, ipv6};

/// Bytes of the header.
pub(crate) const HEADER: usize = 8;

/// A parsed datagram.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) payload: &'a [u8],
}

/// Parses a datagram; the caller has checked the checksum. A zero checksum is
/// not allowed in IPv6 (RFC 8200 §8.1).
pub(crate) fn parse(data: &[u8]) -> Option<Datagram<'_>> {
    let (h, _) = data.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([h[4], h[5]]));
    if h[6..8] == [0, 0] {
        return None;
    }
    Some(Datagram {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
        payload: data.get(HEADER..length)?,
    })
}

/// A whole packet.
pub(crate) fn packet(local: &SocketAddrV6, remote: &SocketAddrV6, payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut packet = vec![0; ipv6::HEADER + length];
    let (src, dst): (&Ipv6Addr, &Ipv6Addr) = (local.ip(), remote.ip());
    ipv6::write(&mut packet, length, ipv6::UDP, src, dst);
    let udp = &mut packet[ipv6::HEADER..];
    udp[0..2].copy_from_slice(&local.port().to_be_bytes());
    udp[2..4].copy_from_slice(&remote.port().to_be_bytes());
    udp[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    udp[HEADER..].copy_from_slice(payload);
    let check = match checksum::transport(src, dst, ipv6::UDP, udp) {
        0 => 0xffff,
        check => check,
    };
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    packet
}
