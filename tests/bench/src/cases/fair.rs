//! How flows share a link: two of one subject, and one beside the kernel's
//! CUBIC.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    iperf,
    link::settings,
    speed::{self, Plan},
};
use crate::{
    context::{Context, Site, have},
    link::Settings,
    net::Net,
    report::{Better, Outcome, Report, Row, Sample},
    run::{self, Output},
    subject::Deployment,
};

const CASE: &str = "fair";

/// Queues in packets; the first is the usual one.
const QUEUES: [usize; 3] = [512, 32, 10_000];

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(20, 8);
    let runs = context.options.pick(3, 1);
    for queue in QUEUES {
        site.net.set(Settings {
            queue,
            ..settings(100, 40, 0.0)
        });
        thread::sleep(Duration::from_millis(500));
        let metric = format!("smaller of two flows' shares, queue {queue}");
        if context.options.wants_row(&metric) {
            let outcomes = site.alternate(runs, |net, deployment| two(net, deployment, seconds));
            report.push(
                Row::new(CASE, metric, "%", Better::Higher)
                    .target(35.0)
                    .of(outcomes.adit, outcomes.coder),
            );
        }
        let metric = format!("share beside the kernel's CUBIC, queue {queue}");
        if context.options.wants_row(&metric) {
            let row = Row::new(CASE, metric, "%", Better::Lower).target(70.0);
            if have("iperf3") {
                let outcomes =
                    site.alternate(runs, |net, deployment| beside(net, deployment, seconds));
                report.push(row.of(outcomes.adit, outcomes.coder));
            } else {
                let missing = Outcome::Skipped("iperf3 is not installed".into());
                report.push(row.of(missing.clone(), missing));
            }
        }
    }
    Ok(())
}

/// Mbit/s of a test that runs at the same time as another.
fn flow<'a>(
    net: &'a Net,
    deployment: &dyn Deployment,
    seconds: u32,
) -> impl FnOnce() -> Result<f64> + Send + use<'a> {
    let plan = Plan::down(seconds);
    let mut command = deployment.client(&[]);
    plan.add_to(&mut command);
    move || {
        let finished = run::run(&net.near, &mut command, Output::Keep, plan.limit())?.ok()?;
        Ok(speed::parse(&finished.stdout)?.0)
    }
}

/// Per cent that the smaller of two flows gets.
fn two(net: &Net, deployment: &dyn Deployment, seconds: u32) -> Result<Sample> {
    let before = net.counters()?;
    let flows = [(); 2].map(|()| flow(net, deployment, seconds));
    let joined = thread::scope(|scope| {
        let threads = flows.map(|flow| scope.spawn(flow));
        threads.map(|thread| thread.join())
    });
    let mut rates = Vec::new();
    for rate in joined {
        match rate {
            Ok(rate) => rates.push(rate?),
            Err(_) => bail!("a thread panicked"),
        }
    }
    let sum: f64 = rates.iter().sum();
    let least = rates.into_iter().reduce(f64::min).context("no flow")?;
    Ok(Sample {
        value: least / sum * 100.0,
        counters: net.counters()? - before,
        ..Sample::default()
    })
}

/// Per cent that a flow gets beside one of the kernel without a tunnel.
fn beside(net: &Net, deployment: &dyn Deployment, seconds: u32) -> Result<Sample> {
    let before = net.counters()?;
    let flow = flow(net, deployment, seconds);
    let (own, kernel) = thread::scope(|scope| {
        let own = scope.spawn(flow);
        let kernel = iperf::down(net, seconds, &["-C", "cubic"]);
        (own.join(), kernel)
    });
    let Ok(own) = own else {
        bail!("a thread panicked");
    };
    let (own, kernel) = (own?, kernel?.megabits);
    Ok(Sample {
        value: own / (own + kernel) * 100.0,
        counters: net.counters()? - before,
        ..Sample::default()
    })
}
