//! Listening, and ending in order.

use std::net::SocketAddr;
use std::time::Duration;

use adit_store::Store;
use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::app::App;
use crate::config::{Config, Provisioners};

/// How long a client may take to send its request headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests and background work get at the end.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that listens but does not serve yet.
#[derive(Debug)]
pub struct Server {
    app: App,
    listener: TcpListener,
}

impl Server {
    /// Opens the port and the database, and sets up what is missing: the
    /// organization, the system user and the built-in template. Who connects
    /// meanwhile, as after a restart, waits instead of being refused.
    ///
    /// # Errors
    /// When the data directory, the database or the port cannot be used.
    pub async fn bind(mut config: Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("listen on {}", config.listen))?;
        config.listen = listener.local_addr()?;
        make_private_dir(&config.data_dir)?;
        let path = config.data_dir.join("adit.db");
        let store = Store::open(&path)
            .await
            .with_context(|| format!("open database {}", path.display()))?;
        let access_url = match &config.access_url {
            Some(url) => url.clone(),
            None => Url::parse(&format!("http://{}", reachable(config.listen)))?,
        };
        crate::template::ensure_builtin(&store).await?;
        let app = App::new(store, config, access_url).await?;
        Ok(Self { app, listener })
    }

    /// What the server is made of; usable while it serves.
    #[must_use]
    pub fn app(&self) -> App {
        self.app.clone()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.app.config.listen
    }

    /// Serves until [`crate::app::Shared::shutdown`] is cancelled, then ends
    /// every connection and task within a few seconds.
    ///
    /// # Errors
    /// When background work cannot start.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { app, listener } = self;
        if app.config.provisioners == Provisioners::Local {
            crate::provision::start(&app);
            crate::prebuilds::start(&app);
        }
        crate::upkeep::start(&app);
        let router = TowerToHyperService::new(crate::http::router(app.clone()));
        loop {
            let accepted = tokio::select! {
                () = app.shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let task = connection(app.clone(), router.clone(), stream, peer);
                    app.tasks.spawn(task);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        crate::derp::close(&app).await;
        app.tasks.close();
        if tokio::time::timeout(GRACE, app.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = app.tasks.len(), "shutdown took too long");
        }
        app.store.close().await;
        Ok(())
    }
}

async fn connection(
    app: App,
    router: TowerToHyperService<Router>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        collapse_slashes(request.uri_mut());
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Repeated slashes of a path count as one.
fn collapse_slashes(uri: &mut http::Uri) {
    if !uri.path().contains("//") {
        return;
    }
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    if let Ok(collapsed) = path.parse() {
        *uri = collapsed;
    }
}

/// An address others can connect to.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// Makes a directory only its owner can read.
fn make_private_dir(path: &std::path::Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .with_context(|| format!("make directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slashes_collapse_and_the_query_stays() {
        let mut uri: http::Uri = "//api//v2//x?q=a//b".parse().unwrap();
        collapse_slashes(&mut uri);
        assert_eq!(uri, "/api/v2/x?q=a//b");
    }
}
