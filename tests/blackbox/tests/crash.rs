//! What is left when the server is killed at a bad moment.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::{
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use adit_test_harness::{Dev, until};
use serde_json::Value;

/// Deaths of the server.
const ROUNDS: u64 = 4;

/// How much longer it lives in each round than in the one before, from the
/// moment that clients ask for builds.
const LATER: Duration = Duration::from_millis(60);

/// A client that may fail.
fn client(dev: &Dev, args: &[&str]) -> Child {
    dev.adit(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn workspaces(dev: &Dev) -> Vec<Value> {
    serde_json::from_str(&dev.ok(["list", "--all", "--output", "json"])).unwrap()
}

#[test]
fn builds_that_a_crash_interrupts_are_finished() {
    let mut dev = Dev::start();
    for round in 0..ROUNDS {
        let mut clients = Vec::new();
        for number in 0..2 {
            let name = format!("crash-{round}-{number}");
            let create = ["create", &name, "--template", "local", "--yes"];
            clients.push(client(&dev, &create));
        }
        if let Some(earlier) = round.checked_sub(1) {
            for (number, what) in ["stop", "delete"].into_iter().enumerate() {
                let name = format!("crash-{earlier}-{number}");
                clients.push(client(&dev, &[what, &name, "--yes"]));
            }
        }
        // Not to wait for something: to hit another moment in each round.
        sleep(LATER * u32::try_from(round + 1).unwrap());
        dev.kill();
        for client in &mut clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        dev.restart();
        let all = until("all builds to be over", || {
            let all = workspaces(&dev);
            let open = all
                .iter()
                .find(|one| one["latest_build"]["job"]["completed_at"].is_null());
            open.map_or(Ok(all.clone()), |one| Err(one.to_string()))
        });
        for one in &all {
            let (name, build) = (one["name"].as_str().unwrap(), &one["latest_build"]);
            assert_eq!(build["job"]["status"], "succeeded", "{one}");
            if build["transition"] == "start" {
                assert_eq!(dev.ok(["ssh", name, "--", "echo alive"]), "alive\n");
            }
        }
    }
}
