//! The service with real shells, and the recorded conversations of Coder's
//! dashboard with Coder's agent.
#![expect(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_agent_exec::{
    CommandContext, ConnectionKind, ConnectionReporter, EnvLayers, StaticContext, User,
};
use adit_agent_pty::Service;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const ID: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

#[derive(Default)]
struct Recorder(Mutex<Vec<(i32, String)>>);

impl ConnectionReporter for Recorder {
    fn connected(&self, _: Uuid, kind: ConnectionKind, _: &str) {
        assert_eq!(kind, ConnectionKind::ReconnectingPty);
    }

    fn disconnected(&self, _: Uuid, _: ConnectionKind, _: &str, code: i32, reason: &str) {
        self.0.lock().unwrap().push((code, reason.to_owned()));
    }
}

struct Fixture {
    home: tempfile::TempDir,
    service: Service,
    reports: Arc<Recorder>,
    connections: JoinSet<()>,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let reports = Arc::new(Recorder::default());
        let context = StaticContext(Ok(context(home.path())));
        Self {
            service: Service::new(Arc::new(context), Arc::clone(&reports) as _),
            home,
            reports,
            connections: JoinSet::new(),
        }
    }

    fn connect(&mut self) -> DuplexStream {
        let (client, agent) = tokio::io::duplex(1 << 16);
        let service = self.service.clone();
        self.connections
            .spawn(async move { service.serve(agent, None).await });
        client
    }

    async fn open(&mut self, id: &str, command: &str) -> DuplexStream {
        let mut client = self.connect();
        client.write_all(&init(id, command)).await.unwrap();
        client
    }
}

fn context(home: &Path) -> CommandContext {
    CommandContext {
        user: User {
            name: "root".into(),
            home: home.to_owned(),
            shell: "/bin/bash".into(),
        },
        layers: EnvLayers {
            process: vec![
                ("PATH".into(), std::env::var_os("PATH").unwrap_or_default()),
                ("HOME".into(), home.into()),
                ("INPUTRC".into(), "/dev/null".into()),
                ("LANG".into(), "C.UTF-8".into()),
            ],
            ..EnvLayers::default()
        },
        directory: None,
        wrapper: Vec::new(),
    }
}

fn init(id: &str, command: &str) -> Vec<u8> {
    let json = serde_json::json!({"ID": id, "Height": 24, "Width": 80, "Command": command});
    let json = json.to_string().into_bytes();
    let len = u16::try_from(json.len()).unwrap();
    [&len.to_le_bytes()[..], &json].concat()
}

fn typed(text: &str) -> Vec<u8> {
    serde_json::json!({"data": text}).to_string().into_bytes()
}

/// Reads until `done` accepts what was read, or the end.
async fn read_while(client: &mut DuplexStream, done: impl Fn(&str) -> bool) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if done(&text) {
            return text;
        }
        let n = client.read(&mut buffer).await.unwrap();
        if n == 0 {
            return text;
        }
        seen.extend_from_slice(&buffer[..n]);
    }
}

async fn wait_for(client: &mut DuplexStream, what: &str) -> String {
    let read = read_while(client, |text| text.contains(what));
    let text = tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or_default();
    assert!(text.contains(what), "{what:?} not in {text:?}");
    text
}

async fn read_to_end(client: &mut DuplexStream) -> String {
    tokio::time::timeout(PATIENCE, read_while(client, |_| false))
        .await
        .unwrap()
}

/// What does not depend on the shell's build, nor on whether it redrew its
/// prompt for a new size before or after it was ready to.
fn essential(output: &str) -> String {
    let mut text = output.to_owned();
    while let Some(at) = text.find("bash-") {
        let end = text[at..]
            .find(['#', '$'])
            .map_or(text.len(), |n| at + n + 1);
        text.replace_range(at..end, "PROMPT");
    }
    text.replace("\r\u{1b}[K\rPROMPT ", "")
}

#[tokio::test]
async fn recorded_conversations_replay() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/wire/reconnecting-pty.jsonl"
    );
    let file = std::fs::read_to_string(path).unwrap();
    let records: Vec<Value> = file
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &Value| record["type"] != "header")
        .collect();
    let mut fixture = Fixture::new();
    for conversation in records.chunk_by(|a, b| a["stream"] == b["stream"]) {
        println!("{}", conversation[0]["stream"]);
        replay(fixture.connect(), conversation).await;
    }
    fixture.connections.join_all().await;
    let reports = fixture.reports.0.lock().unwrap();
    assert_eq!(reports.len(), 6);
    assert!(
        reports.iter().all(|r| *r == (0, "graceful".to_owned())),
        "{reports:?}"
    );
    assert_eq!(fixture.service.total(), 6);
}

