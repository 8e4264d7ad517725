//! Finding a carrier that works.
//!
//! `Upgrade: DERP` is preferred; middleboxes that know only WebSocket refuse
//! it, swallow it, or let it through and break it. So a WebSocket is tried
//! beside it after a head start, or at once when the upgrade fails. Whichever
//! completes the DERP handshake first wins, and [`Memory`] lets the winner go
//! first the next time.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_http::{BoxIo, Endpoint, StatusCode, UpgradeRequest};
use adit_keys::{NodePrivate, NodePublic};
use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout};

use super::driver::Driver;
use super::queue::{Bucket, Shared};
use super::{Client, CloseReason};
use crate::CarrierKind;
use crate::carrier::{CLIENT_READ_BUFFER, Carrier, websocket_config};
use crate::frame::{Decoder, Frame, RawFrame};
use crate::handshake::{self, ClientInfo, ServerInfo};

/// What to connect to and how.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Our key.
    pub node_key: NodePrivate,
    /// The region's relays in order of preference, each from
    /// [`relay_endpoint`](super::relay_endpoint).
    pub endpoints: Vec<Endpoint>,
    /// Never try `Upgrade: DERP`.
    pub websocket_only: bool,
    /// Budget for everything.
    pub timeout: Duration,
    /// How long the preferred carrier is alone.
    pub head_start: Duration,
}

impl ConnectOptions {
    /// Options with the usual limits: 10 s in all, half a second of head
    /// start.
    pub fn new(node_key: NodePrivate, endpoints: Vec<Endpoint>) -> Self {
        Self {
            node_key,
            endpoints,
            websocket_only: false,
            timeout: Duration::from_secs(10),
            head_start: Duration::from_millis(500),
        }
    }
}

/// Which carrier won where. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<HashMap<Endpoint, Known>>>);

#[derive(Debug, Clone)]
struct Known {
    winner: CarrierKind,
    refused: Option<String>,
}

impl Memory {
    /// Forgets everything, as is wise after a change of networks.
    pub fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn get(&self, endpoint: &Endpoint) -> Option<Known> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(endpoint)
            .cloned()
    }

    fn set(&self, endpoint: &Endpoint, known: Known) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(endpoint.clone(), known);
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no relay to try.
    #[error("the region has no relay")]
    NoRelay,
    /// The relay was not reached, or refused both carriers.
    #[error(transparent)]
    Http(#[from] adit_http::Error),
    /// What was reached is no relay, or went away.
    #[error("relay handshake: {0}")]
    Handshake(CloseReason),
    /// It took too long.
    #[error("no connection to the relay in time")]
    Timeout,
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        Self::Handshake(reason)
    }
}

impl Client {
    /// Connects to the first relay of the list that can be reached.
    pub async fn connect(
        http: &adit_http::Client,
        options: &ConnectOptions,
        memory: &Memory,
    ) -> Result<Self, ConnectError> {
        let all = async {
            let mut failure = ConnectError::NoRelay;
            for endpoint in &options.endpoints {
                match connect_one(http, options, memory, endpoint).await {
                    Ok(client) => return Ok(client),
                    Err(error) => {
                        tracing::debug!(relay = endpoint.authority(), %error, "relay not usable");
                        failure = error;
                    }
                }
            }
            Err(failure)
        };
        timeout(options.timeout, all)
            .await
            .map_err(|_| ConnectError::Timeout)?
    }
}

async fn connect_one(
    http: &adit_http::Client,
    options: &ConnectOptions,
    memory: &Memory,
    endpoint: &Endpoint,
) -> Result<Client, ConnectError> {
    let attempt = |kind| open(http, options, endpoint, kind);
    if options.websocket_only {
        let ready = attempt(CarrierKind::WebSocket).await?;
        return Ok(ready.start(CarrierKind::WebSocket, None));
    }
    let known = memory.get(endpoint);
    let (first, second) = match &known {
        Some(Known {
            winner: CarrierKind::WebSocket,
            ..
        }) => (CarrierKind::WebSocket, CarrierKind::Upgrade),
        _ => (CarrierKind::Upgrade, CarrierKind::WebSocket),
    };
    let (result, loser) = race(attempt(first), attempt(second), options.head_start).await;
    let (winner, ready) = match result {
        Ok(Winner::First(ready)) => (first, ready),
        Ok(Winner::Second(ready)) => (second, ready),
        Err(error) => return Err(error),
    };
    let refused = match winner {
        CarrierKind::Upgrade => None,
        CarrierKind::WebSocket => loser
            .as_ref()
            .and_then(refusal)
            .or_else(|| known.and_then(|known| known.refused)),
    };
    memory.set(
        endpoint,
        Known {
            winner,
            refused: refused.clone(),
        },
    );
    Ok(ready.start(winner, refused))
}

/// The reason to report when an upgrade was refused for good.
fn refusal(error: &ConnectError) -> Option<String> {
    match error {
        ConnectError::Http(http) => http
            .status()
            .filter(StatusCode::is_client_error)
            .map(|status| format!("GET failed: {status}")),
        _ => None,
    }
}

