//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::helpers::{stat, sync};
use adit_http::TlsOptions;
use clap::builder::ArgAction;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "adit-agent",
    about = "Runs inside a workspace and makes it reachable",
    disable_version_flag = true,
    args_override_self = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Cli {
    /// Print the version.
    #[arg(long)]
    pub(crate) version: bool,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// Options every command takes; scripts written for `coder` may pass them.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Show more in the log.
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub(crate) verbose: bool,
    #[arg(long, global = true, hide = true, default_value = "")]
    url: String,
    #[arg(long, global = true, hide = true, default_value = "")]
    token: String,
    #[arg(long, global = true, hide = true)]
    header: Vec<String>,
    #[arg(long, global = true, hide = true, default_value = "")]
    header_command: String,
    /// Trust only the authorities in this PEM file.
    #[arg(long, global = true, env = "CODER_CLIENT_TLS_CA_FILE")]
    client_tls_ca_file: Option<PathBuf>,
    /// PEM file with the agent's own certificate.
    #[arg(long, global = true, env = "CODER_CLIENT_TLS_CERT_FILE")]
    client_tls_cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, global = true, env = "CODER_CLIENT_TLS_KEY_FILE")]
    client_tls_key_file: Option<PathBuf>,
    #[command(flatten)]
    unused: Unused,
}

