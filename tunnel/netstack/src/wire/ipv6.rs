//! The fixed IPv6 header (RFC 8200 §3).

use std::net::Ipv6Addr;

/// Bytes of the header.
pub(crate) const HEADER: usize = 40;
/// Next header values.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 58;
pub(crate) const TSMP: u8 = 99;

/// A parsed packet.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) src: Ipv6Addr,
    pub(crate) dst: Ipv6Addr,
    pub(crate) next: u8,
    /// Exactly the header's payload length; padding behind it is cut off.
    pub(crate) payload: &'a [u8],
}

/// Parses the header; `None` if it is not IPv6 or cut short.
pub(crate) fn parse(packet: &[u8]) -> Option<Packet<'_>> {
    let (header, rest) = packet.split_first_chunk::<HEADER>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    Some(Packet {
        src: address(header, 8),
        dst: address(header, 24),
        next: header[6],
        payload: rest.get(..length)?,
    })
}

fn address(header: &[u8; HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// Writes a header for `payload` bytes to the first 40 bytes of `buf`.
pub(crate) fn write(buf: &mut [u8], payload: usize, next: u8, src: &Ipv6Addr, dst: &Ipv6Addr) {
    buf[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    buf[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    buf[6] = next;
    buf[7] = 64;
    buf[8..24].copy_from_slice(&src.octets());
    buf[24..40].copy_from_slice(&dst.octets());
}

/// Whether a packet may come from, and be answered to, this address.
pub(crate) fn is_unicast(address: &Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}
