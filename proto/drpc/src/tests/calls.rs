//! Calls over a transport, against ourselves and against bytes by hand.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::{
    Error, ProtocolError, Status, client,
    server::{Call, Handler, Options, Reply, serve_stream},
};

/// Answers a few paths.
#[derive(Default)]
struct Service {
    /// Calls that saw their cancellation.
    cancelled: AtomicUsize,
}

impl Handler for Service {
    async fn call(&self, mut call: Call) -> Result<Reply, Status> {
        let failed = |error: Error| Status::new(error.to_string());
        match call.path.as_str() {
            "/echo" => Ok(Reply::Unary(call.requests.single().await.map_err(failed)?)),
            "/metadata" => {
                let (key, value) = &call.metadata[0];
                Ok(Reply::Unary(text(&format!("{key}={value}"))))
            }
            "/count" => {
                call.requests.single().await.map_err(failed)?;
                for number in ["1", "2", "3"] {
                    call.responses.send(text(number)).await.map_err(failed)?;
                }
                Ok(Reply::Stream)
            }
            "/chat" => {
                while let Some(message) = call.requests.recv().await.map_err(failed)? {
                    call.responses.send(message).await.map_err(failed)?;
                }
                Ok(Reply::Stream)
            }
            "/wait" => {
                call.responses.cancelled().await;
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                std::future::pending().await
            }
            "/large" => Ok(Reply::Unary(vec![0; (4 << 20) + 1].into())),
            "/code" => Err(Status {
                code: 7,
                message: "seven".into(),
            }),
            _ => Err(Status::unimplemented()),
        }
    }
}

/// A message with one string, in its encoding.
fn text(text: &str) -> Bytes {
    prost::Message::encode_to_vec(&text.to_owned()).into()
}

/// Ends with the outcome and the service.
type Serving = tokio::task::JoinHandle<(Result<(), Error>, Service)>;

/// The client's end of a transport that is served.
fn served() -> (DuplexStream, Serving) {
    let (near, far) = tokio::io::duplex(1000);
    let task = tokio::spawn(async move {
        let service = Service::default();
        (
            serve_stream(far, &service, Options::default()).await,
            service,
        )
    });
    (near, task)
}

async fn unary(path: &str, request: &str) -> Result<String, Error> {
    let (io, task) = served();
    let answer = client::unary(io, path, &[("key", "value")], &request.to_owned()).await;
    task.await.unwrap().0.unwrap();
    answer
}

#[tokio::test]
async fn unary_calls_answer_or_fail() {
    assert_eq!(unary("/echo", "hi").await.unwrap(), "hi");
    let long = "x".repeat(300_000);
    assert_eq!(unary("/echo", &long).await.unwrap(), long);
    assert_eq!(unary("/metadata", "").await.unwrap(), "key=value");
    let error = unary("/code", "").await.unwrap_err();
    assert_eq!(error.status().map(|status| status.code), Some(7));
    assert_eq!(error.to_string(), "seven");
    assert!(unary("/nothing", "").await.unwrap_err().is_unimplemented());
    let error = unary("/large", "").await.unwrap_err();
    assert!(error.to_string().contains("too large"));
}

#[tokio::test]
async fn server_stream_ends_in_order() {
    let (io, task) = served();
    let mut answers = client::server_stream::<_, String, String>(io, "/count", &[], &String::new())
        .await
        .unwrap();
    for number in ["1", "2", "3"] {
        assert_eq!(answers.recv().await.unwrap().unwrap(), number);
    }
    assert_eq!(answers.recv().await.unwrap(), None);
    assert_eq!(answers.recv().await.unwrap(), None);
    drop(answers);
    task.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn messages_go_both_ways() {
    let (io, task) = served();
    let (mut sender, mut receiver) = client::bidi::<_, String, String>(io, "/chat", &[])
        .await
        .unwrap();
    for word in ["one", "two"] {
        sender.send(&word.to_owned()).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), word);
    }
    sender.close_send().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), None);
    drop((sender, receiver));
    task.await.unwrap().0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_form_of_cancellation_reaches_the_handler() {
    for form in 0..3 {
        let (io, task) = served();
        let (sender, receiver) = client::bidi::<_, String, String>(io, "/wait", &[])
            .await
            .unwrap();
        match form {
            0 => drop(sender),
            1 => sender.cancel().await.unwrap(),
            _ => sender.close().await.unwrap(),
        }
        drop(receiver);
        let (outcome, service) = task.await.unwrap();
        outcome.unwrap();
        assert_eq!(service.cancelled.load(Ordering::Relaxed), 1, "form {form}");
    }
}