/// Options of the user's program that mean nothing to an agent.
#[derive(Clone, Debug, Args)]
struct Unused {
    #[arg(long, global = true, hide = true)]
    global_config: Option<PathBuf>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    disable_direct_connections: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    disable_network_telemetry: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    debug_http: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    force_tty: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    no_feature_warning: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    no_open: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    no_version_warning: Option<Option<String>>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true)]
    use_keyring: Option<Option<String>>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent; also the default.
    Agent(Box<AgentArgs>),
    /// Print the version.
    Version {
        /// `text` or `json`.
        #[arg(long, short, default_value = "text")]
        output: String,
    },
    /// Run ssh with the owner's git key; git calls this.
    #[command(hide = true)]
    Gitssh {
        /// Arguments of ssh.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Tokens of services the owner is signed in to.
    ExternalAuth {
        #[command(subcommand)]
        what: ExternalAuth,
    },
    /// What is not settled yet.
    #[command(hide = true)]
    Exp {
        #[command(subcommand)]
        what: Exp,
    },
    /// Resources in use.
    Stat {
        #[command(subcommand)]
        what: stat::What,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Exp {
    /// Order between scripts that run side by side.
    Sync(sync::Sync),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExternalAuth {
    /// Print the access token.
    AccessToken {
        /// Identifier of the service.
        id: String,
        /// Print this further property of the token instead, `a.b.c`.
        #[arg(long)]
        extra: Option<String>,
        /// `text` or `json`.
        #[arg(long, short, default_value = "text")]
        output: stat::Output,
    },
}

/// The options of the agent. An environment variable that is set but empty
/// counts as set.
#[derive(Clone, Debug, Args)]
pub(crate) struct AgentArgs {
    /// Token of this agent.
    #[arg(
        long,
        env = "CODER_AGENT_TOKEN",
        hide_env_values = true,
        default_value = ""
    )]
    pub(crate) agent_token: String,
    /// File that holds the token; read again for each connection.
    #[arg(long, env = "CODER_AGENT_TOKEN_FILE", default_value = "")]
    pub(crate) agent_token_file: String,
    /// Address of the deployment.
    #[arg(long, env = "CODER_AGENT_URL", default_value = "")]
    pub(crate) agent_url: String,
    /// How the agent proves who it is: token, google-instance-identity,
    /// aws-instance-identity, azure-instance-identity.
    #[arg(long, env = "CODER_AGENT_AUTH", default_value = "token")]
    pub(crate) auth: String,
    /// Which agent this is, with instance identity.
    #[arg(long, env = "CODER_AGENT_NAME", default_value = "")]
    pub(crate) agent_name: String,
    /// Directory of the agent's and the scripts' log files.
    #[arg(long, env = "CODER_AGENT_LOG_DIR", default_value_os_t = std::env::temp_dir())]
    pub(crate) log_dir: PathBuf,
    /// Directory below which scripts keep their data.
    #[arg(long, env = "CODER_AGENT_SCRIPT_DATA_DIR", default_value_os_t = std::env::temp_dir())]
    pub(crate) script_data_dir: PathBuf,
    /// Accepted for compatibility; there is no such listener.
    #[arg(
        long,
        env = "CODER_AGENT_PPROF_ADDRESS",
        default_value = "127.0.0.1:6060"
    )]
    pub(crate) pprof_address: String,
    /// Where metrics are served; empty disables.
    #[arg(
        long,
        env = "CODER_AGENT_PROMETHEUS_ADDRESS",
        default_value = "127.0.0.1:2112"
    )]
    pub(crate) prometheus_address: String,
    /// Where debug pages are served; empty disables.
    #[arg(
        long,
        env = "CODER_AGENT_DEBUG_ADDRESS",
        default_value = "127.0.0.1:2113"
    )]
    pub(crate) debug_address: String,
    /// Longest silence of an SSH client, for example 72h.
    #[arg(long, env = "CODER_AGENT_SSH_MAX_TIMEOUT", default_value = "72h", value_parser = duration)]
    pub(crate) ssh_max_timeout: Duration,
    /// UDP port of the tunnel; 0 picks one.
    #[arg(long, env = "CODER_AGENT_TAILNET_LISTEN_PORT", default_value = "0")]
    pub(crate) tailnet_listen_port: u16,
    /// Do not fork to reap processes when running as PID 1.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = boolean)]
    pub(crate) no_reap: bool,
    /// Human-readable log: a path, /dev/stderr, /dev/stdout or empty.
    #[arg(long, env = "CODER_AGENT_LOGGING_HUMAN", default_value = "/dev/stderr")]
    pub(crate) log_human: String,
    /// JSON log, as --log-human.
    #[arg(long, env = "CODER_AGENT_LOGGING_JSON", default_value = "")]
    pub(crate) log_json: String,
    /// Stackdriver log, as --log-human.
    #[arg(long, env = "CODER_AGENT_LOGGING_STACKDRIVER", default_value = "")]
    pub(crate) log_stackdriver: String,
    /// Refuse scp, sftp and rsync.
    #[arg(long, env = "CODER_AGENT_BLOCK_FILE_TRANSFER", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = boolean)]
    pub(crate) block_file_transfer: bool,
    /// Refuse SSH forwards that listen in the workspace.
    #[arg(long, env = "CODER_AGENT_BLOCK_REVERSE_PORT_FORWARDING", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = boolean)]
    pub(crate) block_reverse_port_forwarding: bool,
    /// Refuse SSH forwards that connect from the workspace.
    #[arg(long, env = "CODER_AGENT_BLOCK_LOCAL_PORT_FORWARDING", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = boolean)]
    pub(crate) block_local_port_forwarding: bool,
    /// Serve a socket for the programs in the workspace.
    #[arg(long, env = "CODER_AGENT_SOCKET_SERVER_ENABLED", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = boolean)]
    pub(crate) socket_server_enabled: bool,
    /// Where that socket is.
    #[arg(long, env = "CODER_AGENT_SOCKET_PATH", default_value = "")]
    pub(crate) socket_path: String,
    #[command(flatten)]
    pub(crate) accepted: AcceptedArgs,
    /// Headers sent with every request, `key=value`: repeatable, and several
    /// with commas between them, as in a CSV file.
    #[arg(long, env = "CODER_AGENT_HEADER")]
    pub(crate) agent_header: Vec<String>,
    /// Command that prints further headers, one `key=value` per line.
    #[arg(long, env = "CODER_AGENT_HEADER_COMMAND", default_value = "")]
    pub(crate) agent_header_command: String,
    /// From the options that all commands take.
    #[arg(skip)]
    pub(crate) tls: TlsOptions,
}

impl AgentArgs {
    /// Takes over what was given for all commands; the agent's own options
    /// win.
    fn inherit(&mut self, global: &Global) {
        for (own, other) in [
            (&mut self.agent_url, &global.url),
            (&mut self.agent_token, &global.token),
            (&mut self.agent_header_command, &global.header_command),
        ] {
            if own.is_empty() {
                own.clone_from(other);
            }
        }
        self.agent_header.extend_from_slice(&global.header);
        self.tls = TlsOptions {
            ca_file: file(global.client_tls_ca_file.as_ref()),
            cert_file: file(global.client_tls_cert_file.as_ref()),
            key_file: file(global.client_tls_key_file.as_ref()),
        };
    }
}

/// The empty name stands for none.
fn file(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.filter(|p| !p.as_os_str().is_empty()).cloned()
}

