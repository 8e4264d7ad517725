//! The control plane as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use adit_server::{Config, DevArgs, Server};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use url::Url;

/// Workspaces you can reach from anywhere.
#[derive(Debug, Parser)]
#[command(name = "adit-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane.
    Server(Box<ServerArgs>),
    /// Run everything on this machine: control plane, user, workspace.
    Dev(Box<DevArgs>),
}

#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// Directory of the database and of local workspaces.
    #[arg(long, env = "ADIT_DATA_DIR", default_value_os_t = default_data_dir())]
    data_dir: PathBuf,
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, env = "ADIT_LISTEN", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// URL by which agents and clients reach this server.
    #[arg(long, env = "ADIT_ACCESS_URL")]
    access_url: Option<Url>,
    /// Let users rename their workspaces.
    #[arg(long, env = "ADIT_ALLOW_WORKSPACE_RENAMES")]
    allow_workspace_renames: bool,
    /// Send all traffic through the relay.
    #[arg(long, env = "ADIT_BLOCK_DIRECT")]
    block_direct: bool,
    /// STUN servers (host:port) by which peers learn their public addresses.
    #[arg(long, env = "ADIT_STUN_SERVERS", value_delimiter = ',')]
    stun_server: Vec<String>,
    /// Agent program of local workspaces [default: adit-agent next to this
    /// program].
    #[arg(long, env = "ADIT_AGENT_BIN")]
    agent: Option<PathBuf>,
}

/// `$XDG_DATA_HOME/adit`, or `~/.local/share/adit`.
fn default_data_dir() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    base.unwrap_or_else(|| PathBuf::from(".")).join("adit")
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = match cli.command {
        Command::Server(_) => "info",
        Command::Dev(_) => "warn",
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("ADIT_LOG").unwrap_or_else(|_| EnvFilter::new(default)),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().min(4)))
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Server(args) => serve(*args).await,
        Command::Dev(args) => adit_server::run_dev(*args).await,
    }
}

async fn serve(args: ServerArgs) -> anyhow::Result<()> {
    let server = Server::bind(Config {
        data_dir: args.data_dir,
        listen: args.listen,
        access_url: args.access_url,
        allow_workspace_renames: args.allow_workspace_renames,
        block_direct_connections: args.block_direct,
        stun_servers: args.stun_server,
        agent_program: args.agent,
        ..Config::default()
    })
    .await?;
    let app = server.app();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = app.shutdown.clone();
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    println!("Listening on {}", app.access_url);
    let result = server.run().await;
    signals.abort();
    result
}
