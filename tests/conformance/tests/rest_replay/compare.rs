//! Whether a reply says the same as the recorded one: the same keys, types,
//! enum values, sentences and order, whatever the ids, times and numbers.

use serde_json::Value;

/// Marks an object of which only the listed keys were kept because an equal one
/// came before.
pub const BRIEF: &str = "$brief";

/// Keys whose text may differ.
const FREE_TEXT: &[&str] = &[
    "detail",
    "key",
    "public_key",
    "private_key",
    "session_token",
    "deployment_id",
    "version",
    "upgrade_message",
    "external_url",
    "dashboard_url",
    "url",
    "path_app_url",
    "readme",
    "webpush_public_key",
    "worker_name",
    "HostName",
    "docs_url",
    "troubleshooting_url",
    "icon_url",
    "api_version",
    "collected_at",
    "date",
    // Empty in some replies of the recorded server.
    "template_version_name",
];

/// Keys that may be there or not.
const OPTIONAL: &[&str] = &[
    // Progress of a job or an agent, which runs at its own pace.
    "started_at",
    "completed_at",
    "worker_id",
    "first_connected_at",
    "last_connected_at",
    "disconnected_at",
    "ready_at",
    "latency",
    "exit_code",
    // The recorded server can send browser notifications.
    "webpush_public_key",
];

/// Keys whose value may be `null` on either side.
const NULLABLE: &[&str] = &[
    "P50",
    "P95",
    "most_recently_seen",
    "deadline",
    "next_start_at",
    "template_version_preset_id",
];

/// Long arrays of equal shape of which only the first item was kept.
const FIRST_ONLY: &[&str] = &[
    "entries",
    "site_permissions",
    "organization_permissions",
    "user_permissions",
    "organization_member_permissions",
];

/// Arrays whose order is free; compared as sets of shapes.
const UNORDERED: &[&str] = &[
    "roles",
    "log_sources",
    "scripts",
    "failing_agents",
    "display_apps",
    "global_roles",
];

fn is_time(text: &str) -> bool {
    text == "@" || text.parse::<adit_rest::Time>().is_ok()
}

fn is_uuid(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Adds every difference to `out`.
pub fn compare(path: &str, recorded: &Value, ours: &Value, out: &mut Vec<String>) {
    let key = path.rsplit('.').next().unwrap_or("").trim_end_matches("[]");
    match (recorded, ours) {
        (Value::Null, _) | (_, Value::Null) if NULLABLE.contains(&key) => {}
        // Strict clients want an empty list where the recorded server says null.
        (Value::Null, Value::Array(b)) if b.is_empty() => {}
        (Value::Null, Value::Object(b)) if b.is_empty() => {}
        (Value::Object(a), Value::Object(b)) => {
            let brief = a.contains_key(BRIEF);
            for (name, value) in a {
                match b.get(name) {
                    Some(other) => compare(&format!("{path}.{name}"), value, other, out),
                    None if name == BRIEF || OPTIONAL.contains(&name.as_str()) => {}
                    None => out.push(format!("{path}.{name}: missing")),
                }
            }
            for name in b.keys() {
                if !brief && !a.contains_key(name) && !OPTIONAL.contains(&name.as_str()) {
                    out.push(format!("{path}.{name}: not in the recording"));
                }
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if FIRST_ONLY.contains(&key) && a.len() == 1 {
                if let Some(first) = b.first() {
                    compare(&format!("{path}[]"), &a[0], first, out);
                }
                return;
            }
            if a.len() != b.len() {
                out.push(format!("{path}: {} items, recorded {}", b.len(), a.len()));
                return;
            }
            if UNORDERED.contains(&key) || (path.is_empty() && has_no_order(a)) {
                return compare_unordered(path, a, b, out);
            }
            let (a, b) = (roles_by_name(a), roles_by_name(b));
            for (a, b) in a.into_iter().zip(b) {
                compare(&format!("{path}[]"), a, b, out);
            }
        }
        (Value::String(a), Value::String(b)) => {
            // An agent checks apps at its own pace.
            let app_health = path.ends_with("apps[].health");
            let same = a == b
                || (app_health && adit_rest::AppHealth::parse(b).is_some())
                || FREE_TEXT.contains(&key)
                || (is_time(a) && is_time(b))
                || (is_uuid(a) && is_uuid(b))
                || (a.starts_with("keyid") && b.len() >= 10);
            if !same && !path.contains("environment_variables") {
                out.push(format!("{path}: {b:?}, recorded {a:?}"));
            }
        }
        (Value::Bool(a), Value::Bool(b)) => {
            if a != b {
                out.push(format!("{path}: {b}, recorded {a}"));
            }
        }
        (a, b) => {
            if kind(a) != kind(b) {
                out.push(format!("{path}: {}, recorded {}", kind(b), kind(a)));
            }
        }
    }
}

/// Lists the recorded server gives in a changing order: values of a build, and
/// resources of a dry run.
fn has_no_order(items: &[Value]) -> bool {
    items.iter().all(|item| {
        let values = item
            .as_object()
            .is_some_and(|item| item.len() == 2 && item.contains_key("value"));
        values || item.get("workspace_transition").is_some()
    })
}

/// Roles have no order; other lists keep theirs.
fn roles_by_name(items: &[Value]) -> Vec<&Value> {
    let mut items: Vec<&Value> = items.iter().collect();
    if items.iter().all(|item| item.get("assignable").is_some()) {
        items.sort_by_key(|item| item["name"].as_str().unwrap_or_default());
    }
    items
}

/// Each recorded item must have a partner.
fn compare_unordered(path: &str, a: &[Value], b: &[Value], out: &mut Vec<String>) {
    let mut left: Vec<&Value> = b.iter().collect();
    for item in a {
        let partner = left.iter().position(|other| {
            let mut differences = Vec::new();
            compare(&format!("{path}[]"), item, other, &mut differences);
            differences.is_empty()
        });
        match partner {
            Some(index) => {
                left.remove(index);
            }
            None => {
                let mut why = Vec::new();
                if let Some(first) = left.first() {
                    compare(&format!("{path}[]"), item, first, &mut why);
                }
                out.push(format!("{path}[]: no partner for {item}: {why:?}"));
            }
        }
    }
}

/// Pairs ids that stand at the same place.
pub fn learn(recorded: &Value, ours: &Value, found: &mut impl FnMut(&str, &str)) {
    match (recorded, ours) {
        (Value::String(a), Value::String(b)) => found(a, b),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (a, b) in a.iter().zip(b) {
                learn(a, b, found);
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                if let Some(other) = b.get(name) {
                    learn(value, other, found);
                }
            }
        }
        _ => {}
    }
}
