//! What a real server knows of an agent that runs through its life: all of it,
//! without what must differ between two agents.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    thread,
};

use adit_test_harness::{
    Process,
    dev::COMMAND_LIMIT,
    dev::success,
    echo_template::{AgentTemplate, App, Metadata, Script, When},
    process::run,
    until,
};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use crate::server::RealServer;

/// A workspace where all goes well.
pub(crate) const WELL: &str = "well";
const WELL_TOKEN: &str = "11111111-2222-4333-8444-555555555555";

/// A workspace where little does.
pub(crate) const AILING: &str = "ailing";
const AILING_TOKEN: &str = "11111111-2222-4333-8444-666666666666";

/// Services that the agents look at, all on loopback.
pub(crate) struct Services {
    healthy: u16,
    ill: u16,
    plain: u16,
}

impl Services {
    pub(crate) fn start() -> Self {
        Self {
            healthy: serve("200 OK"),
            ill: serve("500 Internal Server Error"),
            plain: serve("404 Not Found"),
        }
    }

    /// Makes both workspaces.
    pub(crate) fn make_workspaces(&self, server: &RealServer) {
        let url = |port: u16| format!("http://127.0.0.1:{port}/");
        let (healthy, ill) = (url(self.healthy), url(self.ill));
        let app = |slug, url, health_url| App {
            slug,
            url,
            health_url,
            threshold: 2,
        };
        server.make(
            WELL,
            &AgentTemplate {
                token: WELL_TOKEN,
                directory: "~/work",
                environment: &[("FOO", "bar")],
                scripts: &[
                    script("start", "echo hello from start; echo oops >&2"),
                    Script {
                        when: When::Stop,
                        ..script("stop", "echo bye")
                    },
                ],
                metadata: &[
                    metadata("fine", "echo 1.5"),
                    metadata("failing", "echo nope; exit 3"),
                    metadata("slow", "sleep 20"),
                    metadata("long", "head -c 5000 /dev/zero | tr '\\0' x"),
                    metadata("empty", "true"),
                ],
                apps: &[
                    app("healthy", &healthy, &healthy),
                    app("ill", &ill, &ill),
                    app("unasked", &healthy, ""),
                ],
                memory_threshold: 100,
            },
        );
        server.make(
            AILING,
            &AgentTemplate {
                token: AILING_TOKEN,
                directory: "/tmp",
                scripts: &[
                    script("fails", "echo failing; exit 3"),
                    Script {
                        timeout: 2,
                        ..script("hangs", "echo hanging; sleep 60")
                    },
                    script("leaves", "sleep 40 & echo leaving"),
                    Script {
                        when: When::Stop,
                        ..script("stop", "exit 4")
                    },
                ],
                ..AgentTemplate::default()
            },
        );
    }

    /// The life of an agent in the workspace where all goes well.
    pub(crate) fn life_when_well(&self, server: &RealServer, agent: &Path, name: &str) -> Value {
        let life = Life::start(server, agent, name, WELL, WELL_TOKEN);
        let ready = life.settle("ready", |seen| {
            let healths: Vec<&str> = seen["apps"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|app| app["health"].as_str())
                .collect();
            seen["lifecycle_state"] == "ready"
                && seen["status"] == "connected"
                && !seen["latency"].is_null()
                && !healths.contains(&"initializing")
        });
        let metadata = until("every value", || {
            let rows = life.query(
                "select key, value, error, timeout, interval from workspace_agent_metadata \
                 where workspace_agent_id = $agent order by key",
            );
            let told =
                |row: &Value| row["key"] == "empty" || row["value"] != "" || row["error"] != "";
            if rows.as_array().unwrap().iter().all(told) {
                Ok(rows)
            } else {
                Err(rows)
            }
        });
        let sessions = life.sessions();
        life.clients();
        let ports = life.get("listening-ports");
        let port = ports["ports"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["port"] == self.plain)
            .cloned();
        let containers = life.get("containers");
        let stored = life.stored();
        let off = life.end(Signal::SIGTERM);
        json!({
            "ready": ready,
            "stored": stored,
            "metadata": metadata,
            "stats": sessions,
            "listening port": port,
            "containers": containers,
            "off": off,
        })
    }
}

/// The life of an agent in the workspace where little goes well.
pub(crate) fn life_when_ailing(server: &RealServer, agent: &Path, name: &str) -> Value {
    let life = Life::start(server, agent, name, AILING, AILING_TOKEN);
    let started = life.settle("done with its scripts", |seen| {
        seen["lifecycle_state"]
            .as_str()
            .is_some_and(|state| state.starts_with("start_"))
    });
    let stored = life.stored();
    json!({"started": started, "stored": stored, "off": life.end(Signal::SIGINT)})
}

