//! Through a SOCKS proxy: a small one that asks for a password.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::net::SocketAddr;

use adit_http::{Client, Endpoint, ErrorKind, ProxyConfig};
use serde_json::Value;
use support::{Authority, Validity, answer, config_of, serve, tls_once};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Accepts `user` with `pass`, tells where it was sent to, and connects to
/// that port of this machine.
async fn proxy() -> (SocketAddr, mpsc::Receiver<(String, u16)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, receiver) = mpsc::channel(10);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let _ = serve_one(stream, asked).await;
            });
        }
    });
    (address, receiver)
}

async fn serve_one(mut near: TcpStream, asked: mpsc::Sender<(String, u16)>) -> std::io::Result<()> {
    assert_eq!(near.read_u8().await?, 5);
    let mut methods = vec![0; near.read_u8().await?.into()];
    near.read_exact(&mut methods).await?;
    if !methods.contains(&2) {
        return near.write_all(&[5, 0xff]).await;
    }
    near.write_all(&[5, 2]).await?;
    assert_eq!(near.read_u8().await?, 1);
    let user = counted(&mut near).await?;
    let password = counted(&mut near).await?;
    let welcome = user == b"user" && password == b"p@ss";
    near.write_all(&[1, u8::from(!welcome)]).await?;
    let mut request = [0; 4];
    near.read_exact(&mut request).await?;
    assert_eq!(request, [5, 1, 0, 3], "names are left to the proxy");
    let host = String::from_utf8(counted(&mut near).await?).unwrap();
    let port = near.read_u16().await?;
    asked.send((host, port)).await.unwrap();
    match TcpStream::connect(("127.0.0.1", port)).await {
        Err(_) => near.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        Ok(mut far) => {
            // The bound address may be a name, as long as that is read too.
            near.write_all(&[5, 0, 0, 3, 2, b'm', b'e', 0, 1]).await?;
            tokio::io::copy_bidirectional(&mut near, &mut far)
                .await
                .map(drop)
        }
    }
}

async fn counted(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[tokio::test]
async fn plain_and_tls_requests_are_tunnelled() {
    let (address, mut asked) = proxy().await;
    for scheme in ["socks5", "socks5h"] {
        let setting = format!("{scheme}://user:p%40ss@{address}");
        let with_proxy = |base: &str| {
            let mut config = config_of(base);
            config.proxy = ProxyConfig::from_values(Some(&setting), Some(&setting), None);
            config
        };
        let ok = || answer("200 OK", "application/json", r#"{"ok":true}"#);
        let (plain, mut heads) = serve(move |_| ok()).await;
        let base = format!("http://plain.example:{}", plain.port());
        let client = Client::new(with_proxy(&base)).unwrap();
        let _: Value = client.get("/api?x=1").await.unwrap();
        let head = heads.recv().await.unwrap();
        assert!(head.starts_with("GET /api?x=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(
            asked.recv().await.unwrap(),
            ("plain.example".to_owned(), plain.port())
        );

        let authority = Authority::new();
        let server = tls_once(authority.server("secure.example", Validity::Now)).await;
        let mut config = with_proxy(&format!("https://secure.example:{}", server.port()));
        let roots = authority.pem_file();
        config.tls.ca_file = Some(roots.path().to_owned());
        let _: Value = Client::new(config).unwrap().get("/api").await.unwrap();
        assert_eq!(
            asked.recv().await.unwrap(),
            ("secure.example".to_owned(), server.port())
        );
    }
}

#[tokio::test]
async fn refusals_name_the_proxy_but_not_the_password() {
    let (address, _asked) = proxy().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for (user, expected) in [
        ("", "asks for a user name"),
        ("user:swordfish@", "does not accept"),
        ("user:p%40ss@", "connection was refused"),
    ] {
        let setting = format!("socks5://{user}{address}");
        let mut config = config_of("http://x.example");
        config.proxy = ProxyConfig::from_values(Some(&setting), None, None);
        let client = Client::new(config).unwrap();
        let endpoint = Endpoint::new("x.example", port, false);
        let error = client.connect_io(&endpoint).await.unwrap_err();
        let line = error.to_string();
        assert!(matches!(error.kind(), ErrorKind::Proxy { .. }), "{line}");
        assert!(
            line.contains(&address.to_string()) && line.contains(expected),
            "{line}"
        );
        assert!(!line.contains("swordfish"), "{line}");
    }
}
