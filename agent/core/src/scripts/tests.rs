use super::*;
use adit_agent_exec::StaticContext;
use std::time::{Duration, Instant};
use uuid::Uuid;

struct Bench {
    runner: Runner,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    Bench {
        runner: Runner {
            context: Arc::new(StaticContext::of_this_process()),
            logs: Arc::default(),
            completions: Arc::default(),
            metrics: Arc::default(),
            log_dir: dir.path().to_owned(),
            data_dir: dir.path().join("data"),
        },
        _dir: dir,
    }
}

fn script(text: &str) -> Script {
    Script {
        id: Uuid::new_v4(),
        log_source: Uuid::new_v4(),
        log_path: String::new(),
        text: text.to_owned(),
        cron: String::new(),
        on_start: true,
        on_stop: false,
        timeout: None,
        name: String::new(),
    }
}

impl Bench {
    async fn run(&self, scripts: Vec<Script>) -> StageOutcome {
        self.runner
            .run_stage(scripts, Stage::Start, &CancellationToken::new())
            .await
    }

    async fn completion(&self) -> Completion {
        self.runner.completions.next().await
    }

    fn lines(&self) -> Vec<String> {
        let now = Instant::now() + Duration::from_secs(5);
        self.runner.logs.with(|q| {
            let mut out = Vec::new();
            while let Some(batch) = q.poll_batch(now) {
                out.extend(batch.lines.into_iter().map(|l| l.text));
                q.handle_sent(now);
            }
            out
        })
    }
}

#[tokio::test]
async fn output_goes_to_file_and_queue() {
    let b = bench();
    let s = script("echo out; echo err >&2; test -d \"$CODER_SCRIPT_DATA_DIR\" && echo data");
    let log = b
        .runner
        .log_dir
        .join(format!("coder-script-{}.log", s.log_source));
    assert_eq!(b.run(vec![s.clone()]).await, StageOutcome::Ok);
    let text = std::fs::read_to_string(log).expect("a log");
    assert!(text.contains("out\n") && text.contains("err\n") && text.contains("data\n"));
    let mut lines = b.lines();
    lines.sort();
    assert_eq!(lines, ["data", "err", "out"]);
    let c = b.completion().await;
    assert_eq!((c.exit_code, c.status), (0, Status::Ok));
    assert!(c.start <= c.end);
    assert_eq!(c.script, s.id.into_bytes());
}

#[tokio::test]
async fn scripts_run_side_by_side_and_the_first_failure_decides() {
    let b = bench();
    let dir = tempfile::tempdir().expect("a directory");
    // Each waits for all: one after the other they would never end.
    let meet = |own: &str, end: &str| {
        let dir = dir.path().display();
        let wait = "until [ -e a ] && [ -e b ] && [ -e c ]; do sleep 0.05; done";
        let mut script = script(&format!("cd {dir}; : > {own}; {wait}; {end}"));
        script.timeout = Some(Duration::from_secs(60));
        script
    };
    let all = vec![meet("a", "true"), meet("b", "exit 3"), meet("c", "true")];
    assert_eq!(b.run(all).await, StageOutcome::Failed);
    let mut ends = Vec::new();
    for _ in 0..3 {
        let end = b.completion().await;
        ends.push((end.exit_code, end.status));
        b.runner.completions.pop();
    }
    ends.sort_by_key(|(code, _)| *code);
    assert_eq!(
        ends,
        [(0, Status::Ok), (0, Status::Ok), (3, Status::Failed)]
    );
}

#[tokio::test]
async fn a_time_limit_hangs_the_group_up() {
    let b = bench();
    let mut s = script("trap 'echo bye; exit 0' HUP; sleep 30 & wait");
    s.timeout = Some(Duration::from_secs(3));
    assert_eq!(b.run(vec![s]).await, StageOutcome::TimedOut);
    let c = b.completion().await;
    assert_eq!((c.exit_code, c.status), (255, Status::TimedOut));
    assert_eq!(b.lines(), ["bye"]);
}

#[tokio::test]
async fn cancelling_ends_a_script() {
    let b = bench();
    let cancel = CancellationToken::new();
    let stage = b
        .runner
        .run_stage(vec![script("sleep 30")], Stage::Start, &cancel);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(stage, stop);
    assert_eq!(outcome, StageOutcome::Failed);
    assert_eq!(b.completion().await.exit_code, 255);
}

#[tokio::test]
async fn a_script_killed_by_a_signal_has_code_minus_one() {
    let b = bench();
    assert_eq!(
        b.run(vec![script("kill -9 $$")]).await,
        StageOutcome::Failed
    );
    assert_eq!(b.completion().await.exit_code, -1);
}

#[tokio::test]
async fn without_its_log_file_a_script_is_not_run() {
    let b = bench();
    let mut s = script("touch \"$CODER_SCRIPT_DATA_DIR/ran\"");
    s.log_path = "no/such/dir/x.log".to_owned();
    assert_eq!(b.run(vec![s]).await, StageOutcome::Failed);
    assert!(!b.runner.data_dir.exists());
    assert!(b.runner.completions.is_empty());
}

#[tokio::test]
async fn schedules_fire_and_bad_ones_are_told() {
    let b = bench();
    let mut good = script("echo tick");
    good.cron = "* * * * *".to_owned();
    let mut bad = script("echo never");
    bad.cron = "nonsense".to_owned();
    let cancel = CancellationToken::new();
    let scripts = [good, bad];
    let cron = run_cron(&b.runner, &scripts, &cancel);
    let wait = async {
        let c = b.completion().await;
        cancel.cancel();
        c
    };
    let (c, ()) = tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(wait, cron) })
        .await
        .expect("a tick");
    assert_eq!(c.stage, Stage::Cron);
    let lines = b.lines();
    assert!(lines.iter().any(|l| l == "tick"));
    assert!(lines.iter().any(|l| l.contains("nonsense")));
}
