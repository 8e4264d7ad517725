use super::*;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn api(dir: &Path) -> (Arc<Api>, watch::Sender<Option<Arc<Manifest>>>) {
    let log_file = dir.join("coder-agent.log");
    std::fs::write(&log_file, "one line\n").expect("written");
    let (sender, manifest) = watch::channel(None);
    let api = Api {
        node: None,
        manifest,
        metrics: Arc::default(),
        log_file,
        ignored_ports: Vec::new(),
        scan: Mutex::default(),
        scope: Scope::Tunnel,
    };
    (Arc::new(api), sender)
}

struct Answer {
    status: u16,
    content_type: Option<String>,
    body: String,
}

async fn ask(api: &Arc<Api>, request: &str) -> Answer {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let talk = async {
        client.write_all(request.as_bytes()).await.expect("written");
        let mut all = String::new();
        client.read_to_string(&mut all).await.expect("read");
        all
    };
    let (all, ()) = tokio::join!(talk, Arc::clone(api).serve(server));
    let (head, body) = all.split_once("\r\n\r\n").expect("a head");
    let content_type = head
        .lines()
        .find_map(|l| l.strip_prefix("content-type: "))
        .map(str::to_owned);
    Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .expect("a status"),
        content_type,
        body: body.to_owned(),
    }
}

fn keys(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map
            .iter()
            .flat_map(|(k, v)| {
                let inner = keys(v).into_iter().map(move |i| format!("{k}.{i}"));
                std::iter::once(k.clone()).chain(inner)
            })
            .collect(),
        serde_json::Value::Array(list) => list.first().map(keys).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Requests and answers recorded from a real agent.
#[tokio::test]
async fn answers_as_recorded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api, _manifest) = api(dir.path());
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/vectors/wire/agent-http-api.jsonl"
    ));
    let home = std::env::var("HOME").unwrap_or_default();
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("json");
        let request = case["request"].as_str().expect("a request");
        let got = ask(&api, request).await;
        let what = request.lines().next().unwrap_or_default();
        let compare = case["compare"].as_str();
        let expected = case["body"].as_str().unwrap_or_default();
        // Not known without a manifest and a network.
        if what.contains("/debug/m") && got.status == 500 {
            continue;
        }
        // The recording had its home at /home/coder, with a project in it.
        if request.contains("\"coder\"") && got.status == 404 {
            continue;
        }
        assert_eq!(got.status, case["status"], "{what}: {}", got.body);
        assert_eq!(
            got.content_type.as_deref(),
            case["content_type"].as_str(),
            "{what}"
        );
        match compare {
            Some("exact") => {
                let expected = expected.replace("/home/coder", &home);
                assert_eq!(got.body, expected, "{what}");
            }
            Some("keys") => {
                let got: serde_json::Value = serde_json::from_str(&got.body).expect("json");
                let expected: serde_json::Value = serde_json::from_str(expected).expect("json");
                let have = keys(&got);
                for key in keys(&expected) {
                    // Without a network there is no report.
                    let missing = !have.contains(&key) && !key.starts_with("net_info");
                    assert!(!missing, "{what}: {key}");
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_not_offered_says_so_in_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api, _manifest) = api(dir.path());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (path, status) in [
        ("/api/v0/containers", 403),
        ("/api/v0/containers/watch", 404),
        ("/api/v0/git/watch", 501),
        ("/api/v0/processes/list", 501),
        ("/api/v0/list-directory", 405),
        ("/api/v1/list-directory", 404),
        ("/debug/manifest", 500),
        ("/debug/logs?after=yesterday", 400),
    ] {
        let got = ask(&api, &get(path)).await;
        assert_eq!(got.status, status, "{path}");
        if status == 403 || status == 501 {
            let body: serde_json::Value = serde_json::from_str(&got.body).expect("json");
            assert!(body["message"].is_string());
        }
    }
    let got = ask(&api, &get("/debug/logs?after=2020-01-01T00:00:00Z")).await;
    assert!(got.body.starts_with("=== coder-agent.log (mtime 20"));
    assert!(got.body.ends_with("===\none line\n"));
}

#[tokio::test]
async fn directories_come_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("b")).expect("made");
    std::fs::write(root.join("a"), "").expect("written");
    std::os::unix::fs::symlink(root.join("b"), root.join("c")).expect("linked");
    let (api, _manifest) = api(dir.path());
    let body = r#"{"path":[],"relativity":"root"}"#;
    let request = format!(
        "POST /api/v0/list-directory?path={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        root.display(),
        body.len()
    );
    let got = ask(&api, &request).await;
    let listing: serde_json::Value = serde_json::from_str(&got.body).expect("json");
    let names: Vec<_> = listing["contents"]
        .as_array()
        .expect("contents")
        .iter()
        .map(|e| (e["name"].as_str().expect("a name"), e["is_dir"] == true))
        .collect();
    assert_eq!(names, [("b", true), ("a", false), ("c", false)]);
}

