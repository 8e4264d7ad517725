//! Agents that only exist on the control plane's wire: each keeps the session,
//! the coordination stream, the stream of relay maps and the connection to the
//! relay that an idle agent has, and answers what is asked of it.

use std::{io::Write as _, path::Path, time::Duration};

use adit_derp::ConnectOptions;
use adit_http::{ClientConfig, Endpoint, HeaderName, HeaderValue, Method};
use adit_keys::{DiscoPrivate, NodePrivate, addr};
use adit_messages::{agent, tailnet};
use adit_rpc::{AgentClient, TailnetClient};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, sync::mpsc, task::JoinSet, time::timeout};
use url::Url;
use uuid::Uuid;

/// How long one agent may take to be connected.
const PATIENCE: Duration = Duration::from_secs(60);

/// Agents that connect at the same time.
const TOGETHER: usize = 20;

/// Has the control plane make workspaces of a template, one after the other.
pub(crate) fn workspaces(url: &Url, token: &str, template: Uuid, count: usize) -> Result<()> {
    let mut config = ClientConfig::new(url.clone());
    // As many in a minute would be too many.
    let bypass = HeaderName::from_static("x-coder-bypass-ratelimit");
    config.headers = vec![(bypass, HeaderValue::from_static("true"))];
    config.session_token = Some(token.to_owned());
    let http = adit_http::Client::new(config)?;
    let make = async {
        for number in 0..count {
            let name = format!("simulated-{number}");
            let body = json!({ "name": name, "template_id": template });
            let path = "/api/v2/users/me/workspaces";
            let _: Value = http.call(Method::POST, path, &body).await?;
        }
        Ok(())
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(make)
}

/// Connects one agent for each token in the file, one a line, prints `ready`
/// and keeps them until standard input ends.
pub(crate) fn run(url: &Url, tokens: &Path) -> Result<()> {
    let tokens = std::fs::read_to_string(tokens).context("read the tokens")?;
    let tokens: Vec<String> = tokens.lines().map(str::to_owned).collect();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(keep(url, tokens))
}

async fn keep(url: &Url, tokens: Vec<String>) -> Result<()> {
    let mut agents = JoinSet::new();
    let (connected, mut news) = mpsc::channel(TOGETHER);
    for batch in tokens.chunks(TOGETHER) {
        for token in batch {
            let (url, token, connected) = (url.clone(), token.clone(), connected.clone());
            agents.spawn(async move { one(url, &token, connected).await });
        }
        for _ in batch {
            tokio::select! {
                joined = timeout(PATIENCE, news.recv()) => {
                    joined.context("an agent did not connect in time")?;
                }
                Some(ended) = agents.join_next() => {
                    ended?.context("an agent")?;
                    bail!("an agent ended");
                }
            }
        }
    }
    println!("ready");
    std::io::stdout().flush()?;
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 64];
    loop {
        tokio::select! {
            read = stdin.read(&mut nothing) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            Some(ended) = agents.join_next() => {
                ended?.context("an agent")?;
                bail!("an agent ended");
            }
        }
    }
}

/// One agent; ends only with its session.
async fn one(url: Url, token: &str, connected: mpsc::Sender<()>) -> Result<()> {
    let host = url.host_str().context("the URL has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let relay = Endpoint::new(host, port, url.scheme() == "https");
    let key = NodePrivate::generate();
    let http = adit_http::Client::new(ClientConfig::new(url))?;
    http.set_session_token(token)?;
    let version = adit_rpc::Version::CURRENT;
    let path = format!("/api/v2/workspaceagents/me/rpc?role=agent&version={version}");
    let socket = http.websocket(&path, Vec::new(), None).await?;
    let (connection, _incoming) =
        adit_yamux::Connection::client(adit_ws::ByteStream::new(socket), Default::default());
    let rpc = AgentClient::new(connection.clone());
    let tailnet = TailnetClient::new(connection.clone());
    let manifest = rpc.get_manifest(&Default::default()).await?;
    let id = adit_messages::uuid_from_bytes(&manifest.agent_id).context("the agent's id")?;
    for state in [
        agent::lifecycle::State::Starting,
        agent::lifecycle::State::Ready,
    ] {
        let lifecycle = agent::Lifecycle {
            state: state.into(),
            changed_at: Some(std::time::SystemTime::now().into()),
        };
        rpc.update_lifecycle(&agent::UpdateLifecycleRequest {
            lifecycle: Some(lifecycle),
        })
        .await?;
    }
    let (mut requests, mut peers) = tailnet.coordinate().await?;
    requests.send(&node(Uuid::from_bytes(id), &key)).await?;
    let mut maps = tailnet.stream_derp_maps().await?;
    maps.recv().await?.context("no relay map")?;
    let options = ConnectOptions::new(key, vec![relay]);
    let relay = adit_derp::Client::connect(&http, &options, &Default::default()).await?;
    relay.note_preferred(true);
    connected.send(()).await?;
    drop(connected);
    tokio::select! {
        peer = async { while peers.recv().await?.is_some() {} anyhow::Ok(()) } => peer,
        map = async { while maps.recv().await?.is_some() {} anyhow::Ok(()) } => map,
        why = connection.closed() => Err(why.into()),
        why = relay.closed() => Err(why.into()),
    }
}

/// What an agent tells about itself.
fn node(agent: Uuid, key: &NodePrivate) -> tailnet::CoordinateRequest {
    let address = format!("{}/128", addr::tailnet_ip(agent));
    let node = tailnet::Node {
        id: addr::node_id(agent),
        key: key.public().to_np_bytes().to_vec().into(),
        disco: DiscoPrivate::generate().public().to_string(),
        preferred_derp: 999,
        addresses: vec![address.clone()],
        allowed_ips: vec![address],
        endpoints: vec!["10.77.0.2:41641".to_owned()],
        ..tailnet::Node::default()
    };
    tailnet::CoordinateRequest {
        update_self: Some(tailnet::coordinate_request::UpdateSelf { node: Some(node) }),
        ..tailnet::CoordinateRequest::default()
    }
}
