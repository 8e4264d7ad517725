//! The throughput test on tunnel port 3 (Tailscale speedtest protocol,
//! version 2).
//!
//! The client names its direction and a duration in one JSON line; the answer
//! is `{}` or an error. Then the sender writes blocks of 2 MiB until the time
//! is over and closes.

use std::io;
use std::time::{Duration, Instant};

use rand::RngCore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: i64 = 2;
const BLOCK: usize = 2 * 1_024 * 1_024;
/// Random bytes written over and over.
const CHUNK: usize = 64 * 1_024;
/// Longest opening line.
const OPENING: usize = 4_096;
/// How long the opening line may take.
const OPENING_TIME: Duration = Duration::from_secs(20);
/// Longest test, whatever the client asks for.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Opening {
    version: i64,
    /// Nanoseconds.
    time: i64,
    /// The client's: 1 uploads, anything else downloads.
    direction: i64,
}

/// Serves one test to its end.
///
/// # Errors
/// The connection failed.
pub async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let opening = match tokio::time::timeout(OPENING_TIME, read_opening(&mut io)).await {
        Ok(opening) => opening?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    let opening = opening.and_then(|o| {
        if o.version == VERSION {
            Ok(o)
        } else {
            Err(format!(
                "version mismatch! Server is version {VERSION}, client is version {}",
                o.version
            ))
        }
    });
    let opening = match opening {
        Ok(opening) => opening,
        Err(error) => {
            let mut line = serde_json::json!({ "error": error }).to_string();
            line.push('\n');
            io.write_all(line.as_bytes()).await?;
            return io.shutdown().await;
        }
    };
    io.write_all(b"{}\n").await?;
    io.flush().await?;
    let time = Duration::from_nanos(u64::try_from(opening.time).unwrap_or(0)).min(LONGEST);
    if opening.direction == 1 {
        receive(&mut io, time).await
    } else {
        send(&mut io, time).await
    }
}

/// Reads one JSON value; the inner error is for the client.
async fn read_opening(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Opening, String>> {
    let mut text = Vec::new();
    let mut byte = [0; 256];
    loop {
        let n = io.read(&mut byte).await?;
        text.extend_from_slice(&byte[..n]);
        let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Opening>();
        match values.next() {
            Some(Ok(opening)) => return Ok(Ok(opening)),
            Some(Err(e)) if !e.is_eof() => return Ok(Err(describe(&text, &e))),
            _ if n == 0 => return Ok(Err("unexpected EOF".to_owned())),
            _ if text.len() > OPENING => return Ok(Err("the opening is too long".to_owned())),
            _ => {}
        }
    }
}

/// Clients show this text, so the commonest mistake reads as they know it.
fn describe(text: &[u8], error: &serde_json::Error) -> String {
    match text.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b) if !b"{[\"-0123456789tfn".contains(b) => format!(
            "invalid character '{}' looking for beginning of value",
            char::from(*b)
        ),
        _ => error.to_string(),
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), time: Duration) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    rand::rng().fill_bytes(&mut chunk);
    let began = Instant::now();
    // At least one block: clients cannot cope with none.
    loop {
        let mut left = BLOCK;
        while left > 0 {
            let n = left.min(CHUNK);
            io.write_all(&chunk[..n]).await?;
            left -= n;
        }
        if began.elapsed() > time {
            return io.shutdown().await;
        }
    }
}

async fn receive(io: &mut (impl AsyncRead + Unpin), time: Duration) -> io::Result<()> {
    let limit = (time * 4).max(Duration::from_secs(1));
    let drain = async {
        let mut buffer = vec![0; CHUNK];
        while io.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    match tokio::time::timeout(limit, drain).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(send: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(64 * 1_024);
        let serving = serve(server);
        let talking = async {
            client.write_all(send).await.expect("written");
            client.shutdown().await.expect("closed");
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.expect("read");
            all
        };
        let (_, all) = tokio::join!(serving, talking);
        all
    }

    /// Recorded from a real agent.
    #[tokio::test]
    async fn answers_mistakes_as_recorded() {
        let text = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/wire/speedtest.jsonl"
        ));
        for line in text.lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("json");
            let send = case["send"].as_str().expect("send");
            let got = exchange(send.as_bytes()).await;
            match case["reply"].as_str() {
                Some(reply) => assert_eq!(String::from_utf8_lossy(&got), reply),
                // A test that ran: the answer, then whole blocks.
                None => {
                    assert!(got.starts_with(b"{}\n"));
                    let blocks = got.len() - 3;
                    let expect = case["blocks"].as_u64().expect("blocks");
                    assert_eq!(blocks % BLOCK, 0);
                    assert!(blocks as u64 >= expect * BLOCK as u64);
                }
            }
        }
    }
}
