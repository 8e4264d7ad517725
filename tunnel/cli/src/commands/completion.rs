//! `completion`: scripts for shells.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionArgs};

/// Prints the script to standard output.
pub(crate) fn run(args: &CompletionArgs) {
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, "adit", &mut std::io::stdout());
}
