//! Time of `ssh workspace -- true`, from start to end of the client.

use anyhow::Result;

use super::link::settings;
use crate::{
    context::{Context, Site},
    net,
    report::{Better, Outcome, Report, Row, percentile},
    run::Output,
    subject::{COMMAND_LIMIT, Deployment, WORKSPACE},
};

const CASE: &str = "connect";

/// Connects of each subject.
const CONNECTS: usize = 20;

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    measure(context, site, report, "veth", 60.0);
    Ok(())
}

/// The same over a link with a round-trip time of 40 ms.
pub(super) fn over_link(context: &Context, site: &mut Site, report: &mut Report) {
    site.net.set(settings(1000, 40, 0.0));
    measure(context, site, report, "1 Gbit/s 40 ms", 450.0);
}

fn measure(context: &Context, site: &mut Site, report: &mut Report, path: &str, target: f64) {
    let connects = context.options.pick(CONNECTS, CONNECTS / 2);
    let outcomes = site.alternate(connects, |net: &net::Net, deployment| {
        let deployment: &dyn Deployment = deployment;
        let args = ["ssh", WORKSPACE, "--", "true"];
        let finished = deployment.run(net, &args, Output::Keep, COMMAND_LIMIT)?;
        Ok((finished.elapsed.as_secs_f64() * 1e3).into())
    });
    let mut row = Row::new(CASE, format!("ssh true, {path}, p50"), "ms", Better::Lower);
    row.target = Some(target);
    row.adit = outcomes.adit.clone();
    row.coder = outcomes.coder.clone();
    report.push(row);
    let mut row = Row::new(CASE, format!("ssh true, {path}, p95"), "ms", Better::Lower);
    row.adit = tail(outcomes.adit);
    row.coder = tail(outcomes.coder);
    report.push(row);
}

fn tail(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Measured(samples) => {
            let values = samples.iter().map(|sample| sample.value).collect();
            Outcome::one(percentile(values, 95).unwrap_or_default())
        }
        other => other,
    }
}
