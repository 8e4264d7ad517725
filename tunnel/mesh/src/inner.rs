//! The packet inside a transport message.

use std::net::Ipv6Addr;

/// Length of an IPv6 header.
const HEADER: usize = 40;

/// Length and source address of the IPv6 packet at the start of `content`,
/// which may be followed by padding.
pub(crate) fn packet(content: &[u8]) -> Option<(usize, Ipv6Addr)> {
    let header = content.first_chunk::<HEADER>()?;
    let len = HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let source: [u8; 16] = header[8..24].try_into().ok()?;
    (header[0] >> 4 == 6 && len <= content.len()).then_some((len, source.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_part_of_a_packet() {
        let mut content = [0; 64];
        content[0] = 0x60;
        content[5] = 20;
        content[23] = 1;
        assert_eq!(packet(&content), Some((60, Ipv6Addr::LOCALHOST)));
        content[5] = 24;
        assert_eq!(packet(&content), Some((64, Ipv6Addr::LOCALHOST)));
        content[5] = 25;
        assert_eq!(packet(&content), None, "cut");
        content[5] = 0;
        assert_eq!(packet(&content[..40]), Some((40, Ipv6Addr::LOCALHOST)));
        assert_eq!(packet(&content[..39]), None);
        content[0] = 0x45;
        assert_eq!(packet(&content), None, "of another version");
    }
}
