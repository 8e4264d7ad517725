//! The API as a whole, without a network: requests go straight to the router.

#![allow(clippy::unwrap_used)]

mod deployment;
mod limits;
mod provisioners;

use std::time::Duration;

use adit_rest::{LoginType, Time, UserStatus};
use adit_store::model::PREBUILDS_USER;
use adit_store::spec::ResourceSpec;
use adit_store::{BuildResult, NewBuild, NewUser, NewWorkspace, Store};
use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{new_key, session_key};
use crate::config::Config;

struct Api {
    app: App,
    router: TowerToHyperService<Router>,
    _dir: tempfile::TempDir,
}

async fn api() -> Api {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("adit.db")).await.unwrap();
    crate::template::ensure_builtin(&store).await.unwrap();
    let config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let url = "http://127.0.0.1:3000".parse().unwrap();
    let app = App::new(store, config, url).await.unwrap();
    Api {
        router: TowerToHyperService::new(crate::http::router(app.clone())),
        app,
        _dir: dir,
    }
}

impl Api {
    async fn user(&self, name: &str, roles: &[&str]) -> (Uuid, String) {
        let organization = self.app.store.default_organization().await.unwrap();
        let new = NewUser {
            username: name.into(),
            email: format!("{name}@example.com"),
            status: UserStatus::Active,
            login_type: LoginType::Password,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..NewUser::default()
        };
        let user = self
            .app
            .store
            .create_user(&new, &[organization.id])
            .await
            .unwrap();
        let key = session_key(&self.app, user.id);
        self.app.store.insert_key(&key.key).await.unwrap();
        (user.id, key.token)
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.call(request).await.unwrap()
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Coder-Session-Token", token)
            .body(Body::from(body.to_string()))
            .unwrap();
        let reply = self.send(request).await;
        let status = reply.status().as_u16();
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A running workspace with one agent.
    async fn workspace(&self, owner: Uuid, name: &str) -> (Uuid, Uuid) {
        let template = self.app.store.templates().await.unwrap().remove(0);
        let new = NewWorkspace {
            owner_id: owner,
            organization_id: template.organization_id,
            template_id: template.id,
            name: name.into(),
            automatic_updates: adit_rest::AutomaticUpdates::Never,
            ..NewWorkspace::default()
        };
        let build = NewBuild {
            template_version_id: template.active_version_id,
            initiator_id: owner,
            ..NewBuild::default()
        };
        let made = self.app.store.create_workspace(&new, &build).await.unwrap();
        let version = self
            .app
            .store
            .version(template.active_version_id)
            .await
            .unwrap();
        let resources: Vec<ResourceSpec> = version.spec.resources;
        self.app.store.acquire_job(Uuid::new_v4()).await.unwrap();
        let result = BuildResult {
            resources,
            state: None,
        };
        self.app
            .store
            .complete_build(made.job.id, &result)
            .await
            .unwrap();
        let agents = self.app.store.agents_of_job(made.job.id).await.unwrap();
        (made.workspace.id, agents[0].id)
    }
}

#[tokio::test]
async fn strangers_see_nothing_of_a_workspace() {
    let api = api().await;
    let (owner, _) = api.user("alice", &[]).await;
    let (_, stranger) = api.user("mallory", &[]).await;
    let (workspace, agent) = api.workspace(owner, "dev").await;
    let build = api.app.store.latest_build(workspace).await.unwrap().id;
    let key = session_key(&api.app, owner);
    api.app.store.insert_key(&key.key).await.unwrap();
    let key = key.key.id;
    for (method, path) in [
        ("GET", format!("workspaces/{workspace}")),
        ("PATCH", format!("workspaces/{workspace}")),
        ("GET", format!("workspaces/{workspace}/watch")),
        ("GET", format!("workspaces/{workspace}/watch-ws")),
        ("GET", format!("workspaces/{workspace}/builds")),
        ("POST", format!("workspaces/{workspace}/builds")),
        ("GET", format!("workspaces/{workspace}/timings")),
        ("POST", format!("workspaces/{workspace}/usage")),
        ("PUT", format!("workspaces/{workspace}/ttl")),
        ("PUT", format!("workspaces/{workspace}/autostart")),
        ("PUT", format!("workspaces/{workspace}/dormant")),
        ("PUT", format!("workspaces/{workspace}/autoupdates")),
        ("PUT", format!("workspaces/{workspace}/favorite")),
        ("GET", format!("workspacebuilds/{build}")),
        ("GET", format!("workspacebuilds/{build}/logs")),
        ("GET", format!("workspacebuilds/{build}/logs?follow")),
        ("GET", format!("workspacebuilds/{build}/parameters")),
        ("GET", format!("workspacebuilds/{build}/resources")),
        ("GET", format!("workspacebuilds/{build}/state")),
        ("PUT", format!("workspacebuilds/{build}/state")),
        ("PATCH", format!("workspacebuilds/{build}/cancel")),
        ("GET", format!("workspaceagents/{agent}")),
        ("GET", format!("workspaceagents/{agent}/connection")),
        (
            "GET",
            format!("workspaceagents/{agent}/coordinate?version=2.0"),
        ),
        ("GET", format!("workspaceagents/{agent}/logs")),
        ("GET", format!("workspaceagents/{agent}/watch-metadata")),
        ("GET", format!("workspaceagents/{agent}/listening-ports")),
        ("GET", format!("workspaceagents/{agent}/containers")),
        ("GET", format!("workspaceagents/{agent}/containers/watch")),
        (
            "POST",
            format!("workspaceagents/{agent}/containers/devcontainers/x/recreate"),
        ),
        (
            "DELETE",
            format!("workspaceagents/{agent}/containers/devcontainers/x"),
        ),
        (
            "GET",
            format!("workspaceagents/{agent}/pty?reconnect={workspace}"),
        ),
        ("GET", "users/alice".to_owned()),
        ("GET", "users/alice/workspace/dev".to_owned()),
        ("GET", "users/alice/gitsshkey".to_owned()),
        ("POST", "users/alice/keys".to_owned()),
        ("POST", "users/alice/keys/tokens".to_owned()),
        ("GET", "users/alice/keys/tokens".to_owned()),
        ("GET", format!("users/me/keys/{key}")),
        ("DELETE", format!("users/me/keys/{key}")),
        ("PUT", format!("users/me/keys/{key}/expire")),
        ("PUT", "users/alice/profile".to_owned()),
        ("PUT", "users/alice/roles".to_owned()),
        ("PUT", "users/alice/password".to_owned()),
        ("DELETE", "users/alice".to_owned()),
    ] {
        let body = json!({"transition": "stop", "deadline": "2030-01-01T00:00:00Z"});
        let (status, reply) = api
            .call(&stranger, method, &format!("/api/v2/{path}"), body)
            .await;
        assert_eq!(status, 404, "{method} {path}: {reply}");
    }
    let (_, list) = api
        .call(&stranger, "GET", "/api/v2/workspaces", Value::Null)
        .await;
    assert_eq!(list["count"], 0);
    assert!(api.app.store.key(&key).await.unwrap().is_some());
}

#[tokio::test]
async fn members_cannot_administrate() {
    let api = api().await;
    let (_, member) = api.user("bob", &[]).await;
    for (method, path) in [
        ("GET", "deployment/config"),
        ("GET", "debug/health"),
        ("PUT", "users/me/roles"),
        ("PUT", "users/me/status/suspend"),
        ("DELETE", "users/me"),
    ] {
        let path = format!("/api/v2/{path}");
        let (status, _) = api
            .call(&member, method, &path, json!({"roles": ["owner"]}))
            .await;
        assert_eq!(status, 403, "{method} {path}");
    }
    let organization = api.app.store.default_organization().await.unwrap().id;
    let new = json!({
        "email": "eve@example.com", "username": "eve", "password": "Password-0001-example",
        "organization_ids": [organization],
    });
    let (status, _) = api.call(&member, "POST", "/api/v2/users", new).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn keys_end() {
    let api = api().await;
    let (id, token) = api.user("alice", &["owner"]).await;
    let me = "/api/v2/users/me";
    assert_eq!(api.call(&token, "GET", me, Value::Null).await.0, 200);

    let mut expired = new_key(id, LoginType::Token, 60, "old");
    expired.key.expires_at = Time::now();
    api.app.store.insert_key(&expired.key).await.unwrap();
    assert_eq!(
        api.call(&expired.token, "GET", me, Value::Null).await.0,
        401
    );

    let mut apps_only = new_key(id, LoginType::Token, 60, "apps");
    apps_only.key.scope = "application_connect".into();
    api.app.store.insert_key(&apps_only.key).await.unwrap();
    assert_eq!(
        api.call(&apps_only.token, "GET", me, Value::Null).await.0,
        403
    );

    api.app
        .store
        .set_user_status(id, UserStatus::Suspended)
        .await
        .unwrap();
    assert_eq!(api.call(&token, "GET", me, Value::Null).await.0, 401);
    api.app
        .store
        .set_user_status(id, UserStatus::Active)
        .await
        .unwrap();
    api.app.store.delete_user(id).await.unwrap();
    assert_eq!(api.call(&token, "GET", me, Value::Null).await.0, 401);
}

#[tokio::test]
async fn prebuilt_workspaces_keep_their_schedule() {
    let api = api().await;
    let (_, owner) = api.user("alice", &["owner"]).await;
    let (workspace, _) = api.workspace(PREBUILDS_USER, "prebuild-a").await;
    for (what, body) in [
        ("autostart", json!({"schedule": "0 9 * * *"})),
        ("ttl", json!({"ttl_ms": 3_600_000})),
        ("dormant", json!({"dormant": true})),
        ("extend", json!({"deadline": "2030-01-01T00:00:00Z"})),
    ] {
        let path = format!("/api/v2/workspaces/{workspace}/{what}");
        let (status, reply) = api.call(&owner, "PUT", &path, body).await;
        assert_eq!(status, 409, "{what}: {reply}");
    }
    let path = format!("/api/v2/workspaces/{workspace}/autoupdates");
    let body = json!({"automatic_updates": "always"});
    assert_eq!(api.call(&owner, "PUT", &path, body).await.0, 204);
}

#[tokio::test]
async fn a_browser_needs_more_than_its_cookie_to_change_something() {
    let api = api().await;
    let (_, token) = api.user("alice", &["owner"]).await;
    let post = |headers: &[(&str, &str)]| {
        let mut request = Request::builder()
            .method("POST")
            .uri("/api/v2/users/me/keys")
            .header(
                "Cookie",
                format!("coder_session_token={token}; csrf_token=abc"),
            );
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(api.send(post(&[])).await.status(), StatusCode::BAD_REQUEST);
    let wrong = api.send(post(&[("X-CSRF-TOKEN", "abd")])).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let right = api.send(post(&[("X-CSRF-TOKEN", "abc")])).await;
    assert_eq!(right.status(), StatusCode::CREATED);
    let header = api.send(post(&[("Coder-Session-Token", &token)])).await;
    assert_eq!(header.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_stream_ends_with_its_reader_and_with_the_server() {
    let api = api().await;
    let (owner, token) = api.user("alice", &[]).await;
    let (workspace, _) = api.workspace(owner, "dev").await;
    let watch = || {
        Request::builder()
            .uri(format!("/api/v2/workspaces/{workspace}/watch"))
            .header("Coder-Session-Token", &token)
            .body(Body::empty())
            .unwrap()
    };
    let topic = &api.app.pubsub.workspaces;
    let mut body = api.send(watch()).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"event: ping\n\n");
    let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(second.starts_with(b"event: data\ndata: {\"id\":"));
    assert_eq!(topic.len(), 1);
    drop(body);
    for _ in 0..100 {
        if topic.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(topic.is_empty(), "the listener stays");

    let mut body = api.send(watch()).await.into_body();
    body.frame().await.unwrap().unwrap();
    api.app.shutdown.cancel();
    let rest = async { while body.frame().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(2), rest)
        .await
        .unwrap();
}

#[tokio::test]
async fn too_many_logins_are_refused() {
    let api = api().await;
    let body = json!({"email": "nobody"});
    let mut last = 0;
    for _ in 0..61 {
        last = api
            .call("", "POST", "/api/v2/users/login", body.clone())
            .await
            .0;
    }
    assert_eq!(last, 429);
}
