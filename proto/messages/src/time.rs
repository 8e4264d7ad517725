//! Conversions between `std::time` and the protobuf time messages.

use std::time::{Duration, SystemTime};

use prost_types::{Duration as ProtoDuration, Timestamp};

/// The largest `nanos` value of a normalised message.
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Encodes a length of time. Values beyond the range of the message become its
/// maximum.
#[must_use]
pub fn duration_to_proto(duration: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Decodes a length of time. `None` when it is negative.
#[must_use]
pub fn duration_from_proto(duration: &ProtoDuration) -> Option<Duration> {
    let nanos = duration_nanos(duration);
    let seconds = u64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).ok()?;
    let rest = u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).ok()?;
    Some(Duration::new(seconds, rest))
}

/// Encodes a point in time, before or after 1970.
#[must_use]
pub fn timestamp_to_proto(time: SystemTime) -> Timestamp {
    let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    };
    Timestamp {
        seconds: i64::try_from(nanos.div_euclid(NANOS_PER_SECOND)).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0),
    }
}

/// Decodes a point in time. `None` when the platform cannot represent it.
#[must_use]
pub fn timestamp_from_proto(timestamp: &Timestamp) -> Option<SystemTime> {
    let nanos = i128::from(timestamp.seconds) * NANOS_PER_SECOND + i128::from(timestamp.nanos);
    let seconds = u64::try_from(nanos.unsigned_abs() / NANOS_PER_SECOND.unsigned_abs()).ok()?;
    let rest = u32::try_from(nanos.unsigned_abs() % NANOS_PER_SECOND.unsigned_abs()).ok()?;
    let distance = Duration::new(seconds, rest);
    if nanos < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Encodes `WorkspaceAgentMetadata.Description.interval` and `.timeout`, whose
/// nanosecond count carries a number of seconds.
#[must_use]
pub fn metadata_interval_to_proto(seconds: u64) -> ProtoDuration {
    duration_to_proto(Duration::from_nanos(seconds))
}

/// Decodes `WorkspaceAgentMetadata.Description.interval` and `.timeout`.
/// Negative values read as zero.
#[must_use]
pub fn metadata_interval_from_proto(duration: &ProtoDuration) -> Duration {
    Duration::from_secs(u64::try_from(duration_nanos(duration)).unwrap_or(0))
}

fn duration_nanos(duration: &ProtoDuration) -> i128 {
    i128::from(duration.seconds) * NANOS_PER_SECOND + i128::from(duration.nanos)
}
