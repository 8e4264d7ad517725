//! The command line: names, flags and help. Where the `coder` CLI has the
//! same command, its spelling is kept, so that hands, scripts and IDE plugins
//! need nothing new.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::duration;

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

/// Output as text for people or as JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[value(alias = "table")]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LoginArgs {
    /// Address of the control plane, such as https://coder.example.com
    #[arg(value_name = "URL")]
    pub(crate) address: Option<String>,
    /// Keep the given token itself instead of a new one made with it
    #[arg(long)]
    pub(crate) use_token_as_session: bool,
    /// E-mail address of the first user, on a new control plane
    #[arg(long, env = "CODER_FIRST_USER_EMAIL", value_name = "EMAIL")]
    pub(crate) first_user_email: Option<String>,
    /// Name of the first user
    #[arg(long, env = "CODER_FIRST_USER_USERNAME", value_name = "NAME")]
    pub(crate) first_user_username: Option<String>,
    /// Full name of the first user
    #[arg(long, env = "CODER_FIRST_USER_FULL_NAME", value_name = "NAME")]
    pub(crate) first_user_full_name: Option<String>,
    /// Password of the first user
    #[arg(
        long,
        env = "CODER_FIRST_USER_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub(crate) first_user_password: Option<String>,
    /// Accepted for compatibility
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    pub(crate) first_user_trial: Option<Option<String>>,
    #[command(subcommand)]
    pub(crate) token: Option<LoginCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoginCommand {
    /// Print the stored session token
    Token,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Workspaces of all users
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Search query
    #[arg(long, default_value = "owner:me", value_name = "QUERY")]
    pub(crate) search: String,
    /// Columns to show, separated by commas
    #[arg(short, long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) column: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the new workspace, [owner/]name
    pub(crate) name: String,
    /// Template to create it from
    #[arg(short, long, value_name = "NAME", env = "CODER_TEMPLATE_NAME")]
    pub(crate) template: Option<String>,
    /// Version of the template, instead of the active one
    #[arg(long, value_name = "NAME")]
    pub(crate) template_version: Option<String>,
    /// Preset of the template; "none" for none
    #[arg(long, value_name = "NAME", env = "CODER_PRESET_NAME")]
    pub(crate) preset: Option<String>,
    /// Parameter value; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) parameter: Vec<String>,
    /// When to start the workspace by itself, such as "9:30AM Mon-Fri Europe/Dublin"
    #[arg(long, value_name = "TIME", env = "CODER_WORKSPACE_START_AT")]
    pub(crate) start_at: Option<String>,
    /// How long after its start the workspace stops by itself
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, env = "CODER_WORKSPACE_STOP_AFTER")]
    pub(crate) stop_after: Option<Duration>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Return as soon as the build is queued
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Use each parameter's default where no value is given
    #[arg(long)]
    pub(crate) use_parameter_defaults: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Workspace, [owner/]name
    pub(crate) workspace: String,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub(crate) details: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ConfirmArgs {
    /// Workspace, [owner/]name
    pub(crate) workspace: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Workspace, [owner/]name
    pub(crate) workspace: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Return as soon as the build is queued
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Why the workspace is started
    #[arg(long, value_parser = ["cli", "vscode_connection", "jetbrains_connection", "ssh_connection"])]
    pub(crate) reason: Option<String>,
    /// Parameter value; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) parameter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Workspace, [owner/]name
    pub(crate) workspace: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Forget the workspace without destroying its resources
    #[arg(long)]
    pub(crate) orphan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Workspace, [owner/]name
    pub(crate) workspace: String,
    /// Go on with new lines
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Number of the build; the latest by default
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true
    )]
    pub(crate) build_number: Option<i64>,
}

/// Whether to wait for the start scripts of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    Yes,
    No,
    /// Wait where a script asks for it
    Auto,
}

