//! The kernel's TCP beside the subjects, by iperf3.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    net::{FAR, Net},
    run::{self, Output},
    subject::until,
};

/// What iperf3 measured at the receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throughput {
    pub(super) megabits: f64,
    pub(super) retransmits: u64,
}

/// One flow from far to near for `seconds`; `extra` are further flags of the
/// client.
pub(super) fn down(net: &Net, seconds: u32, extra: &[&str]) -> Result<Throughput> {
    let mut server = Command::new("iperf3");
    server
        .args(["-s", "-1", "-B", FAR])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = net.far.spawn(&mut server)?;
    let limit = Duration::from_secs(u64::from(seconds) + 30);
    // The server may not listen yet.
    let result = until("iperf3 to answer", || {
        let mut client = Command::new("iperf3");
        client
            .args(["-c", FAR, "-R", "-J", "-t", &seconds.to_string()])
            .args(extra)
            .stdin(Stdio::null());
        run::run(&net.near, &mut client, Output::Keep, limit)?
            .ok()
            .map(|finished| finished.stdout)
    });
    let _ = server.kill();
    let _ = server.wait();
    parse(&result?)
}

fn parse(text: &[u8]) -> Result<Throughput> {
    let report: Value = serde_json::from_slice(text).context("the report of iperf3")?;
    let end = &report["end"];
    let received = if end["sum_received"].is_object() {
        &end["sum_received"]
    } else {
        &end["sum"]
    };
    let mut megabits = received["bits_per_second"]
        .as_f64()
        .context("the report of iperf3")?
        / 1e6;
    // Of datagrams it gives the rate of sending and what was lost.
    if let Some(lost) = end["sum"]["lost_percent"].as_f64()
        && !end["sum_received"].is_object()
    {
        megabits *= 1.0 - lost / 100.0;
    }
    Ok(Throughput {
        megabits,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let text = br#"{"end": {"sum_sent": {"retransmits": 5, "bits_per_second": 2e6},
            "sum_received": {"bits_per_second": 1.5e6}}}"#;
        let result = parse(text).unwrap();
        assert!((result.megabits - 1.5).abs() < 1e-9);
        assert_eq!(result.retransmits, 5);
        let text = br#"{"end": {"sum": {"bits_per_second": 4e6, "lost_percent": 25}}}"#;
        assert!((parse(text).unwrap().megabits - 3.0).abs() < 1e-9);
        assert!(parse(b"{}").is_err());
    }
}
