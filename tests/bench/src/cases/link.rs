//! Whether the link does what it is set to, by echo and by the kernel's TCP.

use std::time::Duration;

use anyhow::Result;

use super::iperf;
use crate::{
    context::{Context, have},
    link::Settings,
    net::{Net, Path},
    report::{Better, Report, Row, median, percentile},
};

const CASE: &str = "link";

pub(super) fn run(context: &mut Context, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(10, 3);
    let kernel = have("iperf3");
    if kernel {
        let net = Net::new(Path::Veth)?;
        let mut row = Row::new(CASE, "kernel TCP over veth", "Mbit/s", Better::Higher);
        row.beside = vec![("kernel".into(), iperf::down(&net, seconds, &[])?.megabits)];
        report.push(row);
    }
    for (rate, trip) in [(1000, 0), (1000, 40), (100, 40), (100, 100)] {
        let net = Net::new(Path::Link(settings(rate, trip, 0.0)))?;
        let times: Vec<f64> = net
            .ping(context.options.pick(100, 25))?
            .iter()
            .map(|time| time.as_secs_f64() * 1e3)
            .collect();
        let mut row = Row::new(
            CASE,
            format!("round trip, {rate} Mbit/s {trip} ms"),
            "ms",
            Better::Lower,
        );
        row.beside = vec![
            ("p50".into(), median(times.clone()).unwrap_or_default()),
            ("p95".into(), percentile(times, 95).unwrap_or_default()),
        ];
        report.push(row);
        if kernel {
            let mut row = Row::new(
                CASE,
                format!("kernel, {rate} Mbit/s {trip} ms"),
                "Mbit/s",
                Better::Higher,
            );
            let datagrams = format!("{}M", rate * 11 / 10);
            let before = net.counters()?;
            for (name, flags) in [
                ("BBR", vec!["-C", "bbr"]),
                ("CUBIC", vec!["-C", "cubic"]),
                ("UDP 110 %", vec!["-u", "-b", &datagrams, "-l", "1400"]),
            ] {
                let result = iperf::down(&net, seconds, &flags)?;
                row.beside.push((name.into(), result.megabits));
                if result.retransmits > 0 {
                    row.beside
                        .push((format!("{name} retransmits"), result.retransmits as f64));
                }
            }
            let counted = net.counters()? - before;
            for (name, value) in [
                ("late", counted.link_late),
                ("device drops", counted.device_drops),
                ("queue drops", counted.link_overflowed),
            ] {
                row.beside.push((name.into(), value as f64));
            }
            report.push(row);
        }
    }
    Ok(())
}

/// A link of `rate` Mbit/s with a queue of 512 packets and a round-trip time of
/// `trip` milliseconds that loses this part of the packets each way.
pub(super) fn settings(rate: u64, trip: u64, loss: f64) -> Settings {
    Settings {
        rate: Some(rate * 1_000_000),
        delay: Duration::from_millis(trip) / 2,
        queue: 512,
        loss,
        ..Settings::default()
    }
}
