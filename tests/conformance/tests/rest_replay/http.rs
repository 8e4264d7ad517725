//! A client that sends exactly what it is told.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// What came behind the head.
    pub rest: Vec<u8>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }
}

#[derive(Debug)]
pub struct Reply {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }
}

/// Sends a request and reads the head of the reply.
pub async fn begin(server: SocketAddr, request: &Request<'_>) -> (Head, TcpStream) {
    tokio::time::timeout(TIMEOUT, async {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {server}\r\n",
            request.method, request.path
        );
        for (name, value) in &request.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !request.body.is_empty() || matches!(request.method, "POST" | "PUT" | "PATCH") {
            text.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&request.body);
        stream.write_all(&bytes).await.unwrap();
        let mut read = Vec::new();
        loop {
            if let Some(end) = find(&read, b"\r\n\r\n") {
                let rest = read.split_off(end + 4);
                return (parse_head(&String::from_utf8_lossy(&read), rest), stream);
            }
            let n = stream.read_buf(&mut read).await.unwrap();
            assert!(
                n > 0,
                "{} {}: closed before the reply",
                request.method,
                request.path
            );
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} {}: no reply", request.method, request.path))
}

/// Sends a request and reads the whole reply.
pub async fn send(server: SocketAddr, mut request: Request<'_>) -> Reply {
    if !request.headers.iter().any(|(name, _)| name == "Connection") {
        request.headers.push(("Connection".into(), "close".into()));
    }
    let (head, mut stream) = begin(server, &request).await;
    let mut body = head.rest.clone();
    let read = stream.read_to_end(&mut body);
    tokio::time::timeout(TIMEOUT, read)
        .await
        .unwrap_or_else(|_| {
            panic!(
                "{} {}: the reply does not end",
                request.method, request.path
            )
        })
        .unwrap();
    if head.is_chunked() {
        body = Chunks::default().feed(&body);
    }
    Reply { head, body }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|part| part == needle)
}

fn parse_head(text: &str, rest: Vec<u8>) -> Head {
    let mut lines = text.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Head {
        status,
        headers,
        rest,
    }
}

/// Decodes a chunked body piece by piece.
#[derive(Default)]
pub struct Chunks(Vec<u8>);

impl Chunks {
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(end) = find(&self.0, b"\r\n") {
            let size = usize::from_str_radix(&String::from_utf8_lossy(&self.0[..end]), 16).unwrap();
            let total = end + 2 + size + 2;
            if self.0.len() < total {
                break;
            }
            out.extend_from_slice(&self.0[end + 2..end + 2 + size]);
            self.0.drain(..total);
            if size == 0 {
                break;
            }
        }
        out
    }
}
