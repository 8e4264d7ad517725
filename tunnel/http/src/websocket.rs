//! WebSocket clients on upgraded connections (RFC 6455 section 4.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::{BoxIo, Client, Error, ErrorKind, UpgradeRequest, Upgraded};

/// Buffers of control connections; the library's own 128 KiB would be most of
/// an idle connection's memory.
const CONTROL_BUFFER: usize = 8 << 10;

/// The largest message that servers of this API send or accept.
const MAX_MESSAGE: usize = 4 << 20;

impl Client {
    /// Opens a WebSocket to the control plane, with the session token.
    pub async fn websocket(
        &self,
        path_and_query: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        subprotocol: Option<&'static str>,
    ) -> Result<WebSocketStream<BoxIo>, Error> {
        let mut request = UpgradeRequest::new(path_and_query, "websocket");
        request.headers = headers;
        let config = WebSocketConfig::default()
            .read_buffer_size(CONTROL_BUFFER)
            .write_buffer_size(CONTROL_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        self.websocket_with(request, subprotocol, config).await
    }

    /// Opens a WebSocket by an upgrade request that was made for the protocol
    /// `websocket`.
    pub async fn websocket_with(
        &self,
        mut request: UpgradeRequest,
        subprotocol: Option<&'static str>,
        config: WebSocketConfig,
    ) -> Result<WebSocketStream<BoxIo>, Error> {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let key_value = HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static(""));
        request = request
            .header(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            )
            .header(header::SEC_WEBSOCKET_KEY, key_value);
        if let Some(name) = subprotocol {
            let value = HeaderValue::from_static(name);
            request = request.header(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        let upgraded = self.upgrade(&request).await?;
        if let Err(reason) = check(&upgraded, &key, subprotocol) {
            let error = Error::new(ErrorKind::Protocol {
                reason: reason.into(),
            });
            return Err(match request.url(self.base()) {
                Ok(url) => error.at(&url),
                Err(_) => error,
            });
        }
        Ok(WebSocketStream::from_raw_socket(upgraded.io, Role::Client, Some(config)).await)
    }
}

/// Whether the 101 answer is one to our handshake.
fn check(upgraded: &Upgraded, key: &str, subprotocol: Option<&str>) -> Result<(), &'static str> {
    let header = |name: HeaderName| upgraded.headers.get(name).map(HeaderValue::as_bytes);
    let is_websocket =
        header(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if !is_websocket {
        return Err("the server switched to another protocol than WebSocket");
    }
    let accept = derive_accept_key(key.as_bytes());
    if header(header::SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes()) {
        return Err("the server's WebSocket accept key is wrong");
    }
    if header(header::SEC_WEBSOCKET_EXTENSIONS).is_some() {
        return Err("the server chose a WebSocket extension that was not offered");
    }
    // Some servers leave the subprotocol out although they speak it.
    match header(header::SEC_WEBSOCKET_PROTOCOL) {
        Some(chosen) if Some(chosen) != subprotocol.map(str::as_bytes) => {
            Err("the server chose another WebSocket subprotocol")
        }
        _ => Ok(()),
    }
}
