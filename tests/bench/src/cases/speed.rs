//! The client's own `speedtest`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    context::{Context, Meter, Site},
    net::Net,
    report::{Better, Report, Row, Sample},
    run::Output,
    subject::{Deployment, WORKSPACE},
};

const CASE: &str = "speed";

/// Which way the bytes of a test go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Down,
    Up,
}

/// Which path they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Direct,
    Relayed,
}

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(6, 3);
    for route in [Route::Direct, Route::Relayed] {
        for direction in [Direction::Down, Direction::Up] {
            let outcomes = site.alternate(context.options.runs(), |net, deployment| {
                test(net, deployment, route, direction, seconds)
            });
            let metric = format!("speedtest {} {}", route.name(), direction.name());
            let mut row = Row::new(CASE, metric, "Mbit/s", Better::Higher);
            row.target = Some(match route {
                Route::Direct => 2500.0,
                Route::Relayed => 1200.0,
            });
            row.adit = outcomes.adit;
            row.coder = outcomes.coder;
            report.push(row);
        }
    }
    Ok(())
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

/// One test of `seconds`.
pub(super) fn test(
    net: &Net,
    deployment: &dyn Deployment,
    route: Route,
    direction: Direction,
    seconds: u32,
) -> Result<Sample> {
    let time = format!("{seconds}s");
    let mut args = Vec::new();
    if route == Route::Relayed {
        args.push("--disable-direct-connections");
    }
    args.extend(["speedtest", WORKSPACE, "--output", "json", "--time", &time]);
    args.extend(["--direction", direction.name()]);
    if route == Route::Direct {
        args.push("--direct");
    }
    let limit = Duration::from_secs(u64::from(seconds) * 4 + 30);
    let meter = Meter::start(net, deployment)?;
    let finished = deployment.run(net, &args, Output::Keep, limit)?;
    let (megabits, bytes) = parse(&finished.stdout)?;
    meter.sample(net, &finished, megabits, bytes)
}

/// Mbit/s and bytes of a whole test.
fn parse(text: &[u8]) -> Result<(f64, f64)> {
    // The real client may print a progress display before the JSON.
    let start = text
        .iter()
        .position(|byte| *byte == b'{')
        .context("no result of the speed test")?;
    let result: Value = serde_json::from_slice(&text[start..]).context("the speed test")?;
    let overall = &result["overall"];
    let number = |name: &str| overall[name].as_f64().context("the speed test's result");
    let megabits = number("throughput_mbits")?;
    let seconds = number("end_time_seconds")? - number("start_time_seconds")?;
    Ok((megabits, megabits * 1e6 / 8.0 * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        let text = br#"{"overall": {"start_time_seconds": 1, "end_time_seconds": 3, "throughput_mbits": 8}}"#;
        assert_eq!(parse(text).unwrap(), (8.0, 2e6));
        assert!(parse(b"").is_err());
        assert!(parse(b"{}").is_err());
    }
}
