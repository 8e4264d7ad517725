//! Cron schedules of agent scripts.
//!
//! The dialect is the one Coder templates are written against: the fields are
//! *second minute hour day-of-month month [day-of-week]*, so that an
//! expression of five fields also begins with **seconds**. Sunday is 0; there
//! is no 7. When both days are restricted, either one matching is enough.
//! `TZ=Zone ` or `CRON_TZ=Zone ` in front selects a time zone. Beyond that
//! dialect the descriptors `@hourly`, `@daily`, `@every 1h30m` and so on are
//! accepted.
//!
//! Daylight saving: a local time that does not exist on a day is skipped, one
//! that exists twice fires twice.

mod search;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A schedule that can name its next time.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Calendar {
        fields: Fields,
        zone: Option<TimeZone>,
    },
    Every(SignedDuration),
}

/// Bit sets of the values that match, one per field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) second: u64,
    pub(crate) minute: u64,
    pub(crate) hour: u64,
    pub(crate) day: u64,
    pub(crate) month: u64,
    pub(crate) weekday: u64,
    pub(crate) any_day: bool,
    pub(crate) any_weekday: bool,
}

/// Why an expression is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The expression holds nothing.
    #[error("the schedule is empty")]
    Empty,
    /// Neither five nor six fields.
    #[error(
        "expected 5 or 6 fields (second minute hour day-of-month month [day-of-week]), found {0}"
    )]
    FieldCount(usize),
    /// One field cannot be read.
    #[error("{field}: {reason}: {text:?}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
        /// The text in question.
        text: String,
    },
    /// The named time zone is not known on this machine.
    #[error("unknown time zone {0:?}")]
    Zone(String),
    /// An `@word` that is not known.
    #[error("unknown descriptor {0:?}")]
    Descriptor(String),
}

