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
mod private;
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
    end_quietly_on_a_closed_pipe();
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

/// `adit list | head` closes standard output early, which `println!` takes for
/// a defect. It is the reader's good right: end as other programs do then.
fn end_quietly_on_a_closed_pipe() {
    /// What a shell reports for a program that `SIGPIPE` has ended.
    const SIGPIPE: i32 = 141;
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| {
            text.starts_with("failed printing to std") && text.contains("Broken pipe")
        }) {
            std::process::exit(SIGPIPE);
        }
        default(panic);
    }));
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
