//! Calling the services.

use std::{io, time::Duration};

use adit_drpc::{
    Error,
    client::{self, Receiver, Sender},
};
use adit_messages::{agent, tailnet};
use adit_yamux::{Connection, Stream};
use prost::Message;
use tokio::time::timeout;

/// Longest wait for the answer of a call with one answer, unless set
/// otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Caller {
    connection: Connection,
    timeout: Duration,
}

impl Caller {
    const fn new(connection: Connection) -> Self {
        Self {
            connection,
            timeout: CALL_TIMEOUT,
        }
    }

    async fn stream(&self) -> Result<Stream, Error> {
        let stream = self.connection.open().await.map_err(io::Error::from)?;
        Ok(stream)
    }

    async fn unary<Req, Resp>(&self, path: &str, request: &Req) -> Result<Resp, Error>
    where
        Req: Message,
        Resp: Message + Default,
    {
        let call = async {
            let stream = self.stream().await?;
            client::unary(stream, path, &[], request).await
        };
        timeout(self.timeout, call)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// The start of a streaming call has a deadline, the stream has none.
    async fn server_stream<Req, Resp>(
        &self,
        path: &str,
        request: &Req,
    ) -> Result<Receiver<Resp>, Error>
    where
        Req: Message,
    {
        let call = async {
            let stream = self.stream().await?;
            client::server_stream(stream, path, &[], request).await
        };
        timeout(self.timeout, call)
            .await
            .unwrap_or(Err(Error::Timeout))
    }
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty = $path:expr;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// When the server answers with an error, or not in time, or the
            /// session ends.
            pub async fn $name(&self, request: &$request) -> Result<$response, Error> {
                self.caller.unary($path, request).await
            }
        )*
    };
}

/// Calls `coder.agent.v2.Agent`.
#[derive(Debug, Clone)]
pub struct AgentClient {
    caller: Caller,
}

impl AgentClient {
    /// A client on a session.
    #[must_use]
    pub const fn new(connection: Connection) -> Self {
        Self {
            caller: Caller::new(connection),
        }
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.caller.timeout = timeout;
        client
    }

    /// The session the calls go over.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.caller.connection
    }

    unary_methods! {
        /// Fetches what the agent has to run. Since 2.0.
        get_manifest(agent::GetManifestRequest) -> agent::Manifest = agent::method::GET_MANIFEST;
        /// Fetches the banner of servers before 2.1.
        get_service_banner(agent::GetServiceBannerRequest) -> agent::ServiceBanner = agent::method::GET_SERVICE_BANNER;
        /// Reports traffic and sessions; an empty request asks for the interval. Since 2.0.
        update_stats(agent::UpdateStatsRequest) -> agent::UpdateStatsResponse = agent::method::UPDATE_STATS;
        /// Reports a lifecycle state, which must be set. Since 2.0.
        update_lifecycle(agent::UpdateLifecycleRequest) -> agent::Lifecycle = agent::method::UPDATE_LIFECYCLE;
        /// Reports the health of all apps. Since 2.0.
        batch_update_app_healths(agent::BatchUpdateAppHealthRequest) -> agent::BatchUpdateAppHealthResponse = agent::method::BATCH_UPDATE_APP_HEALTHS;
        /// Reports version and directory; the startup must be set. Since 2.0.
        update_startup(agent::UpdateStartupRequest) -> agent::Startup = agent::method::UPDATE_STARTUP;
        /// Reports metadata values, each with its result. Since 2.0.
        batch_update_metadata(agent::BatchUpdateMetadataRequest) -> agent::BatchUpdateMetadataResponse = agent::method::BATCH_UPDATE_METADATA;
        /// Sends log lines of one source. Since 2.0.
        batch_create_logs(agent::BatchCreateLogsRequest) -> agent::BatchCreateLogsResponse = agent::method::BATCH_CREATE_LOGS;
        /// Fetches the banners shown at login. Since 2.1.
        get_announcement_banners(agent::GetAnnouncementBannersRequest) -> agent::GetAnnouncementBannersResponse = agent::method::GET_ANNOUNCEMENT_BANNERS;
        /// Reports the end of a script. Since 2.3.
        script_completed(agent::WorkspaceAgentScriptCompletedRequest) -> agent::WorkspaceAgentScriptCompletedResponse = agent::method::SCRIPT_COMPLETED;
        /// Asks what resources to watch. Since 2.4.
        get_resources_monitoring_configuration(agent::GetResourcesMonitoringConfigurationRequest) -> agent::GetResourcesMonitoringConfigurationResponse = agent::method::GET_RESOURCES_MONITORING_CONFIGURATION;
        /// Reports the last measurements. Since 2.4.
        push_resources_monitoring_usage(agent::PushResourcesMonitoringUsageRequest) -> agent::PushResourcesMonitoringUsageResponse = agent::method::PUSH_RESOURCES_MONITORING_USAGE;
        /// Reports the start or the end of a user's connection. Since 2.4.
        report_connection(agent::ReportConnectionRequest) -> () = agent::method::REPORT_CONNECTION;
        /// Creates or updates an agent below this one. Since 2.6.
        create_sub_agent(agent::CreateSubAgentRequest) -> agent::CreateSubAgentResponse = agent::method::CREATE_SUB_AGENT;
        /// Deletes an agent below this one. Since 2.6.
        delete_sub_agent(agent::DeleteSubAgentRequest) -> agent::DeleteSubAgentResponse = agent::method::DELETE_SUB_AGENT;
        /// Lists the agents below this one. Since 2.6.
        list_sub_agents(agent::ListSubAgentsRequest) -> agent::ListSubAgentsResponse = agent::method::LIST_SUB_AGENTS;
        /// Sends decisions of the workspace firewall. Since 2.7.
        report_boundary_logs(agent::ReportBoundaryLogsRequest) -> agent::ReportBoundaryLogsResponse = agent::method::REPORT_BOUNDARY_LOGS;
        /// Sets what an app says it is doing. Since 2.8.
        update_app_status(agent::UpdateAppStatusRequest) -> agent::UpdateAppStatusResponse = agent::method::UPDATE_APP_STATUS;
        /// Replaces the snapshot of context resources. Since 2.10.
        push_context_state(agent::PushContextStateRequest) -> agent::PushContextStateResponse = agent::method::PUSH_CONTEXT_STATE;
    }
}

