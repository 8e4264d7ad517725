//! The client's own `speedtest`.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    context::{Context, Meter, Site},
    net::Net,
    report::{Better, Report, Row, Sample},
    run::{self, Output},
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
            let metric = format!("speedtest {} {}", route.name(), direction.name());
            if !context.options.wants_row(&metric) {
                continue;
            }
            let plan = Plan {
                route,
                direction,
                seconds,
            };
            let outcomes = site.alternate(context.options.runs(), |net, deployment| {
                plan.test(net, deployment, deployment.client(&[]))
            });
            let row = Row::new(CASE, metric, "Mbit/s", Better::Higher);
            let row = match route {
                Route::Direct => row.target(2500.0).ratio_target(6.0),
                Route::Relayed => row.target(1200.0),
            };
            report.push(row.of(outcomes.adit, outcomes.coder));
        }
    }
    Ok(())
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
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

/// One test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) route: Route,
    pub(super) direction: Direction,
    pub(super) seconds: u32,
}

impl Plan {
    /// A direct test, down.
    pub(super) fn down(seconds: u32) -> Self {
        Self::direct(Direction::Down, seconds)
    }

    /// A direct test.
    pub(super) fn direct(direction: Direction, seconds: u32) -> Self {
        Self {
            route: Route::Direct,
            direction,
            seconds,
        }
    }

    /// How long the test may take, slow paths included.
    pub(super) fn limit(self) -> Duration {
        Duration::from_secs(u64::from(self.seconds) * 4 + 30)
    }

    /// Makes a client's command the command of this test.
    pub(super) fn add_to(self, client: &mut Command) {
        if self.route == Route::Relayed {
            client.arg("--disable-direct-connections");
        }
        client
            .args(["speedtest", WORKSPACE, "--output", "json"])
            .args(["--time", &format!("{}s", self.seconds)])
            .args(["--direction", self.direction.name()])
            .stdin(Stdio::null());
        if self.route == Route::Direct {
            client.arg("--direct");
        }
    }

    /// Tests by the client that is given.
    pub(super) fn test(
        self,
        net: &Net,
        deployment: &dyn Deployment,
        mut client: Command,
    ) -> Result<Sample> {
        self.add_to(&mut client);
        let meter = Meter::start(net, deployment)?;
        let finished = run::run(&net.near, &mut client, Output::Keep, self.limit())?
            .ok()
            .with_context(|| format!("{} speedtest", deployment.subject()))?;
        let (megabits, bytes) = parse(&finished.stdout)?;
        meter.sample(net, &finished, megabits, bytes)
    }

    /// The same, downwards over a link: if the client cannot tell, what came
    /// over the link is at least known.
    pub(super) fn test_or_count(
        self,
        net: &Net,
        deployment: &dyn Deployment,
        client: Command,
    ) -> Result<Sample> {
        let before = net.counters()?;
        let began = Instant::now();
        self.test(net, deployment, client).or_else(|error| {
            if self.direction == Direction::Up {
                return Err(error);
            }
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
    }
}

/// Mbit/s and bytes of a whole test.
pub(super) fn parse(text: &[u8]) -> Result<(f64, f64)> {
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
