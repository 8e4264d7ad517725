//! Why a dial or a request failed, in words a user can act on.

use std::fmt;
use std::io;
use std::time::Duration;

use adit_rest::Response as ApiError;
use http::{Method, StatusCode};
use url::Url;

/// A failed dial, request, upgrade or stream.
///
/// `Display` is one line with the cause and the URL; [`remedy`](Self::remedy)
/// says what to do about it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    method: Option<Method>,
    url: Option<Url>,
    redirected_to: Option<Url>,
}

/// The failed step with what is known about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Settings that cannot work: a malformed URL, an unreadable file.
    Config(String),
    /// The host name has no address.
    Dns {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// No TCP connection.
    Tcp {
        /// `host:port`.
        peer: String,
        /// What the operating system said.
        kind: io::ErrorKind,
        /// The same in words.
        reason: String,
    },
    /// The proxy was reached but refused or broke the tunnel.
    Proxy {
        /// `host:port` of the proxy, without credentials.
        proxy: String,
        /// Its HTTP status, if it gave one.
        status: Option<StatusCode>,
        /// In words.
        reason: String,
    },
    /// No TLS session.
    Tls {
        /// The name that was expected.
        host: String,
        /// What was wrong.
        failure: TlsFailure,
    },
    /// The connection broke or the peer does not speak HTTP/1.1.
    Protocol {
        /// In words.
        reason: String,
    },
    /// The server answered with a status that is no success, and with the
    /// API's error body if it had one.
    Status {
        /// The status.
        status: StatusCode,
        /// Message, detail and refused fields.
        response: ApiError,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The server's API has no version in common with ours.
    UnsupportedVersion {
        /// The server's explanation.
        detail: String,
    },
    /// A web page came instead of an API answer.
    Html {
        /// The status it came with.
        status: StatusCode,
    },
    /// An answer that is neither JSON nor a web page.
    NotJson {
        /// The status it came with.
        status: StatusCode,
        /// Its content type.
        content_type: String,
    },
    /// JSON of another shape than expected.
    Decode {
        /// The parser's words.
        reason: String,
    },
    /// A success where a switch of protocols was asked for.
    NotUpgraded {
        /// The status.
        status: StatusCode,
    },
    /// More redirects than a sane server sends, or one that cannot be
    /// followed.
    Redirect {
        /// In words.
        reason: String,
    },
    /// The answer is larger than the caller allows.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A step took too long.
    Timeout {
        /// Which one.
        step: Step,
        /// How long was waited.
        after: Duration,
    },
}

/// Something that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Name lookup, TCP, proxy and TLS.
    Connect,
    /// Waiting for the response head.
    Response,
    /// Waiting for the rest of the response.
    Body,
}