fn script<'a>(name: &'a str, text: &'a str) -> Script<'a> {
    Script {
        name,
        text,
        ..Script::default()
    }
}

fn metadata<'a>(key: &'a str, script: &'a str) -> Metadata<'a> {
    Metadata {
        key,
        script,
        interval: 3,
        timeout: 2,
    }
}

/// Answers every request with this; as long as the test runs.
fn serve(status: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
    port
}

/// A running agent.
struct Life<'a> {
    server: &'a RealServer,
    process: Process,
    workspace: &'static str,
    id: String,
    home: String,
    name: &'a str,
}

impl<'a> Life<'a> {
    fn start(
        server: &'a RealServer,
        agent: &Path,
        name: &'a str,
        workspace: &'static str,
        token: &str,
    ) -> Self {
        let log = server.dir().join(format!("{name}-{workspace}.log"));
        let home = server.dir().join(format!("{name}-{workspace}"));
        fs::create_dir_all(home.join("work")).unwrap();
        let id = server.agent(workspace)["id"].as_str().unwrap().to_owned();
        let mut command = Command::new(agent);
        command
            .arg("agent")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("CODER_AGENT_URL", server.url())
            .env("CODER_AGENT_TOKEN", token)
            .env("CODER_AGENT_LOG_DIR", &home)
            // Ours has none.
            .env("CODER_AGENT_DEVCONTAINERS_ENABLE", "false");
        Self {
            server,
            process: Process::start(&mut command, &log),
            workspace,
            id,
            home: home.display().to_string(),
            name,
        }
    }

    /// Waits for a state and returns what is seen of the agent then.
    fn settle(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let seen = until(&format!("the agent to be {what}"), || {
            let seen = self.server.agent(self.workspace);
            if done(&seen) {
                Ok(seen)
            } else {
                Err(format!("{}: {seen}", self.process.output()))
            }
        });
        println!(
            "{} in {}: {what}, version {} API {}",
            self.name, self.workspace, seen["version"], seen["api_version"]
        );
        self.plain(&seen)
    }

    fn get(&self, what: &str) -> Value {
        let value = self
            .server
            .get(&format!("workspaceagents/{}/{what}", self.id));
        self.plain(&value)
    }

    fn query(&self, query: &str) -> Value {
        let query = query.replace("$agent", &format!("'{}'", self.id));
        self.plain(&self.server.query(&query))
    }

    /// What the server keeps of the agent: its row, the logs, how its scripts
    /// went and what it was told of memory.
    fn stored(&self) -> Value {
        json!({
            "row": self.query("select * from workspace_agents where id = $agent"),
            "logs": self.query(
                "select s.display_name, l.level, l.output from workspace_agent_logs l \
                 join workspace_agent_log_sources s on s.id = l.log_source_id \
                 and s.workspace_agent_id = l.agent_id \
                 where l.agent_id = $agent order by s.display_name, l.level, l.id",
            ),
            "scripts": self.query(
                "select s.display_name, t.stage, t.status, t.exit_code, \
                 t.ended_at > t.started_at as took_time \
                 from workspace_agent_script_timings t \
                 join workspace_agent_scripts s on s.id = t.script_id \
                 where s.workspace_agent_id = $agent order by 1, 2",
            ),
            "memory": self.query(
                "select state, threshold, enabled from workspace_agent_memory_resource_monitors \
                 where agent_id = $agent",
            ),
        })
    }

