//! The protocol's limits (section 6.1, and the flood guard of section 5.1).

use std::time::Duration;

/// Messages after which a session is renewed.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Messages after which a session may not be used any more.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Age at which the initiator of a session renews it.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// Age from which a session is neither sent on nor accepted.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// How long an initiator goes on trying.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// Time between two tries, without the random part.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most of the random part, in milliseconds.
pub const REKEY_JITTER_MS: u64 = 333;

/// Received data is answered at the latest after this.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A cookie is good for this long.
pub const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// Initiations of one peer are looked at no more often than this.
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(20);