/// What was wrong with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The certificate is past its end.
    Expired,
    /// The certificate's time has not begun.
    NotYetValid,
    /// The certificate is not signed by a trusted authority.
    UnknownIssuer {
        /// Not even one trusted authority was found on this system.
        no_roots: bool,
    },
    /// The certificate is for other names.
    WrongName,
    /// The peer does not speak TLS.
    NotTls,
    /// The server wants a client certificate, or another one.
    ClientCertificate,
    /// Something else, in words.
    Other(String),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            method: None,
            url: None,
            redirected_to: None,
        }))
    }

    /// Adds where it happened, unless already known.
    pub(crate) fn at(mut self, url: &Url) -> Self {
        self.0.url.get_or_insert_with(|| shown(url));
        self
    }

    pub(crate) fn with_method(mut self, method: &Method) -> Self {
        self.0.method.get_or_insert_with(|| method.clone());
        self
    }

    pub(crate) fn redirected_to(mut self, url: &Url) -> Self {
        self.0.redirected_to.get_or_insert_with(|| shown(url));
        self
    }

    /// The failed step.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Where it happened, without credentials and query.
    pub fn url(&self) -> Option<&Url> {
        self.0.url.as_ref()
    }

    /// The HTTP status of the server's answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match &self.0.kind {
            ErrorKind::Status { status, .. }
            | ErrorKind::Html { status }
            | ErrorKind::NotJson { status, .. }
            | ErrorKind::NotUpgraded { status } => Some(*status),
            ErrorKind::UnsupportedVersion { .. } => Some(StatusCode::BAD_REQUEST),
            _ => None,
        }
    }

    /// The API's error body, if the server sent one.
    pub fn response(&self) -> Option<&ApiError> {
        match &self.0.kind {
            ErrorKind::Status { response, .. } => Some(response),
            _ => None,
        }
    }

    /// Whether the API refused the request field `name`.
    pub fn refuses_field(&self, name: &str) -> bool {
        self.response()
            .is_some_and(|body| body.validations.iter().any(|v| v.field == name))
    }

    /// How long the server asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.kind {
            ErrorKind::Status { retry_after, .. } => retry_after,
            _ => None,
        }
    }

    /// Whether the same request may succeed later without anyone changing
    /// settings: the network, the server or the proxy is in trouble.
    pub fn is_retryable(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Dns { .. }
            | ErrorKind::Tcp { .. }
            | ErrorKind::Protocol { .. }
            | ErrorKind::Timeout { .. } => true,
            ErrorKind::Proxy { status, .. } => status.is_none_or(passes),
            ErrorKind::Tls { failure, .. } => matches!(failure, TlsFailure::Other(_)),
            ErrorKind::Status { status, .. } | ErrorKind::Html { status } => passes(*status),
            _ => false,
        }
    }

    /// What the user can do about it, in one line.
    pub fn remedy(&self) -> String {
        if let Some(target) = &self.0.redirected_to
            && self.status().is_some()
        {
            return format!("The server redirects to {target}: use that URL instead.");
        }
        match &self.0.kind {
            ErrorKind::Config(_) => "Correct the setting and try again.".into(),
            ErrorKind::Dns { .. } => {
                "Check the spelling of the URL and this machine's network and DNS.".into()
            }
            ErrorKind::Tcp { kind: io::ErrorKind::ConnectionRefused, .. } => {
                "Check host and port of the URL, and that the server is running.".into()
            }
            ErrorKind::Tcp { .. } | ErrorKind::Timeout { step: Step::Connect, .. } => {
                "Check the URL, this machine's network, and whether a firewall or a proxy is in the way."
                    .into()
            }
            ErrorKind::Proxy { status: Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED), .. } => {
                "Put user and password into the proxy URL: http://user:password@host:port.".into()
            }
            ErrorKind::Proxy { .. } => {
                "Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or ask who runs the proxy.".into()
            }
            ErrorKind::Tls { failure, .. } => failure.remedy().into(),
            ErrorKind::Protocol { .. } => {
                "Check scheme and port of the URL; if they are right, try again in a moment.".into()
            }
            ErrorKind::Status { status, .. } => status_remedy(*status).into(),
            ErrorKind::UnsupportedVersion { .. } => {
                "Bring this program and the server to the same release.".into()
            }
            ErrorKind::Html { status } if status.is_server_error() => {
                "Something in front of the server answers for it; try again in a moment.".into()
            }
            ErrorKind::Html { .. } | ErrorKind::NotJson { .. } | ErrorKind::NotUpgraded { .. } => {
                "Check that the URL is the server's and that no login page or proxy answers for it."
                    .into()
            }
            ErrorKind::Decode { .. } => {
                "Check that the URL is the server's, and bring both sides to the same release.".into()
            }
            ErrorKind::Redirect { .. } => {
                "Use the URL that the server itself is configured with.".into()
            }
            ErrorKind::TooLarge { .. } => "Check that the URL is the server's.".into(),
            ErrorKind::Timeout { .. } => {
                "The server or the network is slow or stuck; try again in a moment.".into()
            }
        }
    }
}

/// Statuses that speak of passing trouble.
fn passes(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn status_remedy(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "Log in again, or check the token: it is wrong, expired, or for another server.",
        403 => "Ask an administrator for the permission, or use another account.",
        404 => "Check the name and the URL; the server hides what this account may not see.",
        408 | 425 | 429 => "Wait a moment and try again.",
        409 => "Someone else changed or made it first; look at its present state.",
        500..=599 => "The server is in trouble; try again in a moment or look at its log.",
        _ => "Correct the request.",
    }
}

