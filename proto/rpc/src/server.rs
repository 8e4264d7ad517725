//! Serving a session: each stream carries the calls of one caller.

use std::{future::Future, sync::Arc, time::Duration};

use adit_drpc::{
    Error, Status,
    server::{Call, Handler, Options, Reply, serve_stream},
};
use adit_messages::{agent::method as am, tailnet::method as tm};
use adit_yamux::Incoming;
use prost::Message;
use tokio::{task::JoinSet, time::timeout};

use crate::service::{AgentService, NoAgent, Requests, Responses, TailnetService};

/// How long the request of a call with one request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves both services on a session until the session ends. Dropping the
/// future drops all running calls.
pub async fn serve<A, T>(incoming: Incoming, agent: Arc<A>, tailnet: Arc<T>)
where
    A: AgentService,
    T: TailnetService,
{
    let dispatch = Arc::new(Dispatch {
        agent: Some(agent),
        tailnet,
    });
    run(incoming, dispatch).await;
}

/// Serves only the tailnet service on a session until the session ends.
pub async fn serve_tailnet<T: TailnetService>(incoming: Incoming, tailnet: Arc<T>) {
    let dispatch = Arc::new(Dispatch::<NoAgent, T> {
        agent: None,
        tailnet,
    });
    run(incoming, dispatch).await;
}

async fn run<A, T>(mut incoming: Incoming, dispatch: Arc<Dispatch<A, T>>)
where
    A: AgentService,
    T: TailnetService,
{
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.accept() => {
                let Some(stream) = stream else {
                    break;
                };
                let dispatch = Arc::clone(&dispatch);
                calls.spawn(async move {
                    let outcome = serve_stream(stream, &*dispatch, Options::default()).await;
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "rpc stream ended");
                    }
                });
            }
            Some(ended) = calls.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "rpc handler failed");
                }
            }
        }
    }
    // The streams are dead; handlers see that and have a moment to clean up.
    while let Some(ended) = calls.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "rpc handler failed");
        }
    }
}

struct Dispatch<A, T> {
    agent: Option<Arc<A>>,
    tailnet: Arc<T>,
}

impl<A: AgentService, T: TailnetService> Handler for Dispatch<A, T> {
    /// Each method's future has an allocation of its own: inline, a call that
    /// lasts as long as its session would hold room for the largest of all.
    async fn call(&self, call: Call) -> Result<Reply, Status> {
        let path = call.path.clone();
        if path.starts_with("/coder.tailnet.v2.Tailnet/") {
            return self.tailnet_call(&path, call).await;
        }
        match &self.agent {
            Some(agent) => Box::pin(agent_call(&**agent, &path, call)).await,
            None => Err(unknown_rpc(&path)),
        }
    }
}

impl<A: AgentService, T: TailnetService> Dispatch<A, T> {
    async fn tailnet_call(&self, path: &str, mut call: Call) -> Result<Reply, Status> {
        let service = &*self.tailnet;
        match path {
            tm::COORDINATE => {
                let requests = Requests::new(call.requests);
                let responses = Responses::new(call.responses);
                Box::pin(service.coordinate(requests, responses)).await?;
            }
            tm::STREAM_DERP_MAPS => {
                let request = request(&mut call).await?;
                let responses = Responses::new(call.responses);
                Box::pin(service.stream_derp_maps(request, responses)).await?;
            }
            tm::WORKSPACE_UPDATES => {
                let request = request(&mut call).await?;
                let responses = Responses::new(call.responses);
                Box::pin(service.workspace_updates(request, responses)).await?;
            }
            tm::POST_TELEMETRY => {
                return Box::pin(unary(call, |r| service.post_telemetry(r))).await;
            }
            tm::REFRESH_RESUME_TOKEN => {
                return Box::pin(unary(call, |r| service.refresh_resume_token(r))).await;
            }
            _ => return Err(unknown_rpc(path)),
        }
        Ok(Reply::Stream)
    }
}

async fn agent_call<A: AgentService>(a: &A, path: &str, call: Call) -> Result<Reply, Status> {
    match path {
        am::GET_MANIFEST => unary(call, |r| a.get_manifest(r)).await,
        am::GET_SERVICE_BANNER => unary(call, |r| a.get_service_banner(r)).await,
        am::UPDATE_STATS => unary(call, |r| a.update_stats(r)).await,
        am::UPDATE_LIFECYCLE => unary(call, |r| a.update_lifecycle(r)).await,
        am::BATCH_UPDATE_APP_HEALTHS => unary(call, |r| a.batch_update_app_healths(r)).await,
        am::UPDATE_STARTUP => unary(call, |r| a.update_startup(r)).await,
        am::BATCH_UPDATE_METADATA => unary(call, |r| a.batch_update_metadata(r)).await,
        am::BATCH_CREATE_LOGS => unary(call, |r| a.batch_create_logs(r)).await,
        am::GET_ANNOUNCEMENT_BANNERS => unary(call, |r| a.get_announcement_banners(r)).await,
        am::SCRIPT_COMPLETED => unary(call, |r| a.script_completed(r)).await,
        am::GET_RESOURCES_MONITORING_CONFIGURATION => {
            unary(call, |r| a.get_resources_monitoring_configuration(r)).await
        }
        am::PUSH_RESOURCES_MONITORING_USAGE => {
            unary(call, |r| a.push_resources_monitoring_usage(r)).await
        }
        am::REPORT_CONNECTION => unary(call, |r| a.report_connection(r)).await,
        am::CREATE_SUB_AGENT => unary(call, |r| a.create_sub_agent(r)).await,
        am::DELETE_SUB_AGENT => unary(call, |r| a.delete_sub_agent(r)).await,
        am::LIST_SUB_AGENTS => unary(call, |r| a.list_sub_agents(r)).await,
        am::REPORT_BOUNDARY_LOGS => unary(call, |r| a.report_boundary_logs(r)).await,
        am::UPDATE_APP_STATUS => unary(call, |r| a.update_app_status(r)).await,
        am::PUSH_CONTEXT_STATE => unary(call, |r| a.push_context_state(r)).await,
        _ => Err(unknown_rpc(path)),
    }
}

async fn unary<Req, Resp, F>(mut call: Call, method: impl FnOnce(Req) -> F) -> Result<Reply, Status>
where
    Req: Message + Default,
    Resp: Message,
    F: Future<Output = Result<Resp, Status>>,
{
    let response = method(request(&mut call).await?).await?;
    Ok(Reply::Unary(response.encode_to_vec().into()))
}

async fn request<M: Message + Default>(call: &mut Call) -> Result<M, Status> {
    let message = timeout(REQUEST_TIMEOUT, call.requests.single())
        .await
        .unwrap_or(Err(Error::Timeout))
        .map_err(|error| Status::new(error.to_string()))?;
    // The text of Go's library, so that peers see the same one everywhere.
    M::decode(message).map_err(|_| Status::new("proto: cannot parse invalid wire-format data"))
}

/// The answer of DRPC's own dispatcher, on which peers match.
fn unknown_rpc(path: &str) -> Status {
    Status::new(format!("protocol error: unknown rpc: {path:?}"))
}
