//! A control plane for one agent: HTTP, the control session, the claim stream
//! and a real relay. What it answers is decided by a [`Plan`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_derp::relay::{Relay, RelayConfig};
use adit_drpc::Status;
use adit_drpc::server::{Call, Handler, Options, Reply, serve_stream};
use adit_keys::NodePrivate;
use adit_messages::tailnet::method::{COORDINATE, STREAM_DERP_MAPS};
use adit_ws::{ByteStream, Monitor};
use adit_yamux::{Config, Connection};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Something the agent did.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When.
    pub(crate) at: Instant,
    /// On which control session, counted from zero.
    pub(crate) session: usize,
    /// Method path of a call, or path of an HTTP request.
    pub(crate) what: String,
    /// The message, if it is one of a call.
    pub(crate) message: Bytes,
}

/// How a control session is asked for.
pub(crate) enum Admission {
    Accept,
    Refuse(StatusCode, String),
}

/// An answer to the claim poller.
pub(crate) enum Claims {
    Refuse(StatusCode, String),
    /// The stream, with what is sent to it.
    Stream(mpsc::Receiver<String>),
}

pub(crate) type Streaming<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;

/// Decides about answers.
pub(crate) trait Plan: Send + Sync + 'static {
    fn admit(&self, _session: usize) -> Admission {
        Admission::Accept
    }
    fn claims(&self) -> Claims {
        Claims::Refuse(StatusCode::CONFLICT, r#"{"message":"no"}"#.to_owned())
    }
    fn unary(&self, session: usize, method: &str, request: Bytes) -> Result<Bytes, Status>;
    fn stream<'a>(&'a self, session: usize, call: Call, server: &'a Shared) -> Streaming<'a>;
    /// Runs beside the session; ending it changes nothing.
    fn beside(&self, _session: usize, _wire: Connection, _end: Monitor) -> Streaming<'static> {
        Box::pin(std::future::pending())
    }
}

pub(crate) struct Shared {
    plan: Box<dyn Plan>,
    seen: watch::Sender<Vec<Seen>>,
    relay: Relay,
    sessions: Mutex<Vec<Connection>>,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(plan: impl Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(listener, address, plan)
    }

    fn on(listener: TcpListener, address: SocketAddr, plan: impl Plan) -> Self {
        let shared = Arc::new(Shared {
            plan: Box::new(plan),
            seen: watch::Sender::new(Vec::new()),
            relay: Relay::new(RelayConfig::new(NodePrivate::generate())),
            sessions: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).accept(listener));
        Self {
            url: format!("http://{address}"),
            shared,
            _tasks: tasks,
        }
    }

    /// Everything seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// Calls of a method, on all sessions.
    pub(crate) fn calls(&self, method: &str) -> Vec<Seen> {
        let seen = self.shared.seen.borrow();
        seen.iter().filter(|s| is(s, method)).cloned().collect()
    }

    /// Waits until `enough` of what was seen holds.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|s| enough(s))).await;
        if waited.is_err() {
            let list: Vec<String> = self
                .seen()
                .iter()
                .map(|s| format!("{} {}", s.session, s.what))
                .collect();
            panic!("waited for {what}; seen:\n{}", list.join("\n"));
        }
    }

    /// Waits until a method was called `count` times.
    pub(crate) async fn until_called(&self, method: &str, count: usize) {
        let what = format!("{count} × {method}");
        self.until(&what, |s| {
            s.iter().filter(|s| is(s, method)).count() >= count
        })
        .await;
    }
}

/// Whether something seen is a call of this method.
pub(crate) fn is(seen: &Seen, method: &str) -> bool {
    seen.what.rsplit('/').next() == Some(method)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Body = BoxBody<Bytes, Infallible>;

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut reply = Response::new(Full::new(body.into()).boxed());
    *reply.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}

impl Shared {
    pub(crate) fn note(&self, session: usize, what: &str, message: Bytes) {
        let seen = Seen {
            at: Instant::now(),
            session,
            what: what.to_owned(),
            message,
        };
        self.seen.send_modify(|all| all.push(seen));
    }

