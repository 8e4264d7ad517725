//! Scripts on a schedule.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Runner, Stage};
use crate::cron::Schedule;
use crate::logs::Level;
use crate::manifest::Script;

/// Longest sleep at a stretch, so that a changed clock is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Most runs under way at once, over all scripts; a run beyond that is left
/// out.
const MOST_RUNS: usize = 64;

/// Runs scripts on their schedules until `cancel`, which also hangs up those
/// under way. A schedule that cannot be read is told in that script's log; the
/// others go on. Runs of one script may overlap.
pub async fn run_cron(runner: &Runner, scripts: &[Script], cancel: &CancellationToken) {
    let mut jobs = Vec::new();
    for script in scripts.iter().filter(|s| !s.cron.is_empty()) {
        match Schedule::parse(&script.cron) {
            Ok(schedule) => jobs.push((schedule, script.clone(), None)),
            Err(error) => {
                tracing::warn!(script = %script.id, schedule = script.cron, %error, "cannot read a schedule");
                let source = script.log_source.into_bytes();
                let text = format!("the schedule {:?} cannot be used: {error}", script.cron);
                runner.logs.line(source, Level::Error, text);
                runner.logs.flush(source);
            }
        }
    }
    if jobs.is_empty() {
        return;
    }
    let zone = TimeZone::system();
    let mut running = JoinSet::new();
    let mut now = Timestamp::now();
    for (schedule, _, next) in &mut jobs {
        *next = schedule.next_after(now, &zone);
    }
    while let Some(soonest) = jobs.iter().filter_map(|j| j.2).min() {
        let wait = Duration::try_from(soonest.duration_since(now)).unwrap_or(Duration::ZERO);
        tokio::select! {
            () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
            Some(_) = running.join_next(), if !running.is_empty() => {}
            () = cancel.cancelled() => break,
        }
        now = Timestamp::now();
        for (schedule, script, next) in &mut jobs {
            if next.is_none_or(|at| at > now) {
                continue;
            }
            *next = schedule.next_after(now, &zone);
            if running.len() >= MOST_RUNS {
                tracing::warn!(script = %script.id, "too many scheduled runs under way, this one is left out");
                continue;
            }
            let (runner, script, cancel) = (runner.clone(), script.clone(), cancel.clone());
            running.spawn(async move {
                runner.run(&script, Stage::Cron, &cancel).await;
            });
        }
    }
    while running.join_next().await.is_some() {}
}