enum Winner<T> {
    First(T),
    Second(T),
}

/// Runs `first`, and `second` beside it after `head_start` or when the first
/// has failed. Gives the winner, and the error of the one that had failed
/// before; if both fail, the first one's error.
async fn race<T>(
    first: impl Future<Output = Result<T, ConnectError>>,
    second: impl Future<Output = Result<T, ConnectError>>,
    head_start: Duration,
) -> (Result<Winner<T>, ConnectError>, Option<ConnectError>) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    tokio::select! {
        biased;
        result = &mut first => return match result {
            Ok(ready) => (Ok(Winner::First(ready)), None),
            Err(error) => match second.await {
                Ok(ready) => (Ok(Winner::Second(ready)), Some(error)),
                Err(_) => (Err(error), None),
            },
        },
        () = sleep(head_start) => {}
    }
    tokio::select! {
        biased;
        result = &mut first => match result {
            Ok(ready) => (Ok(Winner::First(ready)), None),
            Err(error) => match second.await {
                Ok(ready) => (Ok(Winner::Second(ready)), Some(error)),
                Err(_) => (Err(error), None),
            },
        },
        result = &mut second => match result {
            Ok(ready) => (Ok(Winner::Second(ready)), None),
            Err(error) => match first.await {
                Ok(ready) => (Ok(Winner::First(ready)), Some(error)),
                Err(first_error) => (Err(first_error), None),
            },
        },
    }
}

/// Opens a carrier and completes the DERP handshake on it.
async fn open(
    http: &adit_http::Client,
    options: &ConnectOptions,
    endpoint: &Endpoint,
    kind: CarrierKind,
) -> Result<Ready, ConnectError> {
    let carrier = match kind {
        CarrierKind::Upgrade => {
            let request = UpgradeRequest::elsewhere(endpoint.clone(), "/derp", "DERP");
            Carrier::Upgrade(http.upgrade(&request).await?.io)
        }
        CarrierKind::WebSocket => {
            let request = UpgradeRequest::elsewhere(endpoint.clone(), "/derp", "websocket");
            let socket = http
                .websocket_with(request, Some("derp"), websocket_config(CLIENT_READ_BUFFER))
                .await?;
            Carrier::WebSocket(Box::new(socket))
        }
    };
    Ok(greet(carrier, &options.node_key).await?)
}

/// A connection whose handshake is done, before its task runs.
struct Ready {
    carrier: Carrier<BoxIo>,
    decoder: Decoder,
    early: Vec<RawFrame>,
    server_key: NodePublic,
    info: ServerInfo,
}

impl Ready {
    fn start(self, kind: CarrierKind, refused: Option<String>) -> Client {
        let bucket = (self.info.bytes_per_second > 0).then(|| Bucket {
            per_second: self.info.bytes_per_second.into(),
            burst: self.info.bytes_burst.into(),
            tokens: self.info.bytes_burst.into(),
            at: Instant::now(),
        });
        let shared = Arc::new(Shared::new(self.server_key, bucket));
        let driver = Driver::new(self.carrier, self.decoder, shared.clone(), self.early);
        Client {
            shared,
            kind,
            refused,
            task: tokio::spawn(driver.run()),
        }
    }
}

/// Frames before the server's information that are kept; a relay sends none.
const MOST_EARLY: usize = 64;

async fn greet(mut carrier: Carrier<BoxIo>, key: &NodePrivate) -> Result<Ready, CloseReason> {
    let mut decoder = Decoder::for_client();
    let greeting = Frame::parse(next_frame(&mut carrier, &mut decoder).await?);
    let Frame::ServerKey(server_key) = greeting else {
        return Err(CloseReason::Protocol(
            "its greeting is not that of a relay".into(),
        ));
    };
    let mut out = BytesMut::new();
    ClientInfo::ours().put(&mut out, key, &server_key, &handshake::nonce());
    poll_fn(|cx| carrier.poll_send(cx, &mut out)).await?;
    let mut early = Vec::new();
    loop {
        let raw = next_frame(&mut carrier, &mut decoder).await?;
        if let Frame::ServerInfo(sealed) = Frame::parse(raw.clone()) {
            let info = ServerInfo::open(&sealed, key, &server_key)?;
            return Ok(Ready {
                carrier,
                decoder,
                early,
                server_key,
                info,
            });
        }
        if early.len() >= MOST_EARLY {
            return Err(CloseReason::Protocol(
                "it sends no server information".into(),
            ));
        }
        early.push(raw);
    }
}

async fn next_frame(
    carrier: &mut Carrier<BoxIo>,
    decoder: &mut Decoder,
) -> Result<RawFrame, CloseReason> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        let missing = decoder.missing();
        let buffer = decoder.buffer();
        buffer.reserve(missing.max(1024));
        if !poll_fn(|cx| carrier.poll_recv(cx, buffer)).await? {
            return Err(CloseReason::Eof);
        }
    }
}