/// Calls `coder.tailnet.v2.Tailnet`.
#[derive(Debug, Clone)]
pub struct TailnetClient {
    caller: Caller,
}

impl TailnetClient {
    /// A client on a session.
    #[must_use]
    pub const fn new(connection: Connection) -> Self {
        Self {
            caller: Caller::new(connection),
        }
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.caller.timeout = timeout;
        client
    }

    /// The session the calls go over.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.caller.connection
    }

    unary_methods! {
        /// Sends measurements of a tunnel. Since 2.2.
        post_telemetry(tailnet::TelemetryRequest) -> tailnet::TelemetryResponse = tailnet::method::POST_TELEMETRY;
        /// Asks for a token that keeps the peer's identity over a reconnect.
        /// Not on an agent's session. Since 2.3.
        refresh_resume_token(tailnet::RefreshResumeTokenRequest) -> tailnet::RefreshResumeTokenResponse = tailnet::method::REFRESH_RESUME_TOKEN;
    }

    /// Joins the network: own node and tunnels go out, peers come in. Since
    /// 2.0.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn coordinate(
        &self,
    ) -> Result<
        (
            Sender<tailnet::CoordinateRequest>,
            Receiver<tailnet::CoordinateResponse>,
        ),
        Error,
    > {
        let call = async {
            let stream = self.caller.stream().await?;
            client::bidi(stream, tailnet::method::COORDINATE, &[]).await
        };
        timeout(self.caller.timeout, call)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    /// Receives the relay map now and after each change. Since 2.0.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn stream_derp_maps(&self) -> Result<Receiver<tailnet::DerpMap>, Error> {
        self.caller
            .server_stream(
                tailnet::method::STREAM_DERP_MAPS,
                &tailnet::StreamDerpMapsRequest {},
            )
            .await
    }

    /// Receives the workspaces and agents of a user now and after each
    /// change. Not on an agent's session. Since 2.3.
    ///
    /// # Errors
    /// When the session ends.
    pub async fn workspace_updates(
        &self,
        request: &tailnet::WorkspaceUpdatesRequest,
    ) -> Result<Receiver<tailnet::WorkspaceUpdate>, Error> {
        self.caller
            .server_stream(tailnet::method::WORKSPACE_UPDATES, request)
            .await
    }
}
