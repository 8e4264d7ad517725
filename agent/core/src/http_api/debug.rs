//! Routes for support bundles.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use adit_engine::{Node, Path as NetPath};
use http::StatusCode;
use serde_json::json;

use super::Reply;
use super::reply::{plain, text};
use crate::manifest::Manifest;

/// Most bytes of one log file.
const ONE_FILE: u64 = 10 << 20;
/// Most bytes of log files together.
const ALL_FILES: usize = 100 << 20;
const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) async fn logs(file: PathBuf, query: &str) -> Reply {
    let after = url::form_urlencoded::parse(query.as_bytes())
        .find(|(k, _)| k == "after")
        .map(|(_, v)| v.into_owned());
    let after = match after.as_deref().map(str::parse::<jiff::Timestamp>) {
        None => None,
        Some(Ok(t)) => Some(SystemTime::from(t)),
        Some(Err(e)) => {
            return plain(StatusCode::BAD_REQUEST, format!("invalid after: {e}\n"));
        }
    };
    let read = tokio::task::spawn_blocking(move || match after {
        None => head(&file),
        Some(after) => with_rotated(&file, after),
    });
    match read.await.map_err(io::Error::other).flatten() {
        Ok(body) => text(StatusCode::OK, PLAIN, body),
        Err(e) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("could not open log file: {e}"),
        ),
    }
}

fn head(file: &Path) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    File::open(file)?.take(ONE_FILE).read_to_end(&mut out)?;
    Ok(out)
}

/// The active log, then rotated ones not older than `after`, newest first.
fn with_rotated(file: &Path, after: SystemTime) -> io::Result<Vec<u8>> {
    let mut rotated = Vec::new();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let prefix = format!("{stem}-");
    if let Some(dir) = file.parent() {
        for entry in std::fs::read_dir(dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(changed) = entry.metadata().and_then(|m| m.modified()) else {
                continue;
            };
            let dated = name
                .strip_prefix(&prefix)
                .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
            if dated && name.ends_with(".log") && changed >= after {
                rotated.push((changed, name, entry.path()));
            }
        }
    }
    rotated.sort_by_key(|r| std::cmp::Reverse(r.0));
    let mut out = Vec::new();
    let changed = std::fs::metadata(file)?.modified()?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let files = std::iter::once((changed, name.into_owned(), file.to_owned())).chain(rotated);
    for (n, (changed, name, path)) in files.enumerate() {
        let Ok(body) = head(&path) else { continue };
        if out.len() + body.len() > ALL_FILES {
            break;
        }
        if n > 0 {
            out.push(b'\n');
        }
        let when = jiff::Timestamp::try_from(changed).unwrap_or_default();
        let second = jiff::Timestamp::from_second(when.as_second()).unwrap_or(when);
        out.extend(format!("=== {name} (mtime {second}) ===\n").into_bytes());
        out.extend(body);
    }
    Ok(out)
}

pub(super) fn manifest(manifest: Option<&Manifest>) -> Reply {
    let Some(m) = manifest else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "no manifest in-memory");
    };
    let hidden = |v: &std::ffi::OsStr| if v.is_empty() { "" } else { "***REDACTED***" };
    let environment: BTreeMap<String, &str> = m
        .environment
        .iter()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), hidden(v)))
        .collect();
    let scripts: Vec<_> = m
        .scripts
        .iter()
        .map(|s| {
            json!({
                "id": s.id, "log_source_id": s.log_source, "log_path": s.log_path,
                "script": s.text, "cron": s.cron, "run_on_start": s.on_start,
                "run_on_stop": s.on_stop, "display_name": s.name,
                "timeout": s.timeout.map_or(0, |t| t.as_nanos()),
            })
        })
        .collect();
    let metadata: Vec<_> = m
        .metadata
        .iter()
        .map(|d| {
            json!({
                "key": d.key, "script": d.script,
                "interval": d.interval.as_secs(), "timeout": d.timeout.as_secs(),
            })
        })
        .collect();
    let page = json!({
        "parent_id": m.parent_id.unwrap_or_default(),
        "agent_id": m.agent_id,
        "agent_name": m.agent,
        "owner_name": m.owner,
        "workspace_id": m.workspace_id,
        "workspace_name": m.workspace,
        "git_auth_configs": m.git_auth_configs,
        "vscode_port_proxy_uri": m.vscode_proxy_uri,
        "derp_force_websockets": m.force_websockets,
        "environment_variables": environment,
        "directory": m.directory.as_deref().map(Path::to_string_lossy).unwrap_or_default(),
        "motd_file": m.motd_path,
        "disable_direct_connections": m.disable_direct,
        "metadata": metadata,
        "scripts": scripts,
        "apps": m.checks.iter().map(|c| json!({"id": uuid::Uuid::from_bytes(c.id), "healthcheck": {"url": c.url, "interval": c.interval.as_secs(), "threshold": c.threshold}})).collect::<Vec<_>>(),
        "devcontainers": [],
    });
    let mut body = page.to_string();
    body.push('\n');
    text(StatusCode::OK, PLAIN, body)
}

pub(super) async fn network(node: Option<&Node>) -> Reply {
    let Some(node) = node else {
        return plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "network is not ready yet",
        );
    };
    let report = node.net_report().await;
    let mut page = format!(
        "<h1>network</h1><h2>relays</h2><ul><li>home region {}</li>",
        report.home_region
    );
    for (region, latency) in &report.latencies {
        let _ = write!(page, "<li>region {region}: {latency:?}</li>");
    }
    page.push_str("</ul><h2>own endpoints</h2><ul>");
    for endpoint in &report.endpoints {
        let _ = write!(page, "<li>{endpoint}</li>");
    }
    page.push_str("</ul><h2>peers</h2><ul>");
    for peer in node.status().await {
        let path = match peer.path {
            Some(NetPath::Direct(at)) => format!("direct {at}"),
            Some(NetPath::Derp(region)) => format!("relay {region}"),
            None => "no path".to_owned(),
        };
        let _ = write!(
            page,
            "<li>{} {:?}: {path}, received {} sent {}</li>",
            peer.id, peer.addresses, peer.rx_bytes, peer.tx_bytes
        );
    }
    page.push_str("</ul>\n");
    text(StatusCode::OK, "text/html; charset=utf-8", page)
}

/// There is no separate switch for network logging; the answer is that of an
/// agent that has one, so that support tools go on.
pub(super) fn logging(state: &str) -> Reply {
    let Some(on) = adit_rest::boolean(state) else {
        return plain(
            StatusCode::BAD_REQUEST,
            format!("invalid state {state:?}, must be a boolean"),
        );
    };
    plain(
        StatusCode::OK,
        format!("updated magicsock debug logging to {on}"),
    )
}
