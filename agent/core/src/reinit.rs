//! Waiting for a prebuilt workspace to be claimed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use adit_http::{Client, Error, EventKind, SseOptions, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::backoff::{Backoff, Limits};
use crate::config::Auth;

const PATH: &str = "/api/v2/workspaceagents/me/reinit?wait=true";

/// The workspace got an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Claim {
    /// The workspace.
    pub workspace_id: Uuid,
    /// Its new owner; nil from servers that do not say.
    #[serde(default)]
    pub owner_id: Uuid,
}

/// Remembers for whom the agent was initialised, across restarts of the
/// process, so that an event that is delivered again changes nothing.
#[derive(Debug)]
pub struct Memory {
    dir: PathBuf,
    last: Option<Claim>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    owner_id: Uuid,
}

impl Memory {
    /// A memory whose files are in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            last: None,
        }
    }

    /// Whether this claim was applied before.
    #[must_use]
    pub fn is_known(&self, claim: &Claim) -> bool {
        if claim.owner_id.is_nil() {
            return false;
        }
        if self.last.is_some_and(|l| l.owner_id == claim.owner_id) {
            return true;
        }
        let Ok(text) = std::fs::read(self.file(claim)) else {
            return false;
        };
        serde_json::from_slice::<Record>(&text).is_ok_and(|r| r.owner_id == claim.owner_id)
    }

    /// Notes that `claim` is being applied. If the process ends right after,
    /// the next one starts for the new owner anyway.
    pub fn remember(&mut self, claim: &Claim) {
        self.last = Some(*claim);
        if claim.owner_id.is_nil() {
            return;
        }
        if let Err(error) = self.write(claim) {
            tracing::warn!(%error, "cannot remember the claim; a restart may run start scripts once more");
        }
    }

    fn write(&self, claim: &Claim) -> io::Result<()> {
        crate::scripts::make_private_dir(&self.dir)?;
        let record = Record {
            owner_id: claim.owner_id,
        };
        let path = self.file(claim);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&record)?)?;
        std::fs::rename(new, path)
    }

    fn file(&self, claim: &Claim) -> PathBuf {
        self.dir.join(format!("claim-{}.json", claim.workspace_id))
    }
}

/// Polls for claims until the control plane says that there will be none.
/// Claims that were applied before end it too.
pub async fn poll(
    client: Client,
    auth: Auth,
    retry: Limits,
    mut memory: Memory,
    claims: mpsc::Sender<Claim>,
) {
    let mut backoff = Backoff::new(retry);
    let mut last = String::new();
    loop {
        let wait = backoff.next_wait(Instant::now(), rand::random(), false);
        tokio::time::sleep(wait).await;
        // The control session is the one to say why there is none.
        let Ok(token) = auth.token() else { continue };
        let _ = client.set_session_token(&token);
        let began = Instant::now();
        match wait_once(&client).await {
            Ok(claim) => {
                if memory.is_known(&claim) {
                    tracing::info!("the workspace was claimed before; waiting for no other owner");
                    return;
                }
                memory.remember(&claim);
                backoff.reset();
                if claims.send(claim).await.is_err() {
                    return;
                }
            }
            Err(Ended::Never) => {
                tracing::debug!("this is not a prebuilt workspace waiting for an owner");
                return;
            }
            Err(Ended::Failed(reason)) => {
                backoff.handle_connected(began);
                backoff.handle_disconnected(Instant::now());
                if reason != last {
                    tracing::debug!(reason, "waiting for a claim failed, trying again");
                    last = reason;
                }
            }
        }
    }
}

enum Ended {
    /// There will be no claim.
    Never,
    Failed(String),
}

async fn wait_once(client: &Client) -> Result<Claim, Ended> {
    let failed = |e: Error| {
        if e.status() == Some(StatusCode::CONFLICT) {
            Ended::Never
        } else {
            Ended::Failed(e.to_string())
        }
    };
    let mut events = client
        .sse(PATH, SseOptions::default())
        .await
        .map_err(failed)?;
    loop {
        let event = match events.next().await {
            None => return Err(Ended::Failed("the stream ended".to_owned())),
            Some(event) => event.map_err(failed)?,
        };
        match event.kind {
            EventKind::Ping => {}
            EventKind::Data => {
                return serde_json::from_str(&event.data)
                    .map_err(|e| Ended::Failed(format!("a claim that cannot be read: {e}")));
            }
            EventKind::Error => return Err(Ended::Failed("an error event".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: u128) -> Claim {
        Claim {
            workspace_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(owner),
        }
    }

    #[test]
    fn remembers_over_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut m = Memory::new(dir.path());
        assert!(!m.is_known(&claim(7)));
        m.remember(&claim(7));
        assert!(m.is_known(&claim(7)));
        let again = Memory::new(dir.path());
        assert!(again.is_known(&claim(7)));
        assert!(!again.is_known(&claim(8)));
        let elsewhere = Claim {
            workspace_id: Uuid::from_u128(2),
            ..claim(7)
        };
        assert!(!again.is_known(&elsewhere));
    }

    #[test]
    fn a_claim_without_owner_is_never_a_duplicate() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut m = Memory::new(dir.path());
        m.remember(&claim(0));
        assert!(!m.is_known(&claim(0)));
    }

    #[test]
    fn reads_the_event() {
        let text = r#"{"workspace_id":"00000000-0000-0000-0000-000000000001","reason":"prebuild_claimed"}"#;
        let c: Claim = serde_json::from_str(text).expect("a claim");
        assert!(c.owner_id.is_nil());
    }
}
