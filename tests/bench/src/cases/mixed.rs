//! One end ours, the other real: the real client with our agent, and our
//! client with the real agent, beside the real pair in the same run.

use std::{collections::BTreeMap, path::Path, process::Command, thread, time::Duration};

use anyhow::Result;

use super::{
    link::settings,
    speed::{Direction, Plan},
};
use crate::{
    context::{Context, Site, Tries},
    net::Net,
    report::{Better, Outcome, Report, Row, Sample},
    subject::{Deployment, Subject},
};

const CASE: &str = "mixed";

/// Who talks to whom: the client's program and the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pair {
    RealClient,
    RealAgent,
    Real,
}

const PAIRS: [Pair; 3] = [Pair::RealClient, Pair::RealAgent, Pair::Real];

/// On virtual Ethernet.
pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(6, 3);
    for direction in [Direction::Down, Direction::Up] {
        let what = format!("direct {}", direction.name());
        let plan = Plan::direct(direction, seconds);
        measure(
            context,
            site,
            report,
            &what,
            None,
            |net, deployment, client| plan.test(net, deployment, client),
        );
    }
    Ok(())
}

/// Over a link of 100 Mbit/s and 40 ms that loses this part of the packets.
pub(super) fn over_link(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let seconds = context.options.pick(10, 5);
    // With what our own pair is to reach where ours is the sender: near it is
    // enough.
    for (loss, own) in [(0.0, 87.0), (0.001, 85.0), (0.01, 80.0)] {
        site.net.set(settings(100, 40, loss));
        thread::sleep(Duration::from_millis(500));
        for direction in [Direction::Down, Direction::Up] {
            let what = format!("40 ms {} % {}", loss * 100.0, direction.name());
            let sender = match direction {
                Direction::Down => Pair::RealClient,
                Direction::Up => Pair::RealAgent,
            };
            let target = Some((sender, own * 0.85));
            let plan = Plan::direct(direction, seconds);
            measure(
                context,
                site,
                report,
                &what,
                target,
                |net, deployment, client| plan.test_or_count(net, deployment, client),
            );
        }
    }
    Ok(())
}

fn measure(
    context: &Context,
    site: &mut Site,
    report: &mut Report,
    what: &str,
    target: Option<(Pair, f64)>,
    test: impl Fn(&Net, &dyn Deployment, Command) -> Result<Sample>,
) {
    let name = |pair| match pair {
        Pair::RealClient => format!("{what}, coder with our agent"),
        Pair::RealAgent => format!("{what}, adit with the real agent"),
        Pair::Real => String::new(),
    };
    let wanted = |pair| context.options.wants_row(&name(pair));
    if !wanted(Pair::RealClient) && !wanted(Pair::RealAgent) {
        return;
    }
    let mut tries: BTreeMap<Pair, Tries> = BTreeMap::new();
    if let Ok(real) = &context.real {
        for number in 0..context.options.pick(3, 1) {
            let mut pairs = PAIRS.to_vec();
            if number % 2 == 1 {
                pairs.reverse();
            }
            for pair in pairs {
                let (subject, program) = match pair {
                    Pair::RealClient => (Subject::Adit, real.binary.clone()),
                    Pair::RealAgent => (Subject::Coder, context.bin.join("adit")),
                    Pair::Real => (Subject::Coder, real.binary.clone()),
                };
                let deployment = site.deployments.iter().find(|one| one.subject() == subject);
                if let Some(deployment) = deployment {
                    // Both kinds of client find their login in the same way.
                    let client = with_program(&deployment.client(&[]), &program);
                    let tried = test(&site.net, deployment.as_ref(), client);
                    tries.entry(pair).or_default().add(tried);
                }
            }
        }
    }
    let mut outcomes: BTreeMap<Pair, Outcome> = PAIRS
        .into_iter()
        .map(|pair| {
            let tries = tries.remove(&pair).unwrap_or_default();
            (pair, tries.outcome(&site.missing))
        })
        .collect();
    let coder = outcomes.remove(&Pair::Real).unwrap_or(Outcome::None);
    for (pair, outcome) in outcomes {
        let mut row = Row::new(CASE, name(pair), "Mbit/s", Better::Higher)
            .ratio_target(1.0)
            .of(outcome, coder.clone());
        row.target = target.filter(|(of, _)| *of == pair).map(|(_, rate)| rate);
        report.push(row);
    }
}

/// The same command of another program.
fn with_program(command: &Command, program: &Path) -> Command {
    let mut other = Command::new(program);
    other.env_clear().args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other
}
