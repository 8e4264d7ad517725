//! What the replays of recordings leave out, and why: one table.
//!
//! A replay takes its rows with [`LeftOut::of`], asks [`LeftOut::covers`]
//! about each difference it finds, and fails if [`LeftOut::unneeded`] names a
//! row at its end. So the table can only shrink.

/// Which replays a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Our agent in a recorded control session.
    Agent,
    /// Our server and recorded connections.
    Server,
    /// Our server and recorded flows of requests.
    Rest,
}

/// One thing that is left out.
#[derive(Debug)]
pub struct Row {
    /// Which replays it is about.
    pub subject: Subject,
    /// The recordings, each of which needs it.
    pub recordings: &'static [&'static str],
    /// The request: method and path, the operator's mark before it, or the
    /// path of a call. A `*` stands for anything.
    pub request: &'static str,
    /// The part of the answer; empty for all of it.
    pub part: &'static str,
    /// Why.
    pub reason: &'static str,
}

const ALL: &str = "";

/// Recordings of an agent that watches memory and disks.
const WITH_MONITORS: &[&str] = &[
    "agent-idle-keepalive",
    "agent-peer-overwritten",
    "agent-session-ready",
    "agent-session-start-error",
    "server-kill-and-outdated-build",
    "server-restart",
    "tailnet-ping-ssh",
];

/// The table.
pub const TABLE: &[Row] = &[
    Row {
        subject: Subject::Agent,
        recordings: &["agent-session-ready"],
        request: "/coder.agent.v2.Agent/ReportConnection",
        part: ALL,
        reason: "nobody connects to the agent in this replay",
    },
    Row {
        subject: Subject::Server,
        recordings: &["drpc-malformed-to-server"],
        request: "*/me/rpc?version=2.11&role=test",
        part: ALL,
        reason: "agents never ask for an older version than their own, so newer ones are served",
    },
    Row {
        subject: Subject::Server,
        recordings: &[
            "agent-idle-keepalive",
            "agent-peer-overwritten",
            "agent-session-ready",
            "agent-session-start-error",
            "drpc-malformed-to-server",
            "server-kill-and-outdated-build",
            "server-restart",
            "tailnet-ping-ssh",
        ],
        request: "/coder.agent.v2.Agent/GetManifest",
        part: ".git_auth_configs",
        reason: "no sign-in providers for git hosts",
    },
    Row {
        subject: Subject::Server,
        recordings: &[
            "agent-peer-overwritten",
            "agent-session-start-error",
            "drpc-malformed-to-server",
            "tailnet-ping-ssh",
        ],
        request: "/coder.agent.v2.Agent/GetManifest",
        part: ".devcontainers",
        reason: "templates describe no containers in workspaces",
    },
    Row {
        subject: Subject::Server,
        recordings: WITH_MONITORS,
        request: "/coder.agent.v2.Agent/GetResourcesMonitoringConfiguration",
        part: ".memory",
        reason: "templates describe no alarms about memory",
    },
    Row {
        subject: Subject::Server,
        recordings: WITH_MONITORS,
        request: "/coder.agent.v2.Agent/GetResourcesMonitoringConfiguration",
        part: ".volumes",
        reason: "templates describe no alarms about disks",
    },
    Row {
        subject: Subject::Server,
        recordings: &["http-errors-and-rest"],
        request: "agent external-auth, built-in GitHub provider, user not linked",
        part: ALL,
        reason: "no sign-in providers for git hosts: helpers leave the question to git",
    },
    Row {
        subject: Subject::Server,
        recordings: &["http-errors-and-rest"],
        request: "init-script*",
        part: ALL,
        reason: "no programs to download, so no script that does",
    },
    Row {
        subject: Subject::Rest,
        recordings: &[
            "editor-rest",
            "errors",
            "ping-speedtest",
            "port-forward",
            "rename",
            "ssh",
        ],
        request: "GET /api/v2/appearance",
        part: ALL,
        reason: "answered on purpose: one editor plugin cannot log in without it",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["prebuild-claim"],
        request: "GET /api/v2/appearance",
        part: ".support_links",
        reason: "the recorded server names its own help pages",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["prebuild-claim"],
        request: "GET /api/v2/workspaceagents/*/connection",
        part: ".IPv4",
        reason: "set by the test harness around the recorded server",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["prebuild-claim"],
        request: "GET /api/v2/workspaceagents/*/connection",
        part: ".InsecureForTests",
        reason: "set by the test harness around the recorded server",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["list-show", "prebuild-claim"],
        request: "GET /api/v2/workspaceagents/*/listening-ports",
        part: ALL,
        reason: "the server asks the agent, and that of the replay has no tunnel",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["list-show", "prebuild-claim"],
        request: "GET /api/v2/workspaceagents/*/containers?label=devcontainer.config_file%3D&label=devcontainer.local_folder%3D",
        part: ALL,
        reason: "the server asks the agent, and that of the replay has no tunnel",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /.well-known/oauth-authorization-server",
        part: ALL,
        reason: "no OAuth2 tokens are issued",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/experiments/available",
        part: ".safe",
        reason: "there are no experiments",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/notifications/inbox",
        part: ".notifications",
        reason: "accounts cause no notifications",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/notifications/templates/system",
        part: ALL,
        reason: "there are no notifications",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/external-auth",
        part: ".providers",
        reason: "no sign-in providers for git hosts",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/debug/health",
        part: ALL,
        reason: "the health report is shorter",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["editor-rest"],
        request: "GET /api/v2/users/oauth2/github/callback",
        part: ALL,
        reason: "no login by GitHub",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["login-first-user"],
        request: "GET /api/v2/users/authmethods",
        part: ".github",
        reason: "no login by GitHub",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["errors"],
        request: "POST /api/v2/files",
        part: ALL,
        reason: "templates cannot be uploaded yet",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["organizations"],
        request: "GET /api/v2/organizations/*/members/roles",
        part: ALL,
        reason: "there are fewer roles within an organization",
    },
    Row {
        subject: Subject::Rest,
        recordings: &["users"],
        request: "GET /api/v2/users/roles",
        part: ".site_permissions[]",
        reason: "permissions of roles are not broken down",
    },
];