#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// Connect standard input and output to the workspace's SSH server (for ProxyCommand)
    #[arg(long, env = "CODER_SSH_STDIO", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) stdio: bool,
    /// Ask for a terminal even when a command is given
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
    /// Prefix to take off the name
    #[arg(long, env = "CODER_SSH_SSH_HOST_PREFIX", value_name = "PREFIX")]
    pub(crate) ssh_host_prefix: Option<String>,
    /// Suffix to take off the name
    #[arg(long, env = "CODER_SSH_HOSTNAME_SUFFIX", value_name = "SUFFIX")]
    pub(crate) hostname_suffix: Option<String>,
    /// Let the workspace use this machine's SSH agent
    #[arg(short = 'A', long, env = "CODER_SSH_FORWARD_AGENT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) forward_agent: bool,
    /// Socket of the SSH agent to forward
    #[arg(long, env = "CODER_SSH_IDENTITY_AGENT", value_name = "SOCKET")]
    pub(crate) identity_agent: Option<PathBuf>,
    /// Wait for the start scripts of the workspace
    #[arg(long, value_enum, default_value = "auto", env = "CODER_SSH_WAIT")]
    pub(crate) wait: Wait,
    /// The same as --wait=no
    #[arg(long, hide = true)]
    pub(crate) no_wait: bool,
    /// Listen in the workspace and connect to this machine: REMOTE:ADDRESS:PORT
    #[arg(short = 'R', long, value_name = "FORWARD")]
    pub(crate) remote_forward: Vec<String>,
    /// Environment variable to set in the session; may be repeated
    #[arg(
        short = 'e',
        long,
        value_name = "NAME=VALUE",
        env = "CODER_SSH_ENV",
        value_delimiter = ','
    )]
    pub(crate) env: Vec<String>,
    /// Kind of program this session is for: ssh, vscode, jetbrains, reconnecting-pty or disable
    #[arg(long, env = "CODER_SSH_USAGE_APP", value_name = "APP")]
    pub(crate) usage_app: Option<String>,
    /// Directory for a file of network figures, named after the parent process
    #[arg(long, value_name = "DIR")]
    pub(crate) network_info_dir: Option<PathBuf>,
    /// How often to rewrite that file
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) network_info_interval: Duration,
    /// Directory for a log file of this session
    #[arg(short = 'l', long, env = "CODER_SSH_LOG_DIR", value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// How often to look for an approaching automatic stop
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1m", env = "CODER_WORKSPACE_POLL_INTERVAL")]
    pub(crate) workspace_poll_interval: Duration,
    /// Do not start a stopped workspace
    #[arg(long, env = "CODER_SSH_DISABLE_AUTOSTART", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) disable_autostart: bool,
    /// Always make a new tunnel
    #[arg(long, hide = true)]
    pub(crate) force_new_tunnel: bool,
    /// Workspace: name, owner/name, name.agent, owner/name.agent, or a host name
    pub(crate) workspace: String,
    /// Command to run, instead of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigSshArgs {
    /// OpenSSH configuration file to write to [default: ~/.ssh/config]
    #[arg(long, env = "CODER_SSH_CONFIG_FILE", value_name = "FILE")]
    pub(crate) ssh_config_file: Option<PathBuf>,
    /// Program to name in ProxyCommand [default: this one]
    #[arg(
        long,
        env = "CODER_CONFIGSSH_BINARY_PATH",
        value_name = "FILE",
        alias = "coder-binary-path"
    )]
    pub(crate) binary_path: Option<PathBuf>,
    /// OpenSSH option to add; may be repeated
    #[arg(
        short = 'o',
        long,
        env = "CODER_SSH_CONFIG_OPTS",
        value_name = "OPTION",
        value_delimiter = ','
    )]
    pub(crate) ssh_option: Vec<String>,
    /// Keep the options of the last run
    #[arg(long)]
    pub(crate) use_previous_options: bool,
    /// Prefix of host names [default: what the control plane says]
    #[arg(long, env = "CODER_CONFIGSSH_SSH_HOST_PREFIX", value_name = "PREFIX")]
    pub(crate) ssh_host_prefix: Option<String>,
    /// Suffix of host names [default: what the control plane says]
    #[arg(long, env = "CODER_CONFIGSSH_HOSTNAME_SUFFIX", value_name = "SUFFIX")]
    pub(crate) hostname_suffix: Option<String>,
    /// Wait for the start scripts of the workspace
    #[arg(long, value_enum, default_value = "auto", env = "CODER_CONFIGSSH_WAIT")]
    pub(crate) wait: Wait,
    /// Do not start a stopped workspace on connect
    #[arg(long, env = "CODER_CONFIGSSH_DISABLE_AUTOSTART", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) disable_autostart: bool,
    /// One Host block for each workspace
    #[arg(long, env = "CODER_CONFIGSSH_NO_WILDCARD", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_wildcard: bool,
    /// Show what would change, and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub(crate) force_unix_filepaths: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    /// Workspace, [owner/]name[.agent]
    pub(crate) workspace: String,
    /// TCP ports: [ADDRESS:]LOCAL[:REMOTE], ranges and commas allowed; may be repeated
    #[arg(
        short = 'p',
        long,
        value_name = "PORTS",
        env = "CODER_PORT_FORWARD_TCP"
    )]
    pub(crate) tcp: Vec<String>,
    /// UDP ports, in the same form
    #[arg(long, value_name = "PORTS", env = "CODER_PORT_FORWARD_UDP")]
    pub(crate) udp: Vec<String>,
    /// Do not start a stopped workspace
    #[arg(long, env = "CODER_SSH_DISABLE_AUTOSTART", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) disable_autostart: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct OpenArgs {
    /// Workspace, [owner/]name[.agent]
    pub(crate) workspace: Option<String>,
    /// Port in the workspace to forward and to open in a browser
    pub(crate) port: Option<u16>,
    /// Local port to forward from [default: the same, or any free one]
    #[arg(long, value_name = "PORT")]
    pub(crate) local_port: Option<u16>,
    /// Path of the page
    #[arg(long, default_value = "/", value_name = "PATH")]
    pub(crate) path: String,
    /// Open https:// instead of http://
    #[arg(long)]
    pub(crate) https: bool,
    /// Only print the address
    #[arg(long)]
    pub(crate) print: bool,
    #[command(subcommand)]
    pub(crate) what: Option<OpenCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OpenCommand {
    /// Open a workspace in VS Code
    Vscode {
        /// Workspace, [owner/]name[.agent]
        workspace: String,
        /// Directory in the workspace
        directory: Option<String>,
        /// Put a new session token into the address
        #[arg(long)]
        generate_token: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Workspace, [owner/]name[.agent]
    pub(crate) workspace: String,
    /// Pings to send; without end when 0
    #[arg(short = 'n', long, default_value_t = 0, value_name = "COUNT")]
    pub(crate) num: u32,
    /// Time between two pings
    #[arg(long, default_value = "1s", value_parser = duration::parse, value_name = "DURATION")]
    pub(crate) wait: Duration,
    /// How long to wait for an answer
    #[arg(short, long, default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Print the time of each answer
    #[arg(long)]
    pub(crate) time: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// Which way data flows in a speed test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the workspace to this machine
    Down,
    /// From this machine to the workspace
    Up,
}

#[derive(Debug, Args)]
pub(crate) struct SpeedtestArgs {
    /// Workspace, [owner/]name[.agent]
    pub(crate) workspace: String,
    /// Wait for a direct connection first
    #[arg(short, long)]
    pub(crate) direct: bool,
    /// How long to measure
    #[arg(short, long, default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub(crate) time: Duration,
    /// Which way data flows
    #[arg(long, value_enum, default_value = "down")]
    pub(crate) direction: Direction,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectCommand {
    /// Exit with 0 if a host name leads into an operating-system-wide tunnel
    Exists {
        /// Host name
        host: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to complete for
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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
