//! OpenSSH through the client's `ssh --stdio`: many bytes both ways.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    context::{Context, Meter, Site, have},
    net::Net,
    report::{Better, Outcome, Report, Row, Sample},
    run::{self, Output},
    subject::{Deployment, WORKSPACE, quote},
};

const CASE: &str = "openssh";

/// How long one transfer may take.
const LIMIT: Duration = Duration::from_secs(300);

const MIB: u64 = 1 << 20;

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let sizes = context.options.pick([1024, 512], [256, 128]);
    for (up, size) in [(false, sizes[0]), (true, sizes[1])] {
        let mut row = Row::new(
            CASE,
            format!("ssh --stdio, {size} MiB {}", if up { "up" } else { "down" }),
            "Mbit/s",
            Better::Higher,
        )
        .target(1200.0);
        if have("ssh") {
            let outcomes = site.alternate(context.options.runs(), |net, deployment| {
                transfer(net, deployment, up, size * MIB)
            });
            row.adit = outcomes.adit;
            row.coder = outcomes.coder;
        } else {
            row.adit = Outcome::Skipped("ssh is not installed".into());
            row.coder = row.adit.clone();
        }
        report.push(row);
    }
    Ok(())
}

fn transfer(net: &Net, deployment: &dyn Deployment, up: bool, bytes: u64) -> Result<Sample> {
    let proxy = format!("{} ssh --stdio {WORKSPACE}", deployment.client_line());
    let ssh = format!(
        "ssh -F /dev/null -o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o ProxyCommand={} bench@{WORKSPACE}",
        quote(&proxy)
    );
    let mut command = Command::new("sh");
    command.arg("-c").arg(if up {
        format!("head -c {bytes} /dev/zero | {ssh} 'wc -c'")
    } else {
        format!("{ssh} 'head -c {bytes} /dev/zero' </dev/null")
    });
    let meter = Meter::start(net, deployment)?;
    let output = if up { Output::Keep } else { Output::Count };
    let finished = run::run(&net.near, &mut command, output, LIMIT)?.ok()?;
    let moved = if up {
        String::from_utf8_lossy(&finished.stdout).trim().parse()?
    } else {
        finished.bytes
    };
    ensure!(moved == bytes, "{moved} of {bytes} bytes came");
    let megabits = bytes as f64 * 8.0 / 1e6 / finished.elapsed.as_secs_f64();
    meter.sample(net, &finished, megabits, bytes as f64)
}
