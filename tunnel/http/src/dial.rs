//! From an endpoint to a connected byte stream.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::exchange::{Answer, exchange};
use crate::proxy::{Kind, Proxy};
use crate::socks::{Credentials, Negotiation};
use crate::tls::TlsContext;
use crate::{BoxIo, Endpoint, Error, ErrorKind, ProxyConfig, Step, TlsOptions};

/// Head start of an address before the next one is tried beside it
/// (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A dead peer behind a dead network is noticed after about a minute.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Connects to endpoints, directly or through a proxy.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: TlsContext,
    proxy: ProxyConfig,
    budget: Duration,
}

/// A connection for plain requests.
pub(crate) struct Dialed {
    pub(crate) io: BoxIo,
    /// The far end is a forwarding proxy: send whole URLs, and this header.
    pub(crate) forward: Option<Option<HeaderValue>>,
}

impl Dialer {
    pub(crate) fn new(tls: TlsOptions, proxy: ProxyConfig, budget: Duration) -> Self {
        Self {
            tls: TlsContext::new(tls),
            proxy,
            budget,
        }
    }

    /// A byte stream to the endpoint itself, tunnelled through proxies.
    pub(crate) async fn tunnel(&self, endpoint: &Endpoint) -> Result<BoxIo, Error> {
        self.bounded(async {
            let io = match self.proxy.select(endpoint)? {
                None => BoxIo::new(tcp(endpoint).await?),
                Some(proxy) => {
                    let io = self.to_proxy(proxy).await?;
                    match &proxy.kind {
                        Kind::Http(authorization) => {
                            connect_through(io, proxy, authorization.as_ref(), endpoint).await?
                        }
                        Kind::Socks(credentials) => {
                            negotiate(io, proxy, credentials.as_ref(), endpoint).await?
                        }
                    }
                }
            };
            self.secure(io, endpoint).await
        })
        .await
    }

    /// A connection for ordinary requests: a proxy forwards plain ones.
    pub(crate) async fn for_requests(&self, endpoint: &Endpoint) -> Result<Dialed, Error> {
        if !endpoint.tls
            && let Some(proxy) = self.proxy.select(endpoint)?
            && let Kind::Http(authorization) = &proxy.kind
        {
            let io = self.bounded(self.to_proxy(proxy)).await?;
            return Ok(Dialed {
                io,
                forward: Some(authorization.clone()),
            });
        }
        Ok(Dialed {
            io: self.tunnel(endpoint).await?,
            forward: None,
        })
    }

    async fn bounded<T>(&self, dial: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout(self.budget, dial).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorKind::Timeout {
                step: Step::Connect,
                after: self.budget,
            })),
        }
    }

    async fn to_proxy(&self, proxy: &Proxy) -> Result<BoxIo, Error> {
        let io = BoxIo::new(tcp(&proxy.endpoint).await?);
        self.secure(io, &proxy.endpoint).await
    }

    async fn secure(&self, io: BoxIo, endpoint: &Endpoint) -> Result<BoxIo, Error> {
        if !endpoint.tls {
            return Ok(io);
        }
        let tls = self.tls.get(endpoint.insecure)?;
        let name = endpoint.cert_name.as_ref().unwrap_or(&endpoint.host);
        let server_name = ServerName::try_from(name.clone()).map_err(|_| {
            Error::new(ErrorKind::Config(format!(
                "{name:?} is no host name for TLS"
            )))
        })?;
        let connector = TlsConnector::from(tls.config.clone());
        match connector.connect(server_name, io).await {
            Ok(stream) => Ok(BoxIo::new(stream)),
            Err(error) => Err(Error::new(ErrorKind::Tls {
                host: name.clone(),
                failure: tls.explain(&error),
            })),
        }
    }
}

