//! The Internet checksum (RFC 1071) with the IPv6 pseudo header (RFC 8200 §8.1).

use std::net::Ipv6Addr;

/// Unfolded sum of `data` as 16-bit words in memory order.
fn sum(data: &[u8]) -> u64 {
    let mut words = data.chunks_exact(4);
    let mut total: u64 = words
        .by_ref()
        .map(|w| u64::from(u32::from_ne_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let mut tail = [0u8; 4];
    let rest = words.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(tail));
    total
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::from_be(total as u16)
}

/// Checksum over `payload` (its checksum field zero) behind the pseudo header.
/// Over a packet whose field is filled in, the result is 0 if it is right.
pub(crate) fn transport(src: &Ipv6Addr, dst: &Ipv6Addr, next: u8, payload: &[u8]) -> u16 {
    let length = (payload.len() as u32).to_be_bytes();
    let total = sum(&src.octets())
        + sum(&dst.octets())
        + sum(&length)
        + sum(&[0, 0, 0, next])
        + sum(payload);
    !fold(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(data: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in data.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u32::from(u16::from_be_bytes([pair[0], low]));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn agrees_with_the_textbook_loop() {
        let data: Vec<u8> = (0..1500u32).map(|i| (i * 7 + i / 13) as u8).collect();
        for len in [0, 1, 2, 3, 4, 5, 7, 8, 20, 61, 1219, 1220, 1499] {
            assert_eq!(fold(sum(&data[..len])), slow(&data[..len]), "{len}");
        }
    }

    #[test]
    fn a_filled_in_checksum_verifies() {
        let src = "fd7a:115c:a1e0::1".parse().unwrap_or(Ipv6Addr::LOCALHOST);
        let dst = "fd7a:115c:a1e0::2".parse().unwrap_or(Ipv6Addr::LOCALHOST);
        let mut payload = vec![1, 2, 3, 4, 5, 6, 0, 0, 9];
        let check = transport(&src, &dst, 17, &payload);
        payload[6..8].copy_from_slice(&check.to_be_bytes());
        assert_eq!(transport(&src, &dst, 17, &payload), 0);
        payload[0] ^= 1;
        assert_ne!(transport(&src, &dst, 17, &payload), 0);
    }
}