/// The rows of one replay, and which of them it needed.
#[derive(Debug)]
pub struct LeftOut {
    rows: Vec<(&'static Row, bool)>,
}

impl LeftOut {
    /// The rows of one recording.
    #[must_use]
    pub fn of(subject: Subject, recording: &str) -> Self {
        let rows = TABLE
            .iter()
            .filter(|row| row.subject == subject && row.recordings.contains(&recording));
        Self {
            rows: rows.map(|row| (row, false)).collect(),
        }
    }

    /// Whether a difference is left out: one in the answer to `request`, at
    /// `path` into it.
    pub fn covers(&mut self, request: &str, path: &str) -> bool {
        let mut covered = false;
        for (row, needed) in &mut self.rows {
            if matches(row.request, request) && path.contains(row.part) {
                *needed = true;
                covered = true;
            }
        }
        covered
    }

    /// What to say of the rows without which the replay would be the same.
    #[must_use]
    pub fn unneeded(&self) -> Vec<String> {
        let rows = self.rows.iter().filter(|(_, needed)| !needed);
        rows.map(|(row, _)| {
            format!(
                "{} {}: replays, take it off the table",
                row.request, row.part
            )
        })
        .collect()
    }
}

fn matches(pattern: &str, request: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            request.len() >= start.len() + end.len()
                && request.starts_with(start)
                && request.ends_with(end)
        }
        None => pattern == request,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_name_recordings() {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
        for row in TABLE {
            assert!(!row.reason.is_empty() && !row.recordings.is_empty());
            let kind = match row.subject {
                Subject::Rest => "rest",
                Subject::Agent | Subject::Server => "wire",
            };
            for name in row.recordings {
                let path = vectors.join(kind).join(name).with_extension("jsonl");
                assert!(path.exists(), "{}", path.display());
            }
        }
    }

    #[test]
    fn rows_cover_their_part_and_are_missed_when_idle() {
        let mut rows = LeftOut::of(Subject::Rest, "login-first-user");
        assert_eq!(rows.unneeded().len(), 1);
        assert!(!rows.covers("GET /api/v2/users/authmethods", ".oidc.enabled"));
        assert!(!rows.covers("GET /api/v2/users", ".github.enabled"));
        assert!(rows.covers("GET /api/v2/users/authmethods", ".github.enabled"));
        assert!(rows.unneeded().is_empty());
        assert!(LeftOut::of(Subject::Server, "stun").unneeded().is_empty());
        assert!(matches("a*b", "a-b") && !matches("aa*aa", "aaa"));
    }
}
