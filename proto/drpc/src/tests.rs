use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::{
    ProtocolError, Status,
    codec::{Decoder, Kind, MAX_MESSAGE, Packet, encode_packet},
    metadata,
};

mod calls;

fn packet(kind: Kind, message: u64, data: &'static [u8]) -> Packet {
    Packet {
        stream: 1,
        message,
        kind,
        control: kind == Kind::Cancel,
        data: Bytes::from_static(data),
    }
}

fn encoded(packets: &[Packet]) -> BytesMut {
    let mut out = BytesMut::new();
    for packet in packets {
        encode_packet(&mut out, packet);
    }
    out
}

/// All packets of an input that arrives in pieces of one size.
fn decode(input: &[u8], piece: usize) -> (Vec<Packet>, Option<ProtocolError>) {
    let (mut decoder, mut buffer, mut packets) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

fn failure(input: &[u8]) -> ProtocolError {
    decode(input, usize::MAX).1.unwrap()
}

#[test]
fn unary_request_has_the_bytes_of_the_go_library() {
    let path = b"/coder.agent.v2.Agent/GetServiceBanner";
    let out = encoded(&[
        packet(Kind::Invoke, 1, path),
        packet(Kind::Message, 2, b""),
        packet(Kind::CloseSend, 3, b""),
    ]);
    let mut expected = vec![0x03, 0x01, 0x01, 0x26];
    expected.extend_from_slice(path);
    expected.extend_from_slice(&[0x05, 0x01, 0x02, 0x00, 0x0d, 0x01, 0x03, 0x00]);
    assert_eq!(out, &expected[..]);
}

#[test]
fn single_packets_have_the_bytes_of_the_go_library() {
    let unimplemented = Packet {
        data: Status::unimplemented().encode(),
        ..packet(Kind::Error, 1, b"")
    };
    assert_eq!(
        encoded(&[unimplemented]),
        &b"\x07\x01\x01\x15\x00\x00\x00\x00\x00\x00\x00\x0cUnimplemented"[..]
    );
    assert_eq!(
        encoded(&[packet(Kind::Cancel, 4, b"")]),
        &[0x89, 1, 4, 0][..]
    );
    assert_eq!(
        encoded(&[packet(Kind::Close, 4, b"")]),
        &[0x0b, 1, 4, 0][..]
    );
    let unknown = Status::new("protocol error: unknown rpc: \"/x/Nope\"");
    assert_eq!(unknown.encode().len(), 0x2e);
    assert!(unknown.is_unimplemented());

    let pairs = metadata::encode(&[("traceparent", "00-aa-bb-01")]);
    assert_eq!(
        encoded(&[Packet {
            data: pairs.clone(),
            ..packet(Kind::InvokeMetadata, 1, b"")
        }]),
        &b"\x0f\x01\x01\x1c\x0a\x1a\x0a\x0btraceparent\x12\x0b00-aa-bb-01"[..]
    );
    let decoded = metadata::decode(&pairs).unwrap();
    assert_eq!(decoded, [("traceparent".into(), "00-aa-bb-01".into())]);
    assert!(metadata::decode(b"\x0a\x03\x0a\x01k").is_err());
    assert!(metadata::decode(b"junk").is_err());
}

#[test]
fn frames_of_a_packet_are_joined() {
    let input = [0x04, 1, 1, 1, b'o', 0x05, 1, 1, 1, b'k'];
    assert_eq!(
        decode(&input, 1),
        (vec![packet(Kind::Message, 1, b"ok")], None)
    );
    // A newer packet replaces an unfinished one; the control bit of any frame
    // counts.
    let input = [
        0x04, 1, 1, 1, b'x', 0x84, 1, 2, 1, b'a', 0x05, 1, 2, 1, b'b',
    ];
    let expected = Packet {
        control: true,
        ..packet(Kind::Message, 2, b"ab")
    };
    assert_eq!(decode(&input, 1), (vec![expected], None));
}

#[test]
fn large_packets_are_split_and_limited() {
    let large = Packet {
        data: vec![9; MAX_MESSAGE].into(),
        ..packet(Kind::Message, 1, b"")
    };
    let out = encoded(std::slice::from_ref(&large));
    assert_eq!(decode(&out, 100_000), (vec![large], None));

    // One frame that announces too much, and many that add up to it.
    assert_eq!(
        failure(&[0x05, 1, 1, 0x81, 0x80, 0x80, 0x02]),
        ProtocolError::Overflow
    );
    let mut input = out.to_vec();
    let last = input.len() - 65_536 - 6;
    input.truncate(last);
    input.extend_from_slice(&[0x04, 1, 1, 0x81, 0x80, 0x04]);
    input.extend_from_slice(&[0; 65_537]);
    assert_eq!(failure(&input), ProtocolError::Overflow);
}

#[test]
fn violations_are_errors() {
    assert_eq!(failure(&[0x03, 0, 1, 0]), ProtocolError::Monotonicity);
    assert_eq!(
        failure(&[0x03, 1, 2, 0, 0x05, 1, 1, 0]),
        ProtocolError::Monotonicity
    );
    assert_eq!(
        failure(&[0x03, 1, 2, 0, 0x05, 1, 2, 0]),
        ProtocolError::Monotonicity
    );
    assert_eq!(
        failure(&[0x03, 2, 1, 0, 0x05, 1, 9, 0]),
        ProtocolError::Monotonicity
    );
    assert_eq!(
        failure(&[0x04, 1, 1, 0, 0x07, 1, 1, 0]),
        ProtocolError::KindChange
    );
    assert_eq!(
        failure(&[[0x03, 0xff].as_slice(), &[0xff; 10]].concat()),
        ProtocolError::Varint
    );
}

#[test]
fn short_error_body_is_an_error_with_a_note() {
    let status = Status::decode(b"oops");
    assert_eq!(status.message, "oops (drpcwire note: invalid error data)");
    assert_eq!(Status::decode(&Status::new("x").encode()), Status::new("x"));
}

fn any_packets() -> impl Strategy<Value = Vec<Packet>> {
    let one = (
        1..8u8,
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..300),
    );
    prop::collection::vec(one, 0..12).prop_map(|packets| {
        (1..)
            .zip(packets)
            .map(|(message, (kind, control, data))| Packet {
                stream: 1,
                message,
                kind: Kind::from_number(kind),
                control,
                data: data.into(),
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn packets_round_trip_in_any_pieces(packets in any_packets(), piece in 1..50usize) {
        prop_assert_eq!(decode(&encoded(&packets), piece), (packets, None));
    }

    #[test]
    fn damaged_input_is_decoded_or_refused_alike(
        packets in any_packets(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        piece in 1..50usize,
    ) {
        let mut input = encoded(&packets).to_vec();
        input.push(0);
        let at = at.index(input.len());
        input[at] = byte;
        prop_assert_eq!(decode(&input, piece), decode(&input, usize::MAX));
    }

    #[test]
    fn any_input_is_decoded_or_refused(
        input in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1..50usize,
    ) {
        prop_assert_eq!(decode(&input, piece), decode(&input, usize::MAX));
        let _ = metadata::decode(&input);
        let _ = Status::decode(&input);
    }
}
