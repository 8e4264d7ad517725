//! From the command line to a running agent.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use adit_agent_core::identity::{Cloud, InstanceIdentity};
use adit_agent_core::{AgentConfig, Auth};
use adit_http::{Client, ClientConfig};
use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use url::Url;

use crate::cli::{AgentArgs, Cli, Command, Exp, ExternalAuth};
use crate::helpers::{askpass, external_auth, gitssh, stat, sync};
use crate::{cli, headers, logging, priority, reaper, version};

/// Threads that run tasks: one for the tunnel, one for everything else.
const WORKERS: usize = 2;
/// Threads for file work; they end when idle.
const BLOCKING: usize = 8;
/// Stack of each thread, in bytes.
const STACK: usize = 1 << 20;

/// Variables for AI tools that children must not see.
const HIDDEN: &str = "CODER_AGENT_EXP_";

pub(crate) fn main() -> anyhow::Result<ExitCode> {
    adit_memory::economise();
    let words: Vec<OsString> = std::env::args_os().collect();
    if let Some(plan) = priority::plan(&words) {
        return Ok(priority::run(plan));
    }
    let in_git = std::env::var_os("GIT_PREFIX").is_some();
    if let Some(question) = askpass::question(&words, in_git) {
        let args = cli::from_environment()?;
        return askpass::run(&args, &question);
    }
    let Cli {
        version: print_version,
        global,
        command,
        agent,
    } = cli::parse();
    if print_version {
        print!("{}", version::text());
        return Ok(ExitCode::SUCCESS);
    }
    let args = match command {
        Some(Command::Version { output }) => {
            match output.as_str() {
                "json" => print!("{}", version::json()),
                "text" => print!("{}", version::text()),
                other => bail!("unknown output format {other:?}: write text or json"),
            }
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Gitssh { args }) => return gitssh::run(&agent, &args),
        Some(Command::ExternalAuth { what }) => {
            let ExternalAuth::AccessToken { id, extra, output } = what;
            return external_auth::access_token(&agent, &id, extra.as_deref(), output);
        }
        Some(Command::Exp {
            what: Exp::Sync(args),
        }) => return sync::run(&args),
        Some(Command::Stat { what }) => return stat::run(&what),
        Some(Command::Agent(args)) => *args,
        None => agent,
    };
    if reaper::is_needed(args.no_reap) {
        return reaper::run();
    }
    reaper::detach_child(args.no_reap);
    logging::install(
        &args.log_dir,
        &logging::Sinks {
            human: &args.log_human,
            json: &args.log_json,
            stackdriver: &args.log_stackdriver,
            verbose: global.verbose,
        },
    )?;
    let config = configure(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .on_thread_park(adit_memory::thread_idles)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(watch_signals(shutdown.clone())?);
        tracing::info!(version = version::VERSION, url = %config.url, "the agent starts");
        // Among the workers, where waking a neighbour takes no system call.
        let agent = tokio::spawn(adit_agent_core::run(config, shutdown));
        let ended = agent.await.context("the agent's task")?;
        signals.abort();
        ended.map_err(|e| anyhow::anyhow!("{e} {}", e.remedy()))
    })?;
    tracing::info!("the agent has ended");
    Ok(ExitCode::SUCCESS)
}

/// The first stop signal begins the shutdown, further ones change nothing.
fn watch_signals(
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut trap = signal(SignalKind::from_raw(nix::libc::SIGTRAP))?;
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hang_up.recv() => "SIGHUP",
                _ = trap.recv() => {
                    tracing::info!("SIGTRAP: going on");
                    continue;
                }
                _ = quit.recv() => {
                    tracing::error!("SIGQUIT: ending at once");
                    std::process::exit(1);
                }
            };
            if shutdown.is_cancelled() {
                tracing::info!(name, "already shutting down");
            } else {
                tracing::info!(name, "shutting down");
                shutdown.cancel();
            }
        }
    })
}

/// Which control plane, who this agent is to it, and how it is reached.
pub(crate) struct Connection {
    pub(crate) auth: Auth,
    client: ClientConfig,
}

impl Connection {
    pub(crate) fn new(args: &AgentArgs) -> anyhow::Result<Self> {
        if args.agent_url.is_empty() {
            bail!("CODER_AGENT_URL must be set");
        }
        let url: Url = args
            .agent_url
            .parse()
            .with_context(|| format!("CODER_AGENT_URL {:?} is not a URL", args.agent_url))?;
        let mut client = ClientConfig::new(url);
        client.tls = args.tls.clone();
        let instance = |cloud| (args.auth.as_str(), Some(cloud));
        let (kind, cloud) = match args.auth.as_str() {
            "aws-instance-identity" => instance(Cloud::Aws),
            "azure-instance-identity" => instance(Cloud::Azure),
            "google-instance-identity" => instance(Cloud::Google),
            other => (other, None),
        };
        let has_token = !args.agent_token.is_empty() || !args.agent_token_file.is_empty();
        match kind {
            "token" if !has_token => {
                bail!("CODER_AGENT_TOKEN or CODER_AGENT_TOKEN_FILE must be set for token auth")
            }
            other if other != "token" && cloud.is_none() => {
                bail!("unknown agent auth type: {other}")
            }
            _ => {}
        }
        client.headers = headers::collect(
            &args.agent_header,
            &args.agent_header_command,
            &args.agent_url,
        )?;
        let auth = if let Some(cloud) = cloud {
            let identity = InstanceIdentity::new(cloud, &args.agent_name, client.clone())
                .map_err(|e| anyhow::anyhow!("{e} {}", e.remedy()))?;
            Auth::Instance(Arc::new(identity))
        } else if !args.agent_token.is_empty() {
            Auth::Token(args.agent_token.trim().to_owned())
        } else {
            Auth::TokenFile(PathBuf::from(&args.agent_token_file))
        };
        Ok(Self { auth, client })
    }

