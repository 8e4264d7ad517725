//! One HTTP/1.1 exchange that asks for another protocol.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use crate::{BoxIo, Upgraded};

/// The task that moves the bytes of a connection; ends with this handle.
#[derive(Debug)]
pub(crate) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What came back.
pub(crate) enum Answer {
    /// The other protocol begins.
    Switched(Upgraded),
    /// The connection could not be taken over.
    Lost,
    /// An ordinary answer; its body needs the driver.
    Refused(Response<Incoming>, Driver),
}

/// Starts HTTP on a connection.
pub(crate) async fn handshake(
    io: BoxIo,
) -> Result<(SendRequest<Full<Bytes>>, Driver), hyper::Error> {
    let (sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(io))
        .await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    });
    Ok((sender, Driver(task)))
}

/// Sends `request`, an upgrade or CONNECT, and takes the connection over if
/// the server agrees.
pub(crate) async fn exchange(
    io: BoxIo,
    request: Request<Full<Bytes>>,
) -> Result<Answer, hyper::Error> {
    let connect = request.method() == http::Method::CONNECT;
    let (mut sender, driver) = handshake(io).await?;
    let mut response = sender.send_request(request).await?;
    let status = response.status();
    let agreed = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
    if !agreed {
        return Ok(Answer::Refused(response, driver));
    }
    let headers: HeaderMap = std::mem::take(response.headers_mut());
    let upgraded = hyper::upgrade::on(response).await?;
    // The handshake above was given this very type.
    let parts = upgraded.downcast::<TokioIo<BoxIo>>().ok();
    let io = parts.map(|parts| parts.io.into_inner().with_read_ahead(parts.read_buf));
    Ok(io.map_or(Answer::Lost, |io| {
        Answer::Switched(Upgraded { io, headers })
    }))
}
