//! The coordination session of a client: dial, talk, and dial again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use adit_engine::Node;
use adit_http::StatusCode;
use adit_messages::tailnet::coordinate_request::{Disconnect, Tunnel, UpdateSelf};
use adit_messages::tailnet::{
    CoordinateRequest, CoordinateResponse, DerpMap, RefreshResumeTokenRequest,
};
use adit_messages::{uuid_from_bytes, uuid_to_bytes};
use adit_rpc::{Receiver, Sender, TailnetClient};
use adit_yamux::Connection;
use tokio::sync::watch;
use tokio::time::sleep_until;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::map::rewrite_map;
use crate::peers::{Action, PeerTable, Traffic};
use crate::token::ResumeToken;

/// API version asked for: the first with all calls made here.
const VERSION: &str = "2.0";
/// How long the closing of a connection may take when nobody waits for it.
const GOODBYE: Duration = Duration::from_secs(1);
/// Time for the coordinator's answer to a goodbye, and then for closing the
/// connection. It may be further away than that: what was said reaches it
/// before the end of the connection does.
const LINGER: Duration = Duration::from_millis(20);
/// Longest wait before another attempt while the agent is in use, and for how
/// long after the loss of a session such hurry makes sense.
const HURRY: Duration = Duration::from_millis(400);
const HURRY_SPAN: Duration = Duration::from_secs(60);
/// Budget of one dial.
const DIAL: Duration = Duration::from_secs(30);

/// Where the coordination session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlState {
    /// Dialling; the text is the last failure.
    Connecting {
        /// Attempts since the last success.
        attempt: u32,
        /// Why the one before failed.
        error: Option<String>,
    },
    /// Talking to the coordinator.
    Connected,
    /// Ended for good.
    Stopped,
}

/// Where the task leaves the reason for giving up.
pub(crate) type Refusal = Arc<Mutex<Option<adit_http::Error>>>;

/// What the task needs.
pub(crate) struct Control {
    pub(crate) http: adit_http::Client,
    pub(crate) node: Node,
    pub(crate) agent: Uuid,
    pub(crate) state: watch::Sender<ControlState>,
    /// Set once the agent may be sent to.
    pub(crate) programmed: watch::Sender<bool>,
    /// Relay maps may be given to the node.
    pub(crate) maps_wanted: watch::Receiver<bool>,
    pub(crate) stop: watch::Receiver<bool>,
    /// Filled when the first attempt failed for good.
    pub(crate) refusal: Refusal,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
enum DialFailure {
    /// No WebSocket.
    #[error(transparent)]
    Http(#[from] adit_http::Error),
    /// The WebSocket opened, but the calls on it failed.
    #[error("the server takes the connection but not the coordination calls: {0}")]
    Calls(adit_rpc::Error),
}

/// Why a session ended.
enum Ended {
    Stopped,
    Failed(String),
}

struct Session {
    requests: Sender<CoordinateRequest>,
    responses: Receiver<CoordinateResponse>,
    maps: Receiver<DerpMap>,
    rpc: TailnetClient,
    connection: Connection,
}

/// State that outlives sessions.
struct Running {
    control: Control,
    table: PeerTable,
    token: Option<ResumeToken>,
}

impl Control {
    /// Runs until stopped, or until the first attempt fails for good.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        let agent = self.agent;
        let mut running = Running {
            control: self,
            table: PeerTable::default(),
            token: None,
        };
        running.table.mark_destination(agent);
        let mut backoff = Backoff::default();
        let mut attempt = 0;
        let mut first = true;
        let mut error = None;
        let mut lost_at: Option<Instant> = None;
        loop {
            attempt += 1;
            running
                .control
                .state
                .send_replace(ControlState::Connecting {
                    attempt,
                    error: error.take(),
                });
            let mut wait = backoff.wait(&mut rand::rng());
            if lost_at.is_some_and(|at| at.elapsed() < HURRY_SPAN)
                && running.control.node.peer_active(agent).await
            {
                wait = wait.min(HURRY.mul_f64(rand::random_range(0.5..=1.0)));
            }
            let dial = running.control.dial(running.token.as_ref(), wait);
            let dialled = tokio::select! {
                dialled = running.keep_time(dial) => dialled,
                () = stopped(&mut stop) => break,
            };
            let session = match dialled {
                Ok(session) => session,
                Err(failure) => {
                    error = Some(failure.to_string());
                    match failure {
                        DialFailure::Http(refused) if refused.refuses_field("resume_token") => {
                            running.token = None;
                        }
                        DialFailure::Http(refused) if first && is_permanent(&refused) => {
                            let refusal = &running.control.refusal;
                            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
                            break;
                        }
                        DialFailure::Http(_) | DialFailure::Calls(_) => first = false,
                    }
                    tracing::debug!(attempt, error, "coordinator not reached");
                    continue;
                }
            };
            first = false;
            running.control.state.send_replace(ControlState::Connected);
            let since = Instant::now();
            match running.talk(session, &mut stop).await {
                Ended::Stopped => break,
                Ended::Failed(reason) => {
                    tracing::debug!(reason, "coordination session ended");
                    error = Some(reason);
                }
            }
            attempt = 0;
            lost_at = Some(Instant::now());
            backoff.ended(since.elapsed());
            let ages = running.ages().await;
            running
                .table
                .all_lost(Instant::now(), |id| ages.get(id).copied());
        }
        running.control.state.send_replace(ControlState::Stopped);
    }