    /// What the agent tells of sessions while there is one of each kind, and
    /// once they are over.
    fn sessions(&self) -> Value {
        let start = |what: &str, args: &[&str]| {
            let mut shell = Command::new("/bin/sh");
            shell
                .args(["-c", "sleep 1000 | exec \"$@\"", "sh"])
                .arg(self.server.coder(&[]).get_program())
                .args(self.server.coder(args).get_args());
            let log = format!("{}-{what}.log", self.name);
            Process::start(&mut shell, &self.server.dir().join(log))
        };
        let stays = "until [ -e ~/over ]; do sleep 0.2; date; done";
        let editor = "CODER_SSH_SESSION_TYPE=vscode";
        let sessions = [
            start("ssh", &["ssh", self.workspace, "--", stays]),
            start(
                "editor",
                &["ssh", "-e", editor, self.workspace, "--", stays],
            ),
            start("terminal", &["exp", "rpty", self.workspace, stays]),
        ];
        let counts = "max(session_count_ssh) as ssh, max(session_count_vscode) as vscode, \
             max(session_count_jetbrains) as jetbrains, \
             max(session_count_reconnecting_pty) as terminal, \
             max(connection_count) > 0 as connections, max(rx_packets) > 0 as rx_packets, \
             max(rx_bytes) > 0 as rx_bytes, max(tx_packets) > 0 as tx_packets, \
             max(tx_bytes) > 0 as tx_bytes, max(connection_median_latency_ms) > 0 as latency, \
             bool_or(connections_by_proto ? 'TCP') as tcp, bool_or(usage) as usage";
        let during = until("the sessions to be counted", || {
            let rows = self.query(&format!(
                "select {counts} from workspace_agent_stats where agent_id = $agent"
            ));
            let all = ["ssh", "vscode", "terminal"].map(|kind| rows[0][kind] == 1);
            if all == [true; 3] && rows[0]["latency"] == true {
                Ok(rows)
            } else {
                let said: String = sessions.iter().map(Process::output).collect();
                Err(format!("{rows}: {said}"))
            }
        });
        fs::write(Path::new(&self.home).join("over"), "").unwrap();
        let after = until("the sessions to be over", || {
            let rows = self.query(
                "select session_count_ssh, session_count_vscode from workspace_agent_stats \
                 where agent_id = $agent order by created_at desc limit 1",
            );
            if rows[0]["session_count_ssh"] == 0 && rows[0]["session_count_vscode"] == 0 {
                Ok(rows)
            } else {
                Err(rows)
            }
        });
        json!({"during": during, "after": after})
    }

    /// Both clients reach it.
    fn clients(&self) {
        let real = self
            .server
            .ok(&["ssh", self.workspace, "--", "pwd; echo $FOO"]);
        assert_eq!(real, format!("{}/work\nbar\n", self.home));
        let adit = |args: &[&str]| {
            let mut command = Command::new(adit_test_harness::program("adit"));
            command
                .args(args)
                .env("ADIT_URL", self.server.url())
                .env("ADIT_SESSION_TOKEN", self.server.session_token());
            success(run(&mut command, COMMAND_LIMIT))
        };
        assert_eq!(adit(&["ssh", self.workspace, "--", "pwd; echo $FOO"]), real);
        println!("{}", adit(&["ping", self.workspace, "-n", "2"]));
    }

    /// Ends the agent, and returns what is seen and stored of it then.
    fn end(mut self, signal: Signal) -> Value {
        self.process.signal(signal);
        let status = self.process.wait();
        let seen = self.settle("over", |seen| {
            seen["lifecycle_state"].as_str().is_some_and(|state| {
                state == "off" || state == "shutdown_error" || state == "shutdown_timeout"
            }) && seen["status"] == "disconnected"
        });
        let stored = self.stored();
        self.server.restart_build(self.workspace);
        json!({"exit": status.code(), "seen": seen, "stored": stored})
    }

    /// Without what differs between two agents of the same workspace.
    fn plain(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .filter(|(name, _)| !self.differs(name))
                    .map(|(name, value)| (name.clone(), self.plain_field(name, value)))
                    .collect::<Map<_, _>>(),
            ),
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.plain(item)).collect();
                // The server gives these in an order of chance.
                items.sort_by_key(|item| item["display_name"].as_str().map(str::to_owned));
                items.into()
            }
            // The words are each one's own.
            Value::String(text) if text.starts_with("WARNING: ") => json!("WARNING"),
            Value::String(text) => json!(text.replace(&self.home, "~")),
            other => other.clone(),
        }
    }

    fn differs(&self, name: &str) -> bool {
        matches!(name, "id" | "version" | "auth_token")
            || name.ends_with("_id")
            // There is a warning among its logs.
            || (name == "logs_length" && self.workspace == AILING)
    }

    fn plain_field(&self, name: &str, value: &Value) -> Value {
        match name {
            "latency" => match value.as_object() {
                Some(regions) => regions.keys().cloned().collect(),
                None => value.clone(),
            },
            _ if name.ends_with("_at") => json!(!value.is_null()),
            _ => self.plain(value),
        }
    }
}

/// Writes down where two views differ.
pub(crate) fn compare(at: &str, theirs: &Value, ours: &Value, differences: &mut String) {
    use std::fmt::Write as _;
    match (theirs, ours) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left
                .keys()
                .chain(right.keys().filter(|k| !left.contains_key(*k)))
            {
                let at = format!("{at}/{name}");
                compare(&at, &theirs[name], &ours[name], differences);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (number, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{at}/{number}"), left, right, differences);
            }
        }
        _ if theirs == ours => {}
        _ => {
            let _ = writeln!(differences, "{at}: theirs {theirs}, ours {ours}");
        }
    }
}
