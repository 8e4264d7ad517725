//! Finding the next matching instant.
//!
//! Time is cut at the zone's transitions. Between two of them the local time
//! is the instant plus a constant, so the search is plain calendar counting;
//! gaps and overlaps need no rules of their own.

use super::Fields;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

const YEARS: i16 = 5;

/// The first match after `after`, or `None` within the next five years.
pub(crate) fn next(fields: &Fields, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut from = Timestamp::from_second(after.as_second().checked_add(1)?).ok()?;
    let last_year = zone.to_datetime(from).year().saturating_add(YEARS);
    loop {
        let offset = zone.to_offset(from);
        let until = zone.following(from).next().map(|t| t.timestamp());
        let begin = offset.to_datetime(from);
        if begin.year() > last_year {
            return None;
        }
        let end = until.map(|t| offset.to_datetime(t));
        if let Some(found) = in_segment(fields, begin, end, last_year) {
            return to_instant(found, offset);
        }
        from = until?;
    }
}

fn to_instant(at: DateTime, offset: Offset) -> Option<Timestamp> {
    offset.to_timestamp(at).ok()
}

/// The first match in `begin..end` (to the end of `last_year` without `end`).
fn in_segment(
    fields: &Fields,
    begin: DateTime,
    end: Option<DateTime>,
    last_year: i16,
) -> Option<DateTime> {
    let mut date = begin.date();
    let mut earliest = (begin.hour(), begin.minute(), begin.second());
    loop {
        if date.year() > last_year || end.is_some_and(|e| date > e.date()) {
            return None;
        }
        if fields.month & bit(date.month()) == 0 {
            let first = date.first_of_month();
            date = first.checked_add(jiff::Span::new().months(1)).ok()?;
            earliest = (0, 0, 0);
            continue;
        }
        if day_matches(fields, date)
            && let Some((h, m, s)) = time_of_day(fields, earliest)
        {
            let found = date.at(h, m, s, 0);
            return end.is_none_or(|e| found < e).then_some(found);
        }
        date = date.tomorrow().ok()?;
        earliest = (0, 0, 0);
    }
}

fn day_matches(fields: &Fields, date: Date) -> bool {
    let by_day = fields.day & bit(date.day()) != 0;
    let by_weekday = fields.weekday & bit(date.weekday().to_sunday_zero_offset()) != 0;
    if fields.any_day || fields.any_weekday {
        by_day && by_weekday
    } else {
        by_day || by_weekday
    }
}

/// The first matching time of day at or after `from`.
fn time_of_day(fields: &Fields, from: (i8, i8, i8)) -> Option<(i8, i8, i8)> {
    let (h0, m0, s0) = from;
    let first_second = at_or_after(fields.second, 0)?;
    let first_minute = at_or_after(fields.minute, 0)?;
    if fields.hour & bit(h0) != 0 {
        if fields.minute & bit(m0) != 0
            && let Some(s) = at_or_after(fields.second, s0)
        {
            return Some((h0, m0, s));
        }
        if let Some(m) = at_or_after(fields.minute, m0 + 1) {
            return Some((h0, m, first_second));
        }
    }
    let h = at_or_after(fields.hour, h0 + 1)?;
    Some((h, first_minute, first_second))
}

fn bit(n: i8) -> u64 {
    1 << (u32::from(n.unsigned_abs()) & 63)
}

fn at_or_after(bits: u64, from: i8) -> Option<i8> {
    let rest = bits & (u64::MAX << (u32::from(from.unsigned_abs()) & 63));
    (rest != 0).then(|| rest.trailing_zeros() as i8)
}
