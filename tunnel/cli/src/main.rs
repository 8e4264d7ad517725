//! `adit`: reaches remote workspaces from the command line, from IDEs and
//! from a browser.

mod api;
mod build_log;
mod cli;
mod commands;
mod duration;
mod forward;
mod logging;
mod name;
mod ports;
mod prompt;
mod resolve;
mod schedule;
mod settings;
mod signal;
mod ssh;
mod ssh_config;
mod status;
mod store;
mod table;
mod tunnel;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    logging::start(cli.global.verbose);
    let name = cli.command.name();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(commands::run(cli));
    // A thread that waits for the terminal must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            report(name, &error);
            ExitCode::FAILURE
        }
    }
}

/// One line with the cause, from the outside in, and what to do about it.
fn report(command: &str, error: &anyhow::Error) {
    eprintln!(
        "Encountered an error running \"adit {command}\", see \"adit {command} --help\" for more information"
    );
    eprintln!("error: {error:#}");
    if let Some(remedy) = api::remedy(error) {
        eprintln!("Suggestion: {remedy}");
    }
}
