//! A real relay in this process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_derp::{Relay, RelayConfig};
use adit_keys::NodePrivate;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) struct TestRelay {
    pub(crate) port: u16,
    pub(crate) relay: Relay,
    task: tokio::task::JoinHandle<()>,
    /// Answer `Upgrade: DERP` with 403, as some middleboxes do.
    pub(crate) refuse_upgrade: Arc<AtomicBool>,
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::start_at(0).await
    }

    pub(crate) async fn start_at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = Relay::new(RelayConfig::new(NodePrivate::generate()));
        let refuse_upgrade = Arc::new(AtomicBool::new(false));
        let (served, refuse) = (relay.clone(), Arc::clone(&refuse_upgrade));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                let (relay, refuse) = (served.clone(), Arc::clone(&refuse));
                let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                    let upgrade = request.headers().get(header::UPGRADE);
                    let native =
                        upgrade.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"derp"));
                    let answer = if native && refuse.load(Ordering::Relaxed) {
                        let mut answer = Response::new(Full::new(Bytes::new()));
                        *answer.status_mut() = StatusCode::FORBIDDEN;
                        answer
                    } else {
                        adit_derp::relay::handle(&relay, &mut request)
                    };
                    async move { Ok::<_, Infallible>(answer) }
                });
                connections.spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server
                        .serve_connection(TokioIo::new(io), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self {
            port,
            relay,
            task,
            refuse_upgrade,
        }
    }

    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        self.relay.close().await;
    }
}
