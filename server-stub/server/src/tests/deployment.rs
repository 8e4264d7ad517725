//! Answers about what a deployment has, and about what it has not.

use super::*;

#[tokio::test]
async fn notifications_are_switched_off_for_good() {
    let api = api().await;
    let (_, admin) = api.user("alice", &["owner"]).await;
    let (_, member) = api.user("bob", &[]).await;
    let path = "/api/v2/notifications/settings";
    let set = async |token: &str, paused: Value| {
        let body = json!({"notifier_paused": paused});
        api.call(token, "PUT", path, body).await
    };
    let (on, off) = (
        json!({"notifier_paused": false}),
        json!({"notifier_paused": true}),
    );
    let get = async || api.call(&member, "GET", path, Value::Null).await;
    assert_eq!(get().await, (200, on));
    assert_eq!(set(&member, json!(true)).await.0, 403);
    assert_eq!(set(&admin, json!(true)).await, (200, off.clone()));
    assert_eq!(set(&admin, json!(true)).await.0, 304);
    assert_eq!(get().await, (200, off));
    assert_eq!(set(&admin, json!("no")).await.0, 400);
}

#[tokio::test]
async fn what_there_is_none_of() {
    let api = api().await;
    let (owner, admin) = api.user("alice", &["owner"]).await;
    let (_, auditor) = api.user("ada", &["auditor"]).await;
    let (_, member) = api.user("bob", &[]).await;
    let (workspace, _) = api.workspace(owner, "dev").await;
    let acl = format!("workspaces/{workspace}/acl");
    for (token, path, status, reply) in [
        (
            &admin,
            acl.as_str(),
            200,
            Some(json!({"users": [], "group": []})),
        ),
        (&member, acl.as_str(), 404, None),
        (&admin, "users/me/secrets", 200, Some(json!([]))),
        (&member, "users/alice/secrets", 404, None),
        (&admin, "tasks/me/x", 404, None),
        (
            &auditor,
            "audit",
            200,
            Some(json!({"audit_logs": [], "count": 0, "count_cap": 2000})),
        ),
        (&member, "audit", 403, None),
        (
            &admin,
            "connectionlog",
            404,
            Some(json!({"message": "Route not found."})),
        ),
    ] {
        let path = format!("/api/v2/{path}");
        let (got, body) = api.call(token, "GET", &path, Value::Null).await;
        assert_eq!(got, status, "{path}: {body}");
        if let Some(reply) = reply {
            assert_eq!(body, reply, "{path}");
        }
    }
}
