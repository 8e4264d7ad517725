//! How this server uses the SSH protocol.

use std::sync::Arc;

use crate::config::Config;
use crate::hostkey::HostKey;
use crate::server::SHORTEST_SILENCE;

/// The identification of the SSH server in Coder's agent. No client is known
/// to look at it, and none shall have a reason to start.
const IDENTIFICATION: &str = "SSH-2.0-Go";
/// Signs of life that may stay unanswered.
const UNANSWERED: u32 = 3;

/// The protocol's settings.
pub(crate) fn protocol(config: &Config, key: &HostKey) -> Arc<adit_ssh::Config> {
    let mut settings = adit_ssh::Config::new(IDENTIFICATION, key.private().clone());
    settings.keepalive = config
        .max_timeout
        .filter(|max| *max >= SHORTEST_SILENCE)
        .map(|max| max / 3);
    settings.keepalive_misses = UNANSWERED;
    Arc::new(settings)
}
