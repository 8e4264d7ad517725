//! Replays what a real `coder` client asked a real server, and compares what
//! our server answers.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations
)]

mod compare;
mod echo;
mod http;
mod replay;
mod starts;
mod vectors;
mod world;

use replay::Replay;
use world::World;

/// Every difference of one flow.
async fn differences(name: &str) -> Vec<String> {
    let mut world = World::new(&starts::start(name)).await;
    if starts::start(name).bob && matches!(name, "errors" | "editor-rest") {
        world.bob_signs_in().await;
    }
    if matches!(name, "errors" | "editor-rest") {
        let agent = world.agent_of("c6a3daf3-0dda-454d-bf1a-3fd203325f52").await;
        let recorded = "e7036b90-ef53-4982-a26c-b6a93fc1234a";
        world.ids.insert(recorded.into(), agent.to_string());
    }
    if name == "watch-streams" {
        let agent = world.agent_of("c6a3daf3-0dda-454d-bf1a-3fd203325f52").await;
        let recorded = "42b95b79-3061-4ba3-884e-013526c0f4e4";
        world.ids.insert(recorded.into(), agent.to_string());
    }
    let flow = vectors::flow(name);
    let mut replay = Replay::new(&mut world, name);
    replay.run(&flow).await;
    let failures = std::mem::take(&mut replay.failures);
    world.stop().await;
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_flows_replay() {
    let only = std::env::var("ADIT_REST_FLOW").ok();
    let mut problems = Vec::new();
    let known: Vec<String> = vectors::names();
    let mut flows = tokio::task::JoinSet::new();
    for name in known {
        if only.as_ref().is_none_or(|only| *only == name) {
            flows.spawn(async move { (differences(&name).await, name) });
        }
    }
    while let Some(done) = flows.join_next().await {
        let (failures, name) = done.unwrap();
        if failures.is_empty() {
            println!("{name}: same");
        } else {
            problems.push(format!("{name}:\n  {}", failures.join("\n  ")));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
