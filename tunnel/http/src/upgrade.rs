//! Switching an HTTP connection to another protocol.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::{BoxIo, Endpoint, Error};

/// A request to switch protocols.
#[derive(Clone)]
pub struct UpgradeRequest {
    pub(crate) target: Target,
    pub(crate) protocol: HeaderValue,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) with_token: bool,
    pub(crate) follow_redirects: bool,
    pub(crate) head_timeout: Option<Duration>,
}

#[derive(Clone)]
pub(crate) enum Target {
    /// Path and query on the control plane.
    Base(String),
    /// A path somewhere else.
    Elsewhere(Endpoint, String),
}

/// A connection that speaks the other protocol now.
pub struct Upgraded {
    /// The byte stream, beginning right behind the response head.
    pub io: BoxIo,
    /// Headers of the 101 answer.
    pub headers: HeaderMap,
}

impl UpgradeRequest {
    /// Asks the control plane to switch to `protocol`. Carries the session
    /// token and follows redirects.
    pub fn new(path_and_query: impl Into<String>, protocol: &'static str) -> Self {
        Self {
            target: Target::Base(path_and_query.into()),
            protocol: HeaderValue::from_static(protocol),
            headers: Vec::new(),
            with_token: true,
            follow_redirects: true,
            head_timeout: None,
        }
    }

    /// Asks another server, such as a relay: without the session token, and
    /// redirects count as refusals. User-defined headers are sent.
    pub fn elsewhere(endpoint: Endpoint, path: impl Into<String>, protocol: &'static str) -> Self {
        Self {
            target: Target::Elsewhere(endpoint, path.into()),
            with_token: false,
            follow_redirects: false,
            ..Self::new("", protocol)
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Limits the wait for the answer; otherwise the client's request budget.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = Some(timeout);
        self
    }

    pub(crate) fn url(&self, base: &Url) -> Result<Url, Error> {
        match &self.target {
            Target::Base(path) => crate::client::join(base, path),
            Target::Elsewhere(endpoint, path) => endpoint
                .url(path)
                .ok_or_else(|| crate::client::bad_url(&endpoint.authority())),
        }
    }
}

impl fmt::Debug for UpgradeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradeRequest")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgraded")
    }
}
