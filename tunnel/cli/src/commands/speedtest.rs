//! `speedtest`: throughput to a workspace, by the Tailscale speedtest
//! protocol, version 2.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use adit_engine::Path;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    api::Api,
    cli::{Direction, Output, SpeedtestArgs, Wait},
    name::WorkspaceRef,
    resolve::{self, Autostart},
    settings::Settings,
    table::table,
    tunnel::Tunnel,
};

/// Port of the service on every agent.
const PORT: u16 = 3;
/// Version of the protocol.
const VERSION: u8 = 2;
/// The sender works in blocks of this size.
const BLOCK: usize = 2 * 1024 * 1024;
/// One read or write.
const CHUNK: usize = 256 * 1024;
/// A shorter last interval is not reported.
const SHORTEST: Duration = Duration::from_millis(10);
/// Longest wait for a direct connection.
const DIRECT_LIMIT: Duration = Duration::from_secs(60);

/// Bytes in one interval of the test; times count from its start.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    bytes: u64,
    start: Duration,
    end: Duration,
}

impl Sample {
    fn megabits(self) -> f64 {
        let seconds = self.end.saturating_sub(self.start).as_secs_f64();
        if seconds > 0.0 {
            self.bytes as f64 * 8.0 / 1e6 / seconds
        } else {
            0.0
        }
    }
}

/// Measures and prints.
pub(crate) async fn run(settings: &Settings, args: &SpeedtestArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let reference = WorkspaceRef::parse(&args.workspace)?;
    let mut target = resolve::agent(&api, &reference, Autostart::No).await?;
    resolve::ready(&api, &mut target, Wait::No, false).await?;
    let tunnel = Tunnel::open(settings, &api, target.agent.id).await?;
    let result = async {
        if args.direct {
            wait_until_direct(&tunnel).await?;
        }
        let direction = match args.direction {
            Direction::Down => "download",
            Direction::Up => "upload",
        };
        eprintln!(
            "Starting a {}s {direction} test...",
            args.time.as_secs_f64()
        );
        let stream = tunnel.dial(PORT).await?;
        measure(stream, args.direction, args.time).await
    };
    let result = tokio::select! {
        result = result => result,
        () = crate::signal::interrupted() => bail!("interrupted"),
    };
    tunnel.close().await;
    let (samples, total) = result?;
    match args.output {
        Output::Text => print_table(&samples, total),
        Output::Json => {
            let interval = |sample: Sample| {
                json!({
                    "start_time_seconds": sample.start.as_secs_f64(),
                    "end_time_seconds": sample.end.as_secs_f64(),
                    "throughput_mbits": sample.megabits(),
                })
            };
            let report = json!({
                "overall": interval(total),
                "intervals": samples.into_iter().map(interval).collect::<Vec<_>>(),
            });
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
    }
    Ok(())
}

fn print_table(samples: &[Sample], total: Sample) {
    let row = |sample: &Sample| {
        vec![
            format!(
                "{:.2}-{:.2} sec",
                sample.start.as_secs_f64(),
                sample.end.as_secs_f64()
            ),
            format!("{:.4} Mbits/sec", sample.megabits()),
        ]
    };
    let rows: Vec<Vec<String>> = samples.iter().map(row).collect();
    print!("{}", table(&["INTERVAL", "THROUGHPUT"], &rows));
    let last = row(&total);
    println!("{}", "-".repeat(35));
    println!("{}", last.join("  "));
}

/// Pings until an answer has come over UDP directly.
async fn wait_until_direct(tunnel: &Tunnel) -> Result<()> {
    let direct = async {
        loop {
            match tunnel.node().ping_disco(tunnel.ip()).await {
                Ok(pong) if matches!(pong.path, Path::Direct(_)) => return,
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    };
    tokio::time::timeout(DIRECT_LIMIT, direct).await.with_context(|| {
        format!("no direct connection within {DIRECT_LIMIT:?}; leave out --direct to measure the relayed one")
    })
}

#[derive(Serialize)]
struct Request {
    version: u8,
    /// Nanoseconds.
    time: u128,
    /// 0: this side receives; 1: it sends.
    direction: u8,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
}

async fn measure(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    direction: Direction,
    time: Duration,
) -> Result<(Vec<Sample>, Sample)> {
    let request = Request {
        version: VERSION,
        time: time.as_nanos(),
        direction: match direction {
            Direction::Down => 0,
            Direction::Up => 1,
        },
    };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream
        .write_all(&line)
        .await
        .context("ask for a speed test")?;
    within(time, read_answer(&mut stream)).await?;
    let mut meter = Meter::start();
    match direction {
        Direction::Down => within(time, receive(&mut stream, &mut meter)).await?,
        Direction::Up => within(time, send(&mut stream, &mut meter, time)).await?,
    }
    meter.finish()
}

/// A test that stalls must not hang: four times its length is its limit.
async fn within<T>(time: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = (time * 4).max(Duration::from_secs(10));
    tokio::time::timeout(limit, step)
        .await
        .with_context(|| format!("the speed test stalled for more than {limit:?}"))?
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    // Byte by byte: what follows the line belongs to the test.
    let mut line = Vec::new();
    loop {
        let byte = stream
            .read_u8()
            .await
            .context("the workspace's answer to the speed test")?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
        if line.len() > 4096 {
            bail!("the workspace's answer to the speed test is not the expected one");
        }
    }
    let answer: Answer =
        serde_json::from_slice(&line).context("the workspace's answer to the speed test")?;
    if !answer.error.is_empty() {
        bail!("the workspace refused the speed test: {}", answer.error);
    }
    Ok(())
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), meter: &mut Meter) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = stream.read(&mut buffer).await.context("receive")?;
        if read == 0 {
            return Ok(());
        }
        meter.count(read);
    }
}