#[tokio::test]
async fn oversized_request_is_refused_before_sending() {
    let (io, _task) = served();
    let request = "x".repeat((4 << 20) + 1);
    let error = client::unary::<_, _, String>(io, "/echo", &[], &request).await;
    assert!(matches!(error, Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn client_reads_the_answers_of_other_servers() {
    // Message and CloseSend in separate writes, Close, Error, a short Error,
    // an unknown control packet first, an unknown packet, nothing.
    let cases: [(&[u8], Result<&str, &str>); 7] = [
        (b"\x05\x01\x01\x04\x0a\x02ok\x0d\x01\x02\x00", Ok("ok")),
        (b"\x05\x01\x01\x04\x0a\x02ok\x0b\x01\x02\x00", Ok("ok")),
        (
            b"\x07\x01\x01\x09\x00\x00\x00\x00\x00\x00\x00\x00x",
            Err("x"),
        ),
        (
            b"\x07\x01\x01\x01y",
            Err("y (drpcwire note: invalid error data)"),
        ),
        (b"\x93\x01\x01\x01z\x05\x01\x02\x00", Ok("")),
        (
            b"\x13\x01\x01\x01z",
            Err("protocol error: unknown packet kind 9"),
        ),
        (b"\x0b\x01\x01\x00", Err("the call ended without an answer")),
    ];
    for (answer, expected) in cases {
        let (near, mut far) = tokio::io::duplex(1000);
        far.write_all(answer).await.unwrap();
        let result = client::unary::<_, String, String>(near, "/x", &[], &String::new()).await;
        match (result, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (result, expected) => panic!("{result:?} instead of {expected:?}"),
        }
    }
    let (near, mut far) = tokio::io::duplex(1000);
    far.shutdown().await.unwrap();
    let result = client::unary::<_, String, String>(near, "/x", &[], &String::new()).await;
    assert!(matches!(result, Err(Error::Eof)));
}

/// What a served transport answers to bytes by hand, and how serving ends.
async fn answer_to(input: &[u8], end: bool) -> (Vec<u8>, Result<(), Error>) {
    let (mut io, task) = served();
    io.write_all(input).await.unwrap();
    if end {
        io.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.unwrap();
    (answer, task.await.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn several_calls_share_a_transport() {
    let echo = b"\x03\x01\x01\x05/echo\x05\x01\x02\x01a\x0d\x01\x03\x00";
    let second = b"\x0f\x02\x01\x06\x0a\x04\x0a\x00\x12\x00\x03\x02\x02\x05/echo\x05\x02\x03\x01b";
    // The end comes after the answers.
    let (mut io, task) = served();
    io.write_all(echo).await.unwrap();
    let mut answer = [0; 9];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x05\x01\x01\x01a\x0d\x01\x02\x00");
    io.write_all(second).await.unwrap();
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x05\x02\x01\x01b\x0d\x02\x02\x00");
    drop(io);
    task.await.unwrap().0.unwrap();
}

#[tokio::test(start_paused = true)]
async fn violations_close_the_transport_without_an_answer() {
    let cases: [(&[u8], ProtocolError); 4] = [
        (b"\x03\x00\x01\x05/echo", ProtocolError::Monotonicity),
        (
            b"\x03\x01\x01\x05/wait\x03\x01\x02\x05/wait",
            ProtocolError::SecondInvoke,
        ),
        (
            b"\x03\x01\x01\x05/wait\x13\x01\x02\x00",
            ProtocolError::UnknownKind(9),
        ),
        (
            b"\x03\x01\x01\x05/chat\x05\x01\x02\xff\xff\xff\x7f",
            ProtocolError::Overflow,
        ),
    ];
    for (input, expected) in cases {
        let (answer, outcome) = answer_to(input, false).await;
        assert_eq!(answer, b"");
        assert!(
            matches!(&outcome, Err(Error::Protocol(error)) if *error == expected),
            "{outcome:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn transport_that_does_not_begin_with_a_call_gets_no_answer() {
    for first in [
        &b"\x05\x01\x01\x00"[..],
        b"\x13\x01\x01\x00",
        b"\x93\x01\x01\x00",
    ] {
        let input = [first, b"\x03\x02\x01\x05/echo\x05\x02\x02\x00"].concat();
        let (answer, outcome) = answer_to(&input, true).await;
        assert_eq!(answer, b"");
        outcome.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_control_packet_inside_a_call_is_ignored() {
    let (mut io, _task) = served();
    io.write_all(b"\x83\x01\x01\x05/echo\x93\x01\x02\x00\x05\x01\x03\x01a")
        .await
        .unwrap();
    let mut answer = [0; 5];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x05\x01\x01\x01a");
}

#[tokio::test(start_paused = true)]
async fn silent_transport_is_given_up() {
    let (_io, task) = served();
    let (outcome, _) = task.await.unwrap();
    assert!(matches!(outcome, Err(Error::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn handler_that_ignores_its_cancellation_is_dropped() {
    let start = tokio::time::Instant::now();
    let (_, outcome) = answer_to(b"\x03\x01\x01\x05/wait", true).await;
    outcome.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(2));
}
