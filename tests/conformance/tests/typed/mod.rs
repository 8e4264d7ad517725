//! Decodes and encodes with the product's own message types.

use adit_messages::{agent, tailnet};
use bytes::Bytes;
use prost::{DecodeError, Message};

macro_rules! methods {
    ($path:expr, $response:expr, $data:expr, { $($module:ident::$method:ident: $request:ty => $answer:ty,)* }) => {
        match $path {
            $(
                $module::method::$method if $response => through::<$answer>($data),
                $module::method::$method => through::<$request>($data),
            )*
            other => panic!("no types for {other}"),
        }
    };
}

/// What the type of a method's messages keeps of a message.
pub(crate) fn round_trip(path: &str, response: bool, data: Bytes) -> Result<Bytes, DecodeError> {
    methods!(path, response, data, {
        agent::GET_MANIFEST: agent::GetManifestRequest => agent::Manifest,
        agent::GET_SERVICE_BANNER: agent::GetServiceBannerRequest => agent::ServiceBanner,
        agent::UPDATE_STATS: agent::UpdateStatsRequest => agent::UpdateStatsResponse,
        agent::UPDATE_LIFECYCLE: agent::UpdateLifecycleRequest => agent::Lifecycle,
        agent::BATCH_UPDATE_APP_HEALTHS: agent::BatchUpdateAppHealthRequest => agent::BatchUpdateAppHealthResponse,
        agent::UPDATE_STARTUP: agent::UpdateStartupRequest => agent::Startup,
        agent::BATCH_UPDATE_METADATA: agent::BatchUpdateMetadataRequest => agent::BatchUpdateMetadataResponse,
        agent::BATCH_CREATE_LOGS: agent::BatchCreateLogsRequest => agent::BatchCreateLogsResponse,
        agent::GET_ANNOUNCEMENT_BANNERS: agent::GetAnnouncementBannersRequest => agent::GetAnnouncementBannersResponse,
        agent::SCRIPT_COMPLETED: agent::WorkspaceAgentScriptCompletedRequest => agent::WorkspaceAgentScriptCompletedResponse,
        agent::GET_RESOURCES_MONITORING_CONFIGURATION: agent::GetResourcesMonitoringConfigurationRequest => agent::GetResourcesMonitoringConfigurationResponse,
        agent::PUSH_RESOURCES_MONITORING_USAGE: agent::PushResourcesMonitoringUsageRequest => agent::PushResourcesMonitoringUsageResponse,
        agent::REPORT_CONNECTION: agent::ReportConnectionRequest => (),
        agent::CREATE_SUB_AGENT: agent::CreateSubAgentRequest => agent::CreateSubAgentResponse,
        agent::DELETE_SUB_AGENT: agent::DeleteSubAgentRequest => agent::DeleteSubAgentResponse,
        agent::LIST_SUB_AGENTS: agent::ListSubAgentsRequest => agent::ListSubAgentsResponse,
        agent::REPORT_BOUNDARY_LOGS: agent::ReportBoundaryLogsRequest => agent::ReportBoundaryLogsResponse,
        agent::UPDATE_APP_STATUS: agent::UpdateAppStatusRequest => agent::UpdateAppStatusResponse,
        agent::PUSH_CONTEXT_STATE: agent::PushContextStateRequest => agent::PushContextStateResponse,
        tailnet::COORDINATE: tailnet::CoordinateRequest => tailnet::CoordinateResponse,
        tailnet::STREAM_DERP_MAPS: tailnet::StreamDerpMapsRequest => tailnet::DerpMap,
        tailnet::POST_TELEMETRY: tailnet::TelemetryRequest => tailnet::TelemetryResponse,
        tailnet::REFRESH_RESUME_TOKEN: tailnet::RefreshResumeTokenRequest => tailnet::RefreshResumeTokenResponse,
        tailnet::WORKSPACE_UPDATES: tailnet::WorkspaceUpdatesRequest => tailnet::WorkspaceUpdate,
    })
}

fn through<M: Message + Default>(data: Bytes) -> Result<Bytes, DecodeError> {
    M::decode(data).map(|message| message.encode_to_vec().into())
}
