//! `ssh`: a shell or a command in a workspace, or its SSH server on standard
//! input and output for OpenSSH.

mod client;
mod escape;
mod forwards;
mod gpg;
mod netinfo;
mod stdio;
mod terminal;
mod watch;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use adit_rest::AgentConnectionInfo;
use anyhow::{Context as _, Result, bail};

use crate::{
    api::Api,
    cli::{SshArgs, Wait},
    commands::connect::resolves_into_tunnel,
    name::WorkspaceRef,
    resolve::{self, Autostart, Target},
    settings::Settings,
    tunnel::Tunnel,
    usage::Usage,
};

/// Port of the SSH server on every agent.
const SSH_PORT: u16 = 1;
/// How long the tunnel may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// What the server says about connections is used no longer than this after it
/// was asked.
const INFO_AGE: Duration = Duration::from_secs(30);
/// Attempts to find the workspace while the control plane is away.
const ATTEMPTS: u32 = 10;
/// Pause between two of them.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(2);

/// Connects, and returns the exit code of the remote command.
pub(crate) async fn run(settings: &Settings, args: SshArgs) -> Result<ExitCode> {
    let _log = match &args.log_dir {
        Some(dir) => Some(LogFile::open(dir, args.stdio)?),
        None => None,
    };
    let reference = WorkspaceRef::parse_ssh(
        &args.workspace,
        args.ssh_host_prefix.as_deref(),
        args.hostname_suffix.as_deref(),
    )?;
    let api = Api::of(settings).await?;
    // One for the coordinator, one for the relay beside it.
    api.http().prepare(2);
    let asked = Instant::now();
    let (target, info) = tokio::join!(find(&api, &reference, &args), connection_info(&api));
    let mut target = target?;
    let wait = if args.no_wait { Wait::No } else { args.wait };
    resolve::ready(&api, &mut target, wait, true).await?;

    if args.stdio && !args.force_new_tunnel && system_tunnel_serves(&target, &args).await {
        let host = system_tunnel_host(&target, &args);
        let stream = tokio::net::TcpStream::connect((host.as_str(), 22))
            .await
            .with_context(|| format!("connect to {host}"))?;
        stdio::run(stream).await?;
        return Ok(ExitCode::SUCCESS);
    }

    let info = info.filter(|_| asked.elapsed() < INFO_AGE);
    let (tunnel, stream) = Tunnel::open_to(settings, &api, target.agent.id, SSH_PORT, info).await?;
    let app = args.usage_app.clone().unwrap_or_else(|| "ssh".to_owned());
    let _usage = (app != "disable")
        .then(|| Usage::report(&api, target.workspace.id, Some((target.agent.id, app))));
    let netinfo = match &args.network_info_dir {
        Some(dir) => Some(netinfo::Writer::start(
            dir,
            args.network_info_interval,
            &tunnel,
        )?),
        None => None,
    };
    let session = async {
        if args.stdio {
            stdio::run(stream).await?;
            Ok(ExitCode::SUCCESS)
        } else {
            client::run(stream, &args).await
        }
    };
    let result = tokio::select! {
        result = session => result,
        reason = watch::workspace(&api, &target.workspace) => Err(reason),
        error = netinfo::failed(netinfo.as_ref()) => Err(error),
        () = crate::signal::interrupted(), if args.stdio || !args.command.is_empty() => {
            Ok(ExitCode::from(255))
        }
    };
    let _ = tokio::time::timeout(GOODBYE, tunnel.close()).await;
    result
}

/// How connections are made here. It does not depend on the agent, so it is
/// asked for while the agent is looked up; `None` if the server does not say.
async fn connection_info(api: &Api) -> Option<AgentConnectionInfo> {
    match api.get("/api/v2/workspaceagents/connection").await {
        Ok(info) => Some(info),
        Err(error) => {
            tracing::debug!(%error, "no general connection information");
            None
        }
    }
}

async fn find(api: &Api, reference: &WorkspaceRef, args: &SshArgs) -> Result<Target> {
    let autostart = if args.disable_autostart {
        Autostart::No
    } else {
        Autostart::Yes
    };
    let mut attempt = 1;
    loop {
        let error = match resolve::agent(api, reference, autostart).await {
            Ok(target) => return Ok(target),
            Err(error) => error,
        };
        if attempt == ATTEMPTS || !api.may_pass(&error) {
            return Err(error);
        }
        eprintln!("adit: {error:#}; trying again in {ATTEMPT_PAUSE:?}");
        tokio::time::sleep(ATTEMPT_PAUSE).await;
        attempt += 1;
    }
}

/// Host name of the agent in an operating-system-wide tunnel.
fn system_tunnel_host(target: &Target, args: &SshArgs) -> String {
    let suffix = args.hostname_suffix.as_deref().unwrap_or("coder");
    format!(
        "{}.{}.{}.{suffix}.",
        target.agent.name, target.workspace.name, target.workspace.owner_name
    )
    .to_lowercase()
}

/// Whether such a tunnel is up on this machine and knows the agent. A slow
/// resolver counts as no: it must not delay every connection.
async fn system_tunnel_serves(target: &Target, args: &SshArgs) -> bool {
    const LIMIT: Duration = Duration::from_millis(100);
    if args.hostname_suffix.is_none() {
        return false;
    }
    let host = system_tunnel_host(target, args);
    tokio::time::timeout(LIMIT, resolves_into_tunnel(&host))
        .await
        .unwrap_or(false)
}

/// The log file of one session, which IDE plugins find by the process id of
/// the SSH client in its name.
struct LogFile(PathBuf);

impl LogFile {
    fn open(dir: &std::path::Path, stdio: bool) -> Result<Self> {
        if !dir.is_dir() {
            bail!("the log directory {} does not exist", dir.display());
        }
        let letters: String =
            std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z')))
                .take(5)
                .collect();
        let mut name = format!(
            "coder-ssh-{}-{letters}",
            jiff::Zoned::now().strftime("%Y%m%d-%H%M%S")
        );
        if stdio {
            name.push_str(&format!("-{}", parent_id()));
        }
        let path = dir.join(format!("{name}.log"));
        let file =
            std::fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
        crate::logging::also_to(file);
        tracing::info!(path = %path.display(), "logging this session");
        Ok(Self(path))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        tracing::info!(path = %self.0.display(), "session ended");
    }
}

/// The process that started this one: for `ProxyCommand`, the SSH client.
fn parent_id() -> u32 {
    #[cfg(unix)]
    {
        std::os::unix::process::parent_id()
    }
    #[cfg(not(unix))]
    {
        std::process::id()
    }
}
