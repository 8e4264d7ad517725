//! Keys that may do less than their user, and what is removed with time.

use adit_store::model::AgentStats;

use super::*;
use crate::upkeep;

impl Api {
    /// A token with limits, made by another one.
    async fn limited(&self, by: &str, scopes: Value, allow: Value) -> (u16, String) {
        let body = json!({"scopes": scopes, "allow_list": allow});
        let path = "/api/v2/users/me/keys/tokens";
        let (status, reply) = self.call(by, "POST", path, body).await;
        let key = reply["key"].as_str().unwrap_or_default();
        (status, key.to_owned())
    }
}

#[tokio::test]
async fn a_limited_key_reaches_what_it_names() {
    let api = api().await;
    let (id, token) = api.user("alice", &["owner"]).await;
    let (dev, agent) = api.workspace(id, "dev").await;
    let (other, _) = api.workspace(id, "other").await;
    let (status, reader) = api
        .limited(&token, json!(["workspace:read"]), json!([]))
        .await;
    assert_eq!(status, 201);
    let get = async |token: &str, path: &str| {
        let path = format!("/api/v2{path}");
        api.call(token, "GET", &path, Value::Null).await.0
    };
    assert_eq!(get(&reader, "/workspaces").await, 200);
    assert_eq!(get(&reader, &format!("/workspaces/{dev}")).await, 200);
    assert_eq!(get(&reader, "/users/me/workspace/dev").await, 200);
    assert_eq!(
        get(&reader, &format!("/workspaceagents/{agent}")).await,
        200
    );
    for path in [
        "/users/me".to_owned(),
        "/templates".to_owned(),
        "/tailnet?version=2.0".to_owned(),
        "/users/me/keys/tokens".to_owned(),
        "/deployment/config".to_owned(),
        format!("/workspaceagents/{agent}/connection"),
        format!("/workspaceagents/{agent}/coordinate?version=2.0"),
    ] {
        assert_eq!(get(&reader, &path).await, 403, "{path}");
    }
    let stop = json!({"transition": "stop"});
    let builds = format!("/api/v2/workspaces/{dev}/builds");
    let starter = json!(["workspace:read", "workspace:start"]);
    let (_, starter) = api.limited(&token, starter, json!([])).await;
    for limited in [&reader, &starter] {
        let (status, _) = api.call(limited, "POST", &builds, stop.clone()).await;
        assert_eq!(status, 403);
    }

    let one = json!([format!("workspace:{dev}")]);
    let (_, one) = api.limited(&token, json!(["coder:all"]), one).await;
    let list = api.call(&one, "GET", "/api/v2/workspaces", Value::Null);
    let (_, list) = list.await;
    assert_eq!(
        (&list["count"], &list["workspaces"][0]["name"]),
        (&json!(1), &json!("dev"))
    );
    assert_eq!(get(&one, &format!("/workspaces/{other}")).await, 404);
    assert_eq!(get(&one, "/users/me/workspace/other").await, 404);
    assert_eq!(get(&one, "/users/me").await, 403);
    assert_eq!(api.call(&one, "POST", &builds, stop).await.0, 201);
}

#[tokio::test]
async fn no_key_makes_a_stronger_one() {
    let api = api().await;
    let (_, token) = api.user("alice", &["owner"]).await;
    for (scopes, allow) in [
        (json!(["workspace:fly"]), json!([])),
        (json!(["workspace:read"]), json!(["workspace:dev"])),
    ] {
        assert_eq!(api.limited(&token, scopes, allow).await.0, 400);
    }
    let scopes = json!(["api_key:create", "workspace:read"]);
    let (status, limited) = api.limited(&token, scopes, json!([])).await;
    assert_eq!(status, 201);
    let make = async |scopes: Value| api.limited(&limited, scopes, json!([])).await.0;
    assert_eq!(make(json!(["workspace:read"])).await, 201);
    assert_eq!(make(json!(["workspace:ssh"])).await, 403);
    assert_eq!(make(json!(["coder:all"])).await, 403);
    // Without scopes it would be one without limits.
    assert_eq!(make(json!([])).await, 403);
    let session = api.call(&limited, "POST", "/api/v2/users/me/keys", Value::Null);
    assert_eq!(session.await.0, 403);
}

#[tokio::test]
async fn what_is_old_goes_in_batches() {
    let api = api().await;
    let store = &api.app.store;
    let (id, _) = api.user("alice", &["owner"]).await;
    let (workspace, agent) = api.workspace(id, "dev").await;
    let now = Time::now();
    let stats = |days: i64| AgentStats {
        agent_id: agent,
        workspace_id: workspace,
        user_id: id,
        created_at: now.plus_micros(-days * 24 * 3_600_000_000),
        ..AgentStats::default()
    };
    // More than one step takes.
    for _ in 0..1_005 {
        store.insert_stats(&stats(8)).await.unwrap();
    }
    store.insert_stats(&stats(6)).await.unwrap();
    let mut expired = new_key(id, LoginType::Token, 60, "old");
    expired.key.expires_at = now.plus_micros(-8 * 24 * 3_600_000_000);
    store.insert_key(&expired.key).await.unwrap();

    upkeep::purge(&api.app, now).await;
    assert!(store.key(&expired.key.id).await.unwrap().is_none());
    let left = store.purge(
        adit_store::Purge::AgentStats,
        now.plus_micros(10 * 24 * 3_600_000_000),
    );
    assert_eq!(left.await.unwrap().rows, 1);
}
