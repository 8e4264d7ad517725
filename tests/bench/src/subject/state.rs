//! The agent as the server's list of workspaces shows it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// State of a workspace's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentState {
    /// Id of the workspace.
    pub(crate) workspace: String,
    pub(crate) lifecycle: String,
    pub(crate) status: String,
    /// When its scripts began, since 1970.
    pub(crate) started_at: Option<Duration>,
    /// When its scripts were done, since 1970.
    pub(crate) ready_at: Option<Duration>,
}

impl AgentState {
    /// Finds it in a list of workspaces.
    pub(crate) fn of_list(list: &Value, workspace: &str) -> Result<Self> {
        let workspace = list
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == workspace))
            .with_context(|| format!("no workspace {workspace:?} in the list"))?;
        let id = workspace["id"].as_str().unwrap_or_default();
        let agent = workspace["latest_build"]["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|resource| resource["agents"].as_array()?.first())
            .context("the workspace has no agent")?;
        let text = |name: &str| agent[name].as_str().unwrap_or_default();
        Ok(Self {
            workspace: id.to_owned(),
            lifecycle: text("lifecycle_state").to_owned(),
            status: text("status").to_owned(),
            started_at: since_1970(text("started_at")),
            ready_at: since_1970(text("ready_at")),
        })
    }
}

/// Reads `2026-11-21T14:45:04.123456Z`, with `Z` or an offset.
pub(crate) fn since_1970(text: &str) -> Option<Duration> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').map_or("", |rest| {
        rest.find(|c: char| !c.is_ascii_digit())
            .map_or(rest, |end| &rest[..end])
    });
    let zone = rest.trim_start_matches('.').trim_start_matches(digits);
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(0..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let part = |range: std::ops::Range<usize>| zone.get(range)?.parse::<i64>().ok();
            sign * (part(1..3)? * 3600 + part(4..6)? * 60)
        }
    };
    // Days since 1970 by the usual shift of the year to March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let nanos: u32 = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read() {
        let at = |text| since_1970(text).unwrap();
        assert_eq!(at("1970-01-01T00:00:00Z"), Duration::ZERO);
        assert_eq!(
            at("2024-02-29T12:00:00.25Z"),
            Duration::from_millis(1_709_208_000_250)
        );
        assert_eq!(
            at("2026-11-21T15:00:00.123456789+01:00"),
            at("2026-11-21T14:00:00.123456789Z")
        );
        assert_eq!(
            at("2026-11-21T14:00:00.123456789Z").subsec_nanos(),
            123_456_789
        );
        for bad in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T14:00:00",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(since_1970(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_agent_is_found() {
        let list = json!([
            {"name": "other"},
            {"name": "dev", "id": "1", "latest_build": {"resources": [
                {"agents": null},
                {"agents": [{"lifecycle_state": "ready", "status": "connected",
                    "started_at": "2026-11-21T14:00:00Z", "ready_at": null}]},
            ]}},
        ]);
        let state = AgentState::of_list(&list, "dev").unwrap();
        assert_eq!(state.workspace, "1");
        assert_eq!(state.lifecycle, "ready");
        assert_eq!(state.status, "connected");
        assert!(state.started_at.is_some());
        assert_eq!(state.ready_at, None);
        assert!(AgentState::of_list(&list, "other").is_err());
        assert!(AgentState::of_list(&list, "none").is_err());
    }
}