impl TlsFailure {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Expired => "Renew the server's certificate, or check this machine's clock.",
            Self::NotYetValid => "Check the clocks of this machine and of the server.",
            Self::UnknownIssuer { no_roots: true } => {
                "Install the system's CA certificates, or set SSL_CERT_FILE."
            }
            Self::UnknownIssuer { .. } => {
                "Have the server send its full chain, or name its authority in SSL_CERT_FILE."
            }
            Self::WrongName => "Use the host name that the certificate was made for.",
            Self::NotTls => "The port does not speak TLS: use http:// or another port.",
            Self::ClientCertificate => {
                "Give the client certificate and key that the server asks for."
            }
            Self::Other(_) => "Check scheme and port of the URL and the server's TLS settings.",
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the server's certificate has expired",
            Self::NotYetValid => "the server's certificate is not valid yet",
            Self::UnknownIssuer { no_roots: true } => {
                "no trusted certificate authorities are installed"
            }
            Self::UnknownIssuer { .. } => {
                "the server's certificate is not signed by a trusted authority"
            }
            Self::WrongName => "the server's certificate is for another host name",
            Self::NotTls => "the server does not speak TLS",
            Self::ClientCertificate => "the server asks for a client certificate",
            Self::Other(reason) => return write!(f, "TLS failed: {reason}"),
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Dns { host, reason } => write!(f, "cannot find the address of {host}: {reason}"),
            Self::Tcp {
                peer,
                kind: io::ErrorKind::ConnectionRefused,
                ..
            } => {
                write!(f, "{peer} refused the connection")
            }
            Self::Tcp { peer, reason, .. } => write!(f, "cannot connect to {peer}: {reason}"),
            Self::Proxy { proxy, reason, .. } => write!(f, "proxy {proxy}: {reason}"),
            Self::Tls { host, failure } => write!(f, "{host}: {failure}"),
            Self::Protocol { reason } => write!(f, "no valid HTTP answer: {reason}"),
            Self::Status {
                status, response, ..
            } => show_status(f, *status, response),
            Self::UnsupportedVersion { detail } => {
                write!(
                    f,
                    "the server does not support this program's API version: {detail}"
                )
            }
            Self::Html { status } => {
                write!(
                    f,
                    "a web page instead of an API answer (status {})",
                    status.as_u16()
                )
            }
            Self::NotJson {
                status,
                content_type,
            } => write!(
                f,
                "{content_type:?} instead of an API answer (status {})",
                status.as_u16()
            ),
            Self::Decode { reason } => write!(f, "unexpected API answer: {reason}"),
            Self::NotUpgraded { status } => {
                write!(
                    f,
                    "the server did not switch protocols (status {})",
                    status.as_u16()
                )
            }
            Self::Redirect { reason } => write!(f, "redirect not followed: {reason}"),
            Self::TooLarge { limit } => write!(f, "answer larger than {limit} bytes"),
            Self::Timeout { step, after } => {
                let what = match step {
                    Step::Connect => "connection",
                    Step::Response => "answer",
                    Step::Body => "complete answer",
                };
                write!(f, "no {what} within {} s", after.as_secs_f32())
            }
        }
    }
}

fn show_status(f: &mut fmt::Formatter<'_>, status: StatusCode, response: &ApiError) -> fmt::Result {
    write!(f, "the server answered {}", status.as_u16())?;
    let message = response.message.trim_end_matches('.');
    let message = if message.is_empty() {
        status.canonical_reason().unwrap_or("without a message")
    } else {
        message
    };
    write!(f, ": {}", one_line(message))?;
    if !response.detail.is_empty() {
        write!(f, " ({})", one_line(&response.detail))?;
    }
    for validation in &response.validations {
        write!(
            f,
            "; {}: {}",
            one_line(&validation.field),
            one_line(&validation.detail)
        )?;
    }
    Ok(())
}

/// Foreign text shortened to one printable line.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// A URL without the parts that may hold secrets.
pub(crate) fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only on URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.kind.fmt(f)?;
        match (&self.0.method, &self.0.url) {
            (Some(method), Some(url)) => write!(f, " [{method} {url}]"),
            (None, Some(url)) => write!(f, " [{url}]"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adit_http::Error({self})")
    }
}

impl std::error::Error for Error {}
