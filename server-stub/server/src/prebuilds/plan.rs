//! How many unclaimed workspaces of a preset to make or remove: a pure function
//! of what there is.

use std::time::Duration;

use adit_rest::Time;
use uuid::Uuid;

/// After a failed build, so long per failure nothing is tried.
const BACKOFF: Duration = Duration::from_secs(60);

/// Builds that failed in a row before a preset is given up.
pub(crate) const FAILURE_LIMIT: usize = 3;

/// What is known of one preset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preset {
    /// Its version is the active one of a template that is neither deleted nor
    /// deprecated.
    pub(crate) active: bool,
    /// How many unclaimed workspaces there should be.
    pub(crate) desired: usize,
    /// Unclaimed workspaces whose latest build is a start that succeeded, and
    /// when they were made.
    pub(crate) running: Vec<(Uuid, Time)>,
    /// Unclaimed workspaces whose start build has not ended.
    pub(crate) starting: usize,
    /// When the latest builds of unclaimed workspaces failed, newest first, up
    /// to the first that did not.
    pub(crate) failures: Vec<Time>,
}

/// What to do about a preset now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make this many workspaces.
    Create(usize),
    /// Delete these.
    Delete(Vec<Uuid>),
}

/// What to do about `preset`, and when to look again although nothing changed.
pub(crate) fn plan(preset: &Preset, now: Time) -> (Option<Action>, Option<Time>) {
    let desired = if preset.active { preset.desired } else { 0 };
    let surplus = preset.running.len().saturating_sub(desired);
    if surplus > 0 {
        let mut oldest = preset.running.clone();
        oldest.sort_by_key(|(id, created)| (*created, *id));
        return (
            Some(Action::Delete(
                oldest.into_iter().take(surplus).map(|(id, _)| id).collect(),
            )),
            None,
        );
    }
    let missing = desired.saturating_sub(preset.running.len() + preset.starting);
    if missing == 0 || preset.failures.len() >= FAILURE_LIMIT {
        return (None, None);
    }
    if let Some(newest) = preset.failures.first() {
        let pause = BACKOFF.as_micros() as i64 * preset.failures.len() as i64;
        let until = newest.plus_micros(pause);
        if now <= until {
            return (None, Some(until));
        }
    }
    (Some(Action::Create(missing)), None)
}

/// A name for an unclaimed workspace: `prebuild-` and 15 letters and digits.
pub(crate) fn workspace_name() -> String {
    let random: [u8; 9] = rand::random();
    format!("prebuild-{}", base32(&random))
}

/// Base 32 of RFC 4648, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0_u32, 0);
    let mut push = |index: u32| text.push(char::from(ALPHABET[(index & 31) as usize]));
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(buffer >> bits);
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        push(buffer << (5 - bits));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn workspaces(count: u128) -> Vec<(Uuid, Time)> {
        (0..count)
            .map(|n| (Uuid::from_u128(n), at(100 - n as i64)))
            .collect()
    }

    #[test]
    fn what_is_missing_is_made() {
        let mut preset = Preset {
            active: true,
            desired: 3,
            running: workspaces(1),
            ..Preset::default()
        };
        assert_eq!(plan(&preset, at(1000)), (Some(Action::Create(2)), None));
        preset.starting = 2;
        assert_eq!(plan(&preset, at(1000)), (None, None));
    }

    #[test]
    fn the_oldest_surplus_is_removed() {
        let preset = Preset {
            active: true,
            desired: 1,
            running: workspaces(3),
            ..Preset::default()
        };
        let expected = vec![Uuid::from_u128(2), Uuid::from_u128(1)];
        assert_eq!(
            plan(&preset, at(1000)),
            (Some(Action::Delete(expected)), None)
        );
    }

    #[test]
    fn an_inactive_preset_keeps_none() {
        let preset = Preset {
            active: false,
            desired: 2,
            running: workspaces(2),
            ..Preset::default()
        };
        assert!(matches!(plan(&preset, at(1000)).0, Some(Action::Delete(ids)) if ids.len() == 2));
        let preset = Preset {
            active: false,
            desired: 2,
            ..Preset::default()
        };
        assert_eq!(plan(&preset, at(1000)), (None, None));
    }

    #[test]
    fn failures_slow_down_and_then_stop() {
        let mut preset = Preset {
            active: true,
            desired: 1,
            failures: vec![at(100)],
            ..Preset::default()
        };
        assert_eq!(plan(&preset, at(160)), (None, Some(at(160))));
        assert_eq!(plan(&preset, at(161)), (Some(Action::Create(1)), None));
        preset.failures = vec![at(100), at(50)];
        assert_eq!(plan(&preset, at(161)), (None, Some(at(220))));
        preset.failures = vec![at(100), at(50), at(0)];
        assert_eq!(plan(&preset, at(100_000)), (None, None));
    }

    #[test]
    fn names_have_the_form_others_expect() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        let name = workspace_name();
        assert_eq!(name.len(), "prebuild-".len() + 15);
    }
}
