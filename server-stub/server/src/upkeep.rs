//! What has to be done now and then for as long as the server runs.

use std::time::Duration;

use adit_rest::Time;
use adit_store::Purge;

use crate::app::App;

/// How often keys are looked at.
const PERIOD: Duration = Duration::from_secs(10 * 60);

/// How many periods pass between two removals of what is old.
const PURGE_EVERY: u32 = 6;

/// The most steps of one kind in one removal; the rest waits for the next.
const MAX_STEPS: u32 = 50;

/// Pause between two steps, in which others write.
const PAUSE: Duration = Duration::from_millis(20);

/// How often memory is given back that nobody needs any more, be it that of
/// hundreds of agents that left.
const MEMORY: Duration = Duration::from_secs(60);

/// Starts it; it ends when the server shuts down.
pub(crate) fn start(app: &App) {
    let (app, shutdown) = (app.clone(), app.shutdown.clone());
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = run(&app) => {}
            () = give_back() => {}
        }
    });
}

async fn give_back() {
    loop {
        tokio::time::sleep(MEMORY).await;
        // Beside all others: it takes a while after hundreds of agents.
        let done = tokio::task::spawn_blocking(adit_memory::give_back).await;
        if let Err(error) = done {
            tracing::warn!(%error, "could not give memory back");
        }
    }
}

async fn run(app: &App) {
    // Not at once: a server that starts has other things to do.
    for round in 0_u32.. {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = app.coord.rotate_keys(&app.store).await {
            tracing::error!(%error, "could not renew the keys of resume tokens");
        }
        if round.is_multiple_of(PURGE_EVERY) {
            purge(app, Time::now()).await;
        }
    }
}

/// Removes what is old.
pub(crate) async fn purge(app: &App, now: Time) {
    let mut removed = 0;
    for what in Purge::ALL {
        match purge_one(app, what, now).await {
            Ok(rows) => removed += rows,
            Err(error) => tracing::error!(
                ?what,
                error = &error as &dyn std::error::Error,
                "could not remove what is old"
            ),
        }
    }
    if removed == 0 {
        return;
    }
    tracing::info!(rows = removed, "removed what is old");
    if let Err(error) = app.store.shrink().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "could not shrink the database"
        );
    }
}

async fn purge_one(app: &App, what: Purge, now: Time) -> adit_store::Result<u64> {
    let mut removed = 0;
    for _ in 0..MAX_STEPS {
        let step = app.store.purge(what, now).await?;
        removed += step.rows;
        if !step.more {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(removed)
}
