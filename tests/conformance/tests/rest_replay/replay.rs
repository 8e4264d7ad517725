//! Sends a flow's requests to our server and compares the replies.

mod streams;

use std::time::Duration;

use adit_tests_conformance::left_out::{LeftOut, Subject};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::compare::{compare, learn};
use crate::http::{self, Head, Reply, Request};
use crate::vectors::{Event, Exchange, Frame};
use crate::world::{DEV, PREBUILT, World};

/// How long a state may take to become the recorded one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an event stream may take to say what is expected.
const STREAM: Duration = Duration::from_secs(60);

/// How recorded agent tokens begin; the last group numbers them.
const AGENT_TOKEN: &str = "a0000000-0000-4000-8000-00000000";
/// A token no agent has.
const NO_AGENT: &str = "a0000000-0000-4000-8000-0000000000ff";

/// A stream that goes on while the flow does.
struct Open {
    exchange: usize,
    enough: Option<oneshot::Sender<()>>,
    events: JoinHandle<Vec<Event>>,
}

pub struct Replay<'a> {
    world: &'a mut World,
    left_out: LeftOut,
    pub failures: Vec<String>,
    streams: Vec<Open>,
    /// Log sockets, which end with their jobs.
    logs: Vec<(usize, JoinHandle<Vec<Frame>>)>,
    agent_token: String,
    /// Control sessions of agents, open until the end.
    sessions: Vec<tokio::net::TcpStream>,
}

impl<'a> Replay<'a> {
    pub fn new(world: &'a mut World, flow: &str) -> Self {
        Self {
            world,
            left_out: LeftOut::of(Subject::Rest, flow),
            failures: Vec::new(),
            streams: Vec::new(),
            sessions: Vec::new(),
            logs: Vec::new(),
            agent_token: String::new(),
        }
    }

    pub async fn run(&mut self, flow: &[Exchange]) {
        for (index, exchange) in flow.iter().enumerate() {
            if exchange
                .headers
                .values()
                .any(|value| value.starts_with(AGENT_TOKEN))
            {
                self.agent_speaks(exchange).await;
            }
            // An agent is refused while the build it belongs to runs.
            let next = flow.get(index + 1);
            let refused = is_refused_agent(exchange) || next.is_some_and(is_refused_agent);
            self.step(index, exchange, refused).await;
        }
        self.world.hold.send_replace(false);
        for (index, log) in std::mem::take(&mut self.logs) {
            let frames = log.await.unwrap();
            self.check_frames(&flow[index], &frames);
        }
        for mut open in std::mem::take(&mut self.streams) {
            let exchange = &flow[open.exchange];
            if !streams::is_idle(exchange) {
                open.enough = None;
            }
            let events = open.events.await.unwrap();
            self.check_events(exchange, &events);
        }
        self.failures.extend(self.left_out.unneeded());
    }

    /// Finds the token of the agent that speaks next.
    async fn agent_speaks(&mut self, exchange: &Exchange) {
        let speaker = self.speaker();
        let waiting = exchange.status == 401;
        if !waiting {
            self.world.hold.send_replace(false);
            self.world
                .settled(self.world.ids[speaker].parse().unwrap())
                .await;
            self.agent_token = self.world.agent_token(speaker).await;
        }
    }

