//! The control plane's REST API, as the commands use it.

use std::{marker::PhantomData, time::Duration};

use adit_http::{
    Body, BoxIo, Client, ClientConfig, EventKind, EventStream, HeaderName, HeaderValue, Method,
    SseOptions, TlsOptions,
};
use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};
use url::Url;

use crate::settings::{Login, Settings};

/// How long the header command may take.
const HEADER_COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A client for one login. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: Client,
}

impl Api {
    /// A client for the login that flags, environment and files name.
    pub(crate) async fn of(settings: &Settings) -> Result<Self> {
        Self::new(settings, &settings.login()?).await
    }

    /// A client for this login.
    pub(crate) async fn new(settings: &Settings, login: &Login) -> Result<Self> {
        let api = Self::anonymous(settings, &login.url).await?;
        api.http.set_session_token(&login.token)?;
        Ok(api)
    }

    /// A client that is not logged in.
    pub(crate) async fn anonymous(settings: &Settings, url: &Url) -> Result<Self> {
        let mut config = ClientConfig::new(url.clone());
        let mut headers = settings.headers();
        if let Some(command) = settings.header_command() {
            headers.extend(headers_of_command(command, url).await?);
        }
        config.headers = headers
            .iter()
            .map(|line| parse_header(line))
            .collect::<Result<_>>()?;
        let (ca, cert, key) = settings.tls_files();
        config.tls = TlsOptions {
            ca_file: ca.map(Into::into),
            cert_file: cert.map(Into::into),
            key_file: key.map(Into::into),
        };
        Ok(Self {
            http: Client::new(config)?,
        })
    }

    /// The dialer underneath.
    pub(crate) fn http(&self) -> &Client {
        &self.http
    }

    /// `GET` with a JSON answer.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        Ok(self.http.get(path).await?)
    }

    /// `POST` with a JSON body and answer.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T> {
        Ok(self.http.call(Method::POST, path, body).await?)
    }

    /// A request whose answer does not matter beyond its success.
    pub(crate) async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<()> {
        let body = body.map(Body::json).transpose()?;
        let answer = self.http.request(method, path, body).await?;
        answer.discard().await?;
        Ok(())
    }

    /// A WebSocket of JSON text messages from the server.
    pub(crate) async fn json_socket<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<JsonSocket<T>> {
        Ok(JsonSocket {
            socket: self.http.websocket(path, Vec::new(), None).await?,
            kind: PhantomData,
        })
    }

    /// A stream of server sent events with JSON data.
    pub(crate) async fn events<T: DeserializeOwned>(&self, path: &str) -> Result<JsonEvents<T>> {
        Ok(JsonEvents {
            events: self.http.sse(path, SseOptions::default()).await?,
            kind: PhantomData,
        })
    }

    /// The HTTP status in an error, if the server gave one.
    pub(crate) fn status_of(&self, error: &anyhow::Error) -> Option<u16> {
        Some(find(error)?.status()?.as_u16())
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn may_pass(&self, error: &anyhow::Error) -> bool {
        find(error).is_some_and(adit_http::Error::is_retryable)
    }

    /// Percent-encodes text for a query or a path segment.
    pub(crate) fn encode(&self, text: &str) -> String {
        url::form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    }
}

/// What to do about an error, where that is known.
pub(crate) fn remedy(error: &anyhow::Error) -> Option<String> {
    let found = find(error)?;
    if found.status().is_some_and(|status| status == 401) {
        return Some("Log in again with 'adit login <url>': the session is wrong, expired, or for another server.".to_owned());
    }
    Some(found.remedy())
}

fn find(error: &anyhow::Error) -> Option<&adit_http::Error> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// JSON messages of a WebSocket.
pub(crate) struct JsonSocket<T> {
    socket: WebSocketStream<BoxIo>,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonSocket<T> {
    /// The next message; `None` when the server has closed in order. Safe to
    /// cancel.
    pub(crate) async fn next(&mut self) -> Option<Result<T>> {
        loop {
            return match self.socket.next().await? {
                Ok(Message::Text(text)) => Some(
                    serde_json::from_str(&text)
                        .context("unexpected message on a stream of the control plane"),
                ),
                Ok(Message::Close(_)) => None,
                Ok(_) => continue,
                Err(error) => Some(Err(error).context("a stream of the control plane broke off")),
            };
        }
    }
}

/// JSON data of server sent events.
pub(crate) struct JsonEvents<T> {
    events: EventStream,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonEvents<T> {
    /// The next data event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Result<T>> {
        loop {
            let event = match self.events.next().await? {
                Ok(event) => event,
                Err(error) => return Some(Err(error.into())),
            };
            match event.kind {
                EventKind::Ping => {}
                EventKind::Data => {
                    return Some(
                        serde_json::from_str(&event.data)
                            .context("unexpected event of the control plane"),
                    );
                }
                EventKind::Error => {
                    return Some(Err(anyhow::anyhow!(
                        "the control plane reports: {}",
                        event.data
                    )));
                }
            }
        }
    }
}

fn parse_header(line: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once('=').context("a header is not NAME=VALUE")?;
    let name = HeaderName::try_from(name.trim())
        .with_context(|| format!("{name:?} is not the name of a header"))?;
    // The value may be a secret: it is not repeated in the error.
    let mut value = HeaderValue::try_from(value.trim()).with_context(|| {
        format!("the value of header {name} has characters that no header may have")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

async fn headers_of_command(command: &str, url: &Url) -> Result<Vec<String>> {
    let mut shell = if cfg!(windows) {
        let mut shell = tokio::process::Command::new("cmd.exe");
        shell.arg("/c");
        shell
    } else {
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c");
        shell
    };
    shell
        .arg(command)
        .env("CODER_URL", url.as_str())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(HEADER_COMMAND_LIMIT, shell.output())
        .await
        .with_context(|| format!("the header command took longer than {HEADER_COMMAND_LIMIT:?}"))?
        .context("start the header command")?;
    if !output.status.success() {
        bail!(
            "the header command failed with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout).context("the header command printed no UTF-8")?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let (name, value) = parse_header("X-Test = a=b").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-test", &b"a=b"[..]));
        let error = format!("{:#}", parse_header("X=se\ncret").unwrap_err());
        assert!(!error.contains("cret"), "{error}");
        assert!(parse_header("no value").is_err());
    }

    #[tokio::test]
    async fn header_commands() {
        let url = Url::parse("http://h").unwrap();
        let lines = headers_of_command("echo A=1; echo; echo \"B=$CODER_URL\"", &url)
            .await
            .unwrap();
        assert_eq!(lines, ["A=1", "B=http://h/"]);
        let error = headers_of_command("echo oops >&2; exit 3", &url)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("oops"), "{error}");
    }
}
