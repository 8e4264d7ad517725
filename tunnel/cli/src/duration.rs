//! Durations as people type and read them.

use std::time::Duration;

/// Parses `1h30m`, `90s`, `250ms`, `1.5h` or `2d`.
///
/// # Errors
/// Anything else, with a text that says what is accepted.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}: write it like 30s, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(invalid()),
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

/// The largest two units, as in `1h30m` or `1m20s`.
pub(crate) fn coarse(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600, seconds / 60);
    match () {
        () if days > 0 => join(days, 'd', hours % 24, 'h'),
        () if hours > 0 => join(hours, 'h', minutes % 60, 'm'),
        () if minutes > 0 => join(minutes, 'm', seconds % 60, 's'),
        () => format!("{seconds}s"),
    }
}

/// One unit, as in the age columns of `list`: `<1m`, `5m`, `3h`, `2d`.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => "<1m".to_owned(),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A measured time: `376.853µs`, `1.310ms`, `2.5s`.
pub(crate) fn precise(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let text = |value: f64, unit: &str| {
        let text = format!("{value:.3}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}{unit}")
    };
    match nanos {
        n if n < 1e3 => text(n, "ns"),
        n if n < 1e6 => text(n / 1e3, "µs"),
        n if n < 1e9 => text(n / 1e6, "ms"),
        n => text(n / 1e9, "s"),
    }
}

fn join(large: u64, large_unit: char, small: u64, small_unit: char) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, want) in [
            ("90s", 90.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("250ms", 0.25),
            ("2d", 172_800.0),
            ("0", 0.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(want)), "{text}");
        }
        for text in ["", "5", "m", "1h x", "-5s", "1e400h", "5 s 5"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn writes_what_people_read() {
        assert_eq!(coarse(Duration::from_secs(80)), "1m20s");
        assert_eq!(coarse(Duration::from_secs(28_800)), "8h");
        assert_eq!(age(Duration::from_secs(59)), "<1m");
        assert_eq!(age(Duration::from_secs(7200)), "2h");
        assert_eq!(precise(Duration::from_nanos(376_853)), "376.853µs");
        assert_eq!(precise(Duration::from_millis(1310)), "1.31s");
    }
}
