//! RFC 3339 instants as the API writes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in microseconds precision at most, written as RFC 3339 in UTC
/// with trailing zeros of the fraction removed (`2026-11-21T13:02:05.27Z`).
///
/// Reading accepts any offset. The default value is year 1, which the API uses
/// for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(jiff::Timestamp);

/// The text is not an RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time: {0:?}")]
pub struct TimeError(String);

const MICROS_OF_YEAR_ONE: i64 = -62_135_596_800_000_000;

impl Time {
    /// The current time of the system clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from_micros(jiff::Timestamp::now().as_microsecond())
    }

    /// From microseconds since the Unix epoch; out of range becomes
    /// [`Time::default`].
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        jiff::Timestamp::from_microsecond(micros).map_or_else(|_| Self::default(), Self)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        self.0.as_second()
    }

    /// The underlying timestamp.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }

    /// Year 1, the API's "never".
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// This time moved by `micros` microseconds; saturates at the ends of the
    /// range.
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.as_micros().saturating_add(micros))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self(
            jiff::Timestamp::from_microsecond(MICROS_OF_YEAR_ONE)
                .unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        )
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(value: jiff::Timestamp) -> Self {
        Self(value)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse::<jiff::Timestamp>()
            .map(Self)
            .map_err(|_| TimeError(text.chars().take(64).collect()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn writes_utc_and_reads_offsets() {
        let time: Time = "2026-11-21T09:47:29.171135-03:30".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-21T13:17:29.171135Z");
        assert_eq!(Time::from_micros(time.as_micros()), time);
    }

    #[test]
    fn zero_is_year_one() {
        assert_eq!(Time::default().to_string(), "0001-01-01T00:00:00Z");
        let read: Time = serde_json::from_str("\"0001-01-01T00:00:00Z\"").unwrap();
        assert!(read.is_zero());
    }

    #[test]
    fn refuses_other_text() {
        assert!("yesterday".parse::<Time>().is_err());
        assert!(serde_json::from_str::<Time>("12").is_err());
    }
}
