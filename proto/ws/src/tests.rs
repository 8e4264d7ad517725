use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use proptest::prelude::*;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    ByteStream, Liveness, Role, WebSocketStream, accept, config,
    json::{self, Document},
    server_handshake,
};

async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = WebSocketStream::from_raw_socket(near, Role::Client, Some(config())).await;
    (client, accept(far, config()).await)
}

#[tokio::test]
async fn bytes_cross_in_both_directions() {
    let (client, server) = pair().await;
    let (mut client, mut server) = (ByteStream::new(client), ByteStream::new(server));
    client.write_all(b"question").await.unwrap();
    client.flush().await.unwrap();
    let mut buf = [0; 8];
    server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"question");

    let monitor = client.monitor();
    server.monitor().set_close(1011, "broken inside");
    let (closed, read) = tokio::join!(server.shutdown(), client.read(&mut buf));
    closed.unwrap();
    assert!(read.unwrap_err().to_string().contains("1011 broken inside"));
    let info = monitor.close_info().unwrap();
    assert_eq!((info.code, info.reason.as_str()), (1011, "broken inside"));
}

#[tokio::test]
async fn orderly_close_and_bare_end_are_end_of_file() {
    let (client, server) = pair().await;
    let (mut client, mut server) = (ByteStream::new(client), ByteStream::new(server));
    let mut buf = [0; 8];
    let (closed, read) = tokio::join!(client.shutdown(), server.read(&mut buf));
    closed.unwrap();
    assert_eq!(read.unwrap(), 0);
    assert_eq!(server.monitor().close_info().unwrap().code, 1000);

    let (client, server) = pair().await;
    drop(client);
    let mut server = ByteStream::new(server);
    assert_eq!(server.read(&mut buf).await.unwrap(), 0);
    assert_eq!(server.monitor().close_info(), None);
}

#[tokio::test]
async fn text_message_is_refused_with_1003() {
    let (mut client, server) = pair().await;
    let mut server = ByteStream::new(server);
    client.send(Message::text("hello")).await.unwrap();
    assert!(server.read(&mut [0; 8]).await.is_err());
    let Some(Ok(Message::Close(Some(frame)))) = client.next().await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(frame.code), 1003);
}

#[tokio::test]
async fn pings_are_answered_while_reading() {
    let (mut client, server) = pair().await;
    let mut server = ByteStream::new(server);
    client.send(Message::Ping("7".into())).await.unwrap();
    client.send(Message::Binary("x".into())).await.unwrap();
    let mut buf = [0; 2];
    assert_eq!(server.read(&mut buf).await.unwrap(), 1);
    let (answer, _) = tokio::join!(client.next(), async {
        tokio::time::timeout(Duration::from_millis(10), server.read(&mut buf)).await
    });
    assert_eq!(answer.unwrap().unwrap(), Message::Pong("7".into()));
}

#[tokio::test(start_paused = true)]
async fn liveness_counts_pings_and_closes_a_silent_peer() {
    let (mut client, server) = pair().await;
    let mut server = ByteStream::new(server).with_liveness(Liveness::default());
    let reader = tokio::spawn(async move {
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        (error, server)
    });
    for count in ["1", "2"] {
        // Reading answers the ping.
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::Ping(count.into())
        );
    }
    // The pong to "2" is sent with the next read; without one the peer is
    // silent.
    let (error, server) = reader.await.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let last = client.next().await.unwrap().unwrap();
    drop(server);
    let expected = CloseFrame {
        code: CloseCode::Away,
        reason: "liveness probe failed".into(),
    };
    assert_eq!(last, Message::Close(Some(expected)));
}

#[tokio::test]
async fn documents_cross_as_text_or_as_binary() {
    let (mut client, mut server) = pair().await;
    json::send_text(&mut server, "{}").await.unwrap();
    server.send(Message::Binary("[]".into())).await.unwrap();
    server.close(None).await.unwrap();
    let text = json::next_text(&mut client).await.unwrap();
    assert_eq!(text, Document::Text("{}".into()));
    let text = json::next_text(&mut client).await.unwrap();
    assert_eq!(text, Document::Text("[]".into()));
    assert_eq!(
        json::next_text(&mut client).await.unwrap(),
        Document::End(None)
    );
}

fn upgrade_headers() -> HeaderMap {
    [
        ("host", "coder.test:8080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
    .collect()
}

fn refusal(change: impl FnOnce(&mut HeaderMap)) -> StatusCode {
    let mut headers = upgrade_headers();
    change(&mut headers);
    let refused = server_handshake(&Method::GET, Version::HTTP_11, &headers, None);
    refused.unwrap_err().status
}

#[test]
fn handshake_answers_the_example_of_the_rfc() {
    let answer = server_handshake(
        &Method::GET,
        Version::HTTP_11,
        &upgrade_headers(),
        Some("derp"),
    );
    let answer = answer.unwrap();
    assert_eq!(
        answer["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    // Never a subprotocol that was not offered.
    assert!(!answer.contains_key("sec-websocket-protocol"));
    assert!(!answer.contains_key("sec-websocket-extensions"));
}

#[test]
fn handshake_refuses_by_reason() {
    assert_eq!(
        refusal(|h| drop(h.remove("upgrade"))),
        StatusCode::UPGRADE_REQUIRED
    );
    assert_eq!(
        refusal(|h| drop(h.remove("sec-websocket-key"))),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        refusal(|h| drop(h.remove("sec-websocket-version"))),
        StatusCode::BAD_REQUEST
    );
    let foreign = HeaderValue::from_static("https://evil.test");
    assert_eq!(
        refusal(|h| drop(h.insert("origin", foreign))),
        StatusCode::FORBIDDEN
    );
    let same = HeaderValue::from_static("http://coder.test:8080");
    let mut headers = upgrade_headers();
    headers.insert("origin", same);
    assert!(server_handshake(&Method::GET, Version::HTTP_11, &headers, None).is_ok());
    let method = server_handshake(&Method::POST, Version::HTTP_11, &headers, None);
    assert_eq!(method.unwrap_err().status, StatusCode::METHOD_NOT_ALLOWED);
    let old = server_handshake(&Method::GET, Version::HTTP_10, &headers, None);
    assert_eq!(old.unwrap_err().status, StatusCode::UPGRADE_REQUIRED);
}

/// A transport that gives its input in pieces and swallows all output.
struct Input {
    pieces: Vec<Bytes>,
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(mut piece) = self.pieces.pop() {
            let count = piece.len().min(buf.remaining());
            buf.put_slice(&piece.split_to(count));
            if !piece.is_empty() {
                self.pieces.push(piece);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn read_all(pieces: Vec<Bytes>) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut stream = ByteStream::new(accept(Input { pieces }, config()).await);
        let mut out = Vec::new();
        let failed = stream.read_to_end(&mut out).await.is_err();
        (out, failed)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_input_ends(
        frames in prop::collection::vec(
            (any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)),
            0..20,
        ),
    ) {
        let mut input = Vec::new();
        for (first, second, rest) in frames {
            input.extend_from_slice(&[first & 0x8f, second | 0x80]);
            input.extend_from_slice(&rest);
        }
        let whole = read_all(vec![input.clone().into()]);
        let bytes = input.iter().rev().map(|byte| Bytes::copy_from_slice(&[*byte])).collect();
        prop_assert_eq!(whole, read_all(bytes));
    }
}
