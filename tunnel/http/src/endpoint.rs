//! Where to connect to.

use std::net::IpAddr;

use url::{Host, Url};

use crate::{Error, ErrorKind};

/// One TCP or TLS destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or literal address (IPv6 without brackets): dialed, checked in the
    /// certificate and sent as `Host`.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Speak TLS.
    pub tls: bool,
    /// Name expected in the certificate when it differs from `host`.
    pub cert_name: Option<String>,
    /// Dial these addresses instead of looking `host` up.
    pub addresses: Vec<IpAddr>,
    /// Accept any certificate. For tests and relays marked so.
    pub insecure: bool,
}

impl Endpoint {
    /// A destination without special wishes.
    pub fn new(host: impl Into<String>, port: u16, tls: bool) -> Self {
        Self {
            host: host.into(),
            port,
            tls,
            cert_name: None,
            addresses: Vec::new(),
            insecure: false,
        }
    }

    /// The destination of an `http`, `https`, `ws` or `wss` URL.
    pub fn from_url(url: &Url) -> Result<Self, Error> {
        let tls = match url.scheme() {
            "http" | "ws" => false,
            "https" | "wss" => true,
            other => {
                let text = format!("unknown URL scheme {other:?}");
                return Err(Error::new(ErrorKind::Config(text)).at(url));
            }
        };
        let host = match url.host() {
            Some(Host::Ipv6(ip)) => ip.to_string(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            _ => {
                let text = "URL has no host name".to_owned();
                return Err(Error::new(ErrorKind::Config(text)).at(url));
            }
        };
        let port = url.port().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self::new(host, port, tls))
    }

    /// `host:port`, with brackets around IPv6 addresses.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    /// Value of the `Host` header: the port only where it is not the default.
    pub fn host_header(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } {
            self.bracketed_host()
        } else {
            self.authority()
        }
    }

    /// `http://…/` or `https://…/` of this destination.
    pub fn url(&self, path_and_query: &str) -> Option<Url> {
        let scheme = if self.tls { "https" } else { "http" };
        let origin = Url::parse(&format!("{scheme}://{}", self.authority())).ok()?;
        origin.join(path_and_query).ok()
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }
}
