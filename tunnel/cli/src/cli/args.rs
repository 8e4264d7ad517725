//! Arguments and flags of each command.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use crate::duration;

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
    /// Let the workspace use this machine's GnuPG agent
    #[arg(short = 'G', long, env = "CODER_SSH_FORWARD_GPG", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) forward_gpg: bool,
    /// Socket of the SSH agent to forward
    #[arg(long, env = "CODER_SSH_IDENTITY_AGENT", value_name = "SOCKET")]
    pub(crate) identity_agent: Option<PathBuf>,
    /// Wait for the start scripts of the workspace
    #[arg(long, value_enum, default_value = "auto", env = "CODER_SSH_WAIT")]
    pub(crate) wait: Wait,
    /// The same as --wait=no
    #[arg(long, hide = true)]
    pub(crate) no_wait: bool,
    /// Listen in the workspace and connect to this machine: PORT:ADDRESS:PORT or /SOCKET:/SOCKET
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
