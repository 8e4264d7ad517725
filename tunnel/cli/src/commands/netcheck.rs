//! `netcheck`: what this machine's network allows.

use std::time::Duration;

use adit_rest::AgentConnectionInfo;
use anyhow::{Context as _, Result};
use serde_json::{Map, json};

use crate::{api::Api, settings::Settings, tunnel};

/// How long to wait for all measurements.
const LIMIT: Duration = Duration::from_secs(10);

/// Prints a report as JSON.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let api = Api::of(settings).await?;
    eprintln!("Gathering a network report. This may take a few seconds...");
    let info: AgentConnectionInfo = api.get("/api/v2/workspaceagents/connection").await?;
    let map = info
        .derp_map
        .as_ref()
        .context("the control plane has no relay: ask its administrator to enable one")?;
    let node = tunnel::bare_node(&api, &info).await?;
    // A home region means that measuring is done.
    let mut announced = node.self_node();
    let measured = tokio::time::timeout(LIMIT, announced.wait_for(Option::is_some))
        .await
        .is_ok();
    let report = node.net_report().await;
    node.close().await;
    let mut regions = Map::new();
    for (id, region) in &map.regions {
        let latency = report
            .latencies
            .iter()
            .find(|(region, _)| i64::from(*region) == *id)
            .map(|(_, latency)| latency.as_secs_f64() * 1000.0);
        let healthy = latency.is_some();
        regions.insert(
            id.to_string(),
            json!({
                "healthy": healthy,
                "severity": if healthy { "ok" } else { "error" },
                "region": region,
                "latency_ms": latency,
            }),
        );
    }
    let text = json!({
        "derp": {
            "healthy": measured,
            "severity": if measured { "ok" } else { "error" },
            "error": report.relay_error,
            "regions": regions,
            "netcheck": {
                "UDP": report.udp,
                "MappingVariesByDestIP": report.mapping_varies,
                "PreferredDERP": report.home_region,
                "Endpoints": report.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
        },
    });
    println!("{}", serde_json::to_string_pretty(&text)?);
    Ok(())
}