    /// A client that speaks as this agent.
    pub(crate) async fn client(self) -> anyhow::Result<Client> {
        let token = self
            .auth
            .refreshed()
            .await
            .map_err(|e| anyhow::anyhow!("{e}. {}", e.remedy()))?;
        Client::new(ClientConfig {
            session_token: Some(token),
            ..self.client
        })
        .map_err(|e| anyhow::anyhow!("{e} {}", e.remedy()))
    }
}

fn configure(args: &AgentArgs) -> anyhow::Result<AgentConfig> {
    let Connection { auth, client } = Connection::new(args)?;
    if !matches!(auth, Auth::Instance(_)) {
        // Told now rather than with the first connection.
        auth.token()?;
    }
    let mut config = AgentConfig::new(client.base, auth);
    config.headers = client.headers;
    config.tls = client.tls;
    config.wrapper = priority::wrapper(&config.executable, |name| std::env::var_os(name));
    config.subsystems = subsystems(&std::env::var("CODER_AGENT_SUBSYSTEM").unwrap_or_default())?;
    config.log_dir.clone_from(&args.log_dir);
    config.log_file = args.log_dir.join(logging::FILE);
    config.script_data_dir.clone_from(&args.script_data_dir);
    config.environment = environment(&config.executable);
    config.ssh_max_timeout = args.ssh_max_timeout;
    config.tailnet_port = args.tailnet_listen_port;
    config.block_file_transfer = args.block_file_transfer;
    config.block_reverse_port_forwarding = args.block_reverse_port_forwarding;
    config.block_local_port_forwarding = args.block_local_port_forwarding;
    config.socket_path = args
        .socket_server_enabled
        .then(|| sync::socket(&args.socket_path));
    config.devcontainers = args.accepted.devcontainers_enable;
    config.prometheus_address = address(&args.prometheus_address);
    config.debug_address = address(&args.debug_address);
    config.ignored_ports = [
        &args.pprof_address,
        &args.prometheus_address,
        &args.debug_address,
    ]
    .into_iter()
    .filter_map(|a| a.rsplit_once(':')?.1.parse().ok())
    .collect();
    warn_of_unused(args);
    Ok(config)
}

/// A listener that cannot be had is not worth failing for.
fn address(text: &str) -> Option<SocketAddr> {
    if text.is_empty() {
        return None;
    }
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            tracing::warn!(address = text, "not an address to listen on");
            None
        }
    }
}

fn warn_of_unused(args: &AgentArgs) {
    let accepted = &args.accepted;
    if !accepted.boundary_log_proxy_socket_path.is_empty() {
        tracing::warn!(
            "CODER_AGENT_BOUNDARY_LOG_PROXY_SOCKET_PATH is deprecated; use CODER_AGENT_FIREWALL_LOG_PROXY_SOCKET_PATH"
        );
    }
    tracing::debug!(?accepted, "options without effect");
}

/// What commands inherit: this process's environment, with the directory of
/// the program at the end of `PATH`.
fn environment(executable: &std::path::Path) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = adit_agent_exec::EnvLayers::process()
        .into_iter()
        .filter(|(name, _)| !name.to_string_lossy().starts_with(HIDDEN))
        .collect();
    if let Some(dir) = executable.parent() {
        match all.iter_mut().find(|(name, _)| name == "PATH") {
            Some((_, path)) => {
                path.push(":");
                path.push(dir);
            }
            None => all.push(("PATH".into(), dir.into())),
        }
    }
    all
}

/// What runs around the agent, as numbers of the protocol.
fn subsystems(text: &str) -> anyhow::Result<Vec<i32>> {
    let mut all = Vec::new();
    for name in text.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        all.push(match name {
            "envbox" => 1,
            "envbuilder" => 2,
            "exectrace" => 3,
            other => bail!("invalid subsystem {other:?} in CODER_AGENT_SUBSYSTEM"),
        });
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsystems_are_checked() {
        assert_eq!(
            subsystems("exectrace, envbox,envbox").ok(),
            Some(vec![1, 3])
        );
        assert_eq!(subsystems("").ok(), Some(vec![]));
        assert!(subsystems("other").is_err());
    }

    #[test]
    fn addresses() {
        assert_eq!(address(""), None);
        assert_eq!(address("nonsense"), None);
        assert!(address("localhost:2112").is_some());
    }

    #[test]
    fn the_program_can_be_found_by_commands() {
        let all = environment(std::path::Path::new("/opt/x/coder"));
        let path = all.iter().find(|(n, _)| n == "PATH").expect("a path");
        assert!(path.1.to_string_lossy().ends_with("/opt/x"));
    }
}
