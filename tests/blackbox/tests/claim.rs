//! Prebuilt workspaces: built ahead, claimed by a user, re-initialised.

#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use adit_test_harness::{Dev, until};
use serde_json::Value;

fn workspaces(dev: &Dev, query: &str) -> Vec<Value> {
    let text = dev.ok(["list", "--search", query, "--output", "json"]);
    serde_json::from_str(&text).unwrap()
}

/// The unclaimed workspace whose agent is ready, once there is one other than
/// `not`.
fn ready_prebuild(dev: &Dev, not: Option<&str>) -> Value {
    until("a prebuilt workspace to be ready", || {
        let all = workspaces(dev, "owner:prebuilds");
        all.iter()
            .find(|workspace| {
                let agent = &workspace["latest_build"]["resources"][0]["agents"][0];
                agent["lifecycle_state"] == "ready"
                    && Some(workspace["id"].as_str().unwrap()) != not
            })
            .cloned()
            .ok_or_else(|| format!("{all:?}"))
    })
}

#[test]
fn a_claim_hands_over_a_running_workspace() {
    let dev = Dev::start_with(&["--prebuilds", "1"]);
    let prebuild = ready_prebuild(&dev, None);
    let id = prebuild["id"].as_str().unwrap().to_owned();
    assert_eq!(prebuild["owner_name"], "prebuilds");
    assert_eq!(prebuild["is_prebuild"], true);

    let created = dev.ok([
        "create",
        "claimed",
        "--template",
        "local",
        "--preset",
        "default",
        "--yes",
    ]);
    assert!(created.contains("Preset 'default' applied"), "{created}");
    let mine = workspaces(&dev, "owner:me name:claimed");
    assert_eq!(
        mine[0]["id"].as_str(),
        Some(id.as_str()),
        "the prebuilt workspace was handed over"
    );
    assert_eq!(mine[0]["is_prebuild"], false);
    assert_eq!(mine[0]["latest_build"]["build_number"], 2);

    // The agent has started anew for its owner: nothing of the old one is left.
    let environment = dev.ok(["ssh", "--wait=yes", "claimed", "--", "env"]);
    assert!(
        environment.contains(&format!("CODER_WORKSPACE_OWNER_NAME={}", dev.fact("user")))
            || environment.contains("CODER_WORKSPACE_NAME=claimed"),
        "{environment}"
    );
    assert!(
        environment.contains("CODER_WORKSPACE_NAME=claimed"),
        "{environment}"
    );
    assert!(
        !environment.to_lowercase().contains("prebuild"),
        "{environment}"
    );

    // A replacement is built.
    let next = ready_prebuild(&dev, Some(&id));
    assert_ne!(next["id"], prebuild["id"]);
}

#[test]
fn the_claim_is_handled_once() {
    let mut dev = Dev::start_with(&["--prebuilds", "1"]);
    let _ = ready_prebuild(&dev, None);
    let _ = dev.ok([
        "create",
        "claimed",
        "--template",
        "local",
        "--preset",
        "default",
        "--yes",
    ]);
    let _ = dev.ok(["ssh", "--wait=yes", "claimed", "--", "true"]);
    let boots = || dev_starts(&dev);
    let before = boots();
    // A restarted server repeats what it knows; the agent must not start over.
    dev.kill();
    dev.restart();
    let _ = dev.ok(["ssh", "--wait=yes", "claimed", "--", "true"]);
    assert_eq!(dev_starts(&dev), before);
}

/// How often start scripts have run in the claimed workspace, by its agent's
/// logs.
fn dev_starts(dev: &Dev) -> usize {
    let log = dev.ok(["logs", "claimed"]);
    log.lines().filter(|line| line.contains("[agent.")).count()
}