/// Options of functions this agent does not have yet; accepted so that
/// templates keep working.
#[derive(Clone, Debug, Args)]
pub(crate) struct AcceptedArgs {
    #[arg(long, env = "CODER_AGENT_DEVCONTAINERS_ENABLE", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = boolean)]
    pub(crate) devcontainers_enable: bool,
    #[arg(long, env = "CODER_AGENT_DEVCONTAINERS_PROJECT_DISCOVERY_ENABLE", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = boolean)]
    pub(crate) devcontainers_project_discovery_enable: bool,
    #[arg(long, env = "CODER_AGENT_DEVCONTAINERS_DISCOVERY_AUTOSTART_ENABLE", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_parser = boolean)]
    pub(crate) devcontainers_discovery_autostart_enable: bool,
    #[arg(
        long,
        env = "CODER_AGENT_FIREWALL_LOG_PROXY_SOCKET_PATH",
        hide = true,
        default_value = ""
    )]
    pub(crate) agent_firewall_log_proxy_socket_path: String,
    #[arg(
        long,
        env = "CODER_AGENT_BOUNDARY_LOG_PROXY_SOCKET_PATH",
        hide = true,
        default_value = ""
    )]
    pub(crate) boundary_log_proxy_socket_path: String,
}

/// Parses the process's arguments; prints help and ends the process where
/// clap does.
pub(crate) fn parse() -> Cli {
    let args = with_homebrew(std::env::args_os().collect(), |name| std::env::var_os(name));
    let matches = match Cli::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => exit(&error),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.inherited(),
        Err(error) => exit(&error),
    }
}

impl Cli {
    fn inherited(mut self) -> Self {
        self.agent.inherit(&self.global);
        if let Some(Command::Agent(args)) = &mut self.command {
            args.inherit(&self.global);
        }
        self
    }
}

/// The agent's options from the environment alone.
pub(crate) fn from_environment() -> anyhow::Result<AgentArgs> {
    Ok(Cli::try_parse_from(["adit-agent"])?.inherited().agent)
}

/// Bad values end with exit code 1, not clap's 2.
fn exit(error: &clap::Error) -> ! {
    let _ = error.print();
    std::process::exit(i32::from(error.use_stderr()))
}

/// A variable that is absent may be given with the prefix `HOMEBREW_`: it
/// becomes an option in front of the real ones.
fn with_homebrew(mut args: Vec<OsString>, var: impl Fn(&str) -> Option<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let at = 1 + usize::from(args.get(1).is_some_and(|a| a == "agent"));
    if at == 1 && args.len() > 1 {
        return args;
    }
    for arg in command.get_arguments() {
        let (Some(long), Some(env)) = (arg.get_long(), arg.get_env().and_then(|e| e.to_str()))
        else {
            continue;
        };
        if var(env).is_none()
            && let Some(value) = var(&format!("HOMEBREW_{env}"))
        {
            let mut option = OsString::from(format!("--{long}="));
            option.push(value);
            args.insert(at.min(args.len()), option);
        }
    }
    args
}

