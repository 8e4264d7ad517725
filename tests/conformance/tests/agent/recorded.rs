//! Our agent in recorded sessions of a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use adit_agent_core::backoff::Limits;
use adit_messages::agent::lifecycle::State;
use adit_messages::agent::{self, method};
use adit_messages::tailnet::{self, method::COORDINATE};
use adit_tests_conformance::left_out::{LeftOut, Subject};
use bytes::Bytes;
use prost::Message;

use crate::lifecycle::states;
use crate::replay::{Done, Replay};
use crate::server::{Seen, Server};
use crate::{Agent, token};

fn decode<M: Message + Default>(messages: &[Bytes]) -> Vec<M> {
    let all = messages.iter();
    all.map(|m| M::decode(m.clone()).unwrap()).collect()
}

fn of_session(seen: &[Seen], session: usize, path: &str) -> Vec<Bytes> {
    seen.iter()
        .filter(|s| s.session == session && s.what == path)
        .map(|s| s.message.clone())
        .collect()
}

/// Output by log source, and level.
fn output(messages: &[Bytes]) -> BTreeMap<Bytes, Vec<(String, i32)>> {
    let mut all: BTreeMap<Bytes, Vec<(String, i32)>> = BTreeMap::new();
    for batch in decode::<agent::BatchCreateLogsRequest>(messages) {
        let lines = batch.logs.into_iter().map(|l| (l.output, l.level));
        all.entry(batch.log_source_id).or_default().extend(lines);
    }
    // Two outputs of one script have no order.
    all.values_mut().for_each(|lines| lines.sort());
    all
}

type Ending = (Bytes, i32, i32, i32);

/// Script, stage, exit code and status of each run.
fn endings(messages: &[Bytes]) -> BTreeSet<Ending> {
    decode::<agent::WorkspaceAgentScriptCompletedRequest>(messages)
        .into_iter()
        .map(|r| {
            let t = r.timing.unwrap();
            assert!(t.start.is_some() && t.end.is_some());
            (t.script_id, t.stage, t.exit_code, t.status)
        })
        .collect()
}

fn without_cron(endings: BTreeSet<Ending>) -> BTreeSet<Ending> {
    endings.into_iter().filter(|e| e.1 != 2).collect()
}

fn keys(messages: &[Bytes]) -> BTreeSet<String> {
    decode::<agent::BatchUpdateMetadataRequest>(messages)
        .into_iter()
        .flat_map(|r| r.metadata)
        .map(|m| {
            assert!(m.result.is_some());
            m.key
        })
        .collect()
}

/// Every peer that was announced was answered.
fn greeted(done: &[Bytes]) -> BTreeSet<Bytes> {
    decode::<tailnet::CoordinateRequest>(done)
        .into_iter()
        .flat_map(|r| r.ready_for_handshake)
        .map(|r| r.id)
        .collect()
}

fn recorded_states(done: &Done) -> Vec<State> {
    decode::<agent::UpdateLifecycleRequest>(&done.requests[method::UPDATE_LIFECYCLE])
        .into_iter()
        .map(|r| r.lifecycle.unwrap().state())
        .collect()
}

struct Stage {
    dir: tempfile::TempDir,
    server: Server,
    agent: Agent,
    done: Vec<Done>,
}

async fn stage(name: &str) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("log")).unwrap();
    std::fs::create_dir_all(dir.path().join("project")).unwrap();
    let mut replay = Replay::load(name, &dir.path().to_string_lossy());
    let done = replay.take_done();
    let server = Server::start(replay).await;
    let quick = Limits {
        floor: Duration::from_millis(20),
        cap: Duration::from_millis(100),
    };
    let agent = Agent::with_retry(&server.url, dir.path(), token(), quick);
    Stage {
        dir,
        server,
        agent,
        done,
    }
}

fn localise(text: &str, dir: &Path) -> String {
    text.replace("/home/coder", &dir.to_string_lossy())
}

