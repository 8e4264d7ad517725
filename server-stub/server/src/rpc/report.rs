//! Reads what agents report, within the limits of the agent API.

use adit_messages::agent as pb;
use adit_rest::{AppHealth, AppState, LifecycleState, LogLevel, ScriptStatus, Time};
use adit_store::{MetadataValue, NewAgentLog};
use uuid::Uuid;

/// The source of log lines that name none.
pub(crate) const EXTERNAL_LOG_SOURCE: Uuid =
    Uuid::from_u128(0x3b57_9bf4_1ed8_4b99_87a8_e9a1_e341_0410);

/// The most bytes kept of a metadata value or error.
const MAX_METADATA_BYTES: usize = 2048;

/// The most bytes the keys of one metadata report may have together.
const MAX_METADATA_KEY_BYTES: usize = 6144;

/// The longest message of an app status, in bytes.
const MAX_STATUS_BYTES: usize = 160;

/// Why a report is refused; the text reaches the agent.
pub(crate) type Refused = String;

/// Reads a UUID field.
pub(crate) fn id(bytes: &[u8], what: &str) -> Result<Uuid, Refused> {
    Uuid::from_slice(bytes)
        .map_err(|_| format!("parse {what}: invalid UUID (got {} bytes)", bytes.len()))
}

/// Reads a time; absent ones are 1970, as they are for the reference.
pub(crate) fn time(timestamp: Option<&prost_types::Timestamp>) -> Time {
    let timestamp = timestamp.copied().unwrap_or_default();
    Time::from_micros(
        timestamp
            .seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(timestamp.nanos) / 1000),
    )
}

/// Reads a lifecycle report.
pub(crate) fn lifecycle(
    request: &pb::UpdateLifecycleRequest,
) -> Result<(LifecycleState, Time), Refused> {
    use pb::lifecycle::State;
    let lifecycle = request.lifecycle.as_ref().ok_or("lifecycle is missing")?;
    let state = match lifecycle.state() {
        State::Created => LifecycleState::Created,
        State::Starting => LifecycleState::Starting,
        State::StartTimeout => LifecycleState::StartTimeout,
        State::StartError => LifecycleState::StartError,
        State::Ready => LifecycleState::Ready,
        State::ShuttingDown => LifecycleState::ShuttingDown,
        State::ShutdownTimeout => LifecycleState::ShutdownTimeout,
        State::ShutdownError => LifecycleState::ShutdownError,
        State::Off => LifecycleState::Off,
        State::Unspecified => {
            // The name for a missing state, the number for one of a newer API.
            let number = lifecycle.state.to_string();
            let name = if lifecycle.state == 0 {
                "STATE_UNSPECIFIED"
            } else {
                number.as_str()
            };
            return Err(format!("unknown lifecycle state {name:?}"));
        }
    };
    Ok((state, time(lifecycle.changed_at.as_ref())))
}

/// Checks what an agent says about its program.
pub(crate) fn startup(startup: &pb::Startup) -> Result<Vec<String>, Refused> {
    if !is_semver(&startup.version) {
        return Err(format!(
            "invalid agent semver version {:?}",
            startup.version
        ));
    }
    let mut subsystems = Vec::new();
    for subsystem in startup.subsystems() {
        subsystems.push(match subsystem {
            pb::startup::Subsystem::Envbox => "envbox",
            pb::startup::Subsystem::Envbuilder => "envbuilder",
            pb::startup::Subsystem::Exectrace => "exectrace",
            pb::startup::Subsystem::Unspecified => return Err("invalid agent subsystem".into()),
        });
    }
    subsystems.sort_unstable();
    subsystems.dedup();
    Ok(subsystems.into_iter().map(str::to_owned).collect())
}

