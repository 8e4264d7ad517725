//! Each way to fail gives one clear line with the cause, and a remedy.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use adit_http::{
    Client, ClientConfig, Error, ErrorKind, Method, ProxyConfig, Step, TlsFailure, Url,
};
use serde_json::Value;
use support::{Authority, Validity, answer, client_of, config_of, once, tls_once};
use tokio::net::TcpListener;

const SECRET: &str = "swordfish-session-token";

async fn get(client: &Client) -> Result<Value, Error> {
    client.get("/api/v2/buildinfo?secret=swordfish").await
}

/// The line and the remedy of a failure, checked for what both must hold.
fn lines(error: &Error) -> (String, String) {
    let (line, remedy) = (error.to_string(), error.remedy());
    for text in [&line, &remedy, &format!("{error:?}")] {
        assert!(
            !text.contains('\n') && !text.contains("swordfish"),
            "{text}"
        );
    }
    assert!(
        line.contains("127.0.0.1") || line.contains("localhost") || line.contains(".invalid"),
        "{line}"
    );
    assert!(remedy.ends_with('.'), "{remedy}");
    (line, remedy)
}

async fn failure_of(response: String) -> Error {
    let (address, _server) = once(response).await;
    let client = client_of(&format!("http://{address}"));
    client.set_session_token(SECRET).unwrap();
    get(&client).await.unwrap_err()
}

#[tokio::test]
async fn refused_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&client_of(&format!("http://{address}")))
        .await
        .unwrap_err();
    let (line, remedy) = lines(&error);
    assert!(
        line.starts_with(&format!("{address} refused the connection")),
        "{line}"
    );
    assert!(remedy.contains("server is running"), "{remedy}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn unknown_host() {
    let error = get(&client_of("http://no-such-host.invalid"))
        .await
        .unwrap_err();
    let (line, remedy) = lines(&error);
    assert!(
        line.starts_with("cannot find the address of no-such-host.invalid"),
        "{line}"
    );
    assert!(remedy.contains("spelling"), "{remedy}");
    assert!(matches!(error.kind(), ErrorKind::Dns { .. }) && error.is_retryable());
}

