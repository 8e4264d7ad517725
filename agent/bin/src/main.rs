//! `adit-agent`: the program inside a workspace. It takes the place of
//! `coder agent`, with the same flags and environment variables.

mod cli;
mod headers;
mod helpers;
mod logging;
mod priority;
mod reaper;
mod run;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    match run::main() {
        Ok(code) => code,
        Err(error) => {
            // Colours and backtraces do not belong into init script output.
            eprintln!("adit-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