/// Start scripts, logs, metadata, a cron script, stop scripts of which one
/// fails.
#[tokio::test]
async fn a_session_from_start_to_end() {
    let Stage {
        dir,
        server,
        agent,
        done,
    } = stage("agent-session-ready").await;
    let real = &done[0].requests;
    server.until_called("PushContextState", 1).await;
    server.until_called("Coordinate", 1).await;
    server.until_called("UpdateStats", 2).await;
    server.until_called("BatchUpdateMetadata", 1).await;
    server.until_called("BatchUpdateAppHealths", 1).await;
    assert_eq!(states(&server), [State::Starting, State::Ready]);
    agent.stop().await;

    let seen = server.seen();
    let ours = |path: &str| of_session(&seen, 0, path);
    assert_eq!(states(&server), recorded_states(&done[0]));
    let startup = |m: &[Bytes]| {
        decode::<agent::UpdateStartupRequest>(m)[0]
            .startup
            .clone()
            .unwrap()
    };
    assert_eq!(
        startup(&ours(method::UPDATE_STARTUP)).expanded_directory,
        localise(
            &startup(&real[method::UPDATE_STARTUP]).expanded_directory,
            dir.path()
        )
    );
    // Cron ticks come when they come; all other output is the same.
    let scripts = without_cron(endings(&real[method::SCRIPT_COMPLETED]));
    assert_eq!(
        without_cron(endings(&ours(method::SCRIPT_COMPLETED))),
        scripts
    );
    let cron: BTreeSet<Bytes> = endings(&real[method::SCRIPT_COMPLETED])
        .into_iter()
        .filter(|e| e.1 == 2)
        .map(|e| e.0)
        .collect();
    assert!(!cron.is_empty());
    // The recording holds the first of the output.
    let got = output(&ours(method::BATCH_CREATE_LOGS));
    for (source, lines) in output(&real[method::BATCH_CREATE_LOGS]) {
        let all = got.get(&source).map_or(&[][..], Vec::as_slice);
        for line in lines.iter().filter(|(text, _)| text != "tick") {
            assert!(all.contains(line), "{line:?} is not in {all:?}");
        }
    }
    // A real agent reports values that ran out of time only by chance; ours
    // always does.
    let recorded = keys(&real[method::BATCH_UPDATE_METADATA]);
    assert!(keys(&ours(method::BATCH_UPDATE_METADATA)).is_superset(&recorded));
    assert_order(&seen);
    let goodbye = decode::<tailnet::CoordinateRequest>(&ours(COORDINATE))
        .pop()
        .unwrap();
    assert!(goodbye.disconnect.is_some());
    // Every method of the real agent was used.
    let used: BTreeSet<&str> = seen.iter().map(|s| s.what.as_str()).collect();
    let mut left_out = LeftOut::of(Subject::Agent, "agent-session-ready");
    for path in real.keys() {
        assert!(
            used.contains(path.as_str()) || left_out.covers(path, ""),
            "{path} was not called"
        );
    }
    assert_eq!(left_out.unneeded(), [""; 0]);
}

/// The order that every control plane may rely on.
fn assert_order(seen: &[Seen]) {
    let at = |path: &str| {
        let found = seen.iter().position(|s| s.what == path);
        found.unwrap_or_else(|| panic!("{path} was not called"))
    };
    let chains: [&[&str]; 3] = [
        &[
            method::GET_MANIFEST,
            method::UPDATE_STARTUP,
            method::UPDATE_LIFECYCLE,
            method::LIST_SUB_AGENTS,
            method::PUSH_CONTEXT_STATE,
        ],
        &[method::UPDATE_STARTUP, method::UPDATE_STATS],
        &[method::UPDATE_STARTUP, COORDINATE],
    ];
    for chain in chains {
        for pair in chain.windows(2) {
            assert!(at(pair[0]) < at(pair[1]), "{} after {}", pair[0], pair[1]);
        }
    }
    // Stop scripts run after the goodbye, and are heard of before the end.
    let last = |path: &str| seen.iter().rposition(|s| s.what == path).unwrap();
    assert!(last(COORDINATE) < last(method::SCRIPT_COMPLETED));
    let stopping = seen
        .iter()
        .filter(|s| s.what == method::UPDATE_LIFECYCLE)
        .count();
    assert_eq!(stopping, 4);
}

/// A control plane that fails in ten ways; the eleventh session works.
#[tokio::test]
async fn a_faulty_control_plane_is_outlived() {
    let Stage {
        dir: _dir,
        server,
        agent,
        done,
    } = stage("agent-versus-faulty-server").await;
    let last = done.len() - 1;
    let reached = |seen: &[Seen]| {
        seen.iter()
            .any(|s| s.session == last && s.what == method::UPDATE_STATS)
    };
    server.until("the last session", reached).await;
    agent.stop().await;
    let seen = server.seen();
    // Scripts ran once, on the first session that got so far; what was
    // reported once is not reported again.
    assert_eq!(
        states(&server),
        [
            State::Starting,
            State::Ready,
            State::ShuttingDown,
            State::Off
        ]
    );
    assert_eq!(server.calls("ScriptCompleted").len(), 1);
    assert_eq!(server.calls("ListSubAgents").len(), 1);
    // No more logs were wanted, so none were sent.
    assert_eq!(server.calls("BatchCreateLogs").len(), 1);
    for (session, real) in done.iter().enumerate() {
        for path in [method::GET_MANIFEST, method::UPDATE_STARTUP] {
            let expected = real.requests.get(path).map_or(0, Vec::len);
            assert_eq!(
                of_session(&seen, session, path).len(),
                expected,
                "{session}: {path}"
            );
        }
    }
    // After the refusal of its version the agent speaks the older one.
    let asked: Vec<&str> = seen
        .iter()
        .filter(|s| s.what.starts_with("rpc"))
        .map(|s| s.what.as_str())
        .collect();
    assert!(asked.contains(&"rpc?role=agent&version=2.9"));
}

/// The control plane restarts under a running agent.
#[tokio::test]
async fn a_restart_is_followed_without_running_scripts_again() {
    let Stage {
        dir: _dir,
        server,
        agent,
        done,
    } = stage("server-restart").await;
    let real = &done[0].requests;
    server.until_called("UpdateStats", 2).await;
    let wanted = greeted(&real[COORDINATE]);
    assert!(!wanted.is_empty());
    server
        .until("all peers to be greeted", |seen| {
            greeted(&of_session(seen, 0, COORDINATE)) == wanted
        })
        .await;
    agent.stop().await;
    assert_order_of_redial(&server.seen());
}

fn assert_order_of_redial(seen: &[Seen]) {
    let at = |path: &str| seen.iter().position(|s| s.what == path).unwrap();
    assert!(at(method::GET_MANIFEST) < at(method::UPDATE_STARTUP));
    assert!(at(method::UPDATE_STARTUP) < at(COORDINATE));
}
