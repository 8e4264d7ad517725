//! The end of an instance.
//!
//! ```text
//! SHUTTING_DOWN → SSH closed → graceful scope ends (goodbye to the
//! coordinator) → stop scripts → OFF or an error state → cron ends
//! → last reports and logs, at most 5 s → everything is torn down
//! ```

use std::sync::PoisonError;
use std::time::Duration;

use super::Instance;
use crate::lifecycle::State;
use crate::scripts::{Stage, StageOutcome};

/// How long SSH clients may take to leave.
const SSH: Duration = Duration::from_secs(5);
/// How long the last reports may take, together.
const REPORTS: Duration = Duration::from_secs(5);
/// How often a shutdown looks whether the coordinator is still there.
const GOODBYE_POLL: Duration = Duration::from_millis(10);
/// How long scripts that were hung up may take.
const SCRIPTS: Duration = Duration::from_secs(12);

impl Instance {
    /// Everything that happens while the control session is still up.
    pub(super) async fn shut_down(&self) {
        self.enter(State::ShuttingDown);
        if let Some(tunnel) = self.tunnel.get() {
            // Before peers are told, so that clients see a clean end.
            tunnel.close_ssh(SSH).await;
        }
        self.graceful.cancel();
        let runner = {
            let slot = self.runner.lock().unwrap_or_else(PoisonError::into_inner);
            slot.clone()
        };
        let stop_scripts = async {
            let Some((runner, mut scripts)) = runner else {
                return State::ShutdownError;
            };
            scripts.retain(|s| s.on_stop);
            // Their own time limits are the only ones.
            match runner.run_stage(scripts, Stage::Stop, &self.never).await {
                StageOutcome::Ok => State::Off,
                StageOutcome::TimedOut => State::ShutdownTimeout,
                StageOutcome::Failed => State::ShutdownError,
            }
        };
        let terminals = async {
            if let Some(tunnel) = self.tunnel.get() {
                tunnel.close_terminals(SSH).await;
            }
        };
        let (last, ()) = tokio::join!(stop_scripts, terminals);
        self.enter(last);
        self.cron.cancel();
        let mut tasks = {
            let mut slot = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *slot)
        };
        let finish = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SCRIPTS, finish).await;
        if tokio::time::timeout(REPORTS, self.reported())
            .await
            .is_err()
        {
            tracing::info!("the control plane did not hear everything in time");
        }
    }

    /// Waits until the control plane knows all there is to know.
    async fn reported(&self) {
        let mut lifecycle = self.lifecycle.subscribe();
        let _ = lifecycle
            .wait_for(crate::lifecycle::Lifecycle::is_settled)
            .await;
        if let Some(tunnel) = self.tunnel.get() {
            // Without a coordinator there is nobody to say goodbye to.
            while tunnel.is_coordinated() {
                let goodbye = tunnel.said_goodbye.cancelled();
                if tokio::time::timeout(GOODBYE_POLL, goodbye).await.is_ok() {
                    break;
                }
            }
        }
        self.logs.drained().await;
        self.completions.drained().await;
    }

    /// What happens after the control session is gone.
    pub(super) async fn end(&self) {
        if let Some(tunnel) = self.tunnel.get() {
            tunnel.close().await;
        }
    }
}
