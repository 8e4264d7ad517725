//! What a client is made from.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::ProxyConfig;

/// Settings of a [`Client`](crate::Client).
///
/// Start from [`ClientConfig::new`] and change what differs.
#[derive(Clone)]
pub struct ClientConfig {
    /// Where the control plane is. Requests replace its path: servers are
    /// served at the root of an origin.
    pub base: Url,
    /// User-defined headers, added to every request and upgrade towards the
    /// control plane and the relays.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Session or agent token; can be changed later with
    /// [`Client::set_session_token`](crate::Client::set_session_token).
    pub session_token: Option<String>,
    /// Value of `User-Agent`.
    pub user_agent: String,
    /// Trust and identity.
    pub tls: TlsOptions,
    /// Which proxy to use for which host.
    pub proxy: ProxyConfig,
    /// Budget for name lookup, TCP, proxy and TLS together.
    pub connect_timeout: Duration,
    /// Budget for a whole request with its response body. Streams and
    /// upgrades have this budget only until the response head.
    pub request_timeout: Duration,
}

/// TLS material, as paths of PEM files that are read on the first TLS dial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Trust only the authorities in this file. Otherwise those of the system
    /// are trusted, or of `SSL_CERT_FILE` and `SSL_CERT_DIR` if set.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain; needs [`key_file`](Self::key_file) too.
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate.
    pub key_file: Option<PathBuf>,
}

impl ClientConfig {
    /// Settings for `base` with the proxies of the environment, 10 s to
    /// connect and 30 s per request.
    pub fn new(base: Url) -> Self {
        Self {
            base,
            headers: Vec::new(),
            session_token: None,
            user_agent: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
            tls: TlsOptions::default(),
            proxy: ProxyConfig::from_env(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// Header values and the token are left out.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("ClientConfig")
            .field("base", &crate::error::shown(&self.base))
            .field("headers", &names)
            .field("proxy", &self.proxy)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
