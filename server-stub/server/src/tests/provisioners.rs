//! Lists of jobs and of who carries them out.

use super::*;

#[tokio::test]
async fn jobs_and_their_workers_are_for_administrators() {
    let api = api().await;
    let (owner, admin) = api.user("alice", &["owner"]).await;
    let (_, templates) = api.user("tina", &["template-admin"]).await;
    let (_, member) = api.user("bob", &[]).await;
    let (workspace, _) = api.workspace(owner, "dev").await;
    let organization = api.app.store.default_organization().await.unwrap().id;
    let worker = api
        .app
        .store
        .register_provisioner(organization, "host-0", "v1", "1.18", &["local"])
        .await
        .unwrap();
    let base = "/api/v2/organizations/default";
    let get = async |token: &str, path: &str| {
        api.call(token, "GET", &format!("{base}/{path}"), Value::Null)
            .await
    };
    let (status, jobs) = get(&admin, "provisionerjobs").await;
    assert_eq!(status, 200, "{jobs}");
    let build = &jobs[0];
    assert_eq!(build["type"], "workspace_build");
    assert_eq!(build["metadata"]["workspace_id"], workspace.to_string());
    assert_eq!(build["metadata"]["workspace_name"], "dev");
    assert_eq!(build["metadata"]["workspace_build_transition"], "start");
    assert_eq!(build["metadata"]["template_name"], "local");
    let one = format!("provisionerjobs/{}", build["id"].as_str().unwrap());
    assert_eq!(get(&templates, &one).await, (200, build.clone()));

    let (status, daemons) = get(&admin, "provisionerdaemons").await;
    assert_eq!(status, 200, "{daemons}");
    assert_eq!(daemons[0]["id"], worker.to_string());
    assert_eq!(daemons[0]["status"], "idle");
    assert_eq!(daemons[0]["key_name"], "built-in");
    assert_eq!(daemons[0]["previous_job"], Value::Null);
    for path in ["provisionerjobs", "provisionerdaemons", one.as_str()] {
        assert_eq!(get(&member, path).await.0, 404, "{path}");
    }
    let unknown = format!("provisionerjobs/{}", Uuid::from_u128(9));
    assert_eq!(get(&admin, &unknown).await.0, 404);
}

#[tokio::test]
async fn provisioners_are_selected_by_what_is_asked() {
    let api = api().await;
    let (_, admin) = api.user("alice", &["owner"]).await;
    let store = &api.app.store;
    let organization = store.default_organization().await.unwrap().id;
    let id = store
        .register_provisioner(organization, "host-0", "v1", "1.18", &["local"])
        .await
        .unwrap();
    let base = "/api/v2/organizations/default";
    for (query, count) in [
        ("", 1),
        ("status=idle,offline", 1),
        ("status=busy", 0),
        ("max_age=1h0m0s", 1),
        ("offline=true&limit=50", 1),
        ("tags=%7B%22scope%22%3A%22organization%22%7D", 1),
        ("tags=%7B%22scope%22%3A%22user%22%7D", 0),
        (&format!("ids={id}"), 1),
        (&format!("ids={}", Uuid::from_u128(1)), 0),
    ] {
        let path = format!("{base}/provisionerdaemons?{query}");
        let (status, found) = api.call(&admin, "GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{query}: {found}");
        assert_eq!(found.as_array().unwrap().len(), count, "{query}");
    }
    for (query, field) in [
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("ids=1", "ids"),
        ("tags=1", "tags"),
        ("status=tired", "status"),
        ("max_age=1", "max_age"),
        ("offline=x", "offline"),
        ("initiator=nobody", "initiator"),
    ] {
        let list = if field == "initiator" {
            "jobs"
        } else {
            "daemons"
        };
        let path = format!("{base}/provisioner{list}?{query}");
        let (status, reply) = api.call(&admin, "GET", &path, Value::Null).await;
        assert_eq!(status, 400, "{query}: {reply}");
        assert_eq!(reply["validations"][0]["field"], field);
    }
}
