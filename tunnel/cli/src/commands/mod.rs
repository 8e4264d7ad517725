//! One module for each group of commands.

pub(crate) mod completion;
pub(crate) mod config_ssh;
pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod netcheck;
pub(crate) mod open;
pub(crate) mod ping;
pub(crate) mod port_forward;
pub(crate) mod show;
pub(crate) mod speedtest;
pub(crate) mod version;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::{Cli, Command},
    settings::{Environment, Settings},
    ssh,
};

/// Runs the command and returns the exit code of the process.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode> {
    let settings = Settings::new(cli.global, Environment::of_process());
    let settings = &settings;
    match cli.command {
        Command::Ssh(args) => return ssh::run(settings, args).await,
        Command::Connect(command) => return Ok(connect::run(&command).await),
        Command::Login(args) => login::login(settings, args).await?,
        Command::Logout(args) => login::logout(settings, &args).await?,
        Command::Whoami(args) => login::whoami(settings, &args).await?,
        Command::List(args) => list::run(settings, &args).await?,
        Command::Create(args) => create::run(settings, args).await?,
        Command::Show(args) => show::run(settings, &args).await?,
        Command::Start(args) => lifecycle::start(settings, &args).await?,
        Command::Stop(args) => lifecycle::stop(settings, &args).await?,
        Command::Restart(args) => lifecycle::restart(settings, &args).await?,
        Command::Delete(args) => lifecycle::delete(settings, &args).await?,
        Command::Logs(args) => logs::run(settings, &args).await?,
        Command::ConfigSsh(args) => config_ssh::run(settings, &args).await?,
        Command::PortForward(args) => port_forward::run(settings, &args).await?,
        Command::Open(args) => open::run(settings, args).await?,
        Command::Ping(args) => ping::run(settings, &args).await?,
        Command::Speedtest(args) => speedtest::run(settings, &args).await?,
        Command::Netcheck => netcheck::run(settings).await?,
        Command::Completion(args) => completion::run(&args),
        Command::Version(args) => version::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
