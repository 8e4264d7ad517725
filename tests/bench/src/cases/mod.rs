//! What is measured.

mod claim;
mod connect;
mod fair;
mod faults;
mod fleet;
mod flows;
mod iperf;
mod keys;
mod link;
mod lossy;
mod memory;
mod mixed;
mod openssh;
mod size;
mod speed;
mod start;

use std::time::Duration;

use anyhow::Result;

use crate::{
    context::{Context, Site},
    guard::Watchdog,
    net::Path,
    options::Case,
    report::Report,
};

/// How long one case may take before its programs are ended; in a short run a
/// sixth of it.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// A case that makes its own network.
type Alone = fn(&mut Context, &mut Report) -> Result<()>;

/// A case that works on a site that others have used and will use.
type Local = fn(&Context, &mut Site, &mut Report) -> Result<()>;

const ALONE: [(Case, Alone); 4] = [
    (Case::Size, size::run),
    (Case::Link, link::run),
    (Case::Claim, claim::run),
    (Case::Fleet, fleet::run),
];

/// On virtual Ethernet.
const LOCAL: [(Case, Local); 7] = [
    // Before others have used what it measures.
    (Case::Memory, memory::run),
    (Case::Start, start::run),
    (Case::Connect, connect::run),
    (Case::Speed, speed::run),
    (Case::Openssh, openssh::run),
    (Case::Mixed, mixed::run),
    (Case::Faults, faults::run),
];

/// On a link with a rate, a delay and loss.
const LONG: [(Case, Local); 6] = [
    (Case::Connect, connect::over_link),
    (Case::Lossy, lossy::run),
    (Case::Queue, lossy::queues),
    (Case::Fair, fair::run),
    (Case::Keys, keys::run),
    (Case::Mixed, mixed::over_link),
];

/// Runs the cases that were asked for. What fails is told at the end; the
/// others run all the same. After each, what there is so far is written down.
pub(crate) fn run(context: &mut Context, report: &mut Report) -> Vec<String> {
    let mut failures = Vec::new();
    for (case, run) in ALONE {
        if context.options.wants(case) {
            let late = attempt(context, report, case, &mut failures, run);
            if late {
                failures.push(format!("{case:?}: took too long"));
            }
        }
    }
    for (path, cases) in [
        (Path::Veth, &LOCAL[..]),
        (Path::Link(link::settings(100, 40, 0.0)), &LONG[..]),
    ] {
        let mut site = None;
        for (case, run) in cases {
            if !context.options.wants(*case) {
                continue;
            }
            if site.is_none() {
                match context.site(path) {
                    Ok(made) => site = Some(made),
                    Err(error) => {
                        failures.push(format!("deployment: {error:#}"));
                        break;
                    }
                }
            }
            let late = attempt(context, report, *case, &mut failures, |context, report| {
                site.as_mut()
                    .map_or(Ok(()), |site| run(context, site, report))
            });
            if late {
                failures.push(format!("{case:?}: took too long"));
                // Nothing runs there any more.
                site = None;
            }
        }
        if let Some(site) = site {
            site.keep_logs(&context.options);
        }
    }
    failures
}

/// Runs one case; whether its programs had to be ended.
fn attempt(
    context: &mut Context,
    report: &mut Report,
    case: Case,
    failures: &mut Vec<String>,
    run: impl FnOnce(&mut Context, &mut Report) -> Result<()>,
) -> bool {
    eprintln!("{case:?}");
    let watchdog = Watchdog::start(context.options.pick(LIMIT, LIMIT / 6));
    let result = run(context, report);
    let late = watchdog.end();
    if let Err(error) = result {
        failures.push(format!("{case:?}: {error:#}"));
    }
    if let Err(error) = report.save() {
        failures.push(format!("{case:?}: {error:#}"));
    }
    late
}