    /// Opens a session after `wait`. Owns all it needs, so that timers can run
    /// beside it.
    fn dial(
        &self,
        token: Option<&ResumeToken>,
        wait: Duration,
    ) -> impl Future<Output = Result<Session, DialFailure>> + use<> {
        let mut path = format!(
            "/api/v2/workspaceagents/{}/coordinate?version={VERSION}",
            self.agent
        );
        if let Some(token) = token.and_then(|t| t.get(SystemTime::now())) {
            let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
            path.push_str("&resume_token=");
            path.push_str(&token);
        }
        let http = self.http.clone();
        async move {
            tokio::time::sleep(wait).await;
            let socket = http.websocket(&path, Vec::new(), None).await?;
            let stream = adit_ws::ByteStream::new(socket);
            let monitor = stream.monitor();
            let (connection, _) = Connection::client(stream, adit_yamux::Config::default());
            let rpc = TailnetClient::new(connection.clone()).with_timeout(DIAL);
            // Both calls start at once: each costs a round trip.
            match tokio::try_join!(rpc.coordinate(), rpc.stream_derp_maps()) {
                Ok(((requests, responses), maps)) => Ok(Session {
                    requests,
                    responses,
                    maps,
                    rpc,
                    connection,
                }),
                Err(error) => {
                    monitor.set_close(1011, &error.to_string());
                    let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
                    Err(DialFailure::Calls(error))
                }
            }
        }
    }
}

impl Running {
    /// Runs the peer timers while `work` goes on.
    async fn keep_time<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let due = self.table.poll_timeout();
            tokio::select! {
                done = &mut work => return done,
                () = at(due) => self.timeout().await,
            }
        }
    }

    async fn timeout(&mut self) {
        let ages = self.ages().await;
        let actions = self
            .table
            .handle_timeout(Instant::now(), |id| ages.get(id).copied());
        for action in actions {
            self.apply(action).await;
        }
    }

    async fn ages(&self) -> HashMap<Uuid, Duration> {
        let mut ages = HashMap::new();
        for id in self.table.ids() {
            if let Some(age) = self.control.node.last_handshake(id).await {
                ages.insert(id, age);
            }
        }
        ages
    }

    async fn apply(&mut self, action: Action) {
        match action {
            Action::Program {
                id,
                node,
                keepalive,
            } => match self.control.node.upsert_peer(id, &node, keepalive).await {
                Ok(()) if id == self.control.agent => {
                    self.control.programmed.send_replace(true);
                }
                Ok(()) => {}
                Err(error) => tracing::warn!(peer = %id, %error, "a peer cannot be used"),
            },
            Action::Remove(id) => {
                self.control.node.remove_peer(id).await;
                if id == self.control.agent {
                    self.control.programmed.send_replace(false);
                    // The tunnel is still wanted, should the agent come back.
                    self.table.mark_destination(id);
                }
            }
        }
    }

    /// Talks on one session until it ends.
    async fn talk(&mut self, mut session: Session, stop: &mut watch::Receiver<bool>) -> Ended {
        let connection = session.connection.clone();
        let ended = tokio::select! {
            ended = self.talk_inner(&mut session) => Ended::Failed(ended),
            () = stopped(stop) => {
                let goodbye = async {
                    let request = CoordinateRequest { disconnect: Some(Disconnect {}), ..Default::default() };
                    session.requests.send(&request).await?;
                    while session.responses.recv().await?.is_some() {}
                    Ok::<_, adit_rpc::Error>(())
                };
                let _ = tokio::time::timeout(LINGER, goodbye).await;
                Ended::Stopped
            }
        };
        let limit = match ended {
            Ended::Stopped => LINGER,
            Ended::Failed(_) => GOODBYE,
        };
        let _ = tokio::time::timeout(limit, connection.close()).await;
        // Not before: calls that are given up may overtake what they said.
        drop(session);
        ended
    }

    async fn talk_inner(&mut self, session: &mut Session) -> String {
        let tunnel = Tunnel {
            id: uuid_to_bytes(self.control.agent.into_bytes()),
        };
        let request = CoordinateRequest {
            add_tunnel: Some(tunnel),
            ..Default::default()
        };
        if let Err(error) = session.requests.send(&request).await {
            return error.to_string();
        }
        let mut myself = self.control.node.self_node();
        myself.mark_changed();
        let mut maps_wanted = self.control.maps_wanted.clone();
        let refresh = refresh_token(session.rpc.clone());
        tokio::pin!(refresh);
        let mut refreshing = true;
        loop {
            let due = self.table.poll_timeout();
            let wanted = *maps_wanted.borrow_and_update();
            tokio::select! {
                response = session.responses.recv() => match response {
                    Ok(Some(response)) => self.handle_response(response).await,
                    Ok(None) => return "the coordinator ended the session".to_owned(),
                    Err(error) => return error.to_string(),
                },
                map = session.maps.recv(), if wanted => match map {
                    Ok(Some(mut map)) => {
                        rewrite_map(&mut map, self.control.http.base());
                        self.control.node.set_derp_map(map).await;
                    }
                    Ok(None) => return "the server ended the stream of relay maps".to_owned(),
                    Err(error) => return error.to_string(),
                },
                changed = myself.changed() => {
                    if changed.is_err() {
                        return "the node is closed".to_owned();
                    }
                    let node = myself.borrow_and_update().clone();
                    if node.is_some() {
                        let request =
                            CoordinateRequest { update_self: Some(UpdateSelf { node }), ..Default::default() };
                        if let Err(error) = session.requests.send(&request).await {
                            return error.to_string();
                        }
                    }
                }
                token = &mut refresh, if refreshing => match token {
                    Some((token, wait)) => {
                        self.token = token.or(self.token.take());
                        refresh.set(refresh_later(session.rpc.clone(), wait));
                    }
                    None => refreshing = false,
                },
                _ = maps_wanted.changed(), if !wanted => {}
                () = at(due) => self.timeout().await,
            }
        }
    }

    async fn handle_response(&mut self, response: CoordinateResponse) {
        if !response.error.is_empty() {
            tracing::debug!(error = response.error, "the coordinator reports an error");
        }
        for update in &response.peer_updates {
            let Some(id) = uuid_from_bytes(&update.id).map(Uuid::from_bytes) else {
                continue;
            };
            let traffic = Traffic {
                active: self.control.node.peer_active(id).await,
                last_handshake: self.control.node.last_handshake(id).await,
            };
            let action = self.table.handle(
                Instant::now(),
                id,
                update.kind(),
                update.node.as_ref(),
                traffic,
            );
            if let Some(action) = action {
                self.apply(action).await;
            }
        }
    }
}

type Refreshed = Option<(Option<ResumeToken>, Duration)>;
type Refresh = std::pin::Pin<Box<dyn Future<Output = Refreshed> + Send>>;

/// Asks for a resume token; `None` when the server knows none, or fails.
fn refresh_token(rpc: TailnetClient) -> Refresh {
    refresh_later(rpc, Duration::ZERO)
}

fn refresh_later(rpc: TailnetClient, wait: Duration) -> Refresh {
    Box::pin(async move {
        tokio::time::sleep(wait).await;
        match rpc
            .refresh_resume_token(&RefreshResumeTokenRequest {})
            .await
        {
            Ok(response) => Some(ResumeToken::from_response(response)),
            Err(error) => {
                tracing::debug!(%error, "no resume token");
                None
            }
        }
    })
}

/// Waits for the wish to stop, or the end of whoever could have it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Sleeps until then, or for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Answers to a first attempt that no repetition will change.
fn is_permanent(error: &adit_http::Error) -> bool {
    match error.status() {
        Some(status) => matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::INTERNAL_SERVER_ERROR
        ),
        None => !error.is_retryable(),
    }
}