async fn send(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    meter: &mut Meter,
    time: Duration,
) -> Result<()> {
    let mut block = vec![0; CHUNK];
    rand::fill(&mut block[..]);
    while meter.began.elapsed() <= time {
        for _ in 0..BLOCK / CHUNK {
            stream.write_all(&block).await.context("send")?;
            meter.count(CHUNK);
        }
    }
    stream.shutdown().await.context("end the test")?;
    // The rest counts once the workspace has taken it and closed its side.
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    Ok(())
}

/// Counts bytes into intervals of one second.
struct Meter {
    began: Instant,
    interval: Sample,
    done: Vec<Sample>,
    total: u64,
}

impl Meter {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            interval: Sample {
                bytes: 0,
                start: Duration::ZERO,
                end: Duration::ZERO,
            },
            done: Vec::new(),
            total: 0,
        }
    }

    fn count(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        self.total += bytes;
        self.interval.bytes += bytes;
        self.interval.end = self.began.elapsed();
        if self.interval.end.saturating_sub(self.interval.start) >= Duration::from_secs(1) {
            self.done.push(self.interval);
            self.interval = Sample {
                bytes: 0,
                start: self.interval.end,
                end: self.interval.end,
            };
        }
    }

    fn finish(mut self) -> Result<(Vec<Sample>, Sample)> {
        let end = self.began.elapsed();
        if self.total == 0 {
            bail!("the speed test moved no data");
        }
        self.interval.end = end;
        if self.interval.bytes > 0
            && (self.done.is_empty() || end.saturating_sub(self.interval.start) > SHORTEST)
        {
            self.done.push(self.interval);
        }
        let total = Sample {
            bytes: self.total,
            start: Duration::ZERO,
            end,
        };
        Ok((self.done, total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions() {
        for direction in [Direction::Down, Direction::Up] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let server = tokio::spawn(async move {
                let mut opening = Vec::new();
                while !opening.ends_with(b"\n") {
                    opening.push(far.read_u8().await.unwrap());
                }
                far.write_all(b"{}\n").await.unwrap();
                let mut bytes = 0u64;
                if opening.ends_with(b"\"direction\":0}\n") {
                    far.write_all(&vec![7; BLOCK]).await.unwrap();
                    bytes = BLOCK as u64;
                } else {
                    let mut buffer = vec![0; CHUNK];
                    loop {
                        match far.read(&mut buffer).await.unwrap() {
                            0 => break,
                            read => bytes += read as u64,
                        }
                    }
                }
                (String::from_utf8(opening).unwrap(), bytes)
            });
            let (samples, total) = measure(near, direction, Duration::from_millis(50))
                .await
                .unwrap();
            let (opening, moved) = server.await.unwrap();
            assert!(
                opening.starts_with("{\"version\":2,\"time\":50000000,"),
                "{opening}"
            );
            assert_eq!(total.bytes, moved);
            assert_eq!(
                samples.iter().map(|sample| sample.bytes).sum::<u64>(),
                moved
            );
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"{\"error\":\"version mismatch!\"}\n")
            .await
            .unwrap();
        let error = measure(near, Direction::Down, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("version mismatch!"), "{error}");
    }
}
