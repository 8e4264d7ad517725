//! Memory and processor time of the server for each of many idle agents.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use adit_store::{
    NewTemplate, NewVersion, Store,
    spec::{AgentSpec, ResourceSpec, VersionSpec},
};
use anyhow::{Context as _, Result, bail, ensure};
use uuid::Uuid;

use crate::{
    context::Context,
    net::{Net, Path as Way},
    proc,
    report::{Better, Outcome, Report, Row},
    simulated,
    subject::{Adit, Deployment, WORKSPACE},
};

const CASE: &str = "fleet";

/// Name of their template, and of its provisioner, which starts nothing.
const TEMPLATE: &str = "simulated";

/// How long the server may take to build all of their workspaces.
const BUILD_LIMIT: Duration = Duration::from_secs(180);

pub(super) fn run(context: &mut Context, report: &mut Report) -> Result<()> {
    let agents: usize = context.options.pick(500, 100);
    let settle = Duration::from_secs(context.options.pick(60, 20));
    let dir = context.fresh_dir("adit");
    let net = Net::new(Way::Veth)?;
    let adit = Adit::start(&net, &context.bin, &dir, 0)?;
    let tokens = populate(&net, &adit, &dir.join("data/adit.db"), agents)?;
    let file = dir.join("tokens");
    fs::write(&file, tokens.join("\n"))?;
    let server = adit.server();
    let before = proc::memory(server)?;
    let fleet = Fleet::start(&net, &adit, &file)?;
    thread::sleep(settle);
    let after = proc::memory(server)?;
    let (cpu, began) = (proc::cpu(server), Instant::now());
    thread::sleep(settle);
    let busy = proc::cpu(server).saturating_sub(cpu).as_secs_f64();
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    drop(fleet);
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / 1e3 / agents as f64;
    let coder = match &context.real {
        Ok(_) => Outcome::Skipped("making its workspaces takes too long".into()),
        Err(why) => Outcome::Skipped(why.clone()),
    };
    for (metric, unit, target, value) in [
        (
            "server anonymous memory per idle agent",
            "kB",
            Some(40.0),
            each(after.anonymous, before.anonymous),
        ),
        (
            "server RSS per idle agent",
            "kB",
            None,
            each(after.rss, before.rss),
        ),
        (
            "server CPU per idle agent and minute",
            "ms",
            None,
            busy * 1e3 / minutes / agents as f64,
        ),
    ] {
        let mut row = Row::new(CASE, format!("{metric}, of {agents}"), unit, Better::Lower);
        row.target = target;
        row.adit = Outcome::one(value);
        row.coder = coder.clone();
        report.push(row);
    }
    Ok(())
}

/// The process with the simulated agents.
#[derive(Debug)]
struct Fleet {
    child: Child,
}

impl Fleet {
    fn start(net: &Net, adit: &Adit, tokens: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["agents", "--url", &adit.url, "--tokens"])
            .arg(tokens)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut fleet = Self {
            child: net.near.spawn(&mut command)?,
        };
        let stdout = fleet.child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(
            line.trim() == "ready",
            "the simulated agents did not connect"
        );
        Ok(fleet)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the workspaces, and returns the tokens of their agents.
///
/// Only their template is put into the database behind the server's back; the
/// server makes and builds them as it does for clients.
fn populate(net: &Net, adit: &Adit, database: &Path, agents: usize) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let store = runtime.block_on(Store::open(database))?;
    let template = runtime.block_on(template(&store))?;
    let url = adit.url.parse()?;
    net.near
        .enter(|| simulated::workspaces(&url, &adit.session_token, template, agents))??;
    let tokens = runtime.block_on(tokens(&store, template, agents));
    runtime.block_on(store.close());
    tokens
}

async fn template(store: &Store) -> Result<Uuid> {
    let organization = store.default_organization().await?;
    let everyone = store.workspaces(None).await?;
    let owner = everyone
        .iter()
        .find(|workspace| workspace.name == WORKSPACE)
        .context("the workspace of the deployment")?
        .owner_id;
    let agent = AgentSpec {
        name: "main".into(),
        operating_system: "linux".into(),
        architecture: "amd64".into(),
        ..AgentSpec::default()
    };
    let resource = ResourceSpec {
        resource_type: TEMPLATE.into(),
        name: "main".into(),
        agents: vec![agent],
        ..ResourceSpec::default()
    };
    let template = store
        .create_template(&NewTemplate {
            organization_id: organization.id,
            created_by: owner,
            name: TEMPLATE.into(),
            provisioner: TEMPLATE.into(),
            version: NewVersion {
                name: "v1".into(),
                spec: VersionSpec {
                    resources: vec![resource],
                    ..VersionSpec::default()
                },
                ..NewVersion::default()
            },
            ..NewTemplate::default()
        })
        .await?;
    Ok(template.id)
}

async fn tokens(store: &Store, template: Uuid, agents: usize) -> Result<Vec<String>> {
    let deadline = Instant::now() + BUILD_LIMIT;
    let mut tokens = Vec::new();
    for workspace in store.workspaces(None).await? {
        if workspace.template_id != template {
            continue;
        }
        let job = store.latest_build(workspace.id).await?.job_id;
        loop {
            let made = store.agents_of_job(job).await?;
            if let Some(agent) = made.first() {
                tokens.push(agent.auth_token.to_string());
                break;
            }
            if Instant::now() > deadline {
                bail!("only {} workspaces were built", tokens.len());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    ensure!(tokens.len() == agents, "{} workspaces", tokens.len());
    Ok(tokens)
}