/// Whether the text is `vMAJOR[.MINOR[.PATCH[-pre][+build]]]`, as Go's semver
/// package reads it.
fn is_semver(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('v') else {
        return false;
    };
    let (rest, build) = rest
        .split_once('+')
        .map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let identifiers = |text: &str| {
        text.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let numbers: Vec<_> = core.split('.').collect();
    let complete = numbers.len() == 3;
    numbers.len() <= 3
        && numbers.into_iter().all(number)
        && pre.is_none_or(|pre| complete && identifiers(pre))
        && build.is_none_or(|build| complete && identifiers(build))
}

/// Reads log lines. Their times are not taken over: clocks of workspaces differ.
pub(crate) fn log_lines(logs: Vec<pb::Log>) -> Vec<NewAgentLog> {
    logs.into_iter()
        .map(|log| {
            let level = match log.level() {
                pb::log::Level::Trace => LogLevel::Trace,
                pb::log::Level::Debug => LogLevel::Debug,
                pb::log::Level::Warn => LogLevel::Warn,
                pb::log::Level::Error => LogLevel::Error,
                pb::log::Level::Info | pb::log::Level::Unspecified => LogLevel::Info,
            };
            NewAgentLog {
                level,
                output: log.output,
            }
        })
        .collect()
}

/// Reads metadata up to the first key that makes them too many. The error, if
/// any, is for after the others were stored.
pub(crate) fn metadata(
    request: pb::BatchUpdateMetadataRequest,
) -> (Vec<MetadataValue>, Result<(), Refused>) {
    let mut key_bytes = 0;
    let mut values = Vec::with_capacity(request.metadata.len().min(64));
    for item in request.metadata {
        key_bytes += item.key.len();
        if key_bytes > MAX_METADATA_KEY_BYTES {
            let text = format!(
                "metadata keys of {key_bytes} bytes exceeded {MAX_METADATA_KEY_BYTES} bytes"
            );
            return (values, Err(text));
        }
        let result = item.result.unwrap_or_default();
        let mut value = result.value.trim().to_owned();
        let mut error = result.error.trim().to_owned();
        if value.len() > MAX_METADATA_BYTES {
            error = format!(
                "value of {} bytes exceeded {MAX_METADATA_BYTES} bytes",
                value.len()
            );
            value.truncate(floor_char_boundary(&value, MAX_METADATA_BYTES));
        }
        if error.len() > MAX_METADATA_BYTES {
            error = format!(
                "error of {} bytes exceeded {MAX_METADATA_BYTES} bytes",
                error.len()
            );
        }
        values.push(MetadataValue {
            key: item.key,
            value,
            error,
        });
    }
    (values, Ok(()))
}

fn floor_char_boundary(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Reads the health of an app.
pub(crate) fn app_health(health: pb::AppHealth) -> Result<AppHealth, Refused> {
    match health {
        pb::AppHealth::Disabled => Ok(AppHealth::Disabled),
        pb::AppHealth::Initializing => Ok(AppHealth::Initializing),
        pb::AppHealth::Healthy => Ok(AppHealth::Healthy),
        pb::AppHealth::Unhealthy => Ok(AppHealth::Unhealthy),
        pb::AppHealth::Unspecified => Err(format!("unknown health status {:?}", health as i32)),
    }
}

/// Reads the report of a task.
pub(crate) fn app_status(request: &pb::UpdateAppStatusRequest) -> Result<AppState, Refused> {
    use pb::update_app_status_request::AppStatusState;
    if request.message.len() > MAX_STATUS_BYTES {
        return Err("Message is too long.".into());
    }
    match AppStatusState::try_from(request.state) {
        Ok(AppStatusState::Working) => Ok(AppState::Working),
        Ok(AppStatusState::Idle) => Ok(AppState::Idle),
        Ok(AppStatusState::Complete) => Ok(AppState::Complete),
        Ok(AppStatusState::Failure) => Ok(AppState::Failure),
        Err(_) => Err(format!("Invalid state: {}", request.state)),
    }
}

/// Makes one line of a task's message.
pub(crate) fn clean_message(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads the stage and status of a script run.
pub(crate) fn timing(timing: &pb::Timing) -> Result<(&'static str, ScriptStatus), Refused> {
    use pb::timing::{Stage, Status};
    let stage = match Stage::try_from(timing.stage) {
        Ok(Stage::Start) => "start",
        Ok(Stage::Stop) => "stop",
        Ok(Stage::Cron) => "cron",
        Err(_) => return Err(format!("unknown script stage {}", timing.stage)),
    };
    let status = match Status::try_from(timing.status) {
        Ok(Status::Ok) => ScriptStatus::Ok,
        Ok(Status::ExitFailure) => ScriptStatus::ExitFailure,
        Ok(Status::TimedOut) => ScriptStatus::TimedOut,
        Ok(Status::PipesLeftOpen) => ScriptStatus::PipesLeftOpen,
        Err(_) => return Err(format!("unknown script status {}", timing.status)),
    };
    Ok((stage, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_need_a_leading_v() {
        for good in [
            "v0.1.0",
            "v2.25.1+abc1234",
            "v0.0.0-devel+abc1234",
            "v1",
            "v1.2",
        ] {
            assert!(is_semver(good), "{good}");
        }
        for bad in [
            "", "0.1.0", "v", "v1.2.3.4", "v01.0.0", "v1.2-pre", "v1.0.0-", "v1.0.0+", "vx.y.z",
        ] {
            assert!(!is_semver(bad), "{bad}");
        }
    }

    fn item(key: &str, value: &str) -> pb::Metadata {
        let result = pb::workspace_agent_metadata::Result {
            value: value.into(),
            ..Default::default()
        };
        pb::Metadata {
            key: key.into(),
            result: Some(result),
        }
    }

    #[test]
    fn metadata_values_are_trimmed_and_limited() {
        let request = pb::BatchUpdateMetadataRequest {
            metadata: vec![item("a", " x \n"), item("b", &"y".repeat(3000))],
        };
        let (values, result) = metadata(request);
        assert_eq!(result, Ok(()));
        assert_eq!(values[0].value, "x");
        assert_eq!(values[1].value.len(), 2048);
        assert_eq!(values[1].error, "value of 3000 bytes exceeded 2048 bytes");
    }

    #[test]
    fn too_many_metadata_keys_end_the_batch() {
        let request = pb::BatchUpdateMetadataRequest {
            metadata: vec![item(&"a".repeat(6144), ""), item("b", ""), item("c", "")],
        };
        let (values, result) = metadata(request);
        assert_eq!(values.len(), 1);
        assert_eq!(
            result,
            Err("metadata keys of 6145 bytes exceeded 6144 bytes".into())
        );
    }

    #[test]
    fn lifecycle_needs_a_known_state() {
        assert!(lifecycle(&pb::UpdateLifecycleRequest { lifecycle: None }).is_err());
        let unspecified = pb::Lifecycle {
            state: 0,
            changed_at: None,
        };
        assert!(
            lifecycle(&pb::UpdateLifecycleRequest {
                lifecycle: Some(unspecified)
            })
            .is_err()
        );
        let ready = pb::Lifecycle {
            state: 5,
            changed_at: Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 2000,
            }),
        };
        assert_eq!(
            lifecycle(&pb::UpdateLifecycleRequest {
                lifecycle: Some(ready)
            }),
            Ok((LifecycleState::Ready, Time::from_micros(1_000_002)))
        );
    }
}
