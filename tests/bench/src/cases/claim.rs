//! Claim of a prebuilt workspace: from the event that tells its agent, and
//! from the start of the client, to the new owner's start script.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    context::{Context, have},
    net::{Net, Path as Way},
    report::{Better, Outcome, Report, Row, Sample},
    run::Output,
    subject::{Adit, COMMAND_LIMIT, Deployment, WORKSPACE, until},
};

const CASE: &str = "claim";

/// How long a replacement rests before it is claimed.
const REST: Duration = Duration::from_secs(2);

pub(super) fn run(context: &mut Context, report: &mut Report) -> Result<()> {
    ensure!(have("curl"), "curl is not installed");
    let runs = context.options.runs();
    let dir = context.fresh_dir("adit");
    let net = Net::new(Way::Veth)?;
    let adit = Adit::start(&net, &context.bin, &dir, 1)?;
    let mut figures: [Vec<Sample>; 3] = Default::default();
    let mut claimed = vec![workspace_dir(&adit, &net, WORKSPACE)?];
    for number in 1..=runs {
        let prebuilt = until("a prebuilt workspace", || prebuilt(&adit, &claimed))?;
        thread::sleep(REST);
        let values = claim(&net, &adit, &prebuilt, &format!("claimed{number}"))?;
        for (figures, value) in figures.iter_mut().zip(values) {
            figures.push(value.into());
        }
        claimed.push(prebuilt);
    }
    if let Some(to) = &context.options.logs {
        fs::create_dir_all(to)?;
        for (number, log) in adit.logs().iter().enumerate() {
            let _ = fs::copy(log, to.join(format!("claim-{number}.log")));
        }
    }
    let missing = match &context.real {
        Ok(_) => Outcome::Skipped("prebuilt workspaces need a licence".into()),
        Err(why) => Outcome::Skipped(why.clone()),
    };
    let rows = [
        ("claim event → new owner's scripts", Some(60.0)),
        ("create of a prebuilt workspace returns", None),
        ("start of create → new owner's scripts", None),
    ];
    for ((metric, target), samples) in rows.into_iter().zip(figures) {
        let mut row = Row::new(CASE, metric, "ms", Better::Lower);
        row.target = target;
        row.adit = Outcome::Measured(samples);
        row.coder = missing.clone();
        report.push(row);
    }
    Ok(())
}

/// Claims a workspace; milliseconds from the event to the script, of the
/// client's command, and from its start to the script.
fn claim(net: &Net, adit: &Adit, prebuilt: &Path, name: &str) -> Result<[f64; 3]> {
    let token = fs::read_to_string(prebuilt.join("token"))?;
    let listener = Listener::start(net, adit, token.trim())?;
    let began = now()?;
    let deployment: &dyn Deployment = adit;
    let args = [
        "create",
        name,
        "--template",
        "local",
        "--preset",
        "default",
        "--yes",
    ];
    let created = deployment.run(net, &args, Output::Keep, COMMAND_LIMIT)?;
    let event = listener.event()?;
    let started = until("the claimed workspace to be ready", || {
        let state = deployment.state(net, name)?;
        let started = state.started_at.filter(|at| *at >= began);
        match started {
            Some(started) if state.lifecycle == "ready" => Ok(started),
            _ => bail!("{state:?}"),
        }
    })?;
    let milliseconds = |from: Duration| started.saturating_sub(from).as_secs_f64() * 1e3;
    Ok([
        milliseconds(event),
        created.elapsed.as_secs_f64() * 1e3,
        milliseconds(began),
    ])
}

/// A second listener beside the agent, that notes when the event comes.
#[derive(Debug)]
struct Listener {
    child: Child,
    thread: Option<JoinHandle<Result<Duration>>>,
}

impl Listener {
    fn start(net: &Net, adit: &Adit, token: &str) -> Result<Self> {
        let mut command = Command::new("curl");
        command
            .args(["-sNS", "--max-time", "60", "-H"])
            .arg(format!("Coder-Session-Token: {token}"))
            .arg(format!(
                "{}/api/v2/workspaceagents/me/reinit?wait=true",
                adit.url
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = net.far.spawn(&mut command)?;
        let stdout = child.stdout.take().context("no standard output")?;
        let thread = thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line?.contains("prebuild_claimed") {
                    return now();
                }
            }
            bail!("the stream of claim events ended without one")
        });
        // It has to be listening before the claim.
        thread::sleep(Duration::from_millis(300));
        Ok(Self {
            child,
            thread: Some(thread),
        })
    }

    /// When the event came, since 1970.
    fn event(mut self) -> Result<Duration> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => bail!("the listener for claim events failed"),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// A workspace that nobody has claimed, once its agent is ready.
fn prebuilt(adit: &Adit, claimed: &[PathBuf]) -> Result<PathBuf> {
    let dir = adit
        .workspaces()?
        .into_iter()
        .find(|dir| !claimed.contains(dir))
        .context("none is there")?;
    let log = fs::read_to_string(dir.join("agent.log"))?;
    ensure!(log.contains("state=Ready"), "its agent is not ready");
    Ok(dir)
}

/// Directory of the workspace with this name.
fn workspace_dir(adit: &Adit, net: &Net, name: &str) -> Result<PathBuf> {
    let deployment: &dyn Deployment = adit;
    let id = deployment.state(net, name)?.workspace;
    adit.workspaces()?
        .into_iter()
        .find(|dir| dir.ends_with(&id))
        .with_context(|| format!("no directory of workspace {id}"))
}