/// Plays the client's part, waiting before each step for what the recorded
/// agent had printed by then.
async fn replay(client: DuplexStream, conversation: &[Value]) {
    let mut client = Some(client);
    let mut expected = String::new();
    let mut seen = String::new();
    for record in conversation {
        let from_client = record["dir"] == "client_to_agent";
        if !from_client {
            if let Some(hex) = record["hex"].as_str() {
                expected += &String::from_utf8(hex::decode(hex).unwrap()).unwrap();
            } else if let Some(client) = &mut client {
                // A first message that never becomes complete: the recorded
                // agent reads once, ours reads on until the client ends.
                if record["stream"].as_str().unwrap().contains("length larger") {
                    client.shutdown().await.unwrap();
                }
                seen += &read_to_end(client).await;
                assert_eq!(essential(&seen), essential(&expected));
            }
            continue;
        }
        if let Some(io) = &mut client {
            let wanted = essential(&expected);
            let so_far = essential(&seen);
            if so_far.len() < wanted.len() {
                let have = seen.clone();
                let read = read_while(io, |new| {
                    essential(&format!("{have}{new}")).len() >= wanted.len()
                });
                seen += &tokio::time::timeout(PATIENCE, read).await.unwrap();
            }
            assert_eq!(essential(&seen), wanted);
        }
        match record["hex"].as_str() {
            Some(hex) => {
                // The recorded agent may already have ended the connection.
                let _ = client
                    .as_mut()
                    .unwrap()
                    .write_all(&hex::decode(hex).unwrap())
                    .await;
            }
            None => client = None,
        }
    }
}

#[tokio::test]
async fn attachments_share_a_terminal() {
    let mut fixture = Fixture::new();
    let mut first = fixture.open(ID, "cat").await;
    first.write_all(&typed("one\r")).await.unwrap();
    wait_for(&mut first, "one\r\none\r\n").await;
    let mut second = fixture.open(ID, "ignored").await;
    wait_for(&mut second, "one\r\none\r\n").await;
    second.write_all(&typed("two\r")).await.unwrap();
    for client in [&mut first, &mut second] {
        wait_for(client, "two\r\ntwo\r\n").await;
    }
    assert_eq!(
        (fixture.service.connections(), fixture.service.terminals()),
        (2, 1)
    );
    first.write_all(&typed("\u{4}")).await.unwrap();
    read_to_end(&mut first).await;
    read_to_end(&mut second).await;
    fixture.connections.join_all().await;
    assert_eq!(
        (fixture.service.connections(), fixture.service.terminals()),
        (0, 0)
    );
}

#[tokio::test]
async fn the_environment_is_a_terminals() {
    let mut fixture = Fixture::new();
    let command = "echo \"$TERM|$LC_CTYPE|$SSH_TTY|$(stty size)|$PWD\"; sleep 0";
    let output = read_to_end(&mut fixture.open(ID, command).await).await;
    let home = fixture.home.path().display();
    assert_eq!(output, format!("xterm-256color|||24 80|{home}\r\n"));
}

#[tokio::test]
async fn losing_the_connection_keeps_the_program_and_its_line() {
    let mut fixture = Fixture::new();
    let mark = fixture.home.path().join("executed");
    let mut client = fixture.open(ID, "bash --norc --noprofile").await;
    wait_for(&mut client, "bash-").await;
    client.write_all(&typed("touch executed")).await.unwrap();
    wait_for(&mut client, "touch executed").await;
    drop(client);
    fixture.connections.join_next().await;
    let mut client = fixture.open(ID, "").await;
    wait_for(&mut client, "touch executed").await;
    assert!(!mark.exists());
    // Ctrl-U; Ctrl-C is lost if it comes just before bash waits for a key.
    client.write_all(&typed("\u{15}exit\r")).await.unwrap();
    read_to_end(&mut client).await;
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_heard() {
    let mut fixture = Fixture::new();
    for round in 0..100 {
        let id = Uuid::from_u128(round).to_string();
        let output = read_to_end(&mut fixture.open(&id, "echo once").await).await;
        assert_eq!(output, "once\r\n", "round {round}");
    }
}

/// The clock runs ahead whenever everything waits, so minutes pass at once.
#[tokio::test(start_paused = true)]
async fn unattached_terminals_end() {
    let mut fixture = Fixture::new();
    let mut client = fixture.open(ID, "echo pid=$$=; exec sleep 100000").await;
    let seen = read_while(&mut client, |text| text.contains("=\r\n")).await;
    let pid = seen.split('=').nth(1).unwrap();
    let process = Path::new("/proc").join(pid);
    assert!(process.exists());
    let detached = tokio::time::Instant::now();
    drop(client);
    fixture.connections.join_next().await;
    assert_eq!(fixture.service.terminals(), 1);
    while fixture.service.terminals() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let life = detached.elapsed();
    assert!((299..=310).contains(&life.as_secs()), "{life:?}");
    while process.exists() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn shutdown_ends_terminals_and_connections() {
    let mut fixture = Fixture::new();
    let mut client = fixture.open(ID, "echo ready; exec sleep 100000").await;
    wait_for(&mut client, "ready").await;
    fixture.service.close(PATIENCE).await;
    read_to_end(&mut client).await;
    fixture.connections.join_all().await;
    assert_eq!(fixture.service.terminals(), 0);
    assert_eq!(
        fixture.reports.0.lock().unwrap()[..],
        [(1, "server_shutdown".to_owned())]
    );
}
