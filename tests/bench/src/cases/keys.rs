//! What a bulk flow adds to the time until a keystroke is seen.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{link::settings, speed::Plan};
use crate::{
    context::{Context, Site},
    link::Settings,
    net::Net,
    report::{Better, Report, Row, median, percentile},
    subject::{Deployment, WORKSPACE},
};

const CASE: &str = "keys";

/// Round-trip time in ms.
const TRIP: u64 = 40;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time between an answer and the next keystroke.
const PAUSE: Duration = Duration::from_millis(100);

/// How many seconds the bulk flow would last.
const BULK: u32 = 120;

/// How long the bulk flow runs before the first keystroke beside it.
const WARM: Duration = Duration::from_secs(3);

pub(super) fn run(context: &Context, site: &mut Site, report: &mut Report) -> Result<()> {
    let count = context.options.pick(100, 25);
    for queue in [512, 32, 10_000] {
        let metric = |what: &str| format!("keystroke beside a bulk flow, {what}, queue {queue}");
        if !context.options.wants_row(&metric("p50")) && !context.options.wants_row(&metric("p95"))
        {
            continue;
        }
        site.net.set(Settings {
            queue,
            ..settings(100, TRIP, 0.0)
        });
        thread::sleep(Duration::from_millis(500));
        for percent in [50, 95] {
            // Each is a session of its own, so that neither has more luck.
            let outcomes = site.alternate(1, |net, deployment| {
                Ok(added(net, deployment, count, percent)?.into())
            });
            report.push(
                Row::new(CASE, metric(&format!("p{percent}")), "ms", Better::Lower)
                    .target(1.5 * TRIP as f64)
                    .of(outcomes.adit, outcomes.coder),
            );
        }
    }
    Ok(())
}

/// Milliseconds that a bulk flow adds, of this percentile to the median
/// without.
fn added(net: &Net, deployment: &dyn Deployment, count: usize, percent: usize) -> Result<f64> {
    let mut session = Session::start(net, deployment)?;
    let alone = median(session.delays(count / 2)?).context("no keystroke")?;
    let mut bulk = deployment.client(&[]);
    Plan::down(BULK).add_to(&mut bulk);
    let _bulk = Running::start(net, &mut bulk)?;
    thread::sleep(WARM);
    let before = net.counters()?;
    let beside = session.delays(count)?;
    let moved = (net.counters()? - before).link_bytes_to_near;
    ensure!(moved > 1_000_000, "the bulk flow moved only {moved} bytes");
    let beside = percentile(beside, percent).context("no keystroke")?;
    Ok((beside - alone) * 1e3)
}

/// A program that ends with this.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(net: &Net, command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        Ok(Self(net.near.spawn(command)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// A session that repeats every line.
#[derive(Debug)]
struct Session {
    client: Running,
    stdin: ChildStdin,
    answers: Receiver<(Instant, String)>,
    reader: Option<JoinHandle<()>>,
    number: usize,
}

impl Session {
    fn start(net: &Net, deployment: &dyn Deployment) -> Result<Self> {
        let mut command = deployment.client(&["ssh", WORKSPACE, "--", "cat"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut client = Running(net.near.spawn(&mut command)?);
        let stdin = client.0.stdin.take().context("no standard input")?;
        let stdout = client.0.stdout.take().context("no standard output")?;
        let (answered, answers) = mpsc::sync_channel(16);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if answered.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let mut session = Self {
            client,
            stdin,
            answers,
            reader: Some(reader),
            number: 0,
        };
        // The first tells that it is there, and takes the direct path by then.
        session.delays(20)?;
        Ok(session)
    }

    /// Seconds from each of `count` lines to its repetition.
    fn delays(&mut self, count: usize) -> Result<Vec<f64>> {
        let mut delays = Vec::new();
        for _ in 0..count {
            self.number += 1;
            let began = Instant::now();
            writeln!(self.stdin, "{}", self.number)?;
            self.stdin.flush()?;
            let (at, line) = self
                .answers
                .recv_timeout(PATIENCE)
                .context("no answer to a keystroke")?;
            ensure!(line == self.number.to_string(), "a wrong answer: {line}");
            delays.push(at.saturating_duration_since(began).as_secs_f64());
            thread::sleep(PAUSE);
        }
        Ok(delays)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.client.0.id().cast_signed());
        let _ = killpg(pid, Signal::SIGKILL);
        if let Some(reader) = self.reader.take() {
            // It ends with the client's output; nobody takes what it still has.
            while self.answers.recv_timeout(PATIENCE).is_ok() {}
            let _ = reader.join();
        }
    }
}
