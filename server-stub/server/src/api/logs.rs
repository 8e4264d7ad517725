//! Log streams of jobs and agents.

use std::time::Duration;

use adit_rest::WorkspaceAgentLog;
use adit_store::model::AgentLog;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderValue, header};
use serde::Serialize;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Actor;
use crate::error::{ApiError, ApiResult};
use crate::extract::{Id, Json, Query};
use crate::pubsub::{JobEvent, Received};
use crate::upgrade::{Gone, OneWay, websocket};
use crate::{access, convert};

/// Rows read at once.
const PAGE: i64 = 500;
/// Clients drop a socket silently when a message is larger than 32 KiB.
const MAX_MESSAGE: usize = 30 * 1024;
/// A stream looks for itself this often.
const RECHECK: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspacebuilds/{build}/logs", get(build_logs))
        .route("/templateversions/{version}/logs", get(version_logs))
        .route("/workspaceagents/{id}/logs", get(agent_logs))
        .route("/workspaceagents/{id}/startup-logs", get(agent_logs))
}

async fn build_logs(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    query: Query,
    request: Request,
) -> ApiResult<Response> {
    let (build, _) = access::build(&app, &actor, id).await?;
    job(&app, build.job_id, &query, request).await
}

async fn version_logs(
    State(app): State<App>,
    _: Actor,
    Id(id): Id,
    query: Query,
    request: Request,
) -> ApiResult<Response> {
    let version = app.store.version(id).await?;
    job(&app, version.job_id, &query, request).await
}

fn text(lines: impl Iterator<Item = String>) -> Response {
    let body: String = lines.map(|line| line + "\n").collect();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, plain)], body).into_response()
}

/// Whether the reply is plain text instead of JSON.
fn wants_text(query: &Query) -> ApiResult<bool> {
    match query.get("format") {
        None | Some("" | "json") => Ok(false),
        Some("text") if query.has("follow") => Err(ApiError::bad_request(
            "Text format is not supported with follow mode.",
        )),
        Some("text") => Ok(true),
        Some(other) => Err(ApiError::bad_request("Invalid format parameter.")
            .field("format", format!("{other:?} is not \"json\" or \"text\""))),
    }
}

/// A job's log: an array, text, or a socket that ends with the job.
pub(super) async fn job(
    app: &App,
    job: Uuid,
    query: &Query,
    mut request: Request,
) -> ApiResult<Response> {
    let after = query.number("after")?.unwrap_or(0);
    let before = query.number("before")?;
    let as_text = wants_text(query)?;
    if query.has("follow") {
        let shared = app.clone();
        return Ok(websocket(app, &mut request, move |socket| async move {
            follow_job(&shared, job, after, OneWay::new(socket)).await;
        }));
    }
    let rows = app.store.job_logs(job, after, before, i64::MAX).await?;
    if as_text {
        return Ok(text(rows.into_iter().map(|row| {
            format!(
                "{} [{}] [provisioner|{}] {}",
                row.created_at, row.level, row.stage, row.output
            )
        })));
    }
    let all: Vec<_> = rows.into_iter().map(convert::job_log).collect();
    Ok(Json(all).into_response())
}

/// Sends what is stored, then what comes, and closes once the job is final.
async fn follow_job(app: &App, job: Uuid, mut after: i64, mut socket: OneWay) {
    let mut news = app.pubsub.jobs.subscribe(job);
    loop {
        news.drain();
        let done = match app.store.job(job).await {
            Ok(row) => row.is_done(),
            Err(error) => {
                tracing::warn!(%job, %error, "job log stream ends");
                return socket.close("error").await;
            }
        };
        // Read after the state: a final job has all its lines.
        if send_job_logs(app, job, &mut after, &mut socket)
            .await
            .is_err()
        {
            return;
        }
        if done {
            return socket.close("done").await;
        }
        loop {
            tokio::select! {
                () = socket.gone() => return,
                () = tokio::time::sleep(RECHECK) => break,
                event = news.recv() => match event {
                    Received::Message(JobEvent::Cancel) => {}
                    Received::Message(_) | Received::Lagged => break,
                },
            }
        }
    }
}

async fn send_job_logs(
    app: &App,
    job: Uuid,
    after: &mut i64,
    socket: &mut OneWay,
) -> Result<(), Gone> {
    loop {
        let Ok(rows) = app.store.job_logs(job, *after, None, PAGE).await else {
            return Ok(());
        };
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            *after = row.id;
            let mut line = convert::job_log(row);
            shorten(&mut line.output);
            socket.send(message(&line)).await?;
        }
    }
}