struct Bounds {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const SECOND: Bounds = Bounds {
    name: "second",
    min: 0,
    max: 59,
    names: &[],
};
const MINUTE: Bounds = Bounds {
    name: "minute",
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Bounds = Bounds {
    name: "hour",
    min: 0,
    max: 23,
    names: &[],
};
const DAY: Bounds = Bounds {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Bounds = Bounds {
    name: "month",
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Bounds = Bounds {
    name: "day of week",
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Schedule {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let (zone, rest) = match text
            .strip_prefix("CRON_TZ=")
            .or_else(|| text.strip_prefix("TZ="))
        {
            Some(tail) => {
                let (name, rest) = tail.split_once(' ').ok_or(ParseError::Empty)?;
                let zone = if name.is_empty() || name == "UTC" {
                    TimeZone::UTC
                } else {
                    TimeZone::get(name).map_err(|_| ParseError::Zone(name.to_owned()))?
                };
                (Some(zone), rest.trim())
            }
            None => (None, text),
        };
        if rest.is_empty() {
            return Err(ParseError::Empty);
        }
        if let Some(word) = rest.strip_prefix('@') {
            return Self::descriptor(word, zone);
        }
        let parts: Vec<&str> = rest.split_whitespace().collect();
        if !(5..=6).contains(&parts.len()) {
            return Err(ParseError::FieldCount(parts.len()));
        }
        let (second, _) = SECOND.parse(parts[0])?;
        let (minute, _) = MINUTE.parse(parts[1])?;
        let (hour, _) = HOUR.parse(parts[2])?;
        let (day, any_day) = DAY.parse(parts[3])?;
        let (month, _) = MONTH.parse(parts[4])?;
        let (weekday, any_weekday) = WEEKDAY.parse(parts.get(5).copied().unwrap_or("*"))?;
        Ok(Self {
            kind: Kind::Calendar {
                fields: Fields {
                    second,
                    minute,
                    hour,
                    day,
                    month,
                    weekday,
                    any_day,
                    any_weekday,
                },
                zone,
            },
        })
    }

    fn descriptor(word: &str, zone: Option<TimeZone>) -> Result<Self, ParseError> {
        let unknown = || ParseError::Descriptor(format!("@{word}"));
        if let Some(span) = word.strip_prefix("every ") {
            let span = crate::duration::parse(span).map_err(|_| unknown())?;
            let secs = i64::try_from(span.as_secs()).map_err(|_| unknown())?;
            return Ok(Self {
                kind: Kind::Every(SignedDuration::from_secs(secs.max(1))),
            });
        }
        let text = match word {
            "yearly" | "annually" => "0 0 0 1 1 *",
            "monthly" => "0 0 0 1 * *",
            "weekly" => "0 0 0 * * 0",
            "daily" | "midnight" => "0 0 0 * * *",
            "hourly" => "0 0 * * * *",
            _ => return Err(unknown()),
        };
        let mut schedule = Self::parse(text)?;
        if let Kind::Calendar { zone: slot, .. } = &mut schedule.kind {
            *slot = zone;
        }
        Ok(schedule)
    }

    /// The first time after `after`, in the schedule's own zone or else in
    /// `local`; `None` if there is none within five years.
    #[must_use]
    pub fn next_after(&self, after: Timestamp, local: &TimeZone) -> Option<Timestamp> {
        match &self.kind {
            Kind::Every(span) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*span).ok()
            }
            Kind::Calendar { fields, zone } => {
                search::next(fields, after, zone.as_ref().unwrap_or(local))
            }
        }
    }
}

impl Bounds {
    /// The bit set of a whole field and whether it counts as unrestricted.
    fn parse(&self, field: &str) -> Result<(u64, bool), ParseError> {
        let mut bits = 0;
        let mut any = false;
        for part in field.split(',').filter(|p| !p.is_empty()) {
            let (b, star) = self.parse_part(part)?;
            bits |= b;
            any |= star;
        }
        if bits == 0 && !any {
            return Err(self.error("no value", field));
        }
        Ok((bits, any))
    }

    fn parse_part(&self, part: &str) -> Result<(u64, bool), ParseError> {
        let mut halves = part.split('/');
        let range = halves.next().unwrap_or_default();
        let step_text = halves.next();
        if halves.next().is_some() {
            return Err(self.error("too many slashes", part));
        }
        let mut ends = range.split('-');
        let low = ends.next().unwrap_or_default();
        let high = ends.next();
        let mut star = false;
        let (start, mut end) = if matches!(low, "*" | "?") {
            // Whatever follows a star in its range is not looked at.
            star = true;
            (self.min, self.max)
        } else {
            let start = self.value(low)?;
            match (high, ends.next()) {
                (None, _) => (start, start),
                (Some(high), None) => (start, self.value(high)?),
                (Some(_), Some(_)) => return Err(self.error("too many hyphens", part)),
            }
        };
        let step = match step_text {
            None => 1,
            Some(text) => {
                let step = number(text).ok_or_else(|| self.error("not a number", text))?;
                if high.is_none() {
                    end = self.max;
                }
                if step > 1 {
                    star = false;
                }
                step
            }
        };
        if start < self.min {
            return Err(self.error("below the smallest value", part));
        }
        if end > self.max {
            return Err(self.error("above the largest value", part));
        }
        if start > end {
            return Err(self.error("the range runs backwards", part));
        }
        if step == 0 {
            return Err(self.error("a step of zero", part));
        }
        let mut bits = 0;
        let mut at = start;
        while at <= end {
            bits |= 1 << at;
            at = at.saturating_add(step);
        }
        Ok((bits, star))
    }

    fn value(&self, text: &str) -> Result<u32, ParseError> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|n| *n == lower) {
            return Ok(self.min + u32::try_from(at).unwrap_or_default());
        }
        number(text).ok_or_else(|| self.error("not a number", text))
    }

    fn error(&self, reason: &'static str, text: &str) -> ParseError {
        ParseError::Field {
            field: self.name,
            reason,
            text: text.to_owned(),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests;