    /// Waits until `enough` of what was seen holds.
    pub(crate) async fn until(&self, enough: impl Fn(&[Seen]) -> bool) {
        let mut seen = self.seen.subscribe();
        let _ = seen.wait_for(|s| enough(s)).await;
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut running = JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            io.set_nodelay(true).unwrap();
            let shared = Arc::clone(&self);
            let sessions = Arc::new(Mutex::new(JoinSet::new()));
            running.spawn(async move {
                let service = hyper::service::service_fn(|request| {
                    let shared = Arc::clone(&shared);
                    let sessions = Arc::clone(&sessions);
                    async move { Ok::<_, Infallible>(shared.answer(request, &sessions)) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service)
                    .with_upgrades()
                    .await;
                let mut all = std::mem::take(&mut *lock(&sessions));
                while all.join_next().await.is_some() {}
            });
        }
    }

    fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        sessions: &Arc<Mutex<JoinSet<()>>>,
    ) -> Response<Body> {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/api/v2/workspaceagents/me/rpc" => self.session(request, sessions),
            "/api/v2/workspaceagents/me/reinit" => {
                let token = request.headers().get("coder-session-token").cloned();
                let token = token.map(|t| Bytes::copy_from_slice(t.as_bytes()));
                self.note(0, &path, token.unwrap_or_default());
                self.reinit()
            }
            _ if path.starts_with("/derp") => {
                adit_derp::relay::handle(&self.relay, &mut request).map(BodyExt::boxed)
            }
            _ => reply(StatusCode::NOT_FOUND, "{}"),
        }
    }

    fn session(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        sessions: &Arc<Mutex<JoinSet<()>>>,
    ) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let number = self
            .seen
            .borrow()
            .iter()
            .filter(|s| s.what.starts_with("rpc"))
            .count();
        self.note(number, &format!("rpc?{query}"), Bytes::new());
        if let Admission::Refuse(status, body) = self.plan.admit(number) {
            return reply(status, body);
        }
        let headers =
            adit_ws::server_handshake(request.method(), request.version(), request.headers(), None);
        let headers = headers.unwrap();
        let upgrade = hyper::upgrade::on(&mut request);
        lock(sessions).spawn(async move {
            let Ok(io) = upgrade.await else { return };
            let socket = adit_ws::accept(TokioIo::new(io), adit_ws::config()).await;
            let stream = ByteStream::new(socket);
            let monitor = stream.monitor();
            let (wire, mut incoming) = Connection::server(stream, Config::default());
            lock(&self.sessions).push(wire.clone());
            let beside = self.plan.beside(number, wire, monitor);
            let mut calls = JoinSet::new();
            let serve = async {
                while let Some(stream) = incoming.accept().await {
                    let dispatch = Dispatch {
                        shared: Arc::clone(&self),
                        session: number,
                    };
                    calls.spawn(async move {
                        let _ = serve_stream(stream, &dispatch, Options::default()).await;
                    });
                }
            };
            let beside = async {
                let _ = beside.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = serve => {}
                () = beside => {}
            }
            self.note(number, "ended", Bytes::new());
        });
        let mut answer = Response::new(Full::default().boxed());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = headers;
        answer
    }

    fn reinit(&self) -> Response<Body> {
        match self.plan.claims() {
            Claims::Refuse(status, body) => reply(status, body),
            Claims::Stream(mut events) => {
                let stream = futures_util::stream::poll_fn(move |cx| events.poll_recv(cx));
                let frames = futures_util::StreamExt::map(stream, |text: String| {
                    Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from(text)))
                });
                let mut answer = Response::new(http_body_util::StreamBody::new(frames).boxed());
                let kind = header::HeaderValue::from_static("text/event-stream");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                answer
            }
        }
    }
}

struct Dispatch {
    shared: Arc<Shared>,
    session: usize,
}

impl Handler for Dispatch {
    async fn call(&self, mut call: Call) -> Result<Reply, Status> {
        let plan = &self.shared.plan;
        if matches!(call.path.as_str(), COORDINATE | STREAM_DERP_MAPS) {
            plan.stream(self.session, call, &self.shared).await?;
            return Ok(Reply::Stream);
        }
        let request = call
            .requests
            .single()
            .await
            .map_err(|e| Status::new(e.to_string()))?;
        self.shared.note(self.session, &call.path, request.clone());
        plan.unary(self.session, &call.path, request)
            .map(Reply::Unary)
    }
}