fn message<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Cuts a text that would not fit into one message, at a character's end.
fn shorten(output: &mut String) {
    // JSON may need six bytes for one.
    while json_length(output) > MAX_MESSAGE {
        let mut end = output.len() / 2;
        while !output.is_char_boundary(end) {
            end -= 1;
        }
        output.truncate(end);
    }
}

fn json_length(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..=31 => 6,
            _ => 1,
        })
        .sum()
}

async fn agent_logs(
    State(app): State<App>,
    actor: Actor,
    Id(id): Id,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    let agent = access::agent(&app, &actor, id).await?;
    let after = query.number("after")?.unwrap_or(0);
    let before = query.number("before")?;
    let as_text = wants_text(&query)?;
    if query.has("follow") {
        let shared = app.clone();
        let workspace = agent.workspace.id;
        return Ok(websocket(&app, &mut request, move |socket| async move {
            follow_agent(&shared, id, workspace, after, OneWay::new(socket)).await;
        }));
    }
    let rows = app.store.agent_logs(id, after, before, i64::MAX).await?;
    if as_text {
        let name = agent.agent.name;
        return Ok(text(rows.into_iter().map(|row| {
            format!(
                "{} [{}] [agent.{name}] {}",
                row.created_at, row.level, row.output
            )
        })));
    }
    let all: Vec<_> = rows.into_iter().map(agent_log).collect();
    Ok(Json(all).into_response())
}

fn agent_log(row: AgentLog) -> WorkspaceAgentLog {
    WorkspaceAgentLog {
        id: row.id,
        created_at: row.created_at,
        output: row.output,
        level: row.level,
        source_id: row.log_source_id,
    }
}

/// Sends what is stored (at least an empty array), then what comes, until the
/// agent is not part of its workspace's newest build any more.
async fn follow_agent(app: &App, agent: Uuid, workspace: Uuid, mut after: i64, mut socket: OneWay) {
    let mut news = app.pubsub.agent_logs.subscribe(agent);
    let mut outdated = app.pubsub.outdated.subscribe(workspace);
    let mut first = true;
    loop {
        news.drain();
        if send_agent_logs(app, agent, &mut after, first, &mut socket)
            .await
            .is_err()
        {
            return;
        }
        first = false;
        if !is_current(app, agent).await {
            return socket.close("").await;
        }
        tokio::select! {
            () = socket.gone() => return,
            () = tokio::time::sleep(RECHECK) => {}
            _ = news.recv() => {}
            _ = outdated.recv() => {}
        }
    }
}

async fn is_current(app: &App, agent: Uuid) -> bool {
    let Ok(context) = app.store.agent_context(agent).await else {
        return false;
    };
    match app.store.latest_build(context.workspace.id).await {
        Ok(latest) => latest.id == context.build.id,
        Err(_) => false,
    }
}

async fn send_agent_logs(
    app: &App,
    agent: Uuid,
    after: &mut i64,
    always: bool,
    socket: &mut OneWay,
) -> Result<(), Gone> {
    let mut sent = false;
    loop {
        let rows = app
            .store
            .agent_logs(agent, *after, None, PAGE)
            .await
            .unwrap_or_default();
        if rows.is_empty() {
            if always && !sent {
                socket.send("[]\n".to_owned()).await?;
            }
            return Ok(());
        }
        let mut batch: Vec<WorkspaceAgentLog> = Vec::new();
        let mut size = 0;
        for row in rows {
            *after = row.id;
            let mut line = agent_log(row);
            shorten(&mut line.output);
            // Keys, ids and times of one line need less than 200 bytes.
            let length = json_length(&line.output) + 200;
            if size + length > MAX_MESSAGE && !batch.is_empty() {
                socket.send(message(&std::mem::take(&mut batch))).await?;
                size = 0;
            }
            size += length;
            batch.push(line);
        }
        socket.send(message(&batch)).await?;
        sent = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shortened_texts_fit(text in "[\\x00-\\x1f\"äa]{0,40}", times in 1usize..2000) {
            let mut text = text.repeat(times);
            shorten(&mut text);
            let json = serde_json::to_string(&text).unwrap_or_default();
            prop_assert!(json.len() <= MAX_MESSAGE + 2);
        }
    }
}