/// Asks a proxy for a tunnel (RFC 9110 section 9.3.6).
async fn connect_through(
    io: BoxIo,
    proxy: &Proxy,
    authorization: Option<&HeaderValue>,
    endpoint: &Endpoint,
) -> Result<BoxIo, Error> {
    let refused = |status, reason| proxy_error(proxy, status, reason);
    let authority = endpoint.authority();
    let target: Uri = authority
        .parse()
        .map_err(|_| refused(None, format!("{authority:?} is no valid destination")))?;
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target;
    let host = HeaderValue::from_str(&authority)
        .map_err(|_| refused(None, format!("{authority:?} is no valid destination")))?;
    request.headers_mut().insert(header::HOST, host);
    if let Some(authorization) = authorization {
        request
            .headers_mut()
            .insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    match exchange(io, request).await {
        Ok(Answer::Switched(upgraded)) => Ok(upgraded.io),
        Ok(Answer::Refused(response, _)) => {
            let status = response.status();
            let reason = match status.as_u16() {
                407 => "asks for a user name and password, or does not accept those given".into(),
                _ => format!(
                    "refused to connect to {authority} (status {})",
                    status.as_u16()
                ),
            };
            Err(refused(Some(status), reason))
        }
        Ok(Answer::Lost) => Err(refused(None, "the tunnel was lost".into())),
        Err(error) => Err(refused(None, format!("no valid HTTP answer: {error}"))),
    }
}

fn proxy_error(proxy: &Proxy, status: Option<StatusCode>, reason: String) -> Error {
    let proxy = proxy.endpoint.authority();
    Error::new(ErrorKind::Proxy {
        proxy,
        status,
        reason,
    })
}

/// Asks a SOCKS proxy for a connection.
async fn negotiate(
    mut io: BoxIo,
    proxy: &Proxy,
    credentials: Option<&Credentials>,
    endpoint: &Endpoint,
) -> Result<BoxIo, Error> {
    let failed = |reason| proxy_error(proxy, None, reason);
    let broken = |error: io::Error| failed(format!("the connection broke: {error}"));
    let mut negotiation =
        Negotiation::new(&endpoint.host, endpoint.port, credentials).map_err(failed)?;
    while negotiation.wants() > 0 {
        io.write_all(&negotiation.output()).await.map_err(broken)?;
        let mut answer = vec![0; negotiation.wants()];
        io.read_exact(&mut answer).await.map_err(broken)?;
        negotiation.handle(&answer).map_err(failed)?;
    }
    Ok(io)
}

/// Connects to the first address that answers, trying the families in turn.
async fn tcp(endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let mut waiting: VecDeque<_> = interleave(addresses(endpoint).await?).into();
    let mut attempts = JoinSet::new();
    let mut failure: Option<io::Error> = None;
    while !waiting.is_empty() || !attempts.is_empty() {
        if let Some(address) = waiting.pop_front() {
            attempts.spawn(TcpStream::connect(address));
        }
        let result = if waiting.is_empty() {
            attempts.join_next().await
        } else {
            match timeout(ATTEMPT_DELAY, attempts.join_next()).await {
                Ok(result) => result,
                Err(_) => continue,
            }
        };
        match result {
            Some(Ok(Ok(stream))) => return Ok(tuned(stream)),
            // The first failure is the preferred address's, unless a later
            // one says more: that something is there but refuses.
            Some(Ok(Err(error))) => {
                let says_more = error.kind() == io::ErrorKind::ConnectionRefused;
                if failure.is_none() || says_more {
                    failure = Some(error);
                }
            }
            _ => {}
        }
    }
    let error = failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(Error::new(ErrorKind::Tcp {
        peer: endpoint.authority(),
        kind: error.kind(),
        reason: error.to_string(),
    }))
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Error> {
    let port = endpoint.port;
    if !endpoint.addresses.is_empty() {
        let with_port = |ip: &IpAddr| SocketAddr::new(*ip, port);
        return Ok(endpoint.addresses.iter().map(with_port).collect());
    }
    if let Ok(ip) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |reason: String| {
        Error::new(ErrorKind::Dns {
            host: endpoint.host.clone(),
            reason,
        })
    };
    let found: Vec<_> = lookup_host((endpoint.host.as_str(), port))
        .await
        .map_err(|e| failed(e.to_string()))?
        .collect();
    if found.is_empty() {
        return Err(failed("the name has no addresses".into()));
    }
    Ok(found)
}

/// Alternates the families, in the resolver's order, beginning with its first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|addr| addr.is_ipv6() == first_is_v6);
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return out,
            (x, y) => out.extend(x.into_iter().chain(y)),
        }
    }
}

fn tuned(stream: TcpStream) -> TcpStream {
    // Both are improvements only: a socket without them still works.
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    stream
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let all = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"].map(|a| a.parse().unwrap());
        let order = interleave(all.to_vec());
        assert_eq!(order, [all[0], all[2], all[1], all[3]]);
    }
}
