//! One flow over a slow, long, lossy link with a bounded queue, and the
//! kernel's TCP on the same link without a tunnel.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    connect, iperf,
    link::settings,
    speed::{self, Direction, Route},
};
use crate::{
    context::{Context, have},
    net::Path,
    options::Case,
    report::{Better, Report, Row, Sample},
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

pub(super) fn run(context: &mut Context, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(10, 5);
    let mut site = context.site(Path::Link(settings(RATE, 40, 0.0)))?;
    if context.options.wants(Case::Connect) {
        connect::over_link(context, &mut site, report);
    }
    let links = LINKS
        .into_iter()
        .filter(|_| context.options.wants(Case::Lossy));
    for (trip, loss, target) in links {
        site.net.set(settings(RATE, trip, loss));
        // What is still on its way goes the old way.
        thread::sleep(Duration::from_millis(500));
        let outcomes = site.alternate(context.options.runs(), |net, deployment| {
            let before = net.counters()?;
            let began = std::time::Instant::now();
            let tested = speed::test(net, deployment, Route::Direct, Direction::Down, seconds);
            tested.or_else(|error| {
                // Nothing that the client could report: what came over the
                // link is at least known.
                eprintln!("  {}: {error:#}", deployment.subject());
                let counters = net.counters()? - before;
                let bits = counters.link_bytes_to_near as f64 * 8.0;
                Ok(Sample {
                    value: bits / 1e6 / began.elapsed().as_secs_f64(),
                    counters,
                    counted: true,
                    ..Sample::default()
                })
            })
        });
        let metric = format!("{RATE} Mbit/s {trip} ms {} % down", loss * 100.0);
        let mut row = Row::new(CASE, metric, "Mbit/s", Better::Higher).target(target);
        row.adit = outcomes.adit;
        row.coder = outcomes.coder;
        if have("iperf3") {
            for algorithm in ["bbr", "cubic"] {
                let kernel = iperf::down(&site.net, seconds, &["-C", algorithm])?;
                row.beside
                    .push((format!("kernel {algorithm}"), kernel.megabits));
            }
        }
        report.push(row);
    }
    site.keep_logs(&context.options);
    Ok(())
}
