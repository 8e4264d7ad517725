//! Collecting and reporting metadata.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_agent_exec::{ContextProvider, ExitStatus, Invocation, Signal};
use adit_messages::agent;
use adit_messages::time::timestamp_to_proto;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use super::{Ended, Session, call};
use crate::metadata::{Description, Schedule, Value};

/// Output read at most; more is counted by the reader's own cut.
const READ: usize = 1 << 20;

type Report<'a> = Pin<
    Box<
        dyn Future<Output = Result<agent::BatchUpdateMetadataResponse, adit_rpc::Error>>
            + Send
            + 'a,
    >,
>;

impl Session {
    /// Runs the metadata commands of the current manifest and reports what
    /// they print.
    pub(super) async fn metadata(&self) -> Ended {
        let mut manifest = self.agent.manifest.subscribe();
        let mut schedule = Schedule::default();
        let mut running: JoinSet<(String, Value)> = JoinSet::new();
        let mut report: Option<Report<'_>> = None;
        loop {
            let current = manifest.borrow_and_update().clone();
            let items: &[Description] = current.as_deref().map_or(&[], |m| &m.metadata);
            let now = Instant::now();
            for item in schedule.poll_due(now, items) {
                let context: Arc<dyn ContextProvider> = self.agent.workspace.clone();
                running.spawn(async move { (item.key.clone(), collect(&*context, &item).await) });
            }
            if let Some(values) = schedule.poll_report(now) {
                let request = to_proto(values);
                let rpc = self.rpc.clone();
                report = Some(Box::pin(async move {
                    rpc.batch_update_metadata(&request).await
                }));
            }
            let timer = async {
                match schedule.poll_timeout(now, items) {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let answer = async {
                match &mut report {
                    Some(report) => report.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    if let Ok((key, value)) = ended {
                        schedule.handle_result(&key, value);
                    }
                }
                answer = answer => {
                    call("BatchUpdateMetadata", answer)?;
                    report = None;
                    schedule.handle_reported();
                }
                changed = manifest.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn to_proto(values: Vec<(String, Value)>) -> agent::BatchUpdateMetadataRequest {
    agent::BatchUpdateMetadataRequest {
        metadata: values
            .into_iter()
            .map(|(key, v)| agent::Metadata {
                key,
                result: Some(agent::workspace_agent_metadata::Result {
                    collected_at: Some(timestamp_to_proto(v.collected_at)),
                    age: v.age,
                    value: v.value,
                    error: v.error,
                }),
            })
            .collect(),
    }
}

/// Runs one command within its time limit.
async fn collect(context: &dyn ContextProvider, item: &Description) -> Value {
    let at = SystemTime::now();
    let began = Instant::now();
    let age = |began: Instant| i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
    let failed = |step: &str, error: String| Value {
        collected_at: at,
        age: age(began),
        value: String::new(),
        error: format!("{step} cmd: {error}"),
    };
    let context = match context.context() {
        Ok(context) => context,
        Err(error) => return failed("create", error.to_string()),
    };
    let env = context.environment(&[], None);
    let command = context.command(&Invocation::Script(item.script.as_bytes()), env);
    let mut process = match command.spawn_piped() {
        Ok(process) => process,
        Err(error) => return failed("start", error.to_string()),
    };
    drop(process.stdin.take());
    let mut out = Vec::new();
    let mut errors = String::new();
    let run = async {
        read_both(process.stdout.take(), process.stderr.take(), &mut out).await;
        process.child.wait().await
    };
    match tokio::time::timeout(item.limit(), run).await {
        Ok(Ok(ExitStatus::Code(0))) => {}
        Ok(Ok(ExitStatus::Code(n))) => errors = format!("exit status {n}"),
        Ok(Ok(ExitStatus::Signal(n))) => errors = format!("signal {n}"),
        Ok(Err(error)) => errors = error.to_string(),
        Err(_) => {
            let _ = process.child.signal(Signal::SIGKILL);
            // Reaped here, or by the runtime if it hangs in the kernel.
            let _ = tokio::time::timeout(Duration::from_secs(1), process.child.wait()).await;
            errors = "signal: killed\ncontext deadline exceeded".to_owned();
        }
    }
    Value::from_output(at, age(began), &out, &errors)
}

/// Reads both outputs, interleaved as they come.
async fn read_both(
    stdout: Option<impl AsyncRead + Unpin>,
    stderr: Option<impl AsyncRead + Unpin>,
    out: &mut Vec<u8>,
) {
    let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else {
        return;
    };
    let (mut a, mut b) = ([0; 2_048], [0; 2_048]);
    let (mut a_open, mut b_open) = (true, true);
    while a_open || b_open {
        let chunk = tokio::select! {
            n = stdout.read(&mut a), if a_open => {
                let n = n.unwrap_or(0);
                a_open = n > 0;
                &a[..n]
            }
            n = stderr.read(&mut b), if b_open => {
                let n = n.unwrap_or(0);
                b_open = n > 0;
                &b[..n]
            }
        };
        if out.len() < READ {
            out.extend_from_slice(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_agent_exec::StaticContext;

    async fn run(script: &str, timeout_ms: u64) -> Value {
        let item = Description {
            key: "k".to_owned(),
            script: script.to_owned(),
            interval: Duration::ZERO,
            timeout: Duration::from_millis(timeout_ms),
        };
        collect(&StaticContext::of_this_process(), &item).await
    }

    #[tokio::test]
    async fn values_and_errors() {
        let v = run("echo hi; echo there >&2", 5_000).await;
        assert_eq!((v.value.len(), v.error.as_str()), (9, ""));
        let v = run("echo part; exit 4", 5_000).await;
        assert_eq!(
            (v.value.as_str(), v.error.as_str()),
            ("part\n", "run cmd: exit status 4")
        );
        let v = run("echo early; sleep 60", 3_000).await;
        assert!(v.error.ends_with("context deadline exceeded"));
        assert_eq!(v.value, "early\n");
    }
}