    /// The recorded id of the workspace whose agent speaks.
    fn speaker(&self) -> &'static str {
        if self.world.ids.contains_key(DEV) {
            DEV
        } else {
            PREBUILT
        }
    }

    /// Agents that are connected in the recording connect here, too.
    async fn agents_connect(&mut self, recorded: &Value) {
        if let Value::Array(items) = recorded {
            for item in items {
                Box::pin(self.agents_connect(item)).await;
            }
        }
        let Value::Object(object) = recorded else {
            return;
        };
        let Some(build) = object.get("latest_build") else {
            for value in object.values() {
                Box::pin(self.agents_connect(value)).await;
            }
            return;
        };
        let connected = build["resources"].as_array().is_some_and(|resources| {
            let agents = resources
                .iter()
                .flat_map(|r| r["agents"].as_array().into_iter().flatten());
            agents
                .into_iter()
                .any(|agent| agent["status"] == "connected")
        });
        let id = recorded["id"]
            .as_str()
            .and_then(|id| self.world.ids.get(id));
        if let (true, Some(id)) = (connected, id) {
            let id = id.parse().unwrap();
            self.world.connect_new(id).await;
        }
    }

    async fn step(&mut self, index: usize, exchange: &Exchange, hold: bool) {
        if let Some(recorded) = exchange.json.clone()
            && exchange.req.starts_with("GET ")
        {
            self.agents_connect(&recorded).await;
        }
        // Jobs go on when the recording has seen them end, or follows them.
        let status = exchange.json.as_ref().and_then(job_status);
        let follows = exchange.ws.is_some() && exchange.req.contains("/logs?follow");
        let waits = matches!(status, Some("pending" | "running"));
        let hold = hold || (waits && !follows);
        self.world.hold.send_replace(hold);
        if exchange.ws.is_some() || exchange.status == 101 {
            return self.socket(index, exchange).await;
        }
        if exchange.sse.is_some() {
            return self.event_stream(index, exchange).await;
        }
        let mut reply = self.send(exchange).await;
        if exchange.status == 201 && reply.head.status == 409 {
            // The recording waited for the build before, which goes on between
            // the attempts; the next one is to stop where it is recorded.
            let deadline = tokio::time::Instant::now() + STREAM;
            while reply.head.status == 409 && tokio::time::Instant::now() < deadline {
                self.world.hold.send_replace(false);
                tokio::time::sleep(Duration::from_millis(30)).await;
                self.world.hold.send_replace(hold);
                reply = self.send(exchange).await;
            }
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while exchange.req.starts_with("GET ")
            && !settled(status, &reply)
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
            reply = self.send(exchange).await;
        }
        self.check(exchange, &reply);
    }

    fn request<'r>(
        &self,
        exchange: &'r Exchange,
    ) -> (&'r str, String, Vec<(String, String)>, Vec<u8>) {
        let (method, path) = exchange.req.split_once(' ').unwrap();
        let mut headers = Vec::new();
        for (name, value) in &exchange.headers {
            match name.as_str() {
                "Cookie-Names" => {
                    let token = &self.world.tokens[self.last_token(exchange)];
                    headers.push(("Cookie".into(), format!("{value}={token}")));
                }
                "Upgrade" => {}
                _ if value.starts_with(AGENT_TOKEN) && value != NO_AGENT => {
                    headers.push((name.clone(), self.agent_token.clone()));
                }
                _ => headers.push((name.clone(), self.ours(value))),
            }
        }
        let body = exchange
            .body
            .as_deref()
            .map(|body| self.ours(body))
            .unwrap_or_default();
        (method, self.ours(path), headers, body.into_bytes())
    }

    /// The session a recorded cookie stands for: values of cookies were not
    /// kept.
    fn last_token(&self, exchange: &Exchange) -> &str {
        if exchange.req.contains("/apps/") {
            "keyid00010"
        } else {
            "keyid00002"
        }
    }

    /// A recorded text with our ids and tokens in it.
    fn ours(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, ours) in &self.world.ids {
            text = text.replace(recorded.as_str(), ours);
        }
        for (key, token) in &self.world.tokens {
            let (id, secret) = token.split_once('-').unwrap();
            let recorded = format!("{key}-secret{:016}", key[5..].parse::<u64>().unwrap());
            text = text.replace(&recorded, token);
            let wrong = format!("{key}-wrong");
            text = text.replace(&wrong, &format!("{id}-{}", &secret[..5].to_uppercase()));
            text = text.replace(key.as_str(), id);
        }
        text
    }

    async fn send(&self, exchange: &Exchange) -> Reply {
        let (method, path, headers, body) = self.request(exchange);
        http::send(
            self.world.server,
            Request {
                method,
                path: &path,
                headers,
                body,
            },
        )
        .await
    }

    fn fail(&mut self, exchange: &Exchange, text: impl std::fmt::Display) {
        let text = text.to_string();
        let path = text.split(": ").next().unwrap_or("");
        if self.left_out.covers(&exchange.req, path) {
            return;
        }
        self.failures
            .push(format!("#{} {}: {text}", exchange.seq, exchange.req));
    }

    fn check(&mut self, exchange: &Exchange, reply: &Reply) {
        if !self.check_head(exchange, &reply.head) {
            let body: String = String::from_utf8_lossy(&reply.body)
                .chars()
                .take(200)
                .collect();
            self.fail(exchange, body);
            return;
        }
        if let Some(recorded) = &exchange.json {
            let ours = reply.json();
            self.learn(recorded, &ours);
            let mut told: Value = serde_json::from_str(&self.ours(&recorded.to_string())).unwrap();
            // A dry run takes no time here.
            if exchange.req.contains("/dry-run/") && told["status"] == "running" {
                told["status"] = ours["status"].clone();
            }
            let recorded = &told;
            let mut differences = Vec::new();
            compare("", recorded, &ours, &mut differences);
            for difference in differences {
                self.fail(exchange, difference);
            }
        }
        if let Some(text) = &exchange.text {
            let ours = String::from_utf8_lossy(&reply.body);
            let page = text.trim_start().starts_with('<') || text.starts_with("Slim build");
            // The first line quotes the implementation there.
            let refused_upgrade =
                exchange.status == 426 && ours.contains("Failed to accept websocket.");
            let timeless = |text: &str| -> String {
                let is_time = |word: &str| word.parse::<adit_rest::Time>().is_ok();
                let words = text.trim_end().split(' ').map(|word| {
                    let (before, word) = word.rsplit_once('\n').map_or(("", word), |(a, b)| (a, b));
                    let line = if before.is_empty() && !text.contains('\n') {
                        ""
                    } else {
                        "\n"
                    };
                    let word = if is_time(word) { "@" } else { word };
                    if before.is_empty() {
                        word.to_owned()
                    } else {
                        format!("{before}{line}{word}")
                    }
                });
                words.collect::<Vec<_>>().join(" ")
            };
            let cut: String = timeless(&ours)
                .chars()
                .take(timeless(text).chars().count())
                .collect();
            if !page && !refused_upgrade && cut != timeless(text) {
                self.fail(exchange, format!("text {cut:?}, recorded {text:?}"));
            }
        }
    }

    fn learn(&mut self, recorded: &Value, ours: &Value) {
        let world = &mut *self.world;
        learn(recorded, ours, &mut |a, b| {
            if uuid::Uuid::try_parse(a).is_ok() && uuid::Uuid::try_parse(b).is_ok() {
                if !a.starts_with("00000000-0000-0000-0000") {
                    world.ids.insert(a.to_owned(), b.to_owned());
                }
            } else if a.starts_with("keyid") && a.contains('-') && b.contains('-') {
                world.tokens.insert(a[..10].to_owned(), b.to_owned());
            }
        });
    }

    fn check_head(&mut self, exchange: &Exchange, head: &Head) -> bool {
        if head.status != exchange.status {
            self.fail(
                exchange,
                format!("status {}, recorded {}", head.status, exchange.status),
            );
            return false;
        }
        let json = exchange
            .json
            .is_some()
            .then_some("application/json; charset=utf-8");
        let recorded = exchange
            .reply_headers
            .get("Content-Type")
            .and_then(Value::as_str)
            .or(json);
        let ours = head.header("content-type");
        if recorded.is_some() && recorded != ours {
            self.fail(
                exchange,
                format!("content type {ours:?}, recorded {recorded:?}"),
            );
        }
        if head.header("x-coder-build-version").is_none() {
            self.fail(exchange, "no version header");
        }
        for name in ["Retry-After", "X-Ratelimit-Limit"] {
            let recorded = exchange.reply_headers.get(name).and_then(Value::as_str);
            if recorded.is_some() && head.header(name) != recorded {
                self.fail(
                    exchange,
                    format!("{name} {:?}, recorded {recorded:?}", head.header(name)),
                );
            }
        }
        if let Some(recorded) = exchange.reply_headers.get("Www-Authenticate") {
            let recorded = recorded.as_str().unwrap().split("resource_metadata").next();
            let ours = head
                .header("www-authenticate")
                .and_then(|h| h.split("resource_metadata").next());
            if ours != recorded {
                self.fail(
                    exchange,
                    format!("challenge {ours:?}, recorded {recorded:?}"),
                );
            }
        }
        if let Some(Value::Array(names)) = exchange.reply_headers.get("Set-Cookie") {
            let mut ours: Vec<&str> = head
                .all("set-cookie")
                .iter()
                .map(|c| c.split('=').next().unwrap())
                .collect();
            ours.sort_unstable();
            if *names != ours {
                self.fail(exchange, format!("cookies {ours:?}, recorded {names:?}"));
            }
        }
        true
    }
}

/// Whether an agent is told to come back later.
fn is_refused_agent(exchange: &Exchange) -> bool {
    let mut headers = exchange.headers.values();
    exchange.status == 401
        && headers.any(|value| value.starts_with(AGENT_TOKEN) && value != NO_AGENT)
}

/// State of the job a reply is about.
fn job_status(value: &Value) -> Option<&str> {
    let job = value
        .get("latest_build")
        .map(|build| &build["job"])
        .or_else(|| value.get("job"))
        .or_else(|| value.get("queue_position").map(|_| value))?;
    job["status"].as_str()
}

/// Whether a reply has got as far as the recorded one.
fn settled(recorded: Option<&str>, reply: &Reply) -> bool {
    let Some(recorded) = recorded else {
        return true;
    };
    let ours = reply.json();
    match job_status(&ours) {
        Some(ours) => ours == recorded || recorded == "pending",
        None => true,
    }
}
