//! Agents of this machine that programs in the workspace may ask: SSH and
//! GnuPG.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use adit_test_harness::{
    Dev, Process,
    dev::{COMMAND_LIMIT, success},
    need_tool,
    process::run,
    until,
};

fn must(command: &mut Command) -> String {
    success(run(command.stdin(Stdio::null()), COMMAND_LIMIT))
}

#[test]
fn the_workspace_asks_the_ssh_agent() {
    let tools = ["ssh-agent", "ssh-add", "ssh-keygen"].map(need_tool);
    let [Some(agent), Some(add), Some(keygen)] = tools else {
        return;
    };
    let dev = Dev::start();
    let socket = dev.dir().join("agent.sock");
    let key = dev.dir().join("key");
    must(
        Command::new(keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f"])
            .arg(&key),
    );
    let mut agent = Command::new(agent);
    let _agent = Process::start(
        agent.args(["-D", "-a"]).arg(&socket),
        &dev.dir().join("agent.log"),
    );
    until("the agent to listen", || {
        std::os::unix::net::UnixStream::connect(&socket)
    });
    must(Command::new(&add).arg(&key).env("SSH_AUTH_SOCK", &socket));
    let list = "ssh-add -l; ls -d $SSH_AUTH_SOCK";
    let ask = |args: &[&str]| {
        let mut adit = dev.adit([&["ssh"], args, &[dev.fact("workspace"), list]].concat());
        run(
            adit.env("SSH_AUTH_SOCK", &socket).stdin(Stdio::null()),
            COMMAND_LIMIT,
        )
    };
    let told = success(ask(&["-A"]));
    assert!(told.contains("the key (ED25519)"), "{told}");
    let remote = told.lines().last().unwrap();
    assert!(remote.ends_with("/listener.sock"), "{told}");
    assert!(
        !Path::new(remote).exists(),
        "the socket goes with the session"
    );
    // Not unless it is asked for.
    let told = String::from_utf8(ask(&[]).stdout).unwrap();
    assert!(!told.contains("the key"), "{told}");
    // Another agent than that of the environment.
    let named = format!("--identity-agent={}", socket.display());
    let mut adit = dev.adit(["ssh", "-A", &named, dev.fact("workspace"), list]);
    let told = must(adit.env("SSH_AUTH_SOCK", "/nowhere"));
    assert!(told.contains("the key (ED25519)"), "{told}");
}

#[test]
fn the_workspace_signs_with_the_keys_here() {
    let tools = ["gpg", "gpgconf"].map(need_tool);
    let [Some(gpg), Some(gpgconf)] = tools else {
        return;
    };
    let dev = Dev::start();
    // Paths of sockets are short.
    let here = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    for dir in [&here, &there] {
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.path(), mode).unwrap();
    }
    must(
        Command::new(gpg)
            .env("GNUPGHOME", here.path())
            .args(["--batch", "--passphrase", "", "--quick-generate-key"])
            .args(["tester@example.com", "ed25519", "sign", "never"]),
    );
    // In the workspace GnuPG has another home, with no private key in it.
    let there_home = there.path().display();
    let sign = "echo text | gpg --batch --clearsign -u tester@example.com | gpg --verify 2>&1";
    let env = format!("--env=GNUPGHOME={there_home}");
    let mut adit = dev.adit(["ssh", "--forward-gpg", &env, dev.fact("workspace"), sign]);
    let told = must(adit.env("GNUPGHOME", here.path()));
    assert!(told.contains("Good signature"), "{told}");
    for home in [&here, &there] {
        let mut gone = Command::new(&gpgconf);
        let gone = gone.env("GNUPGHOME", home.path());
        // There is none in the workspace.
        let _ = run(gone.args(["--kill", "all"]), COMMAND_LIMIT);
    }
}