#[tokio::test]
async fn wrong_token() {
    let body = r#"{"message":"You are signed out or your session has expired.","detail":"bad"}"#;
    let error = failure_of(answer("401 Unauthorized", "application/json", body)).await;
    let (line, remedy) = lines(&error);
    assert!(
        line.starts_with("the server answered 401: You are signed out"),
        "{line}"
    );
    assert!(line.contains("(bad)"), "{line}");
    assert!(remedy.contains("Log in"), "{remedy}");
    assert_eq!(error.status().unwrap().as_u16(), 401);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn refused_fields_are_named() {
    let body =
        r#"{"message":"Validation failed.","validations":[{"field":"name","detail":"taken"}]}"#;
    let error = failure_of(answer(
        "409 Conflict",
        "application/json; charset=utf-8",
        body,
    ))
    .await;
    let (line, _) = lines(&error);
    assert!(line.contains("Validation failed; name: taken"), "{line}");
    assert!(error.refuses_field("name") && !error.refuses_field("icon"));
}

#[tokio::test]
async fn unsupported_version() {
    let body = r#"{"message":"Unknown or unsupported API version","validations":[{"field":"version","detail":"server is at version 2.10, behind requested minor version 2.99"}]}"#;
    let error = failure_of(answer("400 Bad Request", "application/json", body)).await;
    let (line, remedy) = lines(&error);
    assert!(
        line.contains("API version: server is at version 2.10"),
        "{line}"
    );
    assert!(remedy.contains("same release"), "{remedy}");
    assert!(matches!(error.kind(), ErrorKind::UnsupportedVersion { .. }));
}

#[tokio::test]
async fn web_page_instead_of_an_answer() {
    for status in ["200 OK", "404 Not Found"] {
        let page = "<!doctype html><title>Log in</title>";
        let error = failure_of(answer(status, "text/html; charset=utf-8", page)).await;
        let (line, remedy) = lines(&error);
        assert!(
            line.starts_with("a web page instead of an API answer"),
            "{line}"
        );
        assert!(remedy.contains("login page"), "{remedy}");
        assert!(!error.is_retryable());
    }
    let error = failure_of(answer("502 Bad Gateway", "text/html", "<h1>nginx</h1>")).await;
    assert!(lines(&error).1.contains("in front of the server"));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn something_that_is_no_api() {
    let error = failure_of(answer("200 OK", "text/plain", "hello")).await;
    assert!(
        lines(&error)
            .0
            .starts_with("\"text/plain\" instead of an API answer (status 200)")
    );
    let error = failure_of(answer("404 Not Found", "text/plain", "404 page not found")).await;
    assert!(matches!(error.kind(), ErrorKind::NotJson { .. }), "{error}");
    let error = failure_of(answer("200 OK", "application/json", "[1,")).await;
    assert!(
        lines(&error).0.starts_with("unexpected API answer: EOF"),
        "{error}"
    );
    let error = failure_of("SSH-2.0-OpenSSH_9.2\r\n".into()).await;
    assert!(
        lines(&error).0.starts_with("no valid HTTP answer"),
        "{error}"
    );
    let error = failure_of(String::new()).await;
    assert!(
        lines(&error).0.contains("closed before an answer"),
        "{error}"
    );
}

#[tokio::test]
async fn trouble_of_the_server_is_worth_a_retry() {
    let limited = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}";
    let error = failure_of(limited.into()).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert!(error.is_retryable());
    let error = failure_of(answer(
        "503 Service Unavailable",
        "text/plain",
        "starting\nmore",
    ))
    .await;
    assert!(lines(&error).0.contains("503: starting ["), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn foreign_text_cannot_break_the_line() {
    let body = "{\"message\":\"a\\nb\\u001b[31m\"}";
    let error = failure_of(answer("400 Bad Request", "application/json", body)).await;
    assert!(lines(&error).0.contains("400: a b[31m"), "{error}");
}

#[tokio::test]
async fn silence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config_of(&format!("http://{}", listener.local_addr().unwrap()));
    config.request_timeout = Duration::from_millis(200);
    let error = get(&Client::new(config).unwrap()).await.unwrap_err();
    assert!(
        lines(&error).0.starts_with("no answer within 0.2 s"),
        "{error}"
    );
    assert!(matches!(
        error.kind(),
        ErrorKind::Timeout {
            step: Step::Response,
            ..
        }
    ));

    let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n[";
    let (address, _server) = support::once_and_wait(half.into()).await;
    let mut config = config_of(&format!("http://{address}"));
    config.request_timeout = Duration::from_millis(200);
    let error = get(&Client::new(config).unwrap()).await.unwrap_err();
    assert!(
        lines(&error).0.starts_with("no complete answer within"),
        "{error}"
    );
}

async fn tls_failure(validity: Validity, name: &str, trusted: bool) -> (Error, TlsFailure) {
    let authority = Authority::new();
    let address = tls_once(authority.server(name, validity)).await;
    let mut config = config_of(&format!("https://localhost:{}", address.port()));
    let other = Authority::new();
    let roots = if trusted {
        authority.pem_file()
    } else {
        other.pem_file()
    };
    config.tls.ca_file = Some(roots.path().to_owned());
    let error = get(&Client::new(config).unwrap()).await.unwrap_err();
    let ErrorKind::Tls { failure, .. } = error.kind() else {
        panic!("{error}")
    };
    let failure = failure.clone();
    (error, failure)
}

#[tokio::test]
async fn expired_certificate() {
    let (error, failure) = tls_failure(Validity::Past, "localhost", true).await;
    assert_eq!(failure, TlsFailure::Expired);
    let (line, remedy) = lines(&error);
    assert!(
        line.starts_with("localhost: the server's certificate has expired"),
        "{line}"
    );
    assert!(
        remedy.starts_with("Renew the server's certificate"),
        "{remedy}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn other_certificate_faults() {
    let (error, failure) = tls_failure(Validity::Future, "localhost", true).await;
    assert_eq!(failure, TlsFailure::NotYetValid);
    lines(&error);
    let (error, failure) = tls_failure(Validity::Now, "localhost", false).await;
    assert_eq!(failure, TlsFailure::UnknownIssuer { no_roots: false });
    assert!(lines(&error).1.contains("SSL_CERT_FILE"));
    let (error, failure) = tls_failure(Validity::Now, "other.example", true).await;
    assert_eq!(failure, TlsFailure::WrongName);
    lines(&error);
}

#[tokio::test]
async fn tls_and_plain_ports_mixed_up() {
    let (address, _server) = once(answer("400 Bad Request", "text/plain", "Bad Request")).await;
    let error = get(&client_of(&format!("https://{address}")))
        .await
        .unwrap_err();
    let (line, remedy) = lines(&error);
    assert!(line.contains("does not speak TLS"), "{line}");
    assert!(remedy.contains("http://"), "{remedy}");

    let go = "Client sent an HTTP request to an HTTPS server.\n";
    let error = failure_of(answer("400 Bad Request", "text/plain", go)).await;
    assert!(lines(&error).0.contains("use https://"), "{error}");
}

#[tokio::test]
async fn client_certificate_wanted() {
    let authority = Authority::new();
    let address = tls_once(authority.server_wanting_client_certificates("localhost")).await;
    let mut config = config_of(&format!("https://localhost:{}", address.port()));
    let roots = authority.pem_file();
    config.tls.ca_file = Some(roots.path().to_owned());
    let error = get(&Client::new(config.clone()).unwrap())
        .await
        .unwrap_err();
    // TLS 1.3 tells the client only after its handshake is done.
    lines(&error);

    let (cert, key) = authority.client_pem_files();
    config.tls.cert_file = Some(cert.path().to_owned());
    let error = get(&Client::new(config.clone()).unwrap())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("must be given together"),
        "{error}"
    );
    config.tls.key_file = Some(key.path().to_owned());
    let address = tls_once(authority.server_wanting_client_certificates("localhost")).await;
    config.base = Url::parse(&format!("https://localhost:{}", address.port())).unwrap();
    let got: Value = get(&Client::new(config).unwrap()).await.unwrap();
    assert_eq!(got, serde_json::json!({"ok": true}));
}

#[tokio::test]
async fn unusable_settings() {
    for base in ["ftp://localhost", "unix:/x"] {
        let config = ClientConfig::new(Url::parse(base).unwrap());
        assert!(matches!(
            Client::new(config).unwrap_err().kind(),
            ErrorKind::Config(_)
        ));
    }
    let client = client_of("http://127.0.0.1:1");
    assert!(client.set_session_token("a\nb").is_err());
    assert!(client.request(Method::GET, "relative", None).await.is_err());
    assert!(
        client
            .request(Method::GET, "//elsewhere/x", None)
            .await
            .is_err()
    );
    let mut config = config_of("https://127.0.0.1:1");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    config
        .base
        .set_port(Some(listener.local_addr().unwrap().port()))
        .unwrap();
    config.tls.ca_file = Some("/no/such/file".into());
    let error = get(&Client::new(config).unwrap()).await.unwrap_err();
    assert!(lines(&error).0.contains("/no/such/file"), "{error}");
}

#[tokio::test]
async fn proxies_that_refuse() {
    let refused = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    for (response, expected, retry) in [
        (
            refused.to_owned(),
            "asks for a user name and password",
            false,
        ),
        (
            answer("403 Forbidden", "text/html", "<h1>no</h1>"),
            "refused to connect to other.invalid:443",
            false,
        ),
        (
            answer("502 Bad Gateway", "text/html", "<h1>no</h1>"),
            "status 502",
            true,
        ),
        ("nonsense\r\n\r\n".to_owned(), "no valid HTTP answer", true),
    ] {
        let (address, _server) = once(response).await;
        let mut config = config_of("https://other.invalid");
        let proxy = format!("http://user:swordfish@{address}");
        config.proxy = ProxyConfig::from_values(None, Some(&proxy), None);
        let error = get(&Client::new(config).unwrap()).await.unwrap_err();
        let (line, _) = lines(&error);
        assert!(
            line.starts_with(&format!("proxy {address}: ")) && line.contains(expected),
            "{line}"
        );
        assert_eq!(error.is_retryable(), retry, "{line}");
    }
}
