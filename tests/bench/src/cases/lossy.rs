//! One flow over a slow, long, lossy link with a bounded queue, and the
//! kernel's TCP on the same link without a tunnel.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{iperf, link::settings, speed::Plan};
use crate::{
    context::{Context, Site, have},
    link::Settings,
    report::{Better, Report, Row},
};

const CASE: &str = "lossy";

/// Mbit/s through the link.
const RATE: u64 = 100;

/// Round-trip time in ms, lost part each way, Mbit/s to reach.
const LINKS: [(u64, f64, f64); 5] = [
    (40, 0.0, 87.0),
    (40, 0.001, 85.0),
    (40, 0.01, 80.0),
    (100, 0.0, 82.0),
    (100, 0.005, 75.0),
];

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let runs = context.options.runs();
    for (trip, loss, target) in LINKS {
        measure(context, site, report, (trip, loss, 512), target, runs)?;
    }
    Ok(())
}

/// The same with a queue much shorter and one much longer: neither may change
/// the figures by more than 15 %.
pub(super) fn queues(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let runs = context.options.pick(2, 1);
    for queue in [32, 10_000] {
        for (trip, loss, target) in LINKS {
            let usual = report.median(&metric(trip, loss, 512)).unwrap_or(target);
            measure(
                context,
                site,
                report,
                (trip, loss, queue),
                usual * 0.85,
                runs,
            )?;
        }
    }
    Ok(())
}

fn metric(trip: u64, loss: f64, queue: usize) -> String {
    let usual = format!("{RATE} Mbit/s {trip} ms {} % down", loss * 100.0);
    match queue {
        512 => usual,
        queue => format!("{usual}, queue {queue}"),
    }
}

fn measure(
    context: &Context,
    site: &mut Site,
    report: &mut Report,
    (trip, loss, queue): (u64, f64, usize),
    target: f64,
    runs: usize,
) -> Result<()> {
    let metric = metric(trip, loss, queue);
    if !context.options.wants_row(&metric) {
        return Ok(());
    }
    let seconds = context.options.pick(10, 5);
    site.net.set(Settings {
        queue,
        ..settings(RATE, trip, loss)
    });
    // What is still on its way goes the old way.
    thread::sleep(Duration::from_millis(500));
    let outcomes = site.alternate(runs, |net, deployment| {
        Plan::down(seconds).test_or_count(net, deployment, deployment.client(&[]))
    });
    let mut row = Row::new(CASE, metric, "Mbit/s", Better::Higher)
        .target(target)
        .of(outcomes.adit, outcomes.coder);
    if have("iperf3") {
        for algorithm in ["bbr", "cubic"] {
            let kernel = iperf::down(&site.net, seconds, &["-C", algorithm])?;
            row.beside
                .push((format!("kernel {algorithm}"), kernel.megabits));
        }
    }
    report.push(row);
    Ok(())
}
