//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use url::Url;

/// Measure Adit, and a real Coder beside it.
///
/// Two network namespaces are made, `near` for the client and `far` for server
/// and agent, and joined by a virtual Ethernet pair or by a link with a rate,
/// a delay, loss and a bounded queue. Needs root; all traffic stays inside.
///
/// The programs are taken from ADIT_BIN_DIR, or from beside this one.
/// ADIT_CODER_BIN and ADIT_CODER_PG_URL name a real coder binary and a
/// PostgreSQL server for it; ADIT_CODER_AGENT_BIN its smaller agent binary.
#[derive(Clone, Debug, Parser)]
#[command(name = "adit-tests-bench")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) helper: Option<Helper>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// What to measure and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Cases to run
    #[arg(value_enum, default_value = "all")]
    pub(crate) cases: Vec<Case>,
    /// Waits and amounts of data a tenth as long
    #[arg(long)]
    pub(crate) short: bool,
    /// Runs of each subject for figures with a range
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) runs: u8,
    /// Leave a real Coder out even if there is one
    #[arg(long)]
    pub(crate) without_coder: bool,
    /// File to write all figures to as JSON
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    pub(crate) json: PathBuf,
    /// Only the figures whose name holds this
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// Keep the logs of all programs in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
}

/// Programs that the bench itself starts.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Helper {
    /// Clean up once the bench is gone
    #[command(hide = true)]
    Guard {
        /// Process id of the bench
        #[arg(long)]
        of: u32,
        /// Directory to remove
        #[arg(long)]
        dir: PathBuf,
    },
    /// Connect simulated agents and keep them
    #[command(hide = true)]
    Agents {
        /// Address of the control plane
        #[arg(long)]
        url: Url,
        /// File with the agents' tokens, one a line
        #[arg(long)]
        tokens: PathBuf,
    },
    /// Print numbered lines at a steady pace
    #[command(hide = true)]
    Tick,
}

/// One group of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Every case
    All,
    /// Is the link as it is set? By echo and by the kernel's TCP
    Link,
    /// Size of the agent's binary
    Size,
    /// Memory and wake-ups, idle and after much data
    Memory,
    /// Start of the agent until its scripts are done
    Start,
    /// Time of `ssh workspace -- true`
    Connect,
    /// `speedtest`, direct and relayed
    Speed,
    /// OpenSSH through `ssh --stdio`
    Openssh,
    /// One flow over a slow, long, lossy link
    Lossy,
    /// The same with a queue of 32 packets and of 10 000
    Queue,
    /// Two flows at once, and one beside the kernel's CUBIC
    Fair,
    /// Delay of keystrokes beside a bulk flow
    Keys,
    /// Our client with the real agent, the real client with ours
    Mixed,
    /// Silence in a stream: roam, black hole, restart, sleep
    Faults,
    /// From the claim of a prebuilt workspace to its script
    Claim,
    /// Memory of the server for each of many idle agents
    Fleet,
}

impl Options {
    /// Whether a case was asked for.
    pub(crate) fn wants(&self, case: Case) -> bool {
        self.cases.contains(&Case::All) || self.cases.contains(&case)
    }

    /// Whether a figure was asked for.
    pub(crate) fn wants_row(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// `long`, or `short` in a short run.
    pub(crate) fn pick<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }

    /// How often a figure with a range is taken.
    pub(crate) fn runs(&self) -> usize {
        self.pick(self.runs.into(), usize::from(self.runs).min(2))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_is_the_default() {
        let cli = Cli::try_parse_from(["x"]).map(|cli| cli.options);
        assert!(cli.is_ok_and(|options| options.wants(Case::Link) && options.runs() == 5));
        let cli = Cli::try_parse_from(["x", "size", "claim", "--short"]).map(|cli| cli.options);
        assert!(cli.is_ok_and(|options| {
            options.wants(Case::Claim) && !options.wants(Case::Link) && options.runs() == 2
        }));
    }
}
