//! The file of network figures that IDE plugins show: `<ppid>.json`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use adit_engine::Path as NetPath;
use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle};

use crate::{private, tunnel::Tunnel};

/// What the plugins read. All keys are always there.
#[derive(Debug, Serialize)]
struct NetworkInfo {
    p2p: bool,
    /// Milliseconds.
    latency: f64,
    preferred_derp: String,
    /// Milliseconds by relay region.
    derp_latency: BTreeMap<String, f64>,
    upload_bytes_sec: u64,
    download_bytes_sec: u64,
    using_coder_connect: bool,
}

/// Rewrites the file until dropped, and removes it then.
#[derive(Debug)]
pub(crate) struct Writer {
    task: JoinHandle<()>,
    file: PathBuf,
    failure: watch::Receiver<Option<String>>,
}

impl Writer {
    /// Starts writing to `dir`, which is created if it does not exist.
    pub(crate) fn start(dir: &Path, every: Duration, tunnel: &Tunnel) -> Result<Self> {
        private::create_dir(dir, 0o700).with_context(|| format!("create {}", dir.display()))?;
        let file = dir.join(format!("{}.json", super::parent_id()));
        let (tell, failure) = watch::channel(None);
        let task = tokio::spawn({
            let (file, tunnel) = (file.clone(), tunnel.clone());
            async move {
                let every = every.max(Duration::from_millis(100));
                let mut last: Option<(Instant, u64, u64)> = None;
                loop {
                    let info = collect(&tunnel, &mut last).await;
                    if let Err(error) = write(&file, &info) {
                        let _ = tell.send(Some(format!("write {}: {error}", file.display())));
                        return;
                    }
                    tokio::time::sleep(every).await;
                }
            }
        });
        Ok(Self {
            task,
            file,
            failure,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.file);
    }
}

/// Completes when the file cannot be written; never without a writer.
pub(crate) async fn failed(writer: Option<&Writer>) -> anyhow::Error {
    if let Some(writer) = writer {
        let mut failure = writer.failure.clone();
        if let Ok(text) = failure.wait_for(Option::is_some).await {
            return anyhow::anyhow!("{}", text.as_deref().unwrap_or_default());
        }
    }
    std::future::pending().await
}

async fn collect(tunnel: &Tunnel, last: &mut Option<(Instant, u64, u64)>) -> NetworkInfo {
    let status = tunnel.peer_status().await;
    let report = tunnel.node().net_report().await;
    let now = Instant::now();
    let (sent, received) = status
        .as_ref()
        .map_or((0, 0), |status| (status.tx_bytes, status.rx_bytes));
    let (upload, download) = match last.replace((now, sent, received)) {
        Some((then, sent_then, received_then)) => {
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            let rate = |bytes: u64| (bytes as f64 / seconds) as u64;
            (
                rate(sent.saturating_sub(sent_then)),
                rate(received.saturating_sub(received_then)),
            )
        }
        None => (0, 0),
    };
    let p2p = status
        .as_ref()
        .is_some_and(|status| matches!(status.path, Some(NetPath::Direct(_))));
    let millis = |latency: Duration| latency.as_secs_f64() * 1000.0;
    let home = report.home_region;
    let relayed = report
        .latencies
        .iter()
        .find(|(region, _)| *region == home)
        .map(|(_, latency)| *latency);
    let latency = if p2p {
        status.as_ref().and_then(|status| status.latency)
    } else {
        relayed
    };
    NetworkInfo {
        p2p,
        latency: latency.map_or(0.0, millis),
        preferred_derp: tunnel.region_name(home),
        derp_latency: report
            .latencies
            .iter()
            .map(|(region, latency)| (tunnel.region_name(*region), millis(*latency)))
            .collect(),
        upload_bytes_sec: upload,
        download_bytes_sec: download,
        using_coder_connect: false,
    }
}

fn write(file: &Path, info: &NetworkInfo) -> io::Result<()> {
    let text = serde_json::to_vec(info)?;
    let temporary = file.with_extension("tmp");
    let mut out = private::create_file(&temporary)?;
    io::Write::write_all(&mut out, &text)?;
    fs::rename(&temporary, file)
}
