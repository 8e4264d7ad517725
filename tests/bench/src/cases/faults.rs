//! Silence in a running stream when something happens to its path.

use std::{
    fmt,
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{
    context::{Context, Site},
    net::{NEAR, NEAR_MOVED, Net},
    report::{Better, Report, Row},
    subject::{Deployment, WORKSPACE, until},
    tick::{PACE, Watch},
};

const CASE: &str = "faults";

/// How long the server is away.
const OUTAGE: Duration = Duration::from_secs(5);

/// How long a stream may stay silent before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a stream is watched after it has come back, for a second gap.
const AFTER: Duration = Duration::from_secs(4);

/// Lines before anything is done to a stream.
const WARM: u64 = 400;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Roam,
    BlackHole,
    RelayRestart,
    DirectRestart,
    AgentSleeps,
    ClientSleeps,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roam => "client's address changes, direct",
            Self::BlackHole => "UDP is dropped, direct",
            Self::RelayRestart => "server killed, back after 5 s, relayed",
            Self::DirectRestart => "server killed, back after 5 s, direct",
            Self::AgentSleeps => "agent stopped; silence after it continues",
            Self::ClientSleeps => "client stopped; silence after it continues",
        })
    }
}

/// Each with the silence in ms that is not to be exceeded.
const FAULTS: [(Fault, f64); 6] = [
    (Fault::Roam, 500.0),
    (Fault::BlackHole, 1000.0),
    (Fault::RelayRestart, 6000.0),
    (Fault::DirectRestart, 200.0),
    (Fault::AgentSleeps, 500.0),
    (Fault::ClientSleeps, 500.0),
];

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let sleep = Duration::from_secs(context.options.pick(60, 10));
    for (fault, target) in FAULTS {
        if !context.options.wants_row(&fault.to_string()) {
            continue;
        }
        let outcomes = site.alternate(context.options.pick(3, 1), |net, deployment| {
            Ok(silence(net, deployment, fault, sleep)?.into())
        });
        report.push(
            Row::new(CASE, fault.to_string(), "ms", Better::Lower)
                .target(target)
                .of(outcomes.adit, outcomes.coder),
        );
    }
    Ok(())
}

/// A client that streams, and what came of it.
#[derive(Debug)]
struct Stream {
    client: Child,
    watch: Watch,
}

impl Stream {
    fn start(net: &Net, deployment: &dyn Deployment, relayed: bool) -> Result<Self> {
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the path of this program")?;
        let mut args = Vec::new();
        if relayed {
            args.push("--disable-direct-connections");
        }
        args.extend(["ssh", WORKSPACE, "--", program, "tick"]);
        let mut command = deployment.client(&args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut client = net.near.spawn(&mut command)?;
        let stdout = client.stdout.take().context("no standard output")?;
        let stream = Self {
            client,
            watch: Watch::start(stdout),
        };
        until("the stream to run", || stream.reached(WARM))?;
        Ok(stream)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.client.id().cast_signed())
    }

    fn reached(&self, line: u64) -> Result<()> {
        let seen = self.watch.seen();
        if seen.ended {
            bail!("the stream ended after line {}", seen.last);
        }
        if let Some(broken) = seen.broken {
            bail!("the stream broke: {broken}");
        }
        if seen.last < line {
            bail!("the stream is at line {}", seen.last);
        }
        Ok(())
    }

    /// Waits until it has run again for a while without a gap of a second.
    fn settle(&self, since: Instant) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            thread::sleep(Duration::from_millis(50));
            self.reached(0)?;
            let seen = self.watch.seen();
            let lively = seen
                .at
                .is_some_and(|at| at.elapsed() < Duration::from_secs(1));
            let rested = seen
                .longest
                .is_none_or(|(gap, end)| gap < Duration::from_millis(100) || end.elapsed() > AFTER);
            if lively && rested && since.elapsed() > AFTER {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "silent for {:?}, longest {:?}",
                    seen.at.map(|at| at.elapsed()),
                    seen.longest
                );
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGCONT);
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.client.wait();
    }
}

/// The longest silence in ms.
fn silence(
    net: &Net,
    deployment: &mut dyn Deployment,
    fault: Fault,
    sleep: Duration,
) -> Result<f64> {
    let relayed = fault == Fault::RelayRestart;
    let stream = Stream::start(net, deployment, relayed)?;
    let lines = 1000 / PACE.as_millis() as u64;
    until("the stream to take its path", || {
        // Enough datagrams for the lines of half a second, or next to none.
        let before = net.counters()?.udp_packets;
        thread::sleep(Duration::from_millis(500));
        let moved = net.counters()?.udp_packets - before;
        if relayed == (moved < lines / 4) {
            Ok(())
        } else {
            bail!("{moved} datagrams in half a second")
        }
    })?;
    stream.watch.forget_gaps();
    let began = Instant::now();
    let result = inflict(net, deployment, fault, sleep, &stream, began);
    // Undo, whatever came of it.
    match fault {
        Fault::Roam => {
            drop(stream);
            net.move_near(NEAR_MOVED, NEAR)?;
        }
        Fault::BlackHole => {
            drop(stream);
            nft(net, "delete table inet bench\n")?;
        }
        _ => drop(stream),
    }
    result
}

fn inflict(
    net: &Net,
    deployment: &mut dyn Deployment,
    fault: Fault,
    sleep: Duration,
    stream: &Stream,
    began: Instant,
) -> Result<f64> {
    let mut resumed = None;
    match fault {
        Fault::Roam => net.move_near(NEAR, NEAR_MOVED)?,
        Fault::BlackHole => nft(
            net,
            "table inet bench {\n\
             chain in { type filter hook input priority 0; meta l4proto udp drop; }\n\
             chain out { type filter hook output priority 0; meta l4proto udp drop; }\n}\n",
        )?,
        Fault::RelayRestart | Fault::DirectRestart => {
            deployment.kill_server()?;
            thread::sleep(OUTAGE);
            deployment.start_server(net)?;
        }
        Fault::AgentSleeps | Fault::ClientSleeps => {
            let pid = match fault {
                Fault::AgentSleeps => Pid::from_raw(deployment.agent()?),
                _ => stream.pid(),
            };
            kill(pid, Signal::SIGSTOP)?;
            thread::sleep(sleep);
            kill(pid, Signal::SIGCONT)?;
            resumed = Some(Instant::now());
            // What was on its way may still arrive at once; the gap is over
            // with the first line after this moment.
            stream.watch.forget_gaps();
        }
    }
    stream.settle(began)?;
    let seen = stream.watch.seen();
    let (gap, end) = seen.longest.context("the stream did not go on")?;
    let silence = match resumed {
        // The gap began with the stop; what counts is the part after it.
        Some(at) if gap > sleep / 2 => end.saturating_duration_since(at),
        _ => gap,
    };
    Ok(silence.as_secs_f64() * 1e3)
}

/// Gives rules to the packet filter of the near namespace.
fn nft(net: &Net, rules: &str) -> Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = net.near.spawn(&mut command)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("nft: {status}");
    }
    Ok(())
}
