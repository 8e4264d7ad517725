//! Weekly schedules: `CRON_TZ=<zone> <minute> <hour> * * <days of week>`.

use std::fmt;

use adit_rest::Time;
use jiff::tz::TimeZone;
use jiff::{ToSpan as _, Zoned};

/// A weekly schedule.
#[derive(Clone, Debug)]
pub(crate) struct Weekly {
    zone: TimeZone,
    minutes: u64,
    hours: u64,
    /// Bit 0 is Sunday.
    days: u64,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "validate weekly schedule: {}", self.0)
    }
}

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn invalid(text: impl Into<String>) -> Invalid {
    Invalid(text.into())
}

/// Reads a schedule.
pub(crate) fn parse(text: &str) -> Result<Weekly, Invalid> {
    let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut zone = TimeZone::UTC;
    if let Some(name) = fields.first().and_then(|first| {
        first
            .strip_prefix("CRON_TZ=")
            .or_else(|| first.strip_prefix("TZ="))
    }) {
        zone = if matches!(name, "UTC" | "Etc/UTC" | "") {
            TimeZone::UTC
        } else {
            TimeZone::get(name)
                .map_err(|_| invalid(format!("provided bad location {name}: unknown time zone")))?
        };
        fields.remove(0);
    }
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(invalid(
            "expected schedule to consist of 5 fields with an optional CRON_TZ=<timezone> prefix",
        ));
    };
    if *day != "*" || *month != "*" {
        return Err(invalid("expected day-of-month and month to be *"));
    }
    Ok(Weekly {
        zone,
        minutes: field(minute, 0, 59, &[])?,
        hours: field(hour, 0, 23, &[])?,
        days: field(weekday, 0, 6, &DAYS)?,
    })
}

/// One field as a set of bits.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, Invalid> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                step.parse::<u32>()
                    .ok()
                    .filter(|step| *step > 0)
                    .ok_or_else(|| invalid(format!("failed to parse {part:?}")))?,
            ),
            None => (part, 1),
        };
        let (low, high) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (min, max),
            Some((low, high)) => (value(low, names)?, value(high, names)?),
            None => {
                let low = value(range, names)?;
                (low, if part.contains('/') { max } else { low })
            }
        };
        if low < min || high > max || low > high {
            return Err(invalid(format!("value out of range in {part:?}")));
        }
        let mut at = low;
        while at <= high {
            bits |= 1 << at;
            at += step;
        }
    }
    Ok(bits)
}

fn value(text: &str, names: &[&str]) -> Result<u32, Invalid> {
    let lower = text.to_ascii_lowercase();
    if let Some(index) = names.iter().position(|name| *name == lower) {
        return Ok(index as u32);
    }
    text.parse()
        .map_err(|_| invalid(format!("failed to parse int from {text:?}")))
}

impl Weekly {
    /// The next time after `after`.
    pub(crate) fn next(&self, after: Time) -> Option<Time> {
        let start = after.timestamp().to_zoned(self.zone.clone());
        let mut day = start.date();
        // Eight days: the same weekday one week later may be the next one.
        for _ in 0..9 {
            let bit = day.weekday().to_sunday_zero_offset();
            if self.days & (1 << bit) != 0
                && let Some(found) = self.first_on(day, &start)
            {
                return Some(found.timestamp().into());
            }
            day = day.checked_add(1.day()).ok()?;
        }
        None
    }

    fn first_on(&self, day: jiff::civil::Date, after: &Zoned) -> Option<Zoned> {
        for hour in (0..24).filter(|hour| self.hours & (1 << hour) != 0) {
            for minute in (0..60).filter(|minute| self.minutes & (1 << minute) != 0) {
                let found = day
                    .at(hour, minute, 0, 0)
                    .to_zoned(self.zone.clone())
                    .ok()?;
                if found > *after {
                    return Some(found);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_weekday() {
        let schedule = parse("CRON_TZ=UTC 30 9 * * Mon-Fri").unwrap();
        // A Saturday.
        let next = schedule
            .next("2026-11-21T13:02:05Z".parse().unwrap())
            .unwrap();
        assert_eq!(next.to_string(), "2026-11-23T09:30:00Z");
        let same = schedule.next(next).unwrap();
        assert_eq!(same.to_string(), "2026-11-24T09:30:00Z");
    }

    #[test]
    fn steps_lists_and_names() {
        let schedule = parse("*/15 8,20 * * sun").unwrap();
        let next = schedule
            .next("2026-11-22T08:46:00Z".parse().unwrap())
            .unwrap();
        assert_eq!(next.to_string(), "2026-11-22T20:00:00Z");
    }

    #[test]
    fn refusals_say_why() {
        let text = |schedule: &str| parse(schedule).unwrap_err().to_string();
        assert_eq!(
            text("every day"),
            "validate weekly schedule: expected schedule to consist of 5 fields with an optional \
             CRON_TZ=<timezone> prefix"
        );
        assert_eq!(
            text("CRON_TZ=UTC 0 9 1 * *"),
            "validate weekly schedule: expected day-of-month and month to be *"
        );
        for bad in [
            "60 9 * * *",
            "0 9 * * 8",
            "a b * * c",
            "*/0 9 * * *",
            "5-1 0 * * *",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
