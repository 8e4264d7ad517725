//! Commands that git and scripts in the workspace call on this binary.

pub(crate) mod askpass;
pub(crate) mod external_auth;
pub(crate) mod gitssh;
pub(crate) mod stat;
pub(crate) mod sync;

use std::future::Future;

use adit_http::Client;
use anyhow::Context;

use crate::cli::AgentArgs;
use crate::run;

/// A client of the control plane that speaks as this agent.
async fn client(args: &AgentArgs) -> anyhow::Result<Client> {
    run::Connection::new(args)?.client().await
}

/// An error with its remedy, in one line.
fn told(error: &adit_http::Error) -> anyhow::Error {
    anyhow::anyhow!("{error} {}", error.remedy())
}

/// Runs something short that waits for the network or a process.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}
