//! ICMPv6 echo and error messages (RFC 4443).

use std::net::Ipv6Addr;

use super::{checksum, ipv6};

pub(crate) const UNREACHABLE: u8 = 1;
pub(crate) const PACKET_TOO_BIG: u8 = 2;
pub(crate) const ECHO_REQUEST: u8 = 128;
pub(crate) const ECHO_REPLY: u8 = 129;
/// Code "port unreachable" of [`UNREACHABLE`].
pub(crate) const CODE_PORT: u8 = 4;

/// A message: type, code, the four bytes behind the checksum, the rest.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) word: [u8; 4],
    pub(crate) body: &'a [u8],
}

/// Parses a message; the caller has checked the checksum.
pub(crate) fn parse(data: &[u8]) -> Option<Message<'_>> {
    let (h, body) = data.split_first_chunk::<8>()?;
    Some(Message {
        kind: h[0],
        code: h[1],
        word: [h[4], h[5], h[6], h[7]],
        body,
    })
}

/// A whole packet.
pub(crate) fn packet(src: &Ipv6Addr, dst: &Ipv6Addr, message: &Message<'_>) -> Vec<u8> {
    let length = 8 + message.body.len();
    let mut packet = vec![0; ipv6::HEADER + length];
    ipv6::write(&mut packet, length, ipv6::ICMP, src, dst);
    let icmp = &mut packet[ipv6::HEADER..];
    icmp[0] = message.kind;
    icmp[1] = message.code;
    icmp[4..8].copy_from_slice(&message.word);
    icmp[8..].copy_from_slice(message.body);
    let check = checksum::transport(src, dst, ipv6::ICMP, icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    packet
}
