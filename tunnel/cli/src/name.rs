//! Workspace names as users and IDEs write them.

use std::fmt;

/// Which workspace, and which of its agents, a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkspaceRef {
    /// User name, or `me` for whoever is logged in.
    pub(crate) owner: String,
    /// Workspace name.
    pub(crate) workspace: String,
    /// Agent name; `None` picks the only one.
    pub(crate) agent: Option<String>,
}

/// A name that is none of the accepted forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid workspace name {0:?}: use \"workspace\", \"owner/workspace\", \"workspace.agent\" or \"owner/workspace.agent\""
)]
pub(crate) struct InvalidName(String);

impl WorkspaceRef {
    /// Parses `[owner/]workspace[.agent]`.
    pub(crate) fn parse(input: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName(input.to_owned());
        let (owner, rest) = match input.split_once('/') {
            Some((owner, rest)) => (owner, rest),
            None => ("me", input),
        };
        let (workspace, agent) = match rest.split_once('.') {
            Some((workspace, agent)) => (workspace, Some(agent)),
            None => (rest, None),
        };
        let plain = |part: &str| {
            !part.is_empty()
                && !part.contains(['/', '?', '#', '%'])
                && !part.contains(char::is_whitespace)
        };
        if !plain(owner) || !plain(workspace) || !agent.is_none_or(plain) {
            return Err(invalid());
        }
        Ok(Self {
            owner: owner.to_owned(),
            workspace: workspace.to_owned(),
            agent: agent.map(str::to_owned),
        })
    }

    /// Parses every spelling that `ssh` accepts: with `prefix` or `.suffix`
    /// around it, with `--` for separators, or as `agent.workspace.owner`.
    pub(crate) fn parse_ssh(
        input: &str,
        prefix: Option<&str>,
        suffix: Option<&str>,
    ) -> Result<Self, InvalidName> {
        let mut host = input;
        if let Some(prefix) = prefix.filter(|p| !p.is_empty()) {
            host = host.strip_prefix(prefix).unwrap_or(host);
        }
        if let Some(suffix) = suffix.filter(|s| !s.is_empty())
            && let Some(rest) = host
                .strip_suffix(suffix)
                .and_then(|host| host.strip_suffix('.'))
        {
            host = rest;
        }
        if !host.contains('/') && !host.contains("--") {
            let parts: Vec<&str> = host.split('.').collect();
            if let [agent, workspace, owner] = parts[..] {
                return Self::parse(&format!("{owner}/{workspace}.{agent}"));
            }
        }
        Self::parse(&separators(host))
    }
}

/// Rewrites `owner--ws`, `owner--ws--agent` and `owner/ws--agent`.
fn separators(host: &str) -> String {
    if let Some((owner, rest)) = host.split_once('/') {
        return format!("{owner}/{}", rest.replacen("--", ".", 1));
    }
    host.replacen("--", "/", 1).replacen("--", ".", 1)
}

impl fmt::Display for WorkspaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.owner != "me" {
            write!(f, "{}/", self.owner)?;
        }
        f.write_str(&self.workspace)?;
        if let Some(agent) = &self.agent {
            write!(f, ".{agent}")?;
        }
        Ok(())
    }
}

/// Splits the `[owner/]name` of a workspace that is to be created.
pub(crate) fn parse_new(input: &str) -> Result<(String, String), String> {
    let (owner, name) = input.split_once('/').unwrap_or(("me", input));
    let alphanumeric_with_hyphens = !name.is_empty()
        && name.len() <= 32
        && name
            .split('-')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()));
    if !alphanumeric_with_hyphens {
        return Err(format!(
            "workspace name {name:?} is invalid: must be alphanumeric with hyphens, at most 32 characters"
        ));
    }
    Ok((owner.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(owner: &str, workspace: &str, agent: Option<&str>) -> WorkspaceRef {
        WorkspaceRef {
            owner: owner.into(),
            workspace: workspace.into(),
            agent: agent.map(Into::into),
        }
    }

    #[test]
    fn plain_forms() {
        for (input, want) in [
            ("ws", reference("me", "ws", None)),
            ("ws.agent", reference("me", "ws", Some("agent"))),
            ("bob/ws", reference("bob", "ws", None)),
            ("bob/ws.agent", reference("bob", "ws", Some("agent"))),
        ] {
            assert_eq!(WorkspaceRef::parse(input), Ok(want.clone()));
            assert_eq!(want.to_string(), input);
        }
    }

    #[test]
    fn ssh_forms() {
        let full = reference("bob", "ws", Some("main"));
        for input in [
            "bob/ws.main",
            "bob--ws--main",
            "bob--ws.main",
            "bob/ws--main",
            "main.ws.bob",
            "coder.main.ws.bob",
            "coder.bob--ws--main",
            "main.ws.bob.coder",
        ] {
            assert_eq!(
                WorkspaceRef::parse_ssh(input, Some("coder."), Some("coder")),
                Ok(full.clone()),
                "{input}"
            );
        }
        assert_eq!(
            WorkspaceRef::parse_ssh("dev.coder", None, Some("coder")),
            Ok(reference("me", "dev", None))
        );
        // The suffix is compared as a whole label.
        assert_eq!(
            WorkspaceRef::parse_ssh("devcoder", None, Some("coder")),
            Ok(reference("me", "devcoder", None))
        );
    }

    #[test]
    fn rejects_what_cannot_be_a_name() {
        for input in ["", "/", "a/", "/a", "a/b/c", "a b", "ws.", "ws?x=1"] {
            assert!(WorkspaceRef::parse(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn new_names() {
        assert_eq!(parse_new("bob/dev-1"), Ok(("bob".into(), "dev-1".into())));
        for bad in ["bad_name!", "", "-a", "a--b", &"a".repeat(33)] {
            assert!(parse_new(bad).is_err(), "{bad}");
        }
    }
}
