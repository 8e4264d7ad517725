//! Which proxy to use for which destination.
//!
//! The rules are those of Go's `httpproxy`, which users of the original
//! programs have set their environments for: upper-case variables before
//! lower-case ones, loopback never through a proxy, and `NO_PROXY` with names,
//! `.suffixes`, addresses, CIDR ranges, ports and `*`.

use std::env;
use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::Url;

use crate::socks::Credentials;
use crate::{Endpoint, Error, ErrorKind};

/// Where SOCKS proxies listen if the setting does not say.
const SOCKS_PORT: u16 = 1080;

/// Proxies for plain and for TLS destinations, and exceptions.
#[derive(Clone, Default)]
pub struct ProxyConfig {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// A proxy setting that could not be read; reported on use.
    invalid: Option<String>,
    exceptions: Vec<Exception>,
}

/// One proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) endpoint: Endpoint,
    pub(crate) kind: Kind,
}

/// How to talk to a proxy.
#[derive(Clone)]
pub(crate) enum Kind {
    /// HTTP, with the value of `Proxy-Authorization` if there is one.
    Http(Option<HeaderValue>),
    /// SOCKS 5.
    Socks(Option<Credentials>),
}

#[derive(Clone, Debug, PartialEq)]
enum Exception {
    All,
    Network {
        ip: IpAddr,
        prefix: u8,
    },
    Ip {
        ip: IpAddr,
        port: Option<u16>,
    },
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl ProxyConfig {
    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub fn from_env() -> Self {
        let read = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .into_iter()
                .filter_map(|name| env::var(name).ok())
                .find(|value| !value.is_empty())
        };
        let all = read("ALL_PROXY");
        // In a CGI program a request header could set HTTP_PROXY.
        let http = read("HTTP_PROXY").filter(|_| env::var_os("REQUEST_METHOD").is_none());
        Self::from_values(
            http.or_else(|| all.clone()).as_deref(),
            read("HTTPS_PROXY").or(all).as_deref(),
            read("NO_PROXY").as_deref(),
        )
    }

    /// Takes the values that the environment variables would have.
    pub fn from_values(http: Option<&str>, https: Option<&str>, no_proxy: Option<&str>) -> Self {
        let mut config = Self::default();
        config.http = config.read(http);
        config.https = config.read(https);
        config.exceptions = no_proxy.map(exceptions).unwrap_or_default();
        config
    }

    fn read(&mut self, value: Option<&str>) -> Option<Proxy> {
        match Proxy::parse(value.filter(|value| !value.is_empty())?) {
            Ok(proxy) => Some(proxy),
            Err(reason) => {
                self.invalid = Some(reason);
                None
            }
        }
    }

    /// The proxy for a destination.
    pub(crate) fn select(&self, endpoint: &Endpoint) -> Result<Option<&Proxy>, Error> {
        let proxy = if endpoint.tls {
            &self.https
        } else {
            &self.http
        };
        if proxy.is_none() && self.invalid.is_none() || self.excepts(endpoint) {
            return Ok(None);
        }
        if let Some(reason) = &self.invalid {
            return Err(Error::new(ErrorKind::Config(reason.clone())));
        }
        Ok(proxy.as_ref())
    }

    fn excepts(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host.trim_end_matches('.').to_lowercase();
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.exceptions
            .iter()
            .any(|exception| exception.matches(&host, ip, endpoint.port))
    }
}

/// Credentials are left out.
impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<Proxy>| proxy.as_ref().map(|p| p.endpoint.authority());
        f.debug_struct("ProxyConfig")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Proxy {
    fn parse(value: &str) -> Result<Self, String> {
        let with_scheme = if value.contains("://") {
            value.to_owned()
        } else {
            format!("http://{value}")
        };
        // The text may hold a password: it must not be part of the message.
        let url = Url::parse(&with_scheme).map_err(|e| format!("proxy setting is no URL: {e}"))?;
        let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| {
            (
                percent_decoded(url.username()),
                percent_decoded(url.password().unwrap_or_default()),
            )
        });
        let no_host = || "proxy setting has no host".to_owned();
        match url.scheme() {
            "http" | "https" => Ok(Self {
                endpoint: Endpoint::from_url(&url).map_err(|_| no_host())?,
                kind: Kind::Http(credentials.map(basic)),
            }),
            "socks5" | "socks5h" => {
                let host = url
                    .host_str()
                    .filter(|h| !h.is_empty())
                    .ok_or_else(no_host)?;
                let host = host.trim_matches(['[', ']']);
                Ok(Self {
                    endpoint: Endpoint::new(host, url.port().unwrap_or(SOCKS_PORT), false),
                    kind: Kind::Socks(credentials),
                })
            }
            other => Err(format!(
                "proxies with the scheme {other:?} are not supported, only http, https and socks5"
            )),
        }
    }
}

