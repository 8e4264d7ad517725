use super::*;
use proptest::prelude::*;

fn at(text: &str, zone: &str) -> Timestamp {
    let zone = TimeZone::get(zone).expect("zone");
    let civil: jiff::civil::DateTime = text.parse().expect("civil");
    zone.to_timestamp(civil).expect("instant")
}

fn run(expr: &str, from: &str, zone: &str, count: usize) -> Vec<String> {
    let local = TimeZone::get(zone).expect("zone");
    let schedule = Schedule::parse(expr).expect("schedule");
    let mut t = at(from, zone);
    let mut out = Vec::new();
    for _ in 0..count {
        let Some(next) = schedule.next_after(t, &local) else {
            break;
        };
        out.push(local.to_datetime(next).to_string());
        t = next;
    }
    out
}

fn rejected(expr: &str) -> bool {
    Schedule::parse(expr).is_err()
}

#[test]
fn five_fields_begin_with_seconds() {
    assert_eq!(
        run("*/20 * * * *", "2026-01-01T00:00:05", "UTC", 3),
        [
            "2026-01-01T00:00:20",
            "2026-01-01T00:00:40",
            "2026-01-01T00:01:00"
        ]
    );
    assert_eq!(
        run("0 30 9 * *", "2026-01-01T09:30:00", "UTC", 1),
        ["2026-01-02T09:30:00"]
    );
}

#[test]
fn what_is_refused() {
    for expr in [
        "",
        "   ",
        "TZ=UTC",
        "TZ=Nowhere/City 0 0 0 * * *",
        "* * * *",
        "* * * * * * *",
        "0 0 0 * * 7",
        "0 0 0 * * 5-7",
        "0 0 0 L * *",
        "0 0 0 * * 5L",
        "0 0 0 * * 5#2",
        "0 0 0 15W * *",
        "0 0 0 1 january *",
        "60 * * * *",
        "* * 24 * *",
        "* * * 0 *",
        "* * * 32 *",
        "5-1 * * * *",
        "*/0 * * * *",
        "*/x * * * *",
        "1/2/3 * * * *",
        "1-2-3 * * * *",
        "-1 * * * *",
        ", * * * *",
        "@fortnightly",
        "@every soon",
    ] {
        assert!(rejected(expr), "accepted {expr:?}");
    }
}

#[test]
fn what_is_accepted_beyond_the_obvious() {
    for expr in [
        "*,5 * * * *",
        "*-5 * * * *",
        "*,13 * * * *",
        "? ? ? ? ?",
        "0 0 0 1 JAN SUN",
        "0 0 0 1 Jan,feb-MAR Mon-Fri",
        "CRON_TZ=Europe/Berlin 0 0 0 * * *",
        "@daily",
        "TZ=UTC @hourly",
        "@every 1h30m",
    ] {
        assert!(!rejected(expr), "refused {expr:?}");
    }
}

#[test]
fn steps() {
    // A single number with a step runs to the end of the field.
    assert_eq!(
        run("0 5/15 * * *", "2026-01-01T00:00:00", "UTC", 4),
        [
            "2026-01-01T00:05:00",
            "2026-01-01T00:20:00",
            "2026-01-01T00:35:00",
            "2026-01-01T00:50:00"
        ]
    );
    // A step beyond the field leaves its first value.
    assert_eq!(
        run("0 */70 * * *", "2026-01-01T00:00:00", "UTC", 2),
        ["2026-01-01T01:00:00", "2026-01-01T02:00:00"]
    );
    assert_eq!(
        run("0 0 0 10-20/5 *", "2026-01-01T00:00:00", "UTC", 3),
        [
            "2026-01-10T00:00:00",
            "2026-01-15T00:00:00",
            "2026-01-20T00:00:00"
        ]
    );
}

