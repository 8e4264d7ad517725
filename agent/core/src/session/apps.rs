//! Checking the health of apps.

use std::time::Duration;

use adit_http::{Client, ClientConfig, Method, ProxyConfig, Url};
use adit_messages::{agent, uuid_to_bytes};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Ended, Session};
use crate::apphealth::{AppHealths, Check};

/// How long changes gather before they are sent.
const GATHER: Duration = Duration::from_secs(1);

impl Session {
    /// Fetches every app's address at its interval and reports changes.
    /// Failed reports are only logged.
    pub(super) async fn apps(&self) -> Ended {
        let checks = match self.agent.manifest.borrow().as_ref() {
            Some(manifest) => manifest.checks.clone(),
            None => return Ok(()),
        };
        let mut healths = AppHealths::new(&checks);
        if healths.is_empty() {
            return Ok(());
        }
        let (results, mut inbox) = mpsc::channel(16);
        let mut running = JoinSet::new();
        for check in checks.into_iter().filter(Check::is_active) {
            running.spawn(watch(check, results.clone()));
        }
        drop(results);
        while let Some((id, ok)) = inbox.recv().await {
            healths.handle_result(id, ok);
            tokio::time::sleep(GATHER).await;
            while let Ok((id, ok)) = inbox.try_recv() {
                healths.handle_result(id, ok);
            }
            let Some(all) = healths.poll_report() else {
                continue;
            };
            let updates = all
                .into_iter()
                .map(
                    |(id, health)| agent::batch_update_app_health_request::HealthUpdate {
                        id: uuid_to_bytes(id),
                        health: health.wire(),
                    },
                )
                .collect();
            let request = agent::BatchUpdateAppHealthRequest { updates };
            if let Err(error) = self.rpc.batch_update_app_healths(&request).await {
                tracing::debug!(%error, "app health was refused");
            }
        }
        Ok(())
    }
}

async fn watch(check: Check, results: mpsc::Sender<([u8; 16], bool)>) {
    let client = match client(&check) {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(error, "an app's health address cannot be used");
            return;
        }
    };
    let limit = check.interval.saturating_sub(Duration::from_millis(1));
    loop {
        tokio::time::sleep(check.interval).await;
        let in_time = tokio::time::timeout(limit, fetch(&client)).await;
        let ok = in_time.unwrap_or(false);
        if results.send((check.id, ok)).await.is_err() {
            return;
        }
    }
}

/// A client without token, headers or proxy: these addresses are inside the
/// workspace.
fn client(check: &Check) -> Result<Client, String> {
    let url: Url = check
        .url
        .parse()
        .map_err(|e| format!("{}: {e}", check.url))?;
    let config = ClientConfig {
        proxy: ProxyConfig::none(),
        ..ClientConfig::new(url)
    };
    Client::new(config).map_err(|e| e.to_string())
}

/// Any answer below 500 is a healthy one.
async fn fetch(client: &Client) -> bool {
    let url = client.base();
    let mut path = url.path().to_owned();
    if let Some(query) = url.query() {
        path.push('?');
        path.push_str(query);
    }
    match client.request(Method::GET, &path, None).await {
        Ok(_) => true,
        Err(error) => error.status().is_some_and(|s| s.as_u16() < 500),
    }
}
