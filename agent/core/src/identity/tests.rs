#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// What a fake service was asked: request line, header lines, body.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Asked {
    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|h| h.eq_ignore_ascii_case(header))
    }
}

type Answer = fn(&Asked) -> (&'static str, String);

/// A machine's surroundings: metadata service and control plane in one.
struct Fake {
    url: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

async fn fake(answer: Answer) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<Mutex<Vec<Asked>>>::default();
    let seen = Arc::clone(&asked);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            connections.spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some(one) = read(&mut stream).await {
                    let (status, body) = answer(&one);
                    seen.lock().unwrap().push(one);
                    let kind = if body.starts_with('{') {
                        "application/json"
                    } else {
                        "text/plain"
                    };
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
                    );
                    let all = head + &body;
                    if stream.write_all(all.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Fake {
        url: url.parse().unwrap(),
        asked,
        _tasks: tasks,
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = lines.iter().find_map(|l| {
        let (name, value) = l.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked {
        line: lines.remove(0),
        headers: lines,
        body: String::from_utf8(body).unwrap(),
    })
}

fn identity(fake: &Fake, cloud: Cloud, name: &str) -> InstanceIdentity {
    let control = ClientConfig {
        session_token: Some("an older one".to_owned()),
        headers: vec![(
            HeaderName::from_static("x-tenant"),
            HeaderValue::from_static("blue"),
        )],
        ..ClientConfig::new(fake.url.clone())
    };
    InstanceIdentity::with_metadata(cloud, name, control, fake.url.clone()).unwrap()
}

/// Answers as all three clouds and a control plane that accepts them.
fn accepting(asked: &Asked) -> (&'static str, String) {
    let ok = "200 OK";
    let path = asked.line.split(' ').nth(1).unwrap();
    match path {
        "/latest/api/token" if asked.has("x-aws-ec2-metadata-token-ttl-seconds: 21600") => {
            (ok, "imds".into())
        }
        p if p.starts_with("/latest/") && !asked.has("x-aws-ec2-metadata-token: imds") => {
            ("401 Unauthorized", String::new())
        }
        "/latest/dynamic/instance-identity/signature" => (ok, "sig\nnature".into()),
        "/latest/dynamic/instance-identity/document" => (ok, "{\"instanceId\":\"i-1\"}".into()),
        "/metadata/attested/document?api-version=2020-09-01" if asked.has("metadata: true") => (
            ok,
            r#"{"encoding":"pkcs7","signature":"abc","more":1}"#.into(),
        ),
        p if p.starts_with("/computeMetadata/v1/instance/service-accounts/default/identity?")
            && asked.has("metadata-flavor: Google") =>
        {
            (ok, "jwt\n".into())
        }
        p if p.ends_with("-instance-identity") => (ok, r#"{"session_token":"t0ken"}"#.into()),
        _ => ("404 Not Found", String::new()),
    }
}

#[tokio::test]
async fn each_cloud_is_asked_its_way() {
    for (cloud, name, questions, path, body) in [
        (
            Cloud::Aws,
            "",
            vec![
                "PUT /latest/api/token",
                "GET /latest/dynamic/instance-identity/signature",
                "GET /latest/dynamic/instance-identity/document",
            ],
            "aws",
            serde_json::json!({"signature": "sig\nnature", "document": "{\"instanceId\":\"i-1\"}"}),
        ),
        (
            Cloud::Azure,
            "main",
            vec!["GET /metadata/attested/document?api-version=2020-09-01"],
            "azure",
            serde_json::json!({"signature": "abc", "encoding": "pkcs7", "agent_name": "main"}),
        ),
        (
            Cloud::Google,
            "",
            vec![
                "GET /computeMetadata/v1/instance/service-accounts/default/identity?audience=coder&format=full",
            ],
            "google",
            serde_json::json!({"json_web_token": "jwt"}),
        ),
    ] {
        let fake = fake(accepting).await;
        let identity = identity(&fake, cloud, name);
        assert!(matches!(identity.token(), Err(IdentityError::NotYet)));
        assert_eq!(identity.exchange().await.unwrap(), "t0ken");
        assert_eq!(identity.token().unwrap(), "t0ken");
        let mut asked = fake.asked.lock().unwrap().clone();
        let post = asked.pop().unwrap();
        let lines: Vec<_> = asked
            .iter()
            .map(|a| a.line.trim_end_matches(" HTTP/1.1"))
            .collect();
        assert_eq!(lines, questions);
        // What is meant for the control plane goes nowhere else.
        assert!(asked.iter().all(|a| !a.has("x-tenant: blue")));
        assert_eq!(
            post.line,
            format!("POST /api/v2/workspaceagents/{path}-instance-identity HTTP/1.1")
        );
        assert!(post.has("x-tenant: blue"));
        let with_token = |h: &String| h.to_lowercase().starts_with("coder-session-token");
        assert!(!post.headers.iter().any(with_token), "{:?}", post.headers);
        let sent: Value = serde_json::from_str(&post.body).unwrap();
        assert_eq!(sent, body);
    }
}

#[tokio::test]
async fn failures_name_the_step_and_the_remedy() {
    let not_there: Answer = |_| ("404 Not Found", String::new());
    let nonsense: Answer = |_| ("200 OK", String::new());
    let refusing: Answer = |asked| {
        if asked.line.starts_with("POST") {
            let body = r#"{"message":"Multiple agents found with instance ID \"i\"."}"#;
            ("409 Conflict", body.into())
        } else {
            accepting(asked)
        }
    };
    for (answer, line, remedy) in [
        (not_there, "azure metadata", "CODER_AGENT_AUTH=token"),
        (nonsense, "azure metadata", "CODER_AGENT_AUTH=token"),
        (refusing, "Multiple agents", "CODER_AGENT_NAME"),
    ] {
        let fake = fake(answer).await;
        let error = identity(&fake, Cloud::Azure, "")
            .exchange()
            .await
            .unwrap_err();
        assert!(error.to_string().contains(line), "{error}");
        assert!(error.remedy().contains(remedy), "{}", error.remedy());
        assert!(!error.is_passing(), "{error}");
    }
}

#[test]
fn the_environment_may_name_the_service() {
    let var = |name: &str| match name {
        "GCE_METADATA_HOST" => Some("metadata.test:81".to_owned()),
        "AWS_EC2_METADATA_SERVICE_ENDPOINT" => Some(String::new()),
        _ => None,
    };
    assert_eq!(Cloud::Google.metadata(var), "http://metadata.test:81");
    assert_eq!(Cloud::Aws.metadata(var), METADATA);
    assert_eq!(Cloud::Azure.metadata(var), METADATA);
}
