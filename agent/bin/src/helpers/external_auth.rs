//! Tokens of other services the workspace's owner is signed in to.

use std::process::ExitCode;

use adit_http::{Client, StatusCode};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::stat::Output;
use super::{block_on, client, told};
use crate::cli::AgentArgs;

const PATH: &str = "/api/v2/workspaceagents/me/external-auth";

/// What the control plane knows of one service.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) access_token: String,
    /// Where to sign in, if that is needed first.
    pub(super) url: String,
    pub(super) username: String,
    pub(super) password: String,
    /// What else came with the token.
    pub(super) token_extra: Value,
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

/// `external-auth access-token ID`: prints the token, or one of its further
/// properties, or where to sign in.
pub(crate) fn access_token(
    args: &AgentArgs,
    id: &str,
    extra: Option<&str>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let answer = block_on(async { ask(&client(args).await?, id, "", &[]).await })?;
    let Some(answer) = answer else {
        anyhow::bail!("the deployment has no external service {id:?}");
    };
    if !answer.url.is_empty() {
        println!("{}", answer.url);
        return Ok(ExitCode::FAILURE);
    }
    let text = match (extra, output) {
        (Some(path), _) => property(&answer.token_extra, path)
            .with_context(|| format!("the token has no property {path:?}"))?,
        (None, Output::Json) => serde_json::to_string(&answer)?,
        (None, Output::Text) => answer.access_token,
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

/// Looks `a.b.0` up; texts are given without quotes.
fn property(all: &Value, path: &str) -> Option<String> {
    let found = path.split('.').try_fold(all, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })?;
    Some(match found {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_found_by_path() {
        let all = serde_json::json!({"a": {"b": ["x", {"c": 1}]}});
        assert_eq!(property(&all, "a.b.0").as_deref(), Some("x"));
        assert_eq!(property(&all, "a.b.1").as_deref(), Some("{\"c\":1}"));
        assert_eq!(property(&all, "a.c"), None);
        assert_eq!(property(&all, "a.b.9"), None);
    }
}
