//! The TCP header and its options (RFC 9293 §3.1, RFC 7323, RFC 2018).

use std::net::Ipv6Addr;

use super::{checksum, ipv6};

/// Bytes of the header without options.
pub(crate) const HEADER: usize = 20;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
/// Most SACK blocks a header has room for beside timestamps.
pub(crate) const MAX_SACKS: usize = 3;

/// Options of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// Value and echo reply.
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) sacks: [(u32, u32); 4],
    pub(crate) sack_count: usize,
}

/// A segment: parsed, or to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
}

impl Segment<'_> {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence space the segment occupies.
    pub(crate) fn seq_len(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.has(SYN)) + u64::from(self.has(FIN))
    }
}

/// Parses a segment; `None` if it is malformed.
pub(crate) fn parse(data: &[u8]) -> Option<Segment<'_>> {
    let (h, _) = data.split_first_chunk::<HEADER>()?;
    let offset = usize::from(h[12] >> 4) * 4;
    if offset < HEADER {
        return None;
    }
    let options = parse_options(data.get(HEADER..offset)?);
    Some(Segment {
        src_port: u16::from_be_bytes([h[0], h[1]]),
        dst_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        flags: h[13],
        window: u16::from_be_bytes([h[14], h[15]]),
        options,
        payload: data.get(offset..)?,
    })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Reads what is understood; stops at the first option that does not add up.
fn parse_options(mut data: &[u8]) -> Options {
    let mut options = Options::default();
    while let Some((&kind, rest)) = data.split_first() {
        match kind {
            0 => break,
            1 => {
                data = rest;
                continue;
            }
            _ => {}
        }
        let Some(&length) = rest.first() else { break };
        let length = usize::from(length);
        if length < 2 || length > data.len() {
            break;
        }
        let body = &data[2..length];
        match (kind, body.len()) {
            (2, 2) => options.mss = Some(u16::from_be_bytes([body[0], body[1]])),
            (3, 1) => options.window_scale = Some(body[0].min(14)),
            (4, 0) => options.sack_permitted = true,
            (5, n) if n % 8 == 0 => {
                options.sack_count = 0;
                for at in (0..n).step_by(8).take(options.sacks.len()) {
                    if let (Some(left), Some(right)) = (word(body, at), word(body, at + 4)) {
                        options.sacks[options.sack_count] = (left, right);
                        options.sack_count += 1;
                    }
                }
            }
            (8, 8) => options.timestamps = word(body, 0).zip(word(body, 4)),
            _ => {}
        }
        data = &data[length..];
    }
    options
}

/// Bytes that `options` take in a header.
pub(crate) fn options_len(options: &Options) -> usize {
    let mut len = 0;
    if options.mss.is_some() {
        len += 4;
    }
    if options.window_scale.is_some() {
        len += 4;
    }
    match (options.timestamps.is_some(), options.sack_permitted) {
        (true, _) => len += 12,
        (false, true) => len += 4,
        (false, false) => {}
    }
    if options.sack_count > 0 {
        len += 4 + 8 * options.sack_count;
    }
    len
}

fn write_options(buf: &mut [u8], options: &Options) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        buf[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    if let Some(mss) = options.mss {
        let [a, b] = mss.to_be_bytes();
        put(&[2, 4, a, b]);
    }
    if let Some((value, echo)) = options.timestamps {
        // SACK-permitted fits in the place of the two NOPs.
        put(if options.sack_permitted {
            &[4, 2, 8, 10]
        } else {
            &[1, 1, 8, 10]
        });
        put(&value.to_be_bytes());
        put(&echo.to_be_bytes());
    } else if options.sack_permitted {
        put(&[1, 1, 4, 2]);
    }
    if let Some(scale) = options.window_scale {
        put(&[1, 3, 3, scale]);
    }
    if options.sack_count > 0 {
        put(&[1, 1, 5, 2 + 8 * options.sack_count as u8]);
        for (left, right) in &options.sacks[..options.sack_count] {
            put(&left.to_be_bytes());
            put(&right.to_be_bytes());
        }
    }
}

/// Writes a whole packet around `payload_len` bytes of payload, which `fill`
/// puts in place. Returns its length; `buf` must be large enough.
pub(crate) fn write_packet(
    buf: &mut [u8],
    src: &Ipv6Addr,
    dst: &Ipv6Addr,
    segment: &Segment<'_>,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> usize {
    let options = options_len(&segment.options);
    let tcp_len = HEADER + options + payload_len;
    ipv6::write(buf, tcp_len, ipv6::TCP, src, dst);
    let total = ipv6::HEADER + tcp_len;
    let tcp = &mut buf[ipv6::HEADER..total];
    tcp[0..2].copy_from_slice(&segment.src_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&segment.dst_port.to_be_bytes());
    tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    tcp[12] = (((HEADER + options) / 4) as u8) << 4;
    tcp[13] = segment.flags;
    tcp[14..16].copy_from_slice(&segment.window.to_be_bytes());
    tcp[16..20].copy_from_slice(&[0; 4]);
    write_options(&mut tcp[HEADER..HEADER + options], &segment.options);
    fill(&mut tcp[HEADER + options..]);
    let check = checksum::transport(src, dst, ipv6::TCP, tcp);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(options: Options) -> Segment<'static> {
        Segment {
            src_port: 22,
            dst_port: 40_000,
            seq: 7,
            ack: 9,
            flags: ACK,
            window: 1000,
            options,
            payload: b"",
        }
    }

    #[test]
    fn every_option_survives_a_round_trip() {
        for bits in 0..32u32 {
            let mut options = Options {
                mss: (bits & 1 != 0).then_some(1220),
                window_scale: (bits & 2 != 0).then_some(7),
                sack_permitted: bits & 4 != 0,
                timestamps: (bits & 8 != 0).then_some((1, 2)),
                ..Options::default()
            };
            if bits & 16 != 0 && options_len(&options) + 20 <= 40 {
                options.sacks[0] = (1, 2);
                options.sacks[1] = (3, 4);
                options.sack_count = 2;
            }
            let mut buf = [0; 128];
            let src = Ipv6Addr::LOCALHOST;
            let len = write_packet(&mut buf, &src, &src, &segment(options), 3, |b| {
                b.copy_from_slice(b"abc");
            });
            let Some(packet) = ipv6::parse(&buf[..len]) else {
                panic!("unreadable")
            };
            assert_eq!(
                checksum::transport(&src, &src, ipv6::TCP, packet.payload),
                0
            );
            let Some(parsed) = parse(packet.payload) else {
                panic!("unreadable")
            };
            assert_eq!(parsed.options, options);
            assert_eq!(parsed.payload, b"abc");
        }
    }

    #[test]
    fn malformed_options_end_the_list() {
        assert_eq!(parse_options(&[2]), Options::default());
        assert_eq!(parse_options(&[2, 0, 1, 1]), Options::default());
        assert_eq!(parse_options(&[8, 10, 0, 0]), Options::default());
        assert_eq!(parse_options(&[1, 1, 0, 2, 4, 4, 0]), Options::default());
        assert_eq!(parse_options(&[254, 3, 0, 2, 4, 4, 0]).mss, Some(1024));
    }
}
