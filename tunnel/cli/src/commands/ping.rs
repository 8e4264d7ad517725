//! `ping`: latency to a workspace, and whether the way is direct.

use std::time::Duration;

use adit_engine::{Path, PingResult};
use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    api::Api,
    cli::{Output, PingArgs},
    duration::precise,
    name::WorkspaceRef,
    resolve::{self, Autostart},
    settings::Settings,
    table::table,
    tunnel::Tunnel,
};

/// Pings until the count is reached or the user interrupts; then sums up.
pub(crate) async fn run(settings: &Settings, args: &PingArgs) -> Result<()> {
    let api = Api::of(settings).await?;
    let reference = WorkspaceRef::parse(&args.workspace)?;
    let target = resolve::agent(&api, &reference, Autostart::No).await?;
    let tunnel = tokio::select! {
        tunnel = Tunnel::open(settings, &api, target.agent.id) => tunnel?,
        () = crate::signal::interrupted() => bail!("interrupted before the tunnel was up"),
    };
    let mut series = Series::default();
    let quiet = args.output == Output::Json;
    let name = target.workspace.name.as_str();
    tokio::select! {
        () = series.run(&tunnel, name, args, quiet) => {}
        () = crate::signal::interrupted() => {}
    }
    let report = Report::of(&tunnel).await;
    tunnel.close().await;
    match args.output {
        Output::Text => {
            series.print(name);
            report.print();
        }
        Output::Json => {
            let pings: Vec<_> = series
                .answers
                .iter()
                .map(|pong| {
                    json!({
                        "latency_ms": millis(pong.latency),
                        "p2p": matches!(pong.path, Path::Direct(_)),
                        "via": via(&tunnel, pong.path),
                    })
                })
                .collect();
            let summary = json!({
                "workspace": name,
                "sent": series.sent,
                "received": series.answers.len(),
                "p2p": report.direct.is_some(),
                "endpoint": report.direct,
                "why_relayed": report.why,
                "home_region": report.home,
                "endpoints": report.endpoints,
                "pings": pings,
            });
            println!("{}", serde_json::to_string_pretty(&summary)?);
        }
    }
    if series.answers.is_empty() {
        bail!(
            "no answer from {name}: the agent may be down, or both the relay and UDP are blocked"
        );
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn via(tunnel: &Tunnel, path: Path) -> String {
    match path {
        Path::Direct(address) => address.to_string(),
        Path::Derp(region) => format!("DERP({})", tunnel.region_name(region)),
    }
}

#[derive(Debug, Default)]
struct Series {
    sent: u32,
    answers: Vec<PingResult>,
}

impl Series {
    /// Summaries keep this many of the last answers: a ping may run for weeks.
    const KEPT: usize = 100_000;

    async fn run(&mut self, tunnel: &Tunnel, name: &str, args: &PingArgs, quiet: bool) {
        loop {
            self.sent = self.sent.saturating_add(1);
            let answer =
                tokio::time::timeout(args.timeout, tunnel.node().ping_disco(tunnel.ip())).await;
            let when = if args.time {
                format!("[{}] ", jiff::Zoned::now().strftime("%H:%M:%S"))
            } else {
                String::new()
            };
            match answer {
                Ok(Ok(pong)) => {
                    if !quiet {
                        let kind = match pong.path {
                            Path::Direct(_) => "p2p ",
                            Path::Derp(_) => "proxied ",
                        };
                        println!(
                            "{when}pong from {name} {kind}via {} in {}",
                            via(tunnel, pong.path),
                            precise(pong.latency)
                        );
                    }
                    if self.answers.len() < Self::KEPT {
                        self.answers.push(pong);
                    }
                }
                Ok(Err(error)) => eprintln!("{when}ping to {name} failed: {error}"),
                Err(_) => eprintln!(
                    "{when}ping to {name} timed out after {}",
                    precise(args.timeout)
                ),
            }
            if args.num != 0 && self.sent >= args.num {
                return;
            }
            tokio::time::sleep(args.wait).await;
        }
    }

    fn print(&self, name: &str) {
        let seconds: Vec<f64> = self
            .answers
            .iter()
            .map(|pong| pong.latency.as_secs_f64())
            .collect();
        let count = seconds.len() as f64;
        let figure = |value: f64| {
            if seconds.is_empty() {
                "-".to_owned()
            } else {
                precise(Duration::from_secs_f64(value.max(0.0)))
            }
        };
        let mean = seconds.iter().sum::<f64>() / count.max(1.0);
        let deviation = (seconds
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count.max(1.0))
        .sqrt();
        let smallest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = seconds.iter().copied().fold(0.0, f64::max);
        println!("{}", "-".repeat(74));
        print!(
            "{}",
            table(
                &[
                    "WORKSPACE",
                    "TOTAL",
                    "SUCCESSFUL",
                    "MIN",
                    "AVG",
                    "MAX",
                    "STDDEV"
                ],
                &[vec![
                    name.to_owned(),
                    self.sent.to_string(),
                    seconds.len().to_string(),
                    figure(smallest),
                    figure(mean),
                    figure(largest),
                    figure(deviation),
                ]]
            )
        );
    }
}

/// What the tunnel looks like, for people who ask why it is relayed.
#[derive(Debug)]
struct Report {
    direct: Option<String>,
    why: Option<&'static str>,
    home: String,
    endpoints: Vec<String>,
    handshake: Option<Duration>,
    udp_varies: bool,
    relay_error: Option<String>,
}

impl Report {
    async fn of(tunnel: &Tunnel) -> Self {
        let status = tunnel.peer_status().await;
        let network = tunnel.node().net_report().await;
        let direct = status.as_ref().and_then(|status| match status.path {
            Some(Path::Direct(address)) => Some(address.to_string()),
            _ => None,
        });
        Self {
            why: status
                .as_ref()
                .and_then(|status| status.why_relayed)
                .map(adit_engine::RelayReason::describe),
            handshake: status.as_ref().and_then(|status| status.last_handshake),
            direct,
            home: tunnel.region_name(network.home_region),
            endpoints: network.endpoints.iter().map(ToString::to_string).collect(),
            udp_varies: network.mapping_varies,
            relay_error: network.relay_error,
        }
    }

    fn print(&self) {
        eprintln!("✔ preferred DERP region: {}", self.home);
        if !self.endpoints.is_empty() {
            eprintln!("✔ own endpoints: {}", self.endpoints.join(", "));
        }
        if let Some(age) = self.handshake {
            eprintln!("✔ WireGuard handshake {}s ago", age.as_secs());
        }
        if let Some(error) = &self.relay_error {
            eprintln!("✘ relay: {error}");
        }
        match (&self.direct, self.why) {
            (Some(address), _) => eprintln!("\n✔ You are connected directly (p2p), to {address}"),
            (None, Some(why)) => {
                eprintln!("\n❗ You are connected via a DERP relay, not directly: {why}")
            }
            (None, None) => eprintln!("\n❗ You are connected via a DERP relay, not directly"),
        }
        if self.udp_varies && self.direct.is_none() {
            eprintln!(
                "❗ This network's NAT maps each destination to another port, which makes direct connections unlikely"
            );
        }
    }
}
