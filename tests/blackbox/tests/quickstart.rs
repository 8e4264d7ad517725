//! What the README promises: one command, and a workspace to `ssh` into.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::process::Command;

use adit_test_harness::{Dev, dev::success, process::processes_with, program, until};

#[test]
fn a_workspace_in_one_command() {
    let dev = Dev::start_with(&["--workspace", "demo"]);
    assert_eq!(dev.fact("workspace"), "demo");

    let listed: serde_json::Value =
        serde_json::from_str(&dev.ok(["list", "--output", "json"])).unwrap();
    assert_eq!(listed[0]["name"], "demo");
    assert_eq!(listed[0]["latest_build"]["status"], "running");
    let text = dev.ok(["list"]);
    assert!(text.contains("demo") && text.contains("Started"), "{text}");
    let text = dev.ok(["show", "demo"]);
    assert!(
        text.contains("adit ssh demo") && text.contains("connected"),
        "{text}"
    );

    assert_eq!(dev.ok(["ssh", "demo", "--", "echo", "hello"]), "hello\n");
    let failed = dev.run(["ssh", "demo", "--", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    let both = dev.run(["ssh", "demo", "--", "echo out; echo err >&2"]);
    assert_eq!(String::from_utf8_lossy(&both.stdout), "out\n");
    assert_eq!(String::from_utf8_lossy(&both.stderr), "err\n");

    let who = dev.ok(["whoami", "--output", "json"]);
    assert!(who.contains(dev.fact("user")), "{who}");
}

#[test]
fn a_second_start_continues_with_the_same_data() {
    let mut dev = Dev::start();
    let agent = dev.fact("agent_id").to_owned();
    let workspace = dev.fact("workspace").to_owned();
    let _ = dev.ok(["ssh", &workspace, "--", "echo kept > kept.txt"]);
    dev.terminate();
    let data = dev.data_dir();
    until("no process to be left behind", || {
        let left = processes_with(&data.to_string_lossy());
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });

    dev.restart();
    assert_eq!(dev.fact("workspace"), workspace);
    assert_eq!(dev.ok(["ssh", &workspace, "--", "cat kept.txt"]), "kept\n");
    let _ = agent;
}

#[test]
fn a_workspace_lives_its_life() {
    let dev = Dev::start();
    let created = dev.ok([
        "create",
        "second",
        "--template",
        "local",
        "--preset",
        "none",
        "--yes",
    ]);
    assert!(created.contains("has been created"), "{created}");
    assert_eq!(
        dev.ok(["ssh", "second", "--", "echo in second"]),
        "in second\n"
    );

    let twice = dev.run(["create", "second", "--template", "local", "--yes"]);
    assert!(!twice.status.success());
    assert!(String::from_utf8_lossy(&twice.stderr).contains("already exists named \"second\""));

    let _ = dev.ok(["stop", "second", "--yes"]);
    assert!(dev.ok(["list"]).contains("Stopped"));
    let refused = dev.run(["ssh", "--disable-autostart", "second", "--", "true"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("adit start second"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    // Without the flag, connecting starts it.
    assert_eq!(dev.ok(["ssh", "second", "--", "echo again"]), "again\n");
    let _ = dev.ok(["restart", "second", "--yes"]);
    let _ = dev.ok(["delete", "second", "--yes"]);
    assert!(!dev.ok(["list"]).contains("second"));
}

#[test]
fn a_closed_pipe_is_no_defect() {
    let shell = format!(
        "'{}' completion bash | head -n 1",
        program("adit").display()
    );
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &shell]);
    let output =
        adit_test_harness::process::run(&mut command, adit_test_harness::dev::COMMAND_LIMIT);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn helpful_without_a_login() {
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(program("adit"));
        command
            .args(args)
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        adit_test_harness::process::run(&mut command, adit_test_harness::dev::COMMAND_LIMIT)
    };
    let refused = run(&["list"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("adit login <url>"));
    assert!(success(run(&["--version"])).starts_with("adit "));
    assert!(success(run(&["version", "--output", "json"])).contains("\"version\": \"v"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(success(run(&["completion", shell])).contains("port-forward"));
    }
}
