//! Time of `ssh workspace -- true`, from start to end of the client.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::link::settings;
use crate::{
    context::{Context, Site, have},
    net,
    report::{Better, Outcome, Report, Row, Sample, percentile},
    run::{self, Output},
    subject::{COMMAND_LIMIT, Deployment, WORKSPACE, quote},
};

const CASE: &str = "connect";

/// Connects of each subject.
const CONNECTS: usize = 20;

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    measure(context, site, report, "veth", [60.0, 15.0]);
    Ok(())
}

/// The same over a link with a round-trip time of 40 ms.
pub(super) fn over_link(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    site.net.set(settings(1000, 40, 0.0));
    measure(context, site, report, "1 Gbit/s 40 ms", [450.0, 180.0]);
    Ok(())
}

/// `targets` are for a new connection and for one that is kept.
fn measure(
    context: &Context,
    site: &mut Site,
    report: &mut Report,
    path: &str,
    [target, warm_target]: [f64; 2],
) {
    let connects = context.options.pick(CONNECTS, CONNECTS / 2);
    let outcomes = site.alternate(connects, |net: &net::Net, deployment| {
        let deployment: &dyn Deployment = deployment;
        let args = ["ssh", WORKSPACE, "--", "true"];
        let finished = deployment.run(net, &args, Output::Keep, COMMAND_LIMIT)?;
        Ok((finished.elapsed.as_secs_f64() * 1e3).into())
    });
    report.push(
        Row::new(CASE, format!("ssh true, {path}, p50"), "ms", Better::Lower)
            .target(target)
            .of(outcomes.adit.clone(), outcomes.coder.clone()),
    );
    report.push(
        Row::new(CASE, format!("ssh true, {path}, p95"), "ms", Better::Lower)
            .of(tail(outcomes.adit), tail(outcomes.coder)),
    );
    let metric = format!("ssh true over a kept connection, {path}, p50");
    let row = Row::new(CASE, metric, "ms", Better::Lower).target(warm_target);
    if !have("ssh") {
        let missing = Outcome::Skipped("ssh is not installed".into());
        report.push(row.of(missing.clone(), missing));
        return;
    }
    // Another path has another connection.
    let control = context.dir.join(format!("kept-{warm_target}"));
    let outcomes = site.alternate(connects, |net, deployment| {
        let socket = control.with_extension(deployment.subject().to_string());
        kept(net, deployment, &socket)
    });
    report.push(row.of(outcomes.adit, outcomes.coder));
}

/// Milliseconds of OpenSSH's `ssh true` over a connection through the client
/// that the first one leaves open.
fn kept(net: &net::Net, deployment: &dyn Deployment, socket: &Path) -> Result<Sample> {
    let line = format!(
        "ssh -F /dev/null -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o ControlMaster=auto -o ControlPath={} \
         -o ControlPersist=60 -o ProxyCommand={} bench@{WORKSPACE} true",
        quote(&socket.to_string_lossy()),
        quote(&format!(
            "{} ssh --stdio {WORKSPACE}",
            deployment.client_line()
        )),
    );
    if !socket.exists() {
        // In a group of its own, so that it stays.
        let first = format!("setsid {line} </dev/null >/dev/null 2>&1");
        let mut first_one = Command::new("sh");
        first_one.args(["-c", &first]);
        run::run(&net.near, &mut first_one, Output::Count, COMMAND_LIMIT)?.ok()?;
    }
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line} </dev/null")]);
    let finished = run::run(&net.near, &mut command, Output::Keep, COMMAND_LIMIT)?.ok()?;
    Ok((finished.elapsed.as_secs_f64() * 1e3).into())
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
