//! What is measured.

mod claim;
mod connect;
mod faults;
mod fleet;
mod iperf;
mod link;
mod lossy;
mod memory;
mod openssh;
mod size;
mod speed;
mod start;

use anyhow::Result;

use crate::{
    context::{Context, Site},
    net::Path,
    options::Case,
    report::Report,
};

/// Runs the cases that were asked for. What fails is told at the end; the
/// others run all the same.
pub(crate) fn run(context: &mut Context, report: &mut Report) -> Vec<String> {
    let mut failures = Vec::new();
    let alone: [(Case, Alone); 5] = [
        (Case::Size, size::run),
        (Case::Link, link::run),
        (Case::Claim, claim::run),
        (Case::Fleet, fleet::run),
        (Case::Lossy, lossy::run),
    ];
    let local: [(Case, Local); 6] = [
        // Before others have used what it measures.
        (Case::Memory, memory::run),
        (Case::Start, start::run),
        (Case::Connect, connect::run),
        (Case::Speed, speed::run),
        (Case::Openssh, openssh::run),
        (Case::Faults, faults::run),
    ];
    for (case, run) in alone {
        // Connecting over a long link is done where there is one.
        let wanted = context.options.wants(case)
            || (case == Case::Lossy && context.options.wants(Case::Connect));
        if wanted {
            eprintln!("{case:?}");
            if let Err(error) = run(context, report) {
                failures.push(format!("{case:?}: {error:#}"));
            }
        }
    }
    if local.iter().any(|(case, _)| context.options.wants(*case)) {
        match context.site(Path::Veth) {
            Ok(mut site) => {
                for (case, run) in local {
                    if context.options.wants(case) {
                        eprintln!("{case:?}");
                        if let Err(error) = run(context, &mut site, report) {
                            failures.push(format!("{case:?}: {error:#}"));
                        }
                    }
                }
                site.keep_logs(&context.options);
            }
            Err(error) => failures.push(format!("deployment: {error:#}")),
        }
    }
    failures
}

/// A case that makes its own network.
type Alone = fn(&mut Context, &mut Report) -> Result<()>;

/// A case that works on virtual Ethernet.
type Local = fn(&Context, &mut Site, &mut Report) -> Result<()>;
