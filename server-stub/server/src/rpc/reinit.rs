//! Tells the agent of a prebuilt workspace that it has an owner now.

use std::{convert::Infallible, time::Duration};

use adit_rest::{
    ReinitializationEvent,
    sse::{self, Kind},
};
use adit_store::model::{AgentContext, Job, PREBUILDS_USER, PrebuildStage};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, header};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{
    app::App,
    auth::AgentActor,
    error::{ApiError, ApiResult},
    extract::Query,
    pubsub::{Received, Subscription},
};

/// The time between signs of life on a stream.
const PING: Duration = Duration::from_secs(15);

/// What is known about a claim when an agent begins to listen.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// It may still come.
    Awaited,
    /// It is complete.
    Done,
}

/// The stream of one agent.
struct Events {
    app: App,
    workspace: Uuid,
    claims: Subscription<Uuid, ReinitializationEvent>,
    /// The event of a claim that was complete before.
    seeded: Option<ReinitializationEvent>,
    next_ping: Instant,
}

/// `GET /workspaceagents/me/reinit`. Nothing is sent, not even the head of the
/// answer, before the first event or sign of life.
pub(super) async fn reinit(
    State(app): State<App>,
    AgentActor(context): AgentActor,
    query: Query,
) -> ApiResult<Response> {
    let workspace = context.workspace.id;
    // Listen first: a claim that completes during the checks is not missed.
    let claims = app.pubsub.claims.subscribe(workspace);
    let mut seeded = None;
    if query.flag("wait")
        && !app.store.workspace(workspace).await?.is_prebuild()
        && state_of_claim(&app, &context).await? == Claim::Done
    {
        seeded = Some(event(&app, workspace).await?);
    }
    let mut events = Events {
        app,
        workspace,
        claims,
        seeded,
        next_ping: Instant::now() + PING,
    };
    let first = events.next().await;
    let rest = stream::unfold(events, |mut events| async move {
        let frame = events.next().await;
        Some((Ok::<_, Infallible>(frame), events))
    });
    let frames = stream::StreamExt::chain(
        stream::once(async move { Ok::<_, Infallible>(first) }),
        rest,
    );
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

impl Events {
    async fn next(&mut self) -> Bytes {
        if let Some(event) = self.seeded.take() {
            return frame(&event);
        }
        loop {
            tokio::select! {
                received = self.claims.recv() => match received {
                    Received::Message(event) => return frame(&event),
                    // At most one claim completes, so what was lost is known.
                    Received::Lagged => {
                        if let Ok(event) = event(&self.app, self.workspace).await {
                            return frame(&event);
                        }
                    }
                },
                () = sleep_until(self.next_ping) => {
                    self.next_ping += PING;
                    return sse::encode(Kind::Ping, "").into();
                }
            }
        }
    }
}

fn frame(event: &ReinitializationEvent) -> Bytes {
    sse::encode(
        Kind::Data,
        &serde_json::to_string(event).unwrap_or_default(),
    )
    .into()
}

/// The event that hands a workspace to its present owner.
async fn event(app: &App, workspace: Uuid) -> ApiResult<ReinitializationEvent> {
    let workspace = app.store.workspace(workspace).await?;
    Ok(ReinitializationEvent {
        workspace_id: workspace.id,
        reason: "prebuild_claimed".into(),
        owner_id: workspace.owner_id,
    })
}

/// Looks up how far the claim of an owned workspace is.
async fn state_of_claim(app: &App, context: &AgentContext) -> ApiResult<Claim> {
    let refuse = |detail: &str| {
        ApiError::conflict("Workspace is not a prebuilt workspace waiting to be claimed.")
            .detail(detail)
    };
    let workspace = context.workspace.id;
    let first = app.store.build_by_number(workspace, 1).await?;
    if first.initiator_id != PREBUILDS_USER {
        return Err(refuse(
            "This endpoint is only for agents running in prebuilt workspaces.",
        ));
    }
    let latest = app.store.latest_build(workspace).await?;
    let job: Job = app.store.job(latest.job_id).await?;
    if job.input.stage() == PrebuildStage::Claim {
        return match (job.is_done(), job.error.is_empty()) {
            (false, _) => Ok(Claim::Awaited),
            (true, true) => Ok(Claim::Done),
            (true, false) => {
                Err(ApiError::conflict("Claim build failed permanently.").detail(job.error))
            }
        };
    }
    if latest.initiator_id == PREBUILDS_USER {
        return Ok(Claim::Awaited);
    }
    Err(refuse(
        "The prebuild claim for this workspace has already been handled by an earlier build.",
    ))
}
