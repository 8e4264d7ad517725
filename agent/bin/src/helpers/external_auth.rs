//! Tokens of other services the workspace's owner is signed in to.

use std::process::ExitCode;

use adit_http::{Client, StatusCode};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::{block_on, client, told};
use crate::cli::AgentArgs;

const PATH: &str = "/api/v2/workspaceagents/me/external-auth";

/// What the control plane knows of one service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) access_token: String,
    /// Where to sign in, if that is needed first.
    pub(super) url: String,
    pub(super) username: String,
    pub(super) password: String,
}

/// Asks for the service with this id or for the one that matches an address;
/// `None` if there is none.
pub(super) async fn ask(
    client: &Client,
    id: &str,
    matching: &str,
    more: &[(&str, String)],
) -> anyhow::Result<Option<Answer>> {
    let mut query = Serializer::new(String::new());
    query.append_pair("id", id).append_pair("match", matching);
    query.extend_pairs(more.iter().filter(|(_, v)| !v.is_empty()));
    let path = format!("{PATH}?{}", query.finish());
    match client.get(&path).await {
        Ok(answer) => Ok(Some(answer)),
        Err(e) if e.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
        Err(e) => Err(told(&e)),
    }
}

/// `external-auth access-token ID`: prints the token, or where to sign in.
pub(crate) fn access_token(args: &AgentArgs, id: &str) -> anyhow::Result<ExitCode> {
    let answer = block_on(async { ask(&client(args)?, id, "", &[]).await })?;
    match answer {
        None => anyhow::bail!("the deployment has no external service {id:?}"),
        Some(a) if a.access_token.is_empty() => {
            println!("{}", a.url);
            Ok(ExitCode::FAILURE)
        }
        Some(a) => {
            print!("{}", a.access_token);
            Ok(ExitCode::SUCCESS)
        }
    }
}
