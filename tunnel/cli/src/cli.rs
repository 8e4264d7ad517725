//! The command line: names, flags and help. Where the `coder` CLI has the
//! same command, its spelling is kept, so that hands, scripts and IDE plugins
//! need nothing new.

mod args;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use url::Url;

pub(crate) use args::*;

/// Reach remote workspaces over WireGuard.
#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version = crate::commands::version::LINE,
    propagate_version = false,
    max_term_width = 100,
    args_override_self = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Address of the control plane
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) url: Option<Url>,
    /// Session token, instead of the stored login
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        help_heading = "Global options"
    )]
    pub(crate) token: Option<String>,
    /// Directory with the stored login [default: adit in the configuration directory]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) global_config: Option<PathBuf>,
    /// Header to send with every request, as NAME=VALUE; may be repeated
    #[arg(
        long,
        global = true,
        value_name = "NAME=VALUE",
        help_heading = "Global options"
    )]
    pub(crate) header: Vec<String>,
    /// Command that prints headers to send, one NAME=VALUE a line
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        help_heading = "Global options"
    )]
    pub(crate) header_command: Option<String>,
    /// Relay all traffic; never try a direct connection
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) disable_direct_connections: bool,
    /// PEM file with certificates to trust, besides the system's
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) client_tls_ca_file: Option<PathBuf>,
    /// PEM file with the certificate to present to the control plane
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) client_tls_cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) client_tls_key_file: Option<PathBuf>,
    /// Say more of what is done, on standard error
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) verbose: bool,
    /// Accepted for scripts written for the coder CLI; changes nothing here
    #[arg(
        long,
        global = true,
        hide = true,
        alias = "no-version-warning",
        alias = "no-feature-warning",
        alias = "disable-network-telemetry",
        alias = "force-tty",
        alias = "debug-http",
        alias = "no-open"
    )]
    pub(crate) ignored: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in to a control plane and remember it
    Login(LoginArgs),
    /// Forget the login and end its session
    Logout(LogoutArgs),
    /// Show who is logged in, and where
    Whoami(OutputArgs),
    /// List workspaces
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Create a workspace
    Create(CreateArgs),
    /// Show a workspace's resources and how to reach its agents
    Show(ShowArgs),
    /// Start a workspace
    Start(StartArgs),
    /// Stop a workspace
    Stop(ConfirmArgs),
    /// Stop a workspace and start it again
    Restart(ConfirmArgs),
    /// Delete a workspace and all that belongs to it
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Show the logs of a workspace's build and agents
    Logs(LogsArgs),
    /// Open a shell in a workspace, or run a command there
    Ssh(SshArgs),
    /// Write a Host block for OpenSSH, so that ssh, scp, rsync and git reach workspaces
    ConfigSsh(ConfigSshArgs),
    /// Make ports of a workspace reachable on this machine
    PortForward(PortForwardArgs),
    /// Open something of a workspace on this machine
    #[command(subcommand_negates_reqs = true)]
    Open(OpenArgs),
    /// Measure the way to a workspace, and say whether it is direct and why
    Ping(PingArgs),
    /// Measure the throughput to a workspace
    Speedtest(SpeedtestArgs),
    /// Report what this machine's network allows
    Netcheck,
    /// Questions about an operating-system-wide connection
    #[command(subcommand, hide = true)]
    Connect(ConnectCommand),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Print the version
    Version(OutputArgs),
}

impl Command {
    /// The name that was typed, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Login(_) => "login",
            Self::Logout(_) => "logout",
            Self::Whoami(_) => "whoami",
            Self::List(_) => "list",
            Self::Create(_) => "create",
            Self::Show(_) => "show",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Restart(_) => "restart",
            Self::Delete(_) => "delete",
            Self::Logs(_) => "logs",
            Self::Ssh(_) => "ssh",
            Self::ConfigSsh(_) => "config-ssh",
            Self::PortForward(_) => "port-forward",
            Self::Open(_) => "open",
            Self::Ping(_) => "ping",
            Self::Speedtest(_) => "speedtest",
            Self::Netcheck => "netcheck",
            Self::Connect(_) => "connect",
            Self::Completion(_) => "completion",
            Self::Version(_) => "version",
        }
    }
}

/// Parses the command line.
///
/// IDE plugins pass flags of newer programs to `ssh --stdio`; one that is not
/// known there must not cost the connection, so it is left out with a note.
pub(crate) fn parse(mut args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let lenient = args.iter().any(|arg| arg == "ssh") && args.iter().any(|arg| arg == "--stdio");
    loop {
        let error = match try_parse(&args) {
            Ok(cli) => return Ok(cli),
            Err(error) => error,
        };
        let unknown = error.kind() == clap::error::ErrorKind::UnknownArgument && lenient;
        let name = error
            .get(clap::error::ContextKind::InvalidArg)
            .map(ToString::to_string)
            .filter(|name| unknown && name.starts_with('-'));
        let flag = name
            .as_deref()
            .and_then(|name| name.split(['=', ' ']).next());
        let position = flag.and_then(|flag| {
            args.iter().position(|arg| {
                arg.to_str()
                    .is_some_and(|arg| arg == flag || arg.starts_with(&format!("{flag}=")))
            })
        });
        let Some(position) = position else {
            return Err(error);
        };
        let left_out = args.remove(position);
        eprintln!(
            "adit: ignored the unknown flag {}",
            left_out.to_string_lossy()
        );
    }
}

fn try_parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Cli {
        parse(line.split_whitespace().map(OsString::from).collect()).unwrap()
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn proxy_commands_of_ides() {
        for line in [
            "adit --global-config /d ssh --disable-autostart --stdio --usage-app=vscode --network-info-dir /d/net --log-dir /l -v --ssh-host-prefix coder-vscode.h-- coder-vscode.h--bob--ws",
            "adit --global-config /d --url http://h ssh --stdio --disable-autostart --network-info-dir /m --usage-app=jetbrains --ssh-host-prefix p-- -- p--bob--ws.main",
            "adit --global-config /d ssh --stdio --disable-autostart=true --hostname-suffix coder dev.coder",
            "adit --global-config /d ssh --stdio --some-new-flag --hostname-suffix coder dev.coder",
        ] {
            let Command::Ssh(ssh) = parsed(line).command else {
                panic!("{line}");
            };
            assert!(ssh.stdio, "{line}");
            assert!(ssh.command.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_command_keeps_its_own_flags() {
        let Command::Ssh(ssh) = parsed("adit ssh dev -- ls -la --color").command else {
            panic!();
        };
        assert_eq!(ssh.command, ["ls", "-la", "--color"]);
        let Command::Start(start) =
            parsed("adit start --yes --reason vscode_connection -- bob/ws").command
        else {
            panic!();
        };
        assert_eq!(start.workspace, "bob/ws");
    }

    #[test]
    fn login_forms() {
        let cli = parsed("adit login http://h --token T --global-config /d");
        assert_eq!(cli.global.token.as_deref(), Some("T"));
        assert!(matches!(
            parsed("adit login token --url http://h").command,
            Command::Login(LoginArgs {
                token: Some(LoginCommand::Token),
                ..
            })
        ));
        let Command::Login(login) =
            parsed("adit login http://h --first-user-username a --first-user-trial=false").command
        else {
            panic!();
        };
        assert_eq!(login.first_user_username.as_deref(), Some("a"));
    }

    #[test]
    fn unknown_flags_elsewhere_are_errors() {
        assert!(parse(["adit", "list", "--bogus"].map(OsString::from).into()).is_err());
    }
}
