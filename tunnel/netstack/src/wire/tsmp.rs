//! TSMP, the tunnel's own ping: protocol 99 directly inside IPv6.

use std::net::Ipv6Addr;

use super::ipv6;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Eight opaque bytes to be sent back.
    Ping([u8; 8]),
    /// The eight bytes of a ping.
    Pong([u8; 8]),
}

/// Parses a message; longer ones than known are accepted.
pub(crate) fn parse(data: &[u8]) -> Option<Message> {
    let (&kind, rest) = data.split_first()?;
    let token = *rest.first_chunk::<8>()?;
    match kind {
        b'p' => Some(Message::Ping(token)),
        b'o' => Some(Message::Pong(token)),
        _ => None,
    }
}

/// A whole packet.
pub(crate) fn packet(src: &Ipv6Addr, dst: &Ipv6Addr, message: Message) -> Vec<u8> {
    let mut body = Vec::with_capacity(11);
    match message {
        Message::Ping(token) => {
            body.push(b'p');
            body.extend_from_slice(&token);
        }
        Message::Pong(token) => {
            body.push(b'o');
            body.extend_from_slice(&token);
            // Port of a peer API; there is none.
            body.extend_from_slice(&[0, 0]);
        }
    }
    let mut packet = vec![0; ipv6::HEADER];
    ipv6::write(&mut packet, body.len(), ipv6::TSMP, src, dst);
    packet.extend_from_slice(&body);
    packet
}