fn boolean(text: &str) -> Result<bool, String> {
    if text.is_empty() {
        return Ok(false);
    }
    adit_rest::boolean(text).ok_or_else(|| "write true or false".to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    adit_agent_core::duration::parse(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(args: &[&str]) -> AgentArgs {
        let all = ["adit-agent"].iter().chain(args);
        let cli = Cli::try_parse_from(all).expect("accepted").inherited();
        match cli.command {
            Some(Command::Agent(args)) => *args,
            _ => cli.agent,
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn both_forms_start_the_agent() {
        for args in [&["agent"][..], &[]] {
            let a = agent(args);
            assert_eq!(a.ssh_max_timeout, Duration::from_secs(259_200));
            assert_eq!(a.log_human, "/dev/stderr");
            assert!(a.accepted.devcontainers_enable);
        }
        let a = agent(&[
            "agent",
            "--agent-token",
            "t",
            "--no-reap",
            "--block-file-transfer=1",
        ]);
        assert_eq!(a.agent_token, "t");
        assert!(a.no_reap && a.block_file_transfer);
    }

    #[test]
    fn options_of_all_commands_count_before_and_after() {
        for args in [
            &["--url", "http://u", "--client-tls-ca-file=/ca", "agent"][..],
            &["agent", "--url=http://u", "--client-tls-ca-file", "/ca"],
        ] {
            let a = agent(args);
            assert_eq!(a.agent_url, "http://u", "{args:?}");
            assert_eq!(a.tls.ca_file.as_deref(), Some("/ca".as_ref()), "{args:?}");
        }
        let a = agent(&[
            "--header=A=1",
            "agent",
            "--agent-header",
            "B=2",
            "--no-open",
        ]);
        assert_eq!(a.agent_header, ["B=2", "A=1"]);
        let a = agent(&["--url", "http://u", "agent", "--agent-url", "http://own"]);
        assert_eq!(a.agent_url, "http://own");
    }

    /// Each option and variable of the program this one takes the place of,
    /// with a value other than the default.
    #[test]
    fn every_option_is_accepted() {
        let text = |all: &AgentArgs| format!("{all:?}");
        let default = text(&agent(&["agent"]));
        let command = Cli::command();
        for (option, variable, value) in [
            ("agent-token", "CODER_AGENT_TOKEN", "t"),
            ("agent-token-file", "CODER_AGENT_TOKEN_FILE", "/t"),
            ("agent-url", "CODER_AGENT_URL", "http://u"),
            ("auth", "CODER_AGENT_AUTH", "aws-instance-identity"),
            ("agent-name", "CODER_AGENT_NAME", "main"),
            ("log-dir", "CODER_AGENT_LOG_DIR", "/l"),
            ("script-data-dir", "CODER_AGENT_SCRIPT_DATA_DIR", "/s"),
            ("pprof-address", "CODER_AGENT_PPROF_ADDRESS", ""),
            ("prometheus-address", "CODER_AGENT_PROMETHEUS_ADDRESS", ""),
            ("debug-address", "CODER_AGENT_DEBUG_ADDRESS", ""),
            ("ssh-max-timeout", "CODER_AGENT_SSH_MAX_TIMEOUT", "1d"),
            (
                "tailnet-listen-port",
                "CODER_AGENT_TAILNET_LISTEN_PORT",
                "7",
            ),
            ("no-reap", "", "true"),
            ("log-human", "CODER_AGENT_LOGGING_HUMAN", ""),
            ("log-json", "CODER_AGENT_LOGGING_JSON", "/j"),
            ("log-stackdriver", "CODER_AGENT_LOGGING_STACKDRIVER", "/s"),
            (
                "block-file-transfer",
                "CODER_AGENT_BLOCK_FILE_TRANSFER",
                "T",
            ),
            (
                "block-reverse-port-forwarding",
                "CODER_AGENT_BLOCK_REVERSE_PORT_FORWARDING",
                "1",
            ),
            (
                "block-local-port-forwarding",
                "CODER_AGENT_BLOCK_LOCAL_PORT_FORWARDING",
                "true",
            ),
            (
                "devcontainers-enable",
                "CODER_AGENT_DEVCONTAINERS_ENABLE",
                "false",
            ),
            (
                "devcontainers-project-discovery-enable",
                "CODER_AGENT_DEVCONTAINERS_PROJECT_DISCOVERY_ENABLE",
                "f",
            ),
            (
                "devcontainers-discovery-autostart-enable",
                "CODER_AGENT_DEVCONTAINERS_DISCOVERY_AUTOSTART_ENABLE",
                "1",
            ),
            (
                "socket-server-enabled",
                "CODER_AGENT_SOCKET_SERVER_ENABLED",
                "",
            ),
            ("socket-path", "CODER_AGENT_SOCKET_PATH", "/p"),
            (
                "agent-firewall-log-proxy-socket-path",
                "CODER_AGENT_FIREWALL_LOG_PROXY_SOCKET_PATH",
                "/f",
            ),
            (
                "boundary-log-proxy-socket-path",
                "CODER_AGENT_BOUNDARY_LOG_PROXY_SOCKET_PATH",
                "/b",
            ),
            ("agent-header", "CODER_AGENT_HEADER", "a=b"),
            ("agent-header-command", "CODER_AGENT_HEADER_COMMAND", "true"),
        ] {
            let given = agent(&["agent", &format!("--{option}={value}")]);
            assert_ne!(text(&given), default, "--{option} changes nothing");
            let all = command
                .get_arguments()
                .find(|a| a.get_long() == Some(option));
            let env = all.and_then(|a| a.get_env()).unwrap_or_default();
            assert_eq!(env, variable, "--{option}");
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for args in [
            &["agent", "--ssh-max-timeout", "soon"][..],
            &["agent", "--tailnet-listen-port", "70000"],
            &["agent", "--block-file-transfer=maybe"],
            &["agent", "--nonsense"],
        ] {
            let all = ["adit-agent"].iter().chain(args);
            assert!(Cli::try_parse_from(all).is_err(), "{args:?}");
        }
    }

    #[test]
    fn homebrew_variables_are_weaker_than_options() {
        let args = ["x", "agent", "--agent-url", "http://real"]
            .map(Into::into)
            .to_vec();
        let args = with_homebrew(args, |n| match n {
            "HOMEBREW_CODER_AGENT_URL" => Some("http://brew".into()),
            "HOMEBREW_CODER_AGENT_AUTH" => Some("token".into()),
            _ => None,
        });
        let cli = Cli::try_parse_from(&args).expect("accepted");
        let Some(Command::Agent(a)) = cli.command else {
            unreachable!("an agent")
        };
        assert_eq!(a.agent_url, "http://real");
    }
}
