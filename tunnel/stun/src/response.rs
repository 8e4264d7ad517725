//! Binding responses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::attributes::{Attributes, MAPPED_ADDRESS, XOR_MAPPED_ADDRESS, XOR_MAPPED_ADDRESS_DRAFT};
use crate::{HEADER_LEN, MAGIC_COOKIE, TxId, is_stun};

/// Why a datagram is not a useful binding response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// Not STUN at all.
    #[error("not a STUN message")]
    NotStun,
    /// A STUN message, but no success response to a binding request.
    #[error("not a STUN binding success response")]
    NotSuccess,
    /// Attributes are cut off, or none holds an address.
    #[error("STUN response has malformed attributes")]
    Malformed,
}

const BINDING_SUCCESS: [u8; 2] = [1, 1];
const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;

/// Makes a success response with a single XOR-MAPPED-ADDRESS.
pub fn binding_response(tx: TxId, mapped: SocketAddr) -> Vec<u8> {
    let mask = xor_mask(tx);
    let (family, address) = match mapped.ip().to_canonical() {
        IpAddr::V4(ip) => (FAMILY_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILY_IPV6, ip.octets().to_vec()),
    };
    let value_len = (4 + address.len()) as u16;

    let mut packet = Vec::with_capacity(HEADER_LEN + 8 + address.len());
    packet.extend_from_slice(&BINDING_SUCCESS);
    packet.extend_from_slice(&(4 + value_len).to_be_bytes());
    packet.extend_from_slice(&MAGIC_COOKIE);
    packet.extend_from_slice(&tx.0);
    packet.extend_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    packet.extend_from_slice(&value_len.to_be_bytes());
    packet.extend_from_slice(&[0, family]);
    packet.extend_from_slice(&(mapped.port() ^ port_mask()).to_be_bytes());
    packet.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    packet
}

/// Reads a success response: its transaction and our address as the server
/// saw it. XOR-MAPPED-ADDRESS wins over MAPPED-ADDRESS, which old or broken
/// middleboxes rewrite; bytes behind the announced length are ignored.
pub fn parse_binding_response(datagram: &[u8]) -> Result<(TxId, SocketAddr), ResponseError> {
    if !is_stun(datagram) {
        return Err(ResponseError::NotStun);
    }
    if !datagram.starts_with(&BINDING_SUCCESS) {
        return Err(ResponseError::NotSuccess);
    }
    let (header, attributes) = datagram.split_at(HEADER_LEN);
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let attributes = attributes.get(..len).ok_or(ResponseError::Malformed)?;
    let mut tx = [0; 12];
    tx.copy_from_slice(&header[8..]);
    let tx = TxId(tx);

    let mut fallback = None;
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute.ok_or(ResponseError::Malformed)?;
        match kind {
            XOR_MAPPED_ADDRESS | XOR_MAPPED_ADDRESS_DRAFT => {
                let mapped = address(value, port_mask(), xor_mask(tx));
                return Ok((tx, mapped.ok_or(ResponseError::Malformed)?));
            }
            MAPPED_ADDRESS => fallback = address(value, 0, [0; 16]),
            _ => {}
        }
    }
    fallback
        .map(|mapped| (tx, mapped))
        .ok_or(ResponseError::Malformed)
}

fn address(value: &[u8], port_mask: u16, mask: [u8; 16]) -> Option<SocketAddr> {
    let [_, family, p0, p1, address @ ..] = value else {
        return None;
    };
    let mut octets = [0; 16];
    for ((out, byte), mask) in octets.iter_mut().zip(address).zip(mask) {
        *out = byte ^ mask;
    }
    let ip = match (*family, address.len()) {
        (FAMILY_IPV4, 4) => {
            let [a, b, c, d, ..] = octets;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        (FAMILY_IPV6, 16) => IpAddr::V6(Ipv6Addr::from(octets)),
        _ => return None,
    };
    let port = u16::from_be_bytes([*p0, *p1]) ^ port_mask;
    Some(SocketAddr::new(ip, port))
}

/// Addresses are XORed with the cookie and, for IPv6, the transaction id.
fn xor_mask(tx: TxId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&tx.0);
    mask
}

const fn port_mask() -> u16 {
    u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]])
}
