//! A set of tasks with one owner.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

/// Tasks that end when their owner says so, at the latest when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Starts `task`.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.lock();
        while let Some(done) = set.try_join_next() {
            log_panic(done);
        }
        set.spawn(task);
    }

    /// Waits for all tasks; after `deadline` aborts the rest.
    pub(crate) async fn finish(&self, deadline: Duration) {
        let mut set = std::mem::take(&mut *self.lock());
        let all = async {
            while let Some(done) = set.join_next().await {
                log_panic(done);
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::debug!(left = set.len(), "aborting tasks at the deadline");
        }
        set.shutdown().await;
    }

    /// Aborts all tasks without waiting.
    pub(crate) fn abort(&self) {
        self.lock().abort_all();
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_panic(result: Result<(), tokio::task::JoinError>) {
    if let Err(error) = result
        && error.is_panic()
    {
        tracing::error!(%error, "task failed");
    }
}
