//! The program as init scripts and containers see it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_adit-agent");

fn agent(dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    quiet(&mut command, dir);
    command.arg("agent");
    command
}

fn quiet(command: &mut Command, dir: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("CODER_AGENT_LOG_DIR", dir)
        .env("CODER_AGENT_SCRIPT_DATA_DIR", dir)
        .env("CODER_AGENT_PROMETHEUS_ADDRESS", "")
        .env("CODER_AGENT_DEBUG_ADDRESS", "")
        .env("CODER_AGENT_SOCKET_PATH", dir.join("agent.sock"))
        .stdin(Stdio::null());
}

fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_log(dir: &Path, text: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    let path = dir.join("coder-agent.log");
    loop {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        if log.contains(text) {
            return;
        }
        assert!(Instant::now() < until, "no {text:?} in {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_version_is_recognised_by_init_scripts() {
    for args in [&["--version"][..], &["version"]] {
        let out = Command::new(PROGRAM)
            .args(args)
            .env_clear()
            .output()
            .unwrap();
        assert!(out.status.success());
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.lines().next().unwrap().contains("Coder v"));
    }
}

#[test]
fn configuration_errors_end_with_one_line_and_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let url = ("CODER_AGENT_URL", "http://127.0.0.1:9");
    let token = ("CODER_AGENT_TOKEN", "t");
    for (vars, says) in [
        (&[][..], "CODER_AGENT_URL must be set"),
        (&[url], "CODER_AGENT_TOKEN"),
        (
            &[url, token, ("CODER_AGENT_AUTH", "x")],
            "unknown agent auth type: x",
        ),
        (
            &[url, token, ("CODER_AGENT_SUBSYSTEM", "x")],
            "invalid subsystem",
        ),
        (
            &[url, token, ("CODER_AGENT_HEADER_COMMAND", "exit 3")],
            "header command",
        ),
        (
            &[url, token, ("CODER_AGENT_LOG_DIR", "/no/such")],
            "log file",
        ),
        (&[url, ("CODER_AGENT_TOKEN_FILE", "/no/such")], "token file"),
        (&[("CODER_AGENT_URL", "nowhere"), token], "not a URL"),
    ] {
        let mut command = agent(dir.path());
        command.envs(vars.iter().copied());
        let out = command.output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains(says), "{text}");
    }
}

fn sync(dir: &Path, words: &[&str]) -> std::process::Output {
    let mut command = Command::new(PROGRAM);
    quiet(&mut command, dir);
    command.args(["exp", "sync"]).args(words).output().unwrap()
}

#[test]
fn a_stop_signal_ends_it_in_good_order_without_a_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = agent(dir.path())
        .env("CODER_AGENT_URL", "http://127.0.0.1:9")
        .env("CODER_AGENT_TOKEN", "t")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_log(dir.path(), "refused the connection");
    // Scripts can be ordered all the while.
    for (words, says) in [
        (&["ping"][..], "Success\n"),
        (&["want", "app", "db"], ""),
        (&["start", "db"], ""),
        (&["complete", "db"], ""),
        (&["start", "app", "--timeout", "1s"], ""),
        (&["list"], "app\tstarted\tready\ndb\tcompleted\tready\n"),
    ] {
        let out = sync(dir.path(), words);
        assert!(out.status.success(), "{words:?}: {out:?}");
        assert_eq!(String::from_utf8(out.stdout).unwrap(), says);
    }
    let again = sync(dir.path(), &["complete", "nobody"]);
    assert_eq!(again.status.code(), Some(1));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let began = Instant::now();
    kill(pid, Signal::SIGTERM).unwrap();
    wait_for_log(dir.path(), "shutting down");
    // Further ones change nothing.
    kill(pid, Signal::SIGINT).unwrap();
    let status = wait(&mut child, Duration::from_secs(12));
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() > Duration::from_secs(4));
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let refusals = text.matches("refused the connection").count();
    assert_eq!(refusals, 1, "told once:\n{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn commands_can_be_started_at_a_lower_priority() {
    let script = "cat /proc/self/oom_score_adj; nice; env | grep CODER_PROC; exit 3";
    let out = Command::new(PROGRAM)
        .args(["agent-exec", "--coder-oom=700", "--coder-nice=19", "--"])
        .args(["sh", "-c", script])
        .env("CODER_PROC_PRIO_MGMT", "1")
        .env("CODER_PROC_NICE_SCORE", "19")
        .output()
        .unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "700\n19\n",
        "{errors}"
    );
    assert_eq!((out.status.code(), errors.as_str()), (Some(3), ""));

    let out = Command::new(PROGRAM)
        .args(["agent-exec", "--", "/no/such"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .starts_with("coder-agent: ")
    );
}

/// In a PID namespace of its own the program is PID 1.
#[test]
fn as_pid_1_it_reaps_and_passes_signals_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    quiet(&mut command, dir.path());
    command
        .args(["-Urpf", "--kill-child", "--mount-proc", PROGRAM, "agent"])
        .env("CODER_AGENT_URL", "http://127.0.0.1:9")
        .env("CODER_AGENT_TOKEN", "t")
        .stderr(Stdio::piped());
    let mut outer = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("SKIPPED: unshare cannot be run: {error}");
            return;
        }
    };
    std::thread::sleep(Duration::from_millis(300));
    if outer.try_wait().unwrap().is_some() {
        eprintln!("SKIPPED: no user namespaces here");
        return;
    }
    wait_for_log(dir.path(), "refused the connection");
    let first = children(outer.id());
    assert_eq!(first.len(), 1);
    let below = children(first[0]);
    assert_eq!(below.len(), 1, "the agent runs below the reaper");
    kill(
        Pid::from_raw(i32::try_from(first[0]).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    wait_for_log(dir.path(), "shutting down");
    let status = wait(&mut outer, Duration::from_secs(12));
    assert_eq!(status.code(), Some(0));
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect()
}
