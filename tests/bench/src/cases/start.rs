//! From the start of the agent's process until its scripts begin and are done,
//! as the server has it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::{
    context::{Context, Site},
    report::{Better, Outcome, Report, Row, Sample},
    subject::{Deployment, Subject},
};

const CASE: &str = "start";

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let mut ready: BTreeMap<Subject, Vec<Sample>> = BTreeMap::new();
    let started = site.alternate(context.options.runs(), |net, deployment| {
        let spawned = deployment.restart_agent(net)?;
        let deployment: &dyn Deployment = deployment;
        let state = deployment.ready(net, spawned)?;
        let since = |at: Option<std::time::Duration>| {
            at.and_then(|at| at.checked_sub(spawned))
                .map(|time| time.as_secs_f64() * 1e3)
                .context("the server says that it was ready before it started")
        };
        ready
            .entry(deployment.subject())
            .or_default()
            .push(since(state.ready_at)?.into());
        Ok(since(state.started_at)?.into())
    });
    let mut row = Row::new(CASE, "agent start → scripts begin", "ms", Better::Lower).target(20.0);
    row.adit = started.adit.clone();
    row.coder = started.coder.clone();
    report.push(row);
    let mut row = Row::new(CASE, "agent start → ready", "ms", Better::Lower).target(25.0);
    let mut outcome =
        |subject, otherwise| ready.remove(&subject).map_or(otherwise, Outcome::Measured);
    row.adit = outcome(Subject::Adit, started.adit);
    row.coder = outcome(Subject::Coder, started.coder);
    report.push(row);
    Ok(())
}
