//! The one dialer: everything that leaves a program over TCP towards the
//! control plane or a relay goes through [`Client`].
//!
//! It knows proxies, TLS roots and client certificates, user-defined headers
//! and the session token, and gives HTTP requests, event streams, WebSockets
//! and raw protocol upgrades on top of the same connection set-up. HTTP/1.1
//! only: every carrier above it needs upgrades.
//!
//! Each failure is an [`Error`] that names the failed step in one line and has
//! a remedy for the user; neither ever contains a token, a proxy password or a
//! query string.

mod client;
mod config;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod io;
mod pool;
mod proxy;
mod response;
mod socks;
mod spare;
mod sse;
mod tls;
mod upgrade;
mod websocket;

pub use client::{Body, Client};
pub use config::{ClientConfig, TlsOptions};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Step, TlsFailure};
pub use io::BoxIo;
pub use proxy::ProxyConfig;
pub use response::Response;
pub use sse::{EventStream, SseOptions};
pub use upgrade::{UpgradeRequest, Upgraded};

pub use adit_rest::sse::{Event, Kind as EventKind};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
pub use url::Url;
