//! Real processes.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use adit_agent_exec::{
    Command, Environment, ExitStatus, Signal, SpawnError, TerminalModes, WindowSize,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(30);
const SIZE: WindowSize = WindowSize { cols: 80, rows: 24 };

fn shell(script: &str) -> Command {
    let mut env = Environment::new();
    env.set("PATH", std::env::var_os("PATH").unwrap_or_default());
    Command::new(vec!["sh".into(), "-c".into(), script.into()], env, "/")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Runs a script on pipes; its output and how it ended.
async fn output(command: &Command) -> (Vec<u8>, ExitStatus) {
    let mut program = command.spawn_piped().unwrap();
    drop(program.stdin.take());
    let mut out = Vec::new();
    within(program.stdout.take().unwrap().read_to_end(&mut out))
        .await
        .unwrap();
    (out, within(program.child.wait()).await.unwrap())
}

async fn text(script: &str) -> String {
    String::from_utf8(output(&shell(script)).await.0).unwrap()
}

#[tokio::test]
async fn endings_are_told_apart() {
    assert_eq!(output(&shell("exit 3")).await.1, ExitStatus::Code(3));
    assert_eq!(
        output(&shell("kill -TERM $$")).await.1,
        ExitStatus::Signal(15)
    );
}

#[tokio::test]
async fn nothing_but_the_given_environment_is_inherited() {
    let mut command = shell("env");
    command
        .env_mut()
        .set("ODD", OsString::from_vec(b"\xff=\n".to_vec()));
    let (out, _) = output(&command).await;
    assert!(out.windows(7).any(|w| w == b"ODD=\xff=\n"));
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(!text.contains("CARGO"), "{text}");
}

#[tokio::test]
async fn descriptors_do_not_leak_into_children() {
    // Inherited by children unless the child closes it.
    let file = std::fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(
        &file,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .unwrap();
    // Three of the program's own, and the one `ls` reads the directory with.
    assert_eq!(text("exec ls /proc/self/fd").await, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn a_child_leads_its_own_session() {
    let fields = text("exec cut -d' ' -f1,5,6 /proc/self/stat").await;
    let ids: Vec<&str> = fields.split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[tokio::test]
async fn failures_name_the_culprit() {
    let env = Environment::new();
    let missing = Command::new(vec!["/no/such/program".into()], env.clone(), "/");
    let error = missing.spawn_piped().unwrap_err();
    assert!(matches!(error, SpawnError::Start { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/program"));
    let missing = Command::new(vec!["/bin/sh".into()], env.clone(), "/no/such/dir");
    for error in [
        missing.spawn_piped().unwrap_err(),
        missing
            .spawn_pty(SIZE, &TerminalModes::default(), true)
            .unwrap_err(),
    ] {
        assert!(matches!(error, SpawnError::Directory { .. }), "{error}");
    }
    let none = Command::new(Vec::new(), env, "/");
    assert!(matches!(none.spawn_piped(), Err(SpawnError::Empty)));
}

#[tokio::test]
async fn stubborn_groups_are_killed_in_time() {
    let script = "trap '' TERM; (trap '' TERM; echo $$ ready; sleep 1000) & wait; sleep 1000";
    let mut program = shell(script).spawn_piped().unwrap();
    let mut stdout = program.stdout.take().unwrap();
    let mut seen = [0; 64];
    within(stdout.read(&mut seen)).await.unwrap();
    let ended = program
        .child
        .terminate(Signal::SIGTERM, Duration::from_millis(50));
    assert_eq!(within(ended).await.unwrap(), ExitStatus::Signal(9));
    // The end of output: nobody of the group is left to write.
    within(stdout.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(program.child.id(), None);
    program.child.signal(Signal::SIGTERM).unwrap();
}

#[tokio::test]
async fn terminals_have_size_modes_and_a_name() {
    const VERASE: u8 = 3;
    const ECHO: u8 = 53;
    const ONLCR: u8 = 72;
    const ISPEED: u8 = 128;
    const OSPEED: u8 = 129;
    const UNKNOWN: u8 = 159;
    let modes = TerminalModes(vec![
        (VERASE, 8),
        (ECHO, 0),
        (ONLCR, 0),
        (ISPEED, 9600),
        (OSPEED, 9600),
        (UNKNOWN, 7),
    ]);
    let script = "stty size; stty -a; test \"$(tty)\" = \"$SSH_TTY\" && echo named";
    let mut program = shell(script).spawn_pty(SIZE, &modes, true).unwrap();
    let mut out = String::new();
    within(program.pty.reader().read_to_string(&mut out))
        .await
        .unwrap();
    assert!(out.starts_with("24 80\n"), "{out:?}");
    for expected in [
        "speed 9600 baud",
        "erase = ^H",
        " -echo ",
        " -onlcr ",
        "named",
    ] {
        assert!(out.contains(expected), "{expected} in {out:?}");
    }
    assert_eq!(
        within(program.child.wait()).await.unwrap(),
        ExitStatus::Code(0)
    );
}

#[tokio::test]
async fn hanging_up_types_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("executed");
    let program = shell("echo ready; read -r line; echo \"$line\" > executed");
    let mut env = Environment::new();
    env.set("PATH", std::env::var_os("PATH").unwrap_or_default());
    let program = Command::new(program.argv().to_vec(), env, dir.path());
    let mut program = program
        .spawn_pty(SIZE, &TerminalModes::default(), false)
        .unwrap();
    let mut reader = program.pty.reader();
    let mut seen = [0; 64];
    within(reader.read(&mut seen)).await.unwrap();
    let mut writer = program.pty.writer();
    writer.write_all(b"half a li").await.unwrap();
    // The echo: it has arrived.
    within(reader.read(&mut seen)).await.unwrap();
    writer.shutdown().await.unwrap();
    drop((reader, writer, program.pty));
    assert_eq!(
        within(program.child.wait()).await.unwrap(),
        ExitStatus::Signal(1)
    );
    assert!(!mark.exists());
}

#[tokio::test]
async fn output_before_the_end_is_complete() {
    for _ in 0..20 {
        let script = "head -c 200000 /dev/zero | tr '\\0' x; exit 4";
        let modes = TerminalModes::default();
        let mut program = shell(script).spawn_pty(SIZE, &modes, false).unwrap();
        let mut out = Vec::new();
        within(program.pty.reader().read_to_end(&mut out))
            .await
            .unwrap();
        assert_eq!(out.len(), 200_000);
        assert_eq!(
            within(program.child.wait()).await.unwrap(),
            ExitStatus::Code(4)
        );
    }
}

#[tokio::test]
async fn dropping_a_terminal_program_kills_it() {
    let script = "trap '' HUP; echo $$=; while :; do sleep 1; done";
    let program = shell(script)
        .spawn_pty(SIZE, &TerminalModes::default(), false)
        .unwrap();
    let mut seen = [0; 64];
    let n = within(program.pty.reader().read(&mut seen)).await.unwrap();
    let pid = String::from_utf8_lossy(&seen[..n])
        .split('=')
        .next()
        .unwrap()
        .to_owned();
    drop(program);
    let process = std::path::Path::new("/proc").join(pid);
    within(async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn every_common_variable_survives() {
    let mut env = Environment::new();
    let vars: HashMap<_, _> = std::env::vars_os().collect();
    for (name, value) in &vars {
        env.set(name, value);
    }
    assert_eq!(env.len(), vars.len());
}
