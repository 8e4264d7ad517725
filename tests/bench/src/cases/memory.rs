//! Memory and wake-ups of agent and server: idle, and after much data.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::flows;
use crate::{
    context::{Context, Site},
    net::Net,
    proc,
    report::{Better, Outcome, Report, Row},
    run::Output,
    subject::{Deployment, Subject, WORKSPACE},
};

const CASE: &str = "memory";

/// How long one GiB may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Pause between the end of a transfer and the look at the memory.
const SETTLE: Duration = Duration::from_secs(5);

/// How long memory may take to be given back before it is compared with what
/// it was.
const BACK: Duration = Duration::from_secs(45);

/// Short flows after all other data.
const FLOWS: usize = 1000;

/// Metric, unit and target of each row, in order.
const ROWS: [(&str, &str, Option<f64>); 15] = [
    ("agent RSS idle", "MB", Some(8.0)),
    ("agent PSS idle", "MB", None),
    ("agent anonymous idle", "MB", None),
    ("agent threads idle", "", None),
    ("agent wake-ups idle", "1/s", Some(5.0)),
    ("agent CPU idle", "% of a core", None),
    ("server RSS idle", "MB", Some(25.0)),
    ("server PSS idle", "MB", None),
    ("agent RSS after data, direct", "MB", Some(16.0)),
    ("agent RSS after as much more, relayed", "MB", Some(16.0)),
    ("server RSS after the relayed data", "MB", None),
    ("server PSS after the relayed data", "MB", None),
    ("agent RSS after that and 1000 flows", "MB", Some(16.0)),
    ("the same, of that idle", "%", Some(110.0)),
    (
        "agent anonymous memory then, of that idle",
        "%",
        Some(110.0),
    ),
];

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let idle = Duration::from_secs(context.options.pick(60, 10));
    let window = Duration::from_secs(context.options.pick(30, 5));
    let gigabytes: u64 = context.options.pick(10, 1);
    let mut figures: BTreeMap<Subject, [f64; ROWS.len()]> = BTreeMap::new();
    let outcomes = site.alternate(1, |net, deployment| {
        let values = measure(net, deployment, idle, window, gigabytes)?;
        figures.insert(deployment.subject(), values);
        Ok(0.0.into())
    });
    for (index, (metric, unit, target)) in ROWS.into_iter().enumerate() {
        let metric = metric.replace("data", &format!("{gigabytes} GB"));
        let mut row = Row::new(CASE, metric, unit, Better::Lower);
        row.target = target;
        let value = |subject, otherwise: &Outcome| {
            figures
                .get(&subject)
                .map_or(otherwise.clone(), |values| Outcome::one(values[index]))
        };
        row.adit = value(Subject::Adit, &outcomes.adit);
        row.coder = value(Subject::Coder, &outcomes.coder);
        report.push(row);
    }
    Ok(())
}

fn measure(
    net: &Net,
    deployment: &mut dyn Deployment,
    idle: Duration,
    window: Duration,
    gigabytes: u64,
) -> Result<[f64; ROWS.len()]> {
    let (agent, server) = (deployment.agent()?, deployment.server());
    let deployment: &dyn Deployment = deployment;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    // A few connections first: what is used once stays.
    deployment.run(net, &["ssh", WORKSPACE, "--", "true"], Output::Count, LIMIT)?;
    thread::sleep(idle);
    let memory = proc::memory(agent)?;
    let threads = proc::threads(agent) as f64;
    let (switches, cpu, began) = (proc::switches(agent), proc::cpu(agent), Instant::now());
    thread::sleep(window);
    let seconds = began.elapsed().as_secs_f64();
    let wakes = proc::switches(agent).saturating_sub(switches) as f64 / seconds;
    let busy = proc::cpu(agent).saturating_sub(cpu).as_secs_f64() / seconds * 100.0;
    let control = proc::memory(server)?;
    let move_data = |first: &[&str]| -> Result<()> {
        let bytes = 1_000_000_000.to_string();
        for _ in 0..gigabytes {
            let mut args = first.to_vec();
            args.extend(["ssh", WORKSPACE, "--", "head", "-c", &bytes, "/dev/zero"]);
            let moved = deployment.run(net, &args, Output::Count, LIMIT)?.bytes;
            anyhow::ensure!(moved == 1_000_000_000, "only {moved} bytes came");
        }
        thread::sleep(SETTLE);
        Ok(())
    };
    move_data(&[])?;
    let direct = proc::memory(agent)?;
    move_data(&["--disable-direct-connections"])?;
    let relayed = proc::memory(agent)?;
    let relay = proc::memory(server)?;
    flows::churn(net, deployment, FLOWS)?;
    thread::sleep(BACK);
    let end = proc::memory(agent)?;
    let part = |end: u64, start: u64| end as f64 / start.max(1) as f64 * 100.0;
    Ok([
        megabytes(memory.rss),
        megabytes(memory.pss),
        megabytes(memory.anonymous),
        threads,
        wakes,
        busy,
        megabytes(control.rss),
        megabytes(control.pss),
        megabytes(direct.rss),
        megabytes(relayed.rss),
        megabytes(relay.rss),
        megabytes(relay.pss),
        megabytes(end.rss),
        part(end.rss, memory.rss),
        part(end.anonymous, memory.anonymous),
    ])
}
