//! Overlay addresses and node numbers derived from UUIDs.
//!
//! Every address is a /128: the first six bytes of the UUID are replaced by
//! the prefix, the other ten stay as they are.

use std::net::Ipv6Addr;

use uuid::Uuid;

/// Prefix of the addresses that clients dial: `fd7a:115c:a1e0::/48`.
pub const TAILNET_PREFIX: [u8; 6] = [0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0];

/// Coder's own prefix, used by its desktop VPN: `fd60:627a:a42b::/48`.
pub const SERVICE_PREFIX: [u8; 6] = [0xfd, 0x60, 0x62, 0x7a, 0xa4, 0x2b];

/// The address of `peer` below [`TAILNET_PREFIX`].
pub fn tailnet_ip(peer: Uuid) -> Ipv6Addr {
    with_prefix(TAILNET_PREFIX, peer)
}

/// The address of `peer` below [`SERVICE_PREFIX`].
pub fn service_ip(peer: Uuid) -> Ipv6Addr {
    with_prefix(SERVICE_PREFIX, peer)
}

/// Whether `ip` lies below [`SERVICE_PREFIX`]; such addresses are never
/// endpoints of a path.
pub fn is_service_ip(ip: &Ipv6Addr) -> bool {
    ip.octets().starts_with(&SERVICE_PREFIX)
}

/// The numeric node id of `peer`: the absolute value of the last eight bytes,
/// read as a big-endian signed number.
pub fn node_id(peer: Uuid) -> i64 {
    let [.., a, b, c, d, e, f, g, h] = *peer.as_bytes();
    i64::from_be_bytes([a, b, c, d, e, f, g, h]).wrapping_abs()
}

fn with_prefix(prefix: [u8; 6], peer: Uuid) -> Ipv6Addr {
    let mut octets = *peer.as_bytes();
    octets[..prefix.len()].copy_from_slice(&prefix);
    Ipv6Addr::from(octets)
}
