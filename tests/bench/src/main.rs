//! Measures Adit, and a real Coder beside it, in network namespaces.
//!
//! ```text
//! cargo build --release -p adit -p adit-agent -p adit-server
//! cargo run --release -p adit-tests-bench -- all
//! ```

mod cases;
mod context;
mod counters;
mod guard;
mod link;
mod machine;
mod net;
mod options;
mod proc;
mod report;
mod run;
mod simulated;
mod subject;
mod tick;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use nix::unistd::geteuid;

use context::Context;
use guard::Guard;
use machine::Machine;
use options::{Cli, Helper, Options};
use report::Report;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.helper {
        Some(Helper::Guard { of, dir }) => guard::watch(of, &dir),
        Some(Helper::Tick) => tick::print(),
        Some(Helper::Agents { url, tokens }) => {
            if let Err(error) = simulated::run(&url, &tokens) {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
        None => match bench(cli.options) {
            Ok(code) => return code,
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

fn bench(options: Options) -> Result<ExitCode> {
    if !geteuid().is_root() {
        println!("SKIPPED: network namespaces and TUN devices need root");
        return Ok(ExitCode::SUCCESS);
    }
    for tool in ["ip", "nft"] {
        if !context::have(tool) {
            println!("SKIPPED: {tool} is not installed");
            return Ok(ExitCode::SUCCESS);
        }
    }
    // The link alone can be tried without any.
    let link_only = options.cases == [options::Case::Link];
    let Some(bin) = programs().or_else(|| link_only.then(PathBuf::new)) else {
        println!(
            "SKIPPED: no adit, adit-agent and adit-server beside this program; build them with\n  \
             cargo build --release -p adit -p adit-agent -p adit-server\n\
             or name their directory in ADIT_BIN_DIR"
        );
        return Ok(ExitCode::SUCCESS);
    };
    let dir = tempfile::Builder::new()
        .prefix("adit-bench-")
        .tempdir()
        .context("make a directory")?;
    let _guard = Guard::start(dir.path())?;
    let machine = Machine::look();
    let json = options.json.clone();
    let mut report = Report::new(machine, json.clone());
    let failures = {
        let mut context = Context::new(options, bin, dir.path());
        cases::run(&mut context, &mut report)
    };
    println!("{}", report.table());
    println!("All figures: {}", json.display());
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where the programs to be measured are.
fn programs() -> Option<PathBuf> {
    let dir = match env::var_os("ADIT_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => env::current_exe().ok()?.parent()?.to_owned(),
    };
    let dir = std::path::absolute(dir).ok()?;
    ["adit", "adit-agent", "adit-server"]
        .iter()
        .all(|name| dir.join(name).is_file())
        .then_some(dir)
}
