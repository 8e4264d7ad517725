//! Our programs with a real Coder in one of the places: its command line, its
//! agent, its server.
//!
//! Runs when `ADIT_CODER_BIN` names a `coder` binary with the server in it and
//! `ADIT_CODER_PG_URL` an empty PostgreSQL database for that server; says
//! SKIPPED otherwise.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod client;
mod server;
mod view;

use adit_test_harness::{Dev, program, skip::real_coder};
use serde_json::Value;

use crate::server::RealServer;

#[test]
fn a_real_agent_connects_to_our_server() {
    let Some(binary) = real_coder() else { return };
    let dev = Dev::start_with(&["--agent", &binary.display().to_string()]);
    let workspace = dev.fact("workspace");
    assert_eq!(dev.ok(["ssh", workspace, "--", "echo hello"]), "hello\n");
    let text = dev.ok(["ping", workspace, "-n", "3", "--wait", "200ms"]);
    assert!(text.contains("pong from"), "{text}");
    let listed: Value = serde_json::from_str(&dev.ok(["list", "--output", "json"])).unwrap();
    let agent = &listed[0]["latest_build"]["resources"][0]["agents"][0];
    assert_eq!(agent["lifecycle_state"], "ready", "{agent}");
    println!(
        "real agent: version {} API {}",
        agent["version"], agent["api_version"]
    );
    let speed = dev.ok(["speedtest", workspace, "-t", "2s", "--output", "json"]);
    println!("adit speedtest with the real agent: {speed}");
}

#[test]
fn a_real_server_sees_our_agent_as_its_own() {
    let Some(binary) = real_coder() else { return };
    let Some(server) = RealServer::start(&binary) else {
        return;
    };
    let services = view::Services::start();
    services.make_workspaces(&server);
    let ours = program("adit-agent");
    let mut differences = String::new();
    for (theirs, ours) in [
        (
            services.life_when_well(&server, &binary, "theirs"),
            services.life_when_well(&server, &ours, "ours"),
        ),
        (
            view::life_when_ailing(&server, &binary, "theirs"),
            view::life_when_ailing(&server, &ours, "ours"),
        ),
    ] {
        println!("agreed: {}", ours["stats"]);
        view::compare("", &theirs, &ours, &mut differences);
    }
    assert_eq!(differences, "", "differences");
}
