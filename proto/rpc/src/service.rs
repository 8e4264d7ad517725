//! What a server implements.

use std::{future::Future, marker::PhantomData};

use adit_drpc::{Error, Status};
use adit_messages::{agent, tailnet};
use bytes::Bytes;
use prost::Message;

/// Messages of the peer in a streaming call.
#[derive(Debug)]
pub struct Requests<M> {
    inner: adit_drpc::Requests,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Requests<M> {
    pub(crate) const fn new(inner: adit_drpc::Requests) -> Self {
        Self {
            inner,
            message: PhantomData,
        }
    }

    /// Next message; `None` when the peer said that no more follow.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer is gone, [`Error::Decode`] when it
    /// sent something else.
    pub async fn recv(&mut self) -> Result<Option<M>, Error> {
        match self.recv_bytes().await? {
            Some(message) => Ok(Some(M::decode(message)?)),
            None => Ok(None),
        }
    }

    /// Next message in its encoding, for relaying parts of it unchanged.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer is gone.
    pub async fn recv_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        self.inner.recv().await
    }
}

/// Messages to the peer in a streaming call. Clones share the call.
#[derive(Debug)]
pub struct Responses<M> {
    inner: adit_drpc::Responses,
    message: PhantomData<fn(M)>,
}

impl<M> Clone for Responses<M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            message: PhantomData,
        }
    }
}

impl<M: Message> Responses<M> {
    pub(crate) const fn new(inner: adit_drpc::Responses) -> Self {
        Self {
            inner,
            message: PhantomData,
        }
    }

    /// Sends a message. Waits while the peer does not read, without a limit
    /// of its own.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the peer is gone.
    pub async fn send(&self, message: &M) -> Result<(), Error> {
        self.send_bytes(message.encode_to_vec().into()).await
    }

    /// Sends an encoded message.
    ///
    /// # Errors
    /// As [`Responses::send`].
    pub async fn send_bytes(&self, message: Bytes) -> Result<(), Error> {
        self.inner.send(message).await
    }

    /// Waits until the peer is gone.
    pub async fn cancelled(&self) {
        self.inner.cancelled().await;
    }
}

macro_rules! unary_service {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty;)*) => {
        $(
            $(#[$doc])*
            fn $name(
                &self,
                request: $request,
            ) -> impl Future<Output = Result<$response, Status>> + Send {
                let _ = request;
                async { Err(Status::unimplemented()) }
            }
        )*
    };
}

/// Serves `coder.agent.v2.Agent` for one agent. A method that is not
/// overridden answers with code 12, after which agents stop calling it.
///
/// The future of a method is dropped when the agent gives the call up.
pub trait AgentService: Send + Sync + 'static {
    unary_service! {
        /// What the agent has to run.
        get_manifest(agent::GetManifestRequest) -> agent::Manifest;
        /// Banner for agents before 2.1.
        get_service_banner(agent::GetServiceBannerRequest) -> agent::ServiceBanner;
        /// Stores statistics; tells the interval, which must be positive.
        update_stats(agent::UpdateStatsRequest) -> agent::UpdateStatsResponse;
        /// Stores a lifecycle state and returns it.
        update_lifecycle(agent::UpdateLifecycleRequest) -> agent::Lifecycle;
        /// Stores the health of apps.
        batch_update_app_healths(agent::BatchUpdateAppHealthRequest) -> agent::BatchUpdateAppHealthResponse;
        /// Stores version and directory and returns them.
        update_startup(agent::UpdateStartupRequest) -> agent::Startup;
        /// Stores metadata values.
        batch_update_metadata(agent::BatchUpdateMetadataRequest) -> agent::BatchUpdateMetadataResponse;
        /// Stores log lines.
        batch_create_logs(agent::BatchCreateLogsRequest) -> agent::BatchCreateLogsResponse;
        /// Banners shown at login.
        get_announcement_banners(agent::GetAnnouncementBannersRequest) -> agent::GetAnnouncementBannersResponse;
        /// Stores how long a script took and how it ended.
        script_completed(agent::WorkspaceAgentScriptCompletedRequest) -> agent::WorkspaceAgentScriptCompletedResponse;
        /// What resources the agent has to watch.
        get_resources_monitoring_configuration(agent::GetResourcesMonitoringConfigurationRequest) -> agent::GetResourcesMonitoringConfigurationResponse;
        /// Takes measurements.
        push_resources_monitoring_usage(agent::PushResourcesMonitoringUsageRequest) -> agent::PushResourcesMonitoringUsageResponse;
        /// Stores the start or the end of a user's connection.
        report_connection(agent::ReportConnectionRequest) -> ();
        /// Creates or updates an agent below the caller.
        create_sub_agent(agent::CreateSubAgentRequest) -> agent::CreateSubAgentResponse;
        /// Deletes an agent below the caller.
        delete_sub_agent(agent::DeleteSubAgentRequest) -> agent::DeleteSubAgentResponse;
        /// Lists the agents below the caller.
        list_sub_agents(agent::ListSubAgentsRequest) -> agent::ListSubAgentsResponse;
        /// Stores decisions of the workspace firewall.
        report_boundary_logs(agent::ReportBoundaryLogsRequest) -> agent::ReportBoundaryLogsResponse;
        /// Stores what an app says it is doing.
        update_app_status(agent::UpdateAppStatusRequest) -> agent::UpdateAppStatusResponse;
        /// Replaces the snapshot of context resources.
        push_context_state(agent::PushContextStateRequest) -> agent::PushContextStateResponse;
    }
}

/// Serves `coder.tailnet.v2.Tailnet` for one peer. A method that is not
/// overridden answers with code 12.
///
/// The future of a method is dropped when the peer gives the call up, at the
/// latest one second later; before that its requests and responses fail.
pub trait TailnetService: Send + Sync + 'static {
    /// Runs the peer's membership of the network until either side ends it.
    fn coordinate(
        &self,
        requests: Requests<tailnet::CoordinateRequest>,
        responses: Responses<tailnet::CoordinateResponse>,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        drop((requests, responses));
        async { Err(Status::unimplemented()) }
    }

    /// Sends the relay map now and after each change. Peers drop the whole
    /// session when this ends.
    fn stream_derp_maps(
        &self,
        request: tailnet::StreamDerpMapsRequest,
        responses: Responses<tailnet::DerpMap>,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        drop((request, responses));
        async { Err(Status::unimplemented()) }
    }

    /// Sends the workspaces and agents of a user now and after each change.
    fn workspace_updates(
        &self,
        request: tailnet::WorkspaceUpdatesRequest,
        responses: Responses<tailnet::WorkspaceUpdate>,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        drop((request, responses));
        async { Err(Status::unimplemented()) }
    }

    unary_service! {
        /// Takes measurements of a tunnel.
        post_telemetry(tailnet::TelemetryRequest) -> tailnet::TelemetryResponse;
        /// Makes a token that keeps the peer's identity over a reconnect.
        refresh_resume_token(tailnet::RefreshResumeTokenRequest) -> tailnet::RefreshResumeTokenResponse;
    }
}

/// The agent service of a session that has none: every method is unknown.
#[derive(Debug, Clone, Copy)]
pub struct NoAgent;

impl AgentService for NoAgent {}
