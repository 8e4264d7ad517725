//! What `adit-server dev` prints: progress while it starts, and then how to
//! reach the workspace.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use uuid::Uuid;

/// How the result is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One line of JSON, once everything is ready.
    Json,
}

/// Where everything is, once it is ready.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ready {
    /// The control plane.
    pub(crate) url: String,
    /// A token of the user.
    pub(crate) session_token: String,
    /// The user's name.
    pub(crate) user: String,
    /// The workspace's name.
    pub(crate) workspace: String,
    /// The workspace's agent.
    pub(crate) agent_id: Uuid,
    /// A configuration directory in which `adit` is logged in.
    pub(crate) config_dir: PathBuf,
}

/// Steps on standard error: a spinner on a terminal, lines elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, plain }
    }

    /// Starts a step.
    pub(crate) fn step(&self, text: &str) {
        if self.plain {
            let _ = writeln!(std::io::stderr(), "{text}…");
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    /// Removes the spinner.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Prints the result on standard output.
pub(crate) fn print(ready: &Ready, output: Output, adit: &Path) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(stdout, "{}", serde_json::to_string(ready)?)?,
        Output::Text => write!(stdout, "{}", text(ready, adit))?,
    }
    stdout.flush()
}

fn text(ready: &Ready, adit: &Path) -> String {
    let workspace = &ready.workspace;
    let command = format!(
        "{} --global-config {}",
        quote(adit),
        quote(&ready.config_dir)
    );
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Workspace {workspace:?} of user {:?} is ready at {}\n",
        ready.user, ready.url
    );
    let lines = [
        ("open a shell", format!("ssh {workspace}")),
        (
            "forward port 8080",
            format!("port-forward {workspace} --tcp 8080"),
        ),
        (
            "open port 8080 in a browser",
            format!("open {workspace} 8080"),
        ),
        (
            "reach it with plain ssh, scp, rsync, git",
            "config-ssh".to_owned(),
        ),
        ("measure the connection", format!("ping {workspace}")),
    ];
    for (what, arguments) in lines {
        let _ = writeln!(text, "  # {what}\n  {command} {arguments}\n");
    }
    text.push_str(
        "Ctrl-C stops the server and everything it started; starting it again continues.\n",
    );
    text
}

/// The path as one word of a shell command.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            url: "http://127.0.0.1:7080".into(),
            session_token: "id-secret".into(),
            user: "admin".into(),
            workspace: "dev".into(),
            agent_id: Uuid::nil(),
            config_dir: "/tmp/it's here/cli".into(),
        }
    }

    #[test]
    fn commands_can_be_pasted() {
        let text = text(&ready(), Path::new("/usr/bin/adit"));
        assert!(
            text.contains(r"/usr/bin/adit --global-config '/tmp/it'\''s here/cli' ssh dev"),
            "{text}"
        );
        assert!(
            !text.contains("id-secret"),
            "the token belongs into no command"
        );
    }

    #[test]
    fn json_is_one_line_with_all_keys() {
        let json = serde_json::to_string(&ready()).unwrap();
        for key in [
            "url",
            "session_token",
            "user",
            "workspace",
            "agent_id",
            "config_dir",
        ] {
            assert!(json.contains(&format!("\"{key}\":")), "{key}");
        }
        assert!(!json.contains('\n'));
    }
}
