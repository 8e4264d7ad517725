//! Fetching the manifest and everything that waits for it.

use adit_messages::agent;

use super::{Ended, Session, call, until};
use crate::diagnose::SessionError;

impl Session {
    /// The manifest, then the routines that need it.
    pub(super) async fn workspace(&self) -> Ended {
        let graceful = &self.agent.graceful;
        let mut known = false;
        until(graceful, async {
            self.fetch_manifest().await?;
            known = true;
            Ok(())
        })
        .await?;
        if !known {
            return Ok(());
        }
        tokio::try_join!(until(graceful, self.apps()), self.network()).map(|_| ())
    }

    async fn fetch_manifest(&self) -> Ended {
        let request = agent::GetManifestRequest {};
        let proto = call("GetManifest", self.rpc.get_manifest(&request).await)?;
        let config = &self.agent.config;
        let (manifest, secrets) =
            crate::manifest::check(proto, &config.home(), |name| config.var(name))?;
        let directory = manifest.directory.as_deref();
        let request = agent::UpdateStartupRequest {
            startup: Some(agent::Startup {
                version: config.version.clone(),
                expanded_directory: directory
                    .map(|d| d.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                subsystems: config.subsystems.clone(),
            }),
        };
        call("UpdateStartup", self.rpc.update_startup(&request).await)?;
        self.agent.handle_manifest(manifest, secrets).await;
        Ok(())
    }

    /// The tunnel with its coordination, relay maps and statistics.
    async fn network(&self) -> Ended {
        let graceful = &self.agent.graceful;
        // Starting a node takes a moment; lifecycle reports go first.
        tokio::task::yield_now().await;
        let mut tunnel = None;
        until(graceful, async {
            tunnel = Some(self.agent.tunnel().await?);
            Ok(())
        })
        .await?;
        let Some(tunnel) = tunnel else { return Ok(()) };
        tokio::try_join!(
            tunnel.coordinate(&self.tailnet, graceful),
            until(graceful, tunnel.follow_derp_maps(&self.tailnet)),
            until(graceful, self.stats(tunnel)),
        )
        .map(|_| ())
        .map_err(|e: SessionError| e)
    }
}
