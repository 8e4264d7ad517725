//! Settings of either side.

use std::time::Duration;

use crate::algo::Side;
use crate::rsa::RsaKey;

/// Settings shared by connections.
#[derive(Debug, Clone)]
pub struct Config {
    /// Identification line without line end: `SSH-2.0-` and a name of
    /// printable ASCII, at most 253 bytes (RFC 4253 §4.2).
    pub identification: String,
    /// A server has one.
    host_key: Option<RsaKey>,
    /// Time from the start of a connection to its authentication.
    pub login_deadline: Duration,
    /// Bytes the peer may send ahead on a channel.
    pub window: u32,
    /// Bytes all channels together may be granted; beyond that, new channels
    /// get the smallest useful window.
    pub window_total: u64,
    /// Channels at a time, those that are being closed included.
    pub channels: usize,
    /// Bytes in both directions after which keys are renewed.
    pub rekey_bytes: u64,
    /// Time after which keys are renewed.
    pub rekey_interval: Duration,
    /// Silence after which the peer is asked for a sign of life.
    pub keepalive: Option<Duration>,
    /// Questions in a row that may stay unanswered.
    pub keepalive_misses: u32,
}

impl Config {
    /// A server's defaults: 2 min to log in, 2 MiB per channel and 64 MiB in all,
    /// 4096 channels, new keys after 1 GiB (RFC 4253 §9) or an hour, no
    /// questions.
    #[must_use]
    pub fn new(identification: impl Into<String>, host_key: RsaKey) -> Self {
        Self::either(identification.into(), Some(host_key))
    }

    /// A client's defaults, which are the same.
    #[must_use]
    pub fn client(identification: impl Into<String>) -> Self {
        Self::either(identification.into(), None)
    }

    pub(crate) fn side(&self) -> Side {
        match self.host_key {
            Some(_) => Side::Server,
            None => Side::Client,
        }
    }

    pub(crate) fn host_key(&self) -> Option<&RsaKey> {
        self.host_key.as_ref()
    }

    fn either(identification: String, host_key: Option<RsaKey>) -> Self {
        Self {
            identification,
            host_key,
            login_deadline: Duration::from_secs(120),
            window: 2 << 20,
            window_total: 64 << 20,
            channels: 4096,
            rekey_bytes: 1 << 30,
            rekey_interval: Duration::from_secs(3600),
            keepalive: None,
            keepalive_misses: 3,
        }
    }
}