fn basic((user, password): Credentials) -> HeaderValue {
    let credentials = [&user[..], b":", &password[..]].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(credentials)))
        .unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = (*byte == b'%')
            .then(|| {
                tail.get(..2)
                    .and_then(|digits| std::str::from_utf8(digits).ok())
            })
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(value) => {
                out.push(value);
                rest = &tail[2..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

fn exceptions(list: &str) -> Vec<Exception> {
    list.split(',')
        .filter_map(|entry| Exception::parse(&entry.trim().to_lowercase()))
        .collect()
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((ip, prefix)) = entry.split_once('/') {
            let (ip, prefix) = (ip.parse().ok()?, prefix.parse().ok()?);
            return Some(Self::Network { ip, prefix });
        }
        if let Ok(ip) = entry.trim_matches(['[', ']']).parse() {
            return Some(Self::Ip { ip, port: None });
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        if let Ok(ip) = name.trim_matches(['[', ']']).parse() {
            return Some(Self::Ip { ip, port });
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        let itself = !name.starts_with('.');
        let suffix = format!(".{}", name.trim_start_matches('.'));
        Some(Self::Domain {
            suffix,
            itself,
            port,
        })
    }

    fn matches(&self, host: &str, host_ip: Option<IpAddr>, host_port: u16) -> bool {
        let port_fits = |port: &Option<u16>| port.is_none_or(|port| port == host_port);
        match self {
            Self::All => true,
            Self::Ip { ip, port } => host_ip == Some(ip.to_canonical()) && port_fits(port),
            Self::Network { ip, prefix } => {
                host_ip.is_some_and(|host_ip| same_network(host_ip, *ip, *prefix))
            }
            Self::Domain {
                suffix,
                itself,
                port,
            } => {
                let fits = host.ends_with(suffix) || *itself && host == &suffix[1..];
                fits && port_fits(port)
            }
        }
    }
}

fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let host_bits = u32::from(width) - u32::from(prefix.min(width));
    (a ^ b).checked_shr(host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(config: &ProxyConfig, host: &str, port: u16, tls: bool) -> Option<String> {
        let endpoint = Endpoint::new(host, port, tls);
        config
            .select(&endpoint)
            .unwrap()
            .map(|proxy| proxy.endpoint.authority())
    }

    #[test]
    fn scheme_of_the_destination_selects_the_proxy() {
        let config = ProxyConfig::from_values(Some("plain:1"), Some("http://tls:2"), None);
        assert_eq!(
            proxied(&config, "a.example", 80, false).as_deref(),
            Some("plain:1")
        );
        assert_eq!(
            proxied(&config, "a.example", 443, true).as_deref(),
            Some("tls:2")
        );
        assert_eq!(proxied(&config, "localhost", 443, true), None);
        assert_eq!(proxied(&config, "127.9.9.9", 443, true), None);
        assert_eq!(proxied(&config, "::1", 443, true), None);
    }

    #[test]
    fn exceptions_follow_the_usual_grammar() {
        let no_proxy = "example.com, .only-sub.org ,10.0.0.0/8,[2001:db8::1]:8443,fe80::/10,x:81,*.star.net,192.0.2.7";
        let config = ProxyConfig::from_values(Some("p:1"), Some("p:1"), Some(no_proxy));
        let direct = |host, port| proxied(&config, host, port, true).is_none();
        assert!(direct("example.com", 443) && direct("EXAMPLE.com.", 443));
        assert!(direct("a.example.com", 443) && !direct("badexample.com", 443));
        assert!(direct("a.only-sub.org", 443) && !direct("only-sub.org", 443));
        assert!(direct("10.1.2.3", 443) && !direct("11.1.2.3", 443));
        assert!(direct("2001:db8::1", 8443) && !direct("2001:db8::1", 443));
        assert!(direct("fe80::7", 1) && !direct("fec0::7", 1));
        assert!(direct("x", 81) && !direct("x", 82));
        assert!(direct("a.star.net", 1) && !direct("star.net", 1));
        assert!(direct("192.0.2.7", 1) && direct("::ffff:192.0.2.7", 1));
        let all = ProxyConfig::from_values(Some("p:1"), None, Some("*"));
        assert!(proxied(&all, "x", 1, false).is_none());
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let config = ProxyConfig::from_values(Some("http://us%65r:p%40ss@proxy:3128"), None, None);
        let proxy = config.http.clone().unwrap();
        let expected = format!("Basic {}", STANDARD.encode("user:p@ss"));
        let Kind::Http(Some(authorization)) = proxy.kind else {
            panic!("no credentials");
        };
        assert_eq!(authorization, expected);
        assert!(!format!("{config:?}").contains("ss"), "{config:?}");
    }

    #[test]
    fn socks_proxies_have_a_usual_port() {
        for (value, expected) in [
            ("socks5://p", "p:1080"),
            ("socks5h://u:pw@[2001:db8::1]:99", "[2001:db8::1]:99"),
        ] {
            let config = ProxyConfig::from_values(None, Some(value), None);
            assert_eq!(
                proxied(&config, "a.example", 443, true).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn unusable_settings_are_reported_on_use_without_the_password() {
        for value in ["socks4://u:hunter2@p:1", "http://u:hunter2@"] {
            let config = ProxyConfig::from_values(Some(value), None, None);
            let error = config
                .select(&Endpoint::new("a.example", 80, false))
                .err()
                .unwrap();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(
                config
                    .select(&Endpoint::new("localhost", 80, false))
                    .unwrap()
                    .is_none()
            );
        }
    }
}
