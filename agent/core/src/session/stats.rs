//! Reporting traffic and sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use adit_engine::{ConnectionStats, Node};
use adit_messages::agent;
use adit_messages::time::duration_from_proto;
use tokio::task::JoinSet;

use super::{Ended, Session, call};
use crate::tunnel::Tunnel;

/// Interval until the control plane names one, and after it names none.
const DEFAULT: Duration = Duration::from_secs(300);
/// Shortest interval accepted.
const SHORTEST: Duration = Duration::from_secs(1);
/// Without peers the latency is reported as -1 in the unit it is measured in.
const NO_LATENCY: f64 = -0.001;
/// How long all latency probes together may take.
const PROBE: Duration = Duration::from_secs(5);

impl Session {
    /// Asks for the interval, then reports at each.
    pub(super) async fn stats(&self, tunnel: &Tunnel) -> Ended {
        let mut interval = self.send_stats(None).await?;
        loop {
            let now = tunnel.node().connection_stats().await;
            let stats = self.collect(tunnel, &now).await;
            interval = self.send_stats(Some(stats)).await?.or(interval);
            // Counted only once it arrived, so nothing is lost on the way.
            tunnel.set_reported(now);
            let wait = interval.unwrap_or(DEFAULT).max(SHORTEST);
            tokio::time::sleep(wait).await;
        }
    }

    async fn send_stats(
        &self,
        stats: Option<agent::Stats>,
    ) -> Result<Option<Duration>, crate::diagnose::SessionError> {
        let request = agent::UpdateStatsRequest { stats };
        let answer = call("UpdateStats", self.rpc.update_stats(&request).await)?;
        let interval = answer
            .report_interval
            .as_ref()
            .and_then(duration_from_proto);
        Ok(interval.filter(|i| !i.is_zero()))
    }

    async fn collect(&self, tunnel: &Tunnel, now: &ConnectionStats) -> agent::Stats {
        let last = tunnel.reported();
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let delta = |now: u64, last: u64| count(now.saturating_sub(last));
        let rx_packets = delta(now.rx_packets, last.rx_packets);
        let tx_packets = delta(now.tx_packets, last.tx_packets);
        // Control planes take a non-zero count for activity, so exactly the
        // flows with packets are counted.
        let by_proto: BTreeMap<String, i64> = (tunnel.flow_counts().await)
            .into_iter()
            .map(|(protocol, flows)| (protocol_name(protocol), flows))
            .collect();
        let sessions = tunnel.session_counts();
        let (direct, relayed) = tunnel.reachable_peers().await;
        for (kind, peers) in [("p2p", direct), ("derp", relayed)] {
            self.agent.metrics.set(
                "coderd_agentstats_currently_reachable_peers",
                &[("connection_type", kind)],
                peers,
            );
        }
        self.agent.metrics.set_counter(
            "agent_reconnecting_pty_connections_total",
            tunnel.terminals_served(),
        );
        agent::Stats {
            connection_count: by_proto.values().sum(),
            connections_by_proto: by_proto,
            connection_median_latency_ms: median_latency(tunnel.node()).await,
            rx_packets,
            rx_bytes: delta(now.rx_bytes, last.rx_bytes),
            tx_packets,
            tx_bytes: delta(now.tx_bytes, last.tx_bytes),
            session_count_vscode: sessions.vscode,
            session_count_jetbrains: sessions.jetbrains,
            session_count_reconnecting_pty: sessions.terminals,
            session_count_ssh: sessions.ssh,
            metrics: self.agent.metrics.to_proto(),
        }
    }
}

/// As the original agent names IP protocols.
fn protocol_name(number: u8) -> String {
    match number {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("IPProto-{other}"),
    }
}

/// Median round trip to all peers that were heard of lately, in milliseconds.
async fn median_latency(node: &Node) -> f64 {
    let mut probes = JoinSet::new();
    for peer in node.status().await {
        let recent = peer
            .last_handshake
            .is_some_and(|age| age < Duration::from_secs(180));
        if let (true, Some(addr)) = (recent, peer.addresses.first().copied()) {
            let node = node.clone();
            probes.spawn(async move { node.ping_disco(addr).await.ok().map(|p| p.latency) });
        }
    }
    let mut all = Vec::new();
    let gather = async {
        while let Some(probe) = probes.join_next().await {
            all.extend(probe.ok().flatten());
        }
    };
    let _ = tokio::time::timeout(PROBE, gather).await;
    all.sort();
    match all.get(all.len() / 2) {
        Some(median) => median.as_secs_f64() * 1_000.0,
        None => NO_LATENCY,
    }
}
