//! What every case works with.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    counters::Counters,
    net::{self, Net},
    options::Options,
    proc,
    report::{Outcome, Sample},
    run::Finished,
    subject::{Adit, Coder, Deployment, RealCoder, Subject},
};

/// Settings of the run and the subjects.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) options: Options,
    /// Where the product's programs are.
    pub(crate) bin: PathBuf,
    pub(crate) dir: PathBuf,
    /// The real Coder, or why there is none.
    pub(crate) real: Result<RealCoder, String>,
    deployments: u32,
}

/// Two joined namespaces with a deployment of each subject.
#[derive(Debug)]
pub(crate) struct Site {
    // Before the network: programs end before their namespace goes.
    pub(crate) deployments: Vec<Box<dyn Deployment>>,
    pub(crate) net: Net,
    /// Why a subject is not there.
    pub(crate) missing: String,
    dir: PathBuf,
}

impl Context {
    pub(crate) fn new(options: Options, bin: PathBuf, dir: &Path) -> Self {
        let real = if options.without_coder {
            Err("left out by --without-coder".into())
        } else {
            RealCoder::find(&dir.join("coder"))
        };
        Self {
            options,
            bin,
            dir: dir.to_owned(),
            real,
            deployments: 0,
        }
    }

    /// Makes a network and starts every subject in it.
    pub(crate) fn site(&mut self, path: net::Path) -> Result<Site> {
        let net = Net::new(path)?;
        let mut deployments: Vec<Box<dyn Deployment>> = Vec::new();
        let dir = self.fresh_dir("adit");
        deployments.push(Box::new(Adit::start(&net, &self.bin, &dir, 0)?));
        let dir = self.fresh_dir("coder");
        let mut missing = String::new();
        match &self.real {
            Ok(real) => match Coder::start(&net, real, &dir) {
                Ok(coder) => deployments.push(Box::new(coder)),
                Err(error) => missing = format!("did not start: {error:#}"),
            },
            Err(why) => missing.clone_from(why),
        }
        Ok(Site {
            deployments,
            net,
            missing,
            dir: self.dir.clone(),
        })
    }

    /// A directory that nothing has used yet.
    pub(crate) fn fresh_dir(&mut self, what: &str) -> PathBuf {
        self.deployments += 1;
        self.dir.join(format!("{what}-{}", self.deployments))
    }
}

impl Site {
    /// Measures each subject `runs` times, in the order A B B A A B B A, so
    /// that a drift of the machine hits both alike.
    pub(crate) fn alternate(
        &mut self,
        runs: usize,
        mut measure: impl FnMut(&Net, &mut dyn Deployment) -> Result<Sample>,
    ) -> Outcomes {
        let mut tries: BTreeMap<Subject, Tries> = BTreeMap::new();
        for number in order(self.deployments.len(), runs) {
            let deployment = &mut self.deployments[number];
            let subject = deployment.subject();
            let tried = measure(&self.net, deployment.as_mut());
            tries.entry(subject).or_default().add(tried);
        }
        let mut outcome = |subject| {
            tries
                .remove(&subject)
                .unwrap_or_default()
                .outcome(&self.missing)
        };
        Outcomes {
            adit: outcome(Subject::Adit),
            coder: outcome(Subject::Coder),
        }
    }

    /// Copies the logs of all programs to where they were asked for.
    pub(crate) fn keep_logs(&self, options: &Options) {
        let Some(to) = &options.logs else { return };
        for deployment in &self.deployments {
            for log in deployment.logs() {
                // dir-1/data/workspaces/id/agent.log → dir-1-agent.log
                let Ok(inner) = log.strip_prefix(&self.dir) else {
                    continue;
                };
                let name = inner.to_string_lossy().replace('/', "-");
                let copied = fs::create_dir_all(to).and_then(|()| fs::copy(&log, to.join(&name)));
                if let Err(error) = copied {
                    eprintln!("note: log {name} not kept: {error}");
                }
            }
        }
    }
}

/// What came of trying to measure something several times.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    samples: Vec<Sample>,
    failure: Option<String>,
}

impl Tries {
    /// One more. A failure may be bad luck; it counts if there is nothing
    /// else, and is told in any case.
    pub(crate) fn add(&mut self, tried: Result<Sample>) {
        match tried {
            Ok(sample) => self.samples.push(sample),
            Err(error) => {
                eprintln!("  failed: {error:#}");
                self.failure = Some(format!("{error:#}"));
            }
        }
    }

    /// The result; `missing` says why nothing was tried.
    pub(crate) fn outcome(self, missing: &str) -> Outcome {
        match (self.samples.is_empty(), self.failure) {
            (false, _) => Outcome::Measured(self.samples),
            (true, Some(why)) => Outcome::Failed(why),
            (true, None) => Outcome::Skipped(missing.to_owned()),
        }
    }
}

/// Of both subjects.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    pub(crate) adit: Outcome,
    pub(crate) coder: Outcome,
}

/// Whose turn it is: forward, backward, forward…
fn order(subjects: usize, runs: usize) -> Vec<usize> {
    let mut order = Vec::new();
    for run in 0..runs {
        if run % 2 == 0 {
            order.extend(0..subjects);
        } else {
            order.extend((0..subjects).rev());
        }
    }
    order
}

/// Processor time and counters around a measurement.
#[derive(Debug)]
pub(crate) struct Meter {
    pids: Vec<i32>,
    cpu: Duration,
    counters: Counters,
}

impl Meter {
    /// Starts to count for the deployment's agent and server.
    pub(crate) fn start(net: &Net, deployment: &dyn Deployment) -> Result<Self> {
        let pids = vec![deployment.server(), deployment.agent()?];
        Ok(Self {
            cpu: pids.iter().map(|pid| proc::cpu(*pid)).sum(),
            pids,
            counters: net.counters()?,
        })
    }

    /// A figure, with what was used and lost since the start by agent, server
    /// and the client that `finished`.
    pub(crate) fn sample(
        &self,
        net: &Net,
        finished: &Finished,
        value: f64,
        bytes: f64,
    ) -> Result<Sample> {
        let cpu: Duration = self.pids.iter().map(|pid| proc::cpu(*pid)).sum();
        let used = cpu.saturating_sub(self.cpu) + finished.cpu;
        let counters = net.counters()? - self.counters;
        Ok(Sample {
            value,
            cpu_per_gib: (bytes > 0.0).then(|| used.as_secs_f64() / (bytes / f64::from(1 << 30))),
            wire: (bytes > 0.0).then(|| counters.device_bytes as f64 / 2.0 / bytes),
            counters,
            counted: false,
        })
    }
}

/// Whether a program can be run.
pub(crate) fn have(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_there_and_back() {
        assert_eq!(order(2, 4), [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(order(1, 3), [0, 0, 0]);
    }
}
