//! Requests, redirects, proxies, streams and upgrades that work.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit_http::{
    Client, Endpoint, Error, ErrorKind, EventKind, HeaderName, HeaderValue, Method, ProxyConfig,
    SseOptions, UpgradeRequest, Url,
};
use serde_json::{Value, json};
use support::{Authority, Validity, answer, client_of, config_of, read_head, serve, tls_once};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn ok() -> String {
    answer("200 OK", "application/json", r#"{"ok":true}"#)
}

fn redirect(status: &str, to: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn has(head: &str, line: &str) -> bool {
    head.lines()
        .any(|candidate| candidate.eq_ignore_ascii_case(line))
}

#[tokio::test]
async fn token_and_user_headers_go_along() {
    let (address, mut heads) = serve(|_| ok()).await;
    let mut config = config_of(&format!("http://{address}/ignored/base"));
    config.user_agent = "adit-test/1".into();
    let name = HeaderName::from_static("x-user");
    config.headers = vec![(name, HeaderValue::from_static("defined"))];
    config.session_token = Some("first".into());
    let client = Client::new(config).unwrap();
    let got: Value = client.get("/api/v2/x?y=1").await.unwrap();
    assert_eq!(got, json!({"ok": true}));
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /api/v2/x?y=1 HTTP/1.1\r\n"), "{head}");
    for line in [
        &format!("Host: {address}"),
        "Coder-Session-Token: first",
        "X-User: defined",
        "User-Agent: adit-test/1",
    ] {
        assert!(has(&head, line), "{line} in {head}");
    }
    client.set_session_token("second").unwrap();
    let _: Value = client
        .call(Method::POST, "/api/v2/x", &json!([1]))
        .await
        .unwrap();
    let head = heads.recv().await.unwrap();
    assert!(
        has(&head, "Coder-Session-Token: second") && has(&head, "Content-Length: 3"),
        "{head}"
    );
    assert!(has(&head, "Content-Type: application/json"), "{head}");
    assert!(!format!("{client:?}").contains("second"));
}

#[tokio::test]
async fn connections_are_used_again_and_dead_ones_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client_of(&format!("http://{}", listener.local_addr().unwrap()));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            // Two answers, then a silent end.
            for _ in 0..2 {
                read_head(&mut stream).await;
                let kept = ok().replace("Connection: close\r\n", "");
                stream.write_all(kept.as_bytes()).await.unwrap();
            }
        }
    });
    for _ in 0..6 {
        let _: Value = client.get("/").await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn redirects_are_followed_without_leaking_secrets() {
    let (elsewhere, mut elsewhere_heads) = serve(|_| ok()).await;
    let target = format!("http://localhost:{}/there", elsewhere.port());
    let (address, mut heads) = serve(move |head| match head.split(' ').nth(1).unwrap() {
        "/same" => redirect("307 Temporary Redirect", "/final?q=2"),
        "/other" => redirect("302 Found", &target),
        "/see" => redirect("303 See Other", "/final"),
        "/loop" => redirect("301 Moved Permanently", "/loop"),
        _ => ok(),
    })
    .await;
    let client = client_of(&format!("http://{address}"));
    client.set_session_token("secret").unwrap();

    let _: Value = client
        .call(Method::POST, "/same", &json!({}))
        .await
        .unwrap();
    heads.recv().await.unwrap();
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("POST /final?q=2 "), "{head}");
    assert!(has(&head, "Coder-Session-Token: secret"), "{head}");

    let _: Value = client.call(Method::POST, "/see", &json!({})).await.unwrap();
    heads.recv().await.unwrap();
    assert!(heads.recv().await.unwrap().starts_with("GET /final "));

    let _: Value = client.get("/other").await.unwrap();
    let head = elsewhere_heads.recv().await.unwrap();
    assert!(!head.contains("secret"), "{head}");

    tokio::spawn(async move { while heads.recv().await.is_some() {} });
    let error = client.get::<Value>("/loop").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Redirect { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_failure_behind_a_redirect_names_the_right_url() {
    let (elsewhere, _heads) = serve(|_| answer("401 Unauthorized", "application/json", "{}")).await;
    let target = format!("http://localhost:{}/api", elsewhere.port());
    let (address, _first) = serve(move |_| redirect("307 Temporary Redirect", &target)).await;
    let error = client_of(&format!("http://{address}"))
        .get::<Value>("/api")
        .await
        .unwrap_err();
    let expected = format!("http://localhost:{}/api", elsewhere.port());
    assert!(error.remedy().contains(&expected), "{}", error.remedy());
}

/// A proxy that counts tunnels and forwards.
async fn proxy() -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, receiver) = tokio::sync::mpsc::channel(10);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            heads.send(head.clone()).await.unwrap();
            let target = head.split(' ').nth(1).unwrap();
            if head.starts_with("CONNECT ") {
                let port = target.rsplit(':').next().unwrap().parse::<u16>().unwrap();
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await
                    .unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
                });
            } else {
                stream.write_all(ok().as_bytes()).await.unwrap();
            }
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn proxies_forward_plain_requests_and_tunnel_the_rest() {
    let (address, mut heads) = proxy().await;
    let setting = format!("http://us%65r:pass@{address}");
    let config_for = |base: &str| {
        let mut config = config_of(base);
        config.proxy = ProxyConfig::from_values(Some(&setting), Some(&setting), None);
        config
    };
    let client = Client::new(config_for("http://plain.example:81")).unwrap();
    let _: Value = client.get("/api?x=1").await.unwrap();
    let head = heads.recv().await.unwrap();
    assert!(
        head.starts_with("GET http://plain.example:81/api?x=1 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(has(&head, "Host: plain.example:81"), "{head}");
    assert!(
        has(&head, "Proxy-Authorization: Basic dXNlcjpwYXNz"),
        "{head}"
    );

    let authority = Authority::new();
    let server = tls_once(authority.server("secure.example", Validity::Now)).await;
    let mut config = config_for(&format!("https://secure.example:{}", server.port()));
    let roots = authority.pem_file();
    config.tls.ca_file = Some(roots.path().to_owned());
    let client = Client::new(config).unwrap();
    let _: Value = client.get("/api").await.unwrap();
    let head = heads.recv().await.unwrap();
    let expected = format!("CONNECT secure.example:{} HTTP/1.1\r\n", server.port());
    assert!(head.starts_with(&expected), "{head}");
    assert!(
        has(&head, "Proxy-Authorization: Basic dXNlcjpwYXNz"),
        "{head}"
    );

    // A raw stream to a plain endpoint is tunnelled too, to its own port.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("raw.example", listener.local_addr().unwrap().port(), false);
    let (io, accepted) = tokio::join!(client.connect_io(&endpoint), listener.accept());
    let (mut io, mut far) = (io.unwrap(), accepted.unwrap().0);
    far.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    io.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    assert!(
        heads
            .recv()
            .await
            .unwrap()
            .starts_with(&format!("CONNECT {}", endpoint.authority()))
    );
}

#[tokio::test]
async fn event_streams() {
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n\
        event: ping\n\nevent: data\ndata: {\"a\":1}\n\n";
    let (address, mut heads) = serve(|_| events.into()).await;
    let client = client_of(&format!("http://{address}"));
    let mut stream = client.sse("/watch", SseOptions::default()).await.unwrap();
    assert!(has(
        &heads.recv().await.unwrap(),
        "Accept: text/event-stream"
    ));
    assert_eq!(stream.next().await.unwrap().unwrap().kind, EventKind::Ping);
    assert_eq!(stream.next().await.unwrap().unwrap().data, r#"{"a":1}"#);
    assert!(stream.next().await.is_none());

    let refused = answer(
        "409 Conflict",
        "application/json",
        r#"{"message":"claimed"}"#,
    );
    let (address, _heads) = serve(move |_| refused.clone()).await;
    let client = client_of(&format!("http://{address}"));
    let error = client
        .sse("/watch", SseOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.status().unwrap().as_u16(), 409);

    let silent = events.split("event: ping").next().unwrap().to_owned();
    let (address, _server) = support::once_and_wait(silent).await;
    let client = client_of(&format!("http://{address}"));
    let options = SseOptions {
        idle_timeout: Duration::from_millis(100),
        ..SseOptions::default()
    };
    let mut stream = client.sse("/watch", options).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn upgrades_lose_no_bytes_and_keep_the_token_at_home() {
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\nearly";
    let (address, mut heads) = serve(|_| switched.into()).await;
    let client = client_of("http://127.0.0.1:1");
    client.set_session_token("secret").unwrap();
    let endpoint = Endpoint::new("127.0.0.1", address.port(), false);
    let request = UpgradeRequest::elsewhere(endpoint, "/derp", "DERP");
    let mut upgraded = client.upgrade(&request).await.unwrap();
    let mut early = String::new();
    upgraded.io.read_to_string(&mut early).await.unwrap();
    assert_eq!(early, "early");
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /derp HTTP/1.1\r\n"), "{head}");
    assert!(
        has(&head, "Upgrade: DERP") && has(&head, "Connection: Upgrade"),
        "{head}"
    );
    assert!(!head.contains("secret"), "{head}");
}

async fn refusal(response: String) -> Error {
    let (address, _server) = support::once(response).await;
    let client = client_of(&format!("http://{address}"));
    client
        .websocket("/api/v2/x", Vec::new(), None)
        .await
        .err()
        .unwrap()
}

#[tokio::test]
async fn refused_websockets() {
    let body = r#"{"message":"no"}"#;
    let error = refusal(answer("403 Forbidden", "application/json", body)).await;
    assert_eq!(error.response().unwrap().message, "no");
    let error = refusal(answer("200 OK", "text/html", "<html>")).await;
    assert!(matches!(error.kind(), ErrorKind::Html { .. }), "{error}");
    let error = refusal(answer("200 OK", "application/json", "{}")).await;
    assert!(
        matches!(error.kind(), ErrorKind::NotUpgraded { .. }),
        "{error}"
    );
    for (headers, expected) in [
        ("Upgrade: DERP\r\n", "another protocol"),
        (
            "Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n",
            "accept key",
        ),
    ] {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{headers}\r\n");
        let error = refusal(head).await;
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn websockets_follow_redirects_and_carry_bytes() {
    use futures_util::{SinkExt as _, StreamExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (first, _heads) = serve(move |_| {
        redirect(
            "307 Temporary Redirect",
            &format!("http://{address}/ws?x=1"),
        )
    })
    .await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
    });
    let client = client_of(&format!("http://{first}"));
    let mut socket = client.websocket("/ws", Vec::new(), None).await.unwrap();
    socket.send(vec![1, 2, 3].into()).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap().into_data(),
        vec![1, 2, 3]
    );
    server.await.unwrap();
}

#[tokio::test]
async fn the_servers_version_is_known_after_its_first_answer() {
    let versioned = ok().replace("\r\n\r\n", "\r\nX-Coder-Build-Version: v2.33.1\r\n\r\n");
    let (address, _heads) = serve(move |_| versioned.clone()).await;
    let client = client_of(&format!("http://{address}"));
    assert_eq!(client.server_version(), None);
    let _: Value = client.get("/").await.unwrap();
    assert_eq!(client.server_version(), Some("v2.33.1"));
}

#[test]
fn endpoints_of_urls() {
    let of = |url: &str| Endpoint::from_url(&Url::parse(url).unwrap()).unwrap();
    assert_eq!(
        of("https://a.example/x"),
        Endpoint::new("a.example", 443, true)
    );
    assert_eq!(of("http://[::1]:3000").authority(), "[::1]:3000");
    assert_eq!(of("ws://a").host_header(), "a");
    assert_eq!(of("wss://a:80").host_header(), "a:80");
    assert_eq!(
        of("http://[::1]:3000").url("/derp").unwrap().as_str(),
        "http://[::1]:3000/derp"
    );
}
