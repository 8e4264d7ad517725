//! Times of day as `--start-at` takes them, and the cron text behind them.

/// Turns `9:30AM Mon-Fri Europe/Dublin` into
/// `CRON_TZ=Europe/Dublin 30 9 * * Mon-Fri`. Days and zone may be left out,
/// and stand in either order.
pub(crate) fn to_cron(text: &str, local_zone: &str) -> Result<String, String> {
    let mut words = text.split_whitespace();
    let (hour, minute) = words
        .next()
        .and_then(time_of_day)
        .ok_or("Start time must be in the format hh:mm[am|pm] or HH:MM")?;
    let mut days = None;
    let mut zone = None;
    for word in words {
        if word == "*" || is_days(word) {
            if days.replace(word).is_some() {
                return Err(format!("{text:?} names the days twice"));
            }
        } else if zone.replace(word).is_some() {
            return Err(format!(
                "{text:?} is not a schedule: write it like \"9:30AM Mon-Fri Europe/Dublin\""
            ));
        }
    }
    Ok(format!(
        "CRON_TZ={} {minute} {hour} * * {}",
        zone.unwrap_or(local_zone),
        days.unwrap_or("*")
    ))
}

/// The reverse, for lists: `9:30AM Mon-Fri (Europe/Dublin)`. Text in another
/// form is returned as it is.
pub(crate) fn describe(cron: &str) -> String {
    let fields: Vec<&str> = cron.split_whitespace().collect();
    let (zone, rest) = match fields[..] {
        [first, ref rest @ ..] if first.starts_with("CRON_TZ=") => {
            (&first["CRON_TZ=".len()..], rest)
        }
        ref rest => ("UTC", rest),
    };
    let [minute, hour, "*", "*", days] = rest[..] else {
        return cron.to_owned();
    };
    let (Ok(minute), Ok(hour)) = (minute.parse::<u8>(), hour.parse::<u8>()) else {
        return cron.to_owned();
    };
    let (twelve, half) = match hour {
        0 => (12, "AM"),
        1..=11 => (hour, "AM"),
        12 => (12, "PM"),
        _ => (hour.saturating_sub(12), "PM"),
    };
    let days = if days == "*" {
        "daily".to_owned()
    } else {
        days.to_owned()
    };
    format!("{twelve}:{minute:02}{half} {days} ({zone})")
}

fn time_of_day(text: &str) -> Option<(u8, u8)> {
    let lower = text.to_ascii_lowercase();
    let (digits, half) = match lower.strip_suffix("am") {
        Some(digits) => (digits, Some(false)),
        None => match lower.strip_suffix("pm") {
            Some(digits) => (digits, Some(true)),
            None => (lower.as_str(), None),
        },
    };
    let (hour, minute) = digits.split_once(':').unwrap_or((digits, "0"));
    if half.is_none() && !digits.contains(':') {
        return None;
    }
    let (hour, minute) = (hour.parse::<u8>().ok()?, minute.parse::<u8>().ok()?);
    let hour = match half {
        None if hour < 24 => hour,
        Some(pm) if (1..=12).contains(&hour) => hour % 12 + if pm { 12 } else { 0 },
        _ => return None,
    };
    (minute < 60).then_some((hour, minute))
}

fn is_days(word: &str) -> bool {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    word.split([',', '-']).all(|day| {
        NAMES.contains(&day.to_ascii_lowercase().as_str()) || matches!(day.parse::<u8>(), Ok(0..=6))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let cron = to_cron("9:30AM Mon-Fri UTC", "Local").unwrap();
        assert_eq!(cron, "CRON_TZ=UTC 30 9 * * Mon-Fri");
        assert_eq!(describe(&cron), "9:30AM Mon-Fri (UTC)");
        assert_eq!(
            to_cron("17:05", "Europe/Dublin").unwrap(),
            "CRON_TZ=Europe/Dublin 5 17 * * *"
        );
        assert_eq!(to_cron("12am", "UTC").unwrap(), "CRON_TZ=UTC 0 0 * * *");
        assert_eq!(describe("CRON_TZ=UTC 0 0 * * *"), "12:00AM daily (UTC)");
        assert_eq!(describe("*/5 * * * *"), "*/5 * * * *");
    }

    #[test]
    fn mistakes() {
        for bad in ["99:99", "", "9", "25:00", "13pm", "9am Mon Tue Wed"] {
            assert!(to_cron(bad, "UTC").is_err(), "{bad}");
        }
    }
}
