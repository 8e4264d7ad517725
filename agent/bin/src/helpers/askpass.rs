//! Answering git's questions for user name and password.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use url::Url;

use super::external_auth::{Answer, ask};
use super::{block_on, client};
use crate::cli::AgentArgs;

/// How often to look whether the user has signed in.
const LOOK: Duration = Duration::from_secs(2);
/// How long the user may take to sign in.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The question, if git asks one: it calls with a single argument.
pub(crate) fn question(args: &[OsString], in_git: bool) -> Option<String> {
    let [_, one] = args else { return None };
    let text = one.to_str()?;
    let asks = text.starts_with("Username ") || text.starts_with("Password ");
    (in_git && asks).then(|| text.to_owned())
}

/// Prints the answer. Exit code 1 has git ask the user.
pub(crate) fn run(args: &AgentArgs, question: &str) -> anyhow::Result<ExitCode> {
    let (user, url) = parse(question)?;
    let answer = block_on(async {
        let client = client(args).await?;
        let more = [
            (
                "git_branch",
                git(&["rev-parse", "--abbrev-ref", "HEAD"]).await,
            ),
            (
                "git_remote_origin",
                git(&["remote", "get-url", "origin"]).await,
            ),
            (
                "chat_id",
                std::env::var("CODER_CHAT_ID").unwrap_or_default(),
            ),
        ];
        let Some(mut answer) = ask(&client, "", &url, &more).await? else {
            return Ok(None);
        };
        if answer.url.is_empty() {
            return Ok(Some(answer));
        }
        eprintln!("Sign in to continue: {}", answer.url);
        if std::env::var("CODER_CHAT_AGENT").is_ok_and(|v| v == "true") {
            return Ok(None);
        }
        let wait = async {
            while !answer.url.is_empty() {
                tokio::time::sleep(LOOK).await;
                if let Ok(Some(next)) = ask(&client, "", &url, &[]).await {
                    answer = next;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await;
        in_time.context("nobody signed in")?;
        Ok(Some(answer))
    })?;
    let Some(answer) = answer else {
        eprintln!("the deployment has no credentials for {url}");
        return Ok(ExitCode::FAILURE);
    };
    println!("{}", say(&answer, user));
    Ok(ExitCode::SUCCESS)
}

fn say(answer: &Answer, asks_for_password: bool) -> &str {
    if asks_for_password && !answer.password.is_empty() {
        &answer.password
    } else {
        &answer.username
    }
}

/// Whether the question is for a password, and the address without user.
fn parse(question: &str) -> anyhow::Result<(bool, String)> {
    let word = question
        .split(' ')
        .nth(2)
        .context("no address in the question")?;
    let text = word.trim_end_matches(':').trim_matches('\'');
    let mut url: Url = text.parse().context("the address in the question")?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!(
            "git asks for credentials of {}, not of a web address",
            url.scheme()
        );
    }
    let with_user = !url.username().is_empty();
    // These cannot fail for web addresses.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let host = url.to_string().trim_end_matches('/').to_owned();
    Ok((with_user, host))
}

async fn git(args: &[&str]) -> String {
    let out = tokio::process::Command::new("git")
        .args(args)
        .output()
        .await;
    out.ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_of_git_count() {
        let args = |t: &str| vec![OsString::from("coder"), t.into()];
        assert!(question(&args("Username for 'https://x': "), true).is_some());
        assert!(question(&args("Username for 'https://x': "), false).is_none());
        assert!(question(&args("agent"), true).is_none());
    }

    #[test]
    fn addresses_lose_their_user() {
        assert_eq!(
            parse("Username for 'https://github.com': ").ok(),
            Some((false, "https://github.com".to_owned()))
        );
        assert_eq!(
            parse("Password for 'https://me@host:8443/path': ").ok(),
            Some((true, "https://host:8443/path".to_owned()))
        );
        for bad in [
            "Username for",
            "Username for 'ssh://host': ",
            "Username for '': ",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_password_is_the_user_name() {
        let a = Answer {
            username: "token".to_owned(),
            ..Answer::default()
        };
        assert_eq!(say(&a, true), "token");
        assert_eq!(say(&a, false), "token");
    }
}
