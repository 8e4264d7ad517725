//! The server's side of the upgrade request (RFC 6455 §4.2).

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Length of a `Sec-WebSocket-Key`: 16 bytes in base64.
const KEY_LENGTH: usize = 24;

/// Why a request cannot be upgraded. The answer is plain text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// Status of the answer.
    pub status: StatusCode,
    /// Body of the answer.
    pub message: &'static str,
}

const fn reject(status: StatusCode, message: &'static str) -> Rejection {
    Rejection { status, message }
}

/// Checks an upgrade request and returns the headers of the 101 answer.
/// `subprotocol` is named in the answer if the request offers it.
///
/// # Errors
/// When the request is not a WebSocket upgrade, or comes from a page of
/// another site.
pub fn server_handshake(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    subprotocol: Option<&'static str>,
) -> Result<HeaderMap, Rejection> {
    if version < Version::HTTP_11
        || !has_token(headers, &header::CONNECTION, "upgrade")
        || !has_token(headers, &header::UPGRADE, "websocket")
    {
        let message = "WebSocket protocol violation: not an upgrade request";
        return Err(reject(StatusCode::UPGRADE_REQUIRED, message));
    }
    if method != Method::GET {
        let message = "WebSocket protocol violation: method is not GET";
        return Err(reject(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let message = "unsupported WebSocket protocol version (only 13 is supported)";
        return Err(reject(StatusCode::BAD_REQUEST, message));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == KEY_LENGTH)
        .ok_or(reject(
            StatusCode::BAD_REQUEST,
            "WebSocket protocol violation: missing or malformed Sec-WebSocket-Key",
        ))?;
    if !is_same_origin(headers) {
        let message = "request Origin is not authorized for Host";
        return Err(reject(StatusCode::FORBIDDEN, message));
    }

    let mut answer = HeaderMap::new();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = subprotocol
        && has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, name)
    {
        let name = HeaderValue::from_static(name);
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(answer)
}

/// Whether a comma-separated header holds a token, in any case.
fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Programs send no Origin; pages must be of this host.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"))
        .map(|(_, host)| host);
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}
