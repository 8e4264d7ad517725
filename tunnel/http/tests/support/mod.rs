//! Servers of a few lines.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use adit_http::{Client, ClientConfig, ProxyConfig, Url};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub fn config_of(base: &str) -> ClientConfig {
    let mut config = ClientConfig::new(Url::parse(base).unwrap());
    config.proxy = ProxyConfig::none();
    config
}

pub fn client_of(base: &str) -> Client {
    Client::new(config_of(base)).unwrap()
}

/// A whole HTTP answer that ends its connection.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}

pub async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Answers one request with fixed bytes and closes.
pub async fn once(response: String) -> (SocketAddr, JoinHandle<()>) {
    serve_once(response, false).await
}

/// Answers one request with fixed bytes and keeps the connection open.
pub async fn once_and_wait(response: String) -> (SocketAddr, JoinHandle<()>) {
    serve_once(response, true).await
}

async fn serve_once(response: String, wait: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        if stream.peek(&mut [0]).await.unwrap_or(0) > 0 {
            let mut first = [0];
            stream.peek(&mut first).await.unwrap();
            // A TLS greeting has no line ends to wait for.
            if first[0] != 0x16 {
                read_head(&mut stream).await;
            }
        }
        stream.write_all(response.as_bytes()).await.unwrap();
        if wait {
            std::future::pending::<()>().await;
        }
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    (address, task)
}

/// Answers each request by a function of its head, one per connection, and
/// reports the heads.
pub async fn serve(
    respond: impl Fn(&str) -> String + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, receiver) = mpsc::channel(100);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            let response = respond(&head);
            if heads.send(head).await.is_err() {
                return;
            }
            let _ = stream.write_all(response.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, receiver)
}

/// Serves TLS connections with a JSON answer.
pub async fn tls_once(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                read_head(&mut stream).await;
                let response = answer("200 OK", "application/json", r#"{"ok":true}"#);
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

#[derive(Clone, Copy)]
pub enum Validity {
    Past,
    Now,
    Future,
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem_file(&self) -> NamedTempFile {
        file(&self.0.pem())
    }

    fn issue(&self, name: &str, validity: Validity) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let (from, until) = match validity {
            Validity::Past => (2001, 2002),
            Validity::Now => (2001, 2101),
            Validity::Future => (2100, 2101),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    pub fn server(&self, name: &str, validity: Validity) -> Arc<ServerConfig> {
        let (cert, key) = self.issue(name, validity);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private(&key))
            .unwrap();
        Arc::new(config)
    }

    pub fn server_wanting_client_certificates(&self, name: &str) -> Arc<ServerConfig> {
        let (cert, key) = self.issue(name, Validity::Now);
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], private(&key))
            .unwrap();
        Arc::new(config)
    }

    pub fn client_pem_files(&self) -> (NamedTempFile, NamedTempFile) {
        let (cert, key) = self.issue("client", Validity::Now);
        (file(&cert.pem()), file(&key.serialize_pem()))
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}
