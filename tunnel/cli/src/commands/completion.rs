//! `completion`: scripts for shells.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionArgs};

/// Prints the script to standard output.
pub(crate) fn run(args: &CompletionArgs) {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "adit", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
}