/// What a file route answers: status, and the body.
async fn on_file(api: &Arc<Api>, method: &str, route: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} /api/v0/{route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let got = ask(api, &request).await;
    (got.status, got.body)
}

#[tokio::test]
async fn files_are_written_whole_and_read_in_parts() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    let (api, _manifest) = api(dir.path());
    let root = dir.path().canonicalize().expect("a directory");
    let file = root.join("new/dir/file.txt");
    let at = |route: &str, path: &Path| format!("{route}?path={}", path.display());
    let (status, body) = on_file(&api, "POST", &at("write-file", &file), "one\ntwo\n").await;
    assert_eq!(status, 200, "{body}");
    let message: serde_json::Value = serde_json::from_str(&body).expect("json");
    let expected = format!("Successfully wrote to \"{}\"", file.display());
    assert_eq!(message["message"], expected);

    // Through a link, with the mode the file has.
    let link = root.join("link");
    std::os::unix::fs::symlink("new/dir/file.txt", &link).expect("linked");
    let mode = std::fs::Permissions::from_mode(0o740);
    std::fs::set_permissions(&file, mode).expect("a mode");
    let text = "first\nsecond line\nthird";
    let (status, _) = on_file(&api, "POST", &at("write-file", &link), text).await;
    assert_eq!(status, 200);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), text);
    let meta = std::fs::metadata(&file).expect("a file");
    assert_eq!(meta.permissions().mode() & 0o777, 0o740);
    assert!(link.is_symlink());
    let names = std::fs::read_dir(root.join("new/dir")).expect("read");
    assert_eq!(names.count(), 1, "nothing temporary is left");

    let part = format!("{}&offset=6&limit=6", at("read-file", &file));
    assert_eq!(
        on_file(&api, "GET", &part, "").await,
        (200, "second".into())
    );
    let lines = format!("{}&offset=2&max_line_bytes=8", at("read-file-lines", &file));
    let (status, body) = on_file(&api, "GET", &lines, "").await;
    assert_eq!(status, 200);
    let lines: serde_json::Value = serde_json::from_str(&body).expect("json");
    let expected = serde_json::json!({
        "success": true, "file_size": 23, "total_lines": 3, "lines_read": 2,
        "content": "2\tsecond l... [truncated]\n3\tthird",
    });
    assert_eq!(lines, expected);
    let (_, body) = on_file(&api, "GET", &at("resolve-path", &link.join("../link")), "").await;
    assert!(body.contains("error") || body.contains("message"), "{body}");
    let missing = link.with_file_name("link2/x");
    let (status, body) = on_file(&api, "GET", &at("resolve-path", &missing), "").await;
    let resolved: serde_json::Value = serde_json::from_str(&body).expect("json");
    assert_eq!(
        (status, &resolved["resolved_path"]),
        (200, &missing.to_string_lossy().into())
    );
    let (_, body) = on_file(&api, "GET", &at("resolve-path", &link), "").await;
    let resolved: serde_json::Value = serde_json::from_str(&body).expect("json");
    assert_eq!(resolved["resolved_path"], file.to_string_lossy().as_ref());
}

#[tokio::test]
async fn what_cannot_be_done_to_files_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let (api, _manifest) = api(dir.path());
    let here = dir.path().display();
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).expect("linked");
    for (method, route, expected) in [
        ("GET", "read-file".to_owned(), 400),
        ("GET", "read-file?path=relative".to_owned(), 400),
        ("GET", format!("read-file?path={here}"), 400),
        ("GET", format!("read-file?path={here}/no"), 404),
        ("GET", format!("read-file?path={here}/no&what=1"), 400),
        ("GET", format!("read-file?path={here}/no&limit=-1"), 400),
        ("POST", format!("write-file?path={here}"), 400),
        ("POST", format!("write-file?path={here}/loop"), 400),
        ("POST", "write-file?path=relative".to_owned(), 400),
        ("GET", format!("read-file-lines?path={here}/no"), 200),
        (
            "GET",
            format!("read-file-lines?path={here}/coder-agent.log&offset=9"),
            200,
        ),
    ] {
        let (status, body) = on_file(&api, method, &route, "x").await;
        assert_eq!(status, expected, "{route}: {body}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("json");
        let said = if status == 200 {
            &body["error"]
        } else {
            &body["message"]
        };
        assert!(said.is_string(), "{route}");
        assert_ne!(body["success"], true);
    }
}
