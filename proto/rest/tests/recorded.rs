//! Every recorded reply of a real server reads into its type and writes back
//! the same keys and values.

#![allow(clippy::unwrap_used)]

use adit_rest as rest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads and writes; `None` if the text does not fit the type.
fn turn<T: DeserializeOwned + Serialize>(value: &Value) -> Option<Value> {
    let typed: T = serde_json::from_value(value.clone()).ok()?;
    serde_json::to_value(typed).ok()
}

/// The type behind a request.
fn through(request: &str, status: u64, value: &Value) -> Option<Option<Value>> {
    let (method, path) = request.split_once(' ')?;
    let path = path.split('?').next()?.strip_prefix("/api/v2/")?;
    let parts: Vec<&str> = path.split('/').collect();
    if status >= 400 {
        return Some(turn::<rest::Response>(value));
    }
    Some(match (method, parts.as_slice()) {
        ("GET", ["users", "first"]) => turn::<rest::Response>(value),
        ("POST", ["users", "first"]) => turn::<rest::CreateFirstUserResponse>(value),
        ("GET", ["users", "authmethods"]) => turn::<rest::AuthMethods>(value),
        ("POST", ["users", "login"]) => turn::<rest::LoginResponse>(value),
        ("GET", ["users"]) => turn::<rest::UsersResponse>(value),
        ("GET", ["users", "roles"]) => return None,
        ("GET", ["users", _]) | ("POST", ["users"]) => turn::<rest::User>(value),
        ("POST", ["users", _, "keys" | "keys/tokens"]) => {
            turn::<rest::GenerateApiKeyResponse>(value)
        }
        ("GET", ["users", _, "keys", "tokens"]) => turn::<Vec<rest::ApiKeyWithOwner>>(value),
        ("GET", ["users", _, "keys", "tokens", "tokenconfig"]) => turn::<rest::TokenConfig>(value),
        ("GET", ["users", _, "keys", "tokens", _]) => turn::<rest::ApiKey>(value),
        ("GET" | "PUT", ["users", _, "gitsshkey"]) => turn::<rest::GitSshKey>(value),
        ("GET", ["users", _, "organizations"] | ["organizations"]) => {
            turn::<Vec<rest::Organization>>(value)
        }
        ("GET", ["organizations", _]) => turn::<rest::Organization>(value),
        ("GET", ["organizations", _, "members", user]) if !matches!(*user, "" | "roles") => {
            turn::<rest::OrganizationMember>(value)
        }
        ("GET", ["workspaces"]) => turn::<rest::WorkspacesResponse>(value),
        ("GET", ["workspaces", _] | ["users", _, "workspace", _]) => turn::<rest::Workspace>(value),
        ("POST", ["users", _, "workspaces"]) => turn::<rest::Workspace>(value),
        ("GET", ["workspacebuilds", _]) | ("POST", ["workspaces", _, "builds"]) => {
            turn::<rest::WorkspaceBuild>(value)
        }
        ("GET", ["workspacebuilds", _, "parameters"]) => turn::<Vec<rest::BuildParameter>>(value),
        ("GET", ["workspaceagents", "connection"] | ["workspaceagents", _, "connection"]) => {
            turn::<rest::AgentConnectionInfo>(value)
        }
        ("GET", ["workspaceagents", _]) => turn::<rest::WorkspaceAgent>(value),
        ("GET", ["templates"]) => turn::<Vec<rest::Template>>(value),
        ("GET", ["templates", _]) => turn::<rest::Template>(value),
        ("GET", ["templateversions", _]) => turn::<rest::TemplateVersion>(value),
        ("GET", ["templateversions", _, "presets"]) => turn::<Option<Vec<rest::Preset>>>(value),
        ("GET", ["templateversions", _, "rich-parameters"]) => {
            turn::<Vec<rest::TemplateVersionParameter>>(value)
        }
        ("POST", ["templateversions", _, "dynamic-parameters", "evaluate"]) => {
            turn::<rest::DynamicParametersResponse>(value)
        }
        (_, ["templateversions", _, "dry-run"] | ["templateversions", _, "dry-run", _]) => {
            turn::<rest::ProvisionerJob>(value)
        }
        ("GET", ["templateversions", _, "dry-run", _, "resources"]) => {
            turn::<Vec<rest::Resource>>(value)
        }
        ("GET", ["buildinfo"]) => turn::<rest::BuildInfo>(value),
        ("GET", ["appearance"]) => turn::<rest::Appearance>(value),
        ("GET", ["deployment", "ssh"]) => turn::<rest::SshConfig>(value),
        ("GET", ["regions"]) => turn::<rest::RegionsResponse>(value),
        ("GET", ["applications", "host"]) => turn::<rest::AppHostResponse>(value),
        ("GET", ["updatecheck"]) => turn::<rest::UpdateCheck>(value),
        _ => return None,
    })
}

/// Empty lists stand for `null`; everything else must be equal.
fn same(recorded: &Value, ours: &Value) -> bool {
    match (recorded, ours) {
        (Value::Null, Value::Array(items)) => items.is_empty(),
        (Value::Null, Value::Object(items)) => items.is_empty(),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

#[test]
fn recorded_replies_survive_the_types() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/rest");
    let mut checked = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().skip(1) {
            let line = line.replace("\"@\"", "\"2026-11-21T13:02:05.272171Z\"");
            let exchange: Value = serde_json::from_str(&line).unwrap();
            let Some(json) = exchange.get("json") else {
                continue;
            };
            if line.contains("\"$brief\"") {
                continue;
            }
            let request = exchange["req"].as_str().unwrap();
            let status = exchange["status"].as_u64().unwrap();
            let Some(turned) = through(request, status, json) else {
                continue;
            };
            let turned = turned.unwrap_or_else(|| panic!("{path:?} {request}: does not read"));
            assert!(
                same(json, &turned),
                "{path:?} {request}\nrecorded {json}\nours     {turned}"
            );
            checked += 1;
        }
    }
    assert!(checked > 200, "only {checked} replies checked");
}