#[test]
fn both_days_restricted_means_either() {
    // Friday (5) or the 13th. February 2026: Fridays 6, 13, 20, 27.
    assert_eq!(
        run("0 0 0 13 * 5", "2026-01-30T00:00:00", "UTC", 2),
        ["2026-02-06T00:00:00", "2026-02-13T00:00:00"]
    );
    assert_eq!(
        run("0 0 0 13 1 5", "2026-01-11T00:00:00", "UTC", 2),
        ["2026-01-13T00:00:00", "2026-01-16T00:00:00"]
    );
    // A step takes the star's freedom away, so this is "odd days or Friday".
    assert_eq!(
        run("0 0 0 */2 * 5", "2026-02-04T12:00:00", "UTC", 4),
        [
            "2026-02-05T00:00:00",
            "2026-02-06T00:00:00",
            "2026-02-07T00:00:00",
            "2026-02-09T00:00:00"
        ]
    );
}

#[test]
fn a_gap_skips_and_an_overlap_repeats() {
    // Berlin 2026: 29 March 02:00 → 03:00, 25 October 03:00 → 02:00.
    assert_eq!(
        run("0 30 2 * *", "2026-03-28T12:00:00", "Europe/Berlin", 1),
        ["2026-03-30T02:30:00"]
    );
    assert_eq!(
        run("0 30 2 * *", "2026-10-24T12:00:00", "Europe/Berlin", 3),
        [
            "2026-10-25T02:30:00",
            "2026-10-25T02:30:00",
            "2026-10-26T02:30:00"
        ]
    );
    // New York 2026: 1 November, 02:00 → 01:00; the order stays right.
    assert_eq!(
        run("0 */30 * * *", "2026-11-01T00:30:00", "America/New_York", 5),
        [
            "2026-11-01T01:00:00",
            "2026-11-01T01:30:00",
            "2026-11-01T01:00:00",
            "2026-11-01T01:30:00",
            "2026-11-01T02:00:00"
        ]
    );
}

#[test]
fn a_midnight_that_does_not_exist_is_skipped() {
    assert_eq!(
        run("0 0 0 * *", "2018-11-03T12:00:00", "America/Sao_Paulo", 1),
        ["2018-11-05T00:00:00"]
    );
}

#[test]
fn an_impossible_date_has_no_next_time() {
    assert!(run("0 0 0 30 2 *", "2026-01-01T00:00:00", "UTC", 1).is_empty());
    assert_eq!(
        run("0 0 0 29 2 *", "2026-01-01T00:00:00", "UTC", 1),
        ["2028-02-29T00:00:00"]
    );
}

#[test]
fn zone_prefix_wins_over_the_local_zone() {
    assert_eq!(
        run(
            "TZ=America/New_York 0 0 12 * *",
            "2026-01-01T00:00:00",
            "UTC",
            1
        ),
        ["2026-01-01T17:00:00"]
    );
}

#[test]
fn every_counts_from_whole_seconds() {
    let s = Schedule::parse("@every 90s").expect("schedule");
    let t = Timestamp::from_millisecond(1_500).expect("instant");
    assert_eq!(
        s.next_after(t, &TimeZone::UTC).map(Timestamp::as_second),
        Some(91)
    );
}

proptest! {
    #[test]
    fn never_panics_and_always_moves_forward(expr in "[0-9*?/,@a-z -]{0,24}", secs in 0_i64..4_000_000_000) {
        if let Ok(s) = Schedule::parse(&expr) {
            let t = Timestamp::from_second(secs).expect("instant");
            if let Some(next) = s.next_after(t, &TimeZone::UTC) {
                prop_assert!(next > t);
            }
        }
    }

    #[test]
    fn every_match_satisfies_its_fields(h in 0_i8..24, m in 0_i8..60, secs in 0_i64..4_000_000_000, zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])) {
        let zone = TimeZone::get(zone).expect("zone");
        let s = Schedule::parse(&format!("0 {m} {h} * *")).expect("schedule");
        let t = Timestamp::from_second(secs).expect("instant");
        let next = s.next_after(t, &zone).expect("a time");
        let civil = zone.to_datetime(next);
        prop_assert_eq!((civil.hour(), civil.minute(), civil.second()), (h, m, 0));
    }
}
