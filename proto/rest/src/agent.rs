//! Resources, agents, apps, scripts, agent logs and metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AgentStatus, AppHealth, AppState, DisplayApp, LifecycleState, LogLevel, OpenIn, ScriptStatus,
    SharingLevel, Time, Transition, nullable,
};

/// Something a build made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Id.
    pub id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Job that made it.
    pub job_id: Uuid,
    /// In which state of the workspace it exists.
    pub workspace_transition: Transition,
    /// Type, for example `local_process`.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Name.
    pub name: String,
    /// Not shown by default.
    pub hide: bool,
    /// Icon.
    pub icon: String,
    /// Agents running in it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub agents: Vec<WorkspaceAgent>,
    /// Facts to show.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub metadata: Vec<ResourceMetadata>,
    /// Cost units a day.
    pub daily_cost: i64,
}

/// A fact about a resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceMetadata {
    /// Name.
    pub key: String,
    /// Value.
    #[serde(deserialize_with = "nullable")]
    pub value: String,
    /// To be hidden until asked for.
    pub sensitive: bool,
}

/// `GET /workspaceagents/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceAgent {
    /// Id; also determines its address in the tunnel.
    pub id: Uuid,
    /// Set for agents started by another agent.
    pub parent_id: Option<Uuid>,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// First control connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_connected_at: Option<Time>,
    /// Last sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_connected_at: Option<Time>,
    /// End of the last control connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnected_at: Option<Time>,
    /// Start scripts began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Start scripts ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
    /// Control connection.
    pub status: AgentStatus,
    /// The agent's own state.
    pub lifecycle_state: LifecycleState,
    /// Name, unique in the workspace.
    pub name: String,
    /// Resource it runs in.
    pub resource_id: Uuid,
    /// Set for agents that authenticate by a cloud's identity service.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub instance_id: String,
    /// `amd64`, `arm64`, ….
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// Environment of sessions.
    #[serde(deserialize_with = "nullable")]
    pub environment_variables: BTreeMap<String, String>,
    /// `linux`, `darwin`, `windows`.
    #[serde(deserialize_with = "nullable")]
    pub operating_system: String,
    /// Bytes of stored logs.
    pub logs_length: i64,
    /// Logs beyond the limit were dropped.
    pub logs_overflowed: bool,
    /// Working directory as the template wrote it.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub directory: String,
    /// Working directory as the agent resolved it.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub expanded_directory: String,
    /// Program version.
    pub version: String,
    /// Agent API version.
    pub api_version: String,
    /// Apps.
    #[serde(deserialize_with = "nullable")]
    pub apps: Vec<WorkspaceApp>,
    /// Latency by relay region name.
    #[serde(
        rename = "latency",
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub derp_latency: BTreeMap<String, DerpLatency>,
    /// Seconds until a missing agent counts as timed out.
    pub connection_timeout_seconds: i64,
    /// Where a user finds help.
    #[serde(deserialize_with = "nullable")]
    pub troubleshooting_url: String,
    /// `envbox`, `envbuilder`, `exectrace`.
    #[serde(deserialize_with = "nullable")]
    pub subsystems: Vec<String>,
    /// Summary.
    pub health: AgentHealth,
    /// Built-in ways to open it.
    #[serde(deserialize_with = "nullable")]
    pub display_apps: Vec<DisplayApp>,
    /// Where its log lines come from.
    #[serde(deserialize_with = "nullable")]
    pub log_sources: Vec<AgentLogSource>,
    /// Scripts.
    #[serde(deserialize_with = "nullable")]
    pub scripts: Vec<AgentScript>,
    /// `blocking` or `non-blocking`; deprecated.
    #[serde(deserialize_with = "nullable")]
    pub startup_script_behavior: String,
}

impl WorkspaceAgent {
    /// Whether a shell should wait for the start scripts.
    #[must_use]
    pub fn start_blocks_login(&self) -> bool {
        self.scripts.iter().any(|script| script.start_blocks_login)
    }
}

/// Latency to one relay region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerpLatency {
    /// The agent's home region.
    pub preferred: bool,
    /// Milliseconds.
    pub latency_ms: f64,
}

/// Summary of an agent's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentHealth {
    /// All well.
    pub healthy: bool,
    /// What is wrong.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub reason: String,
}

/// A source of log lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentLogSource {
    /// Agent.
    pub workspace_agent_id: Uuid,
    /// Id, unique per agent.
    pub id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Display name.
    pub display_name: String,
    /// Icon.
    pub icon: String,
}

/// A script the agent runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentScript {
    /// Id.
    pub id: Uuid,
    /// Its log source.
    pub log_source_id: Uuid,
    /// Log file in the workspace.
    pub log_path: String,
    /// Text.
    pub script: String,
    /// Six-field schedule, or empty.
    pub cron: String,
    /// Runs at start.
    pub run_on_start: bool,
    /// Runs at stop.
    pub run_on_stop: bool,
    /// Shells wait for it.
    pub start_blocks_login: bool,
    /// Nanoseconds; 0 is none.
    pub timeout: i64,
    /// Display name.
    pub display_name: String,
    /// Last exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Last result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ScriptStatus>,
}

/// An app reachable through an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceApp {
    /// Id.
    pub id: Uuid,
    /// Address as seen from the agent, or the target of an external app.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub url: String,
    /// A plain link.
    pub external: bool,
    /// Name in URLs.
    pub slug: String,
    /// Display name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub display_name: String,
    /// Command of a terminal app.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub command: String,
    /// Icon.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub icon: String,
    /// Served below its own host name.
    pub subdomain: bool,
    /// First label of that host name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub subdomain_name: String,
    /// Who may open it.
    pub sharing_level: SharingLevel,
    /// How it is watched.
    pub healthcheck: Healthcheck,
    /// What the watch says.
    pub health: AppHealth,
    /// Group in menus.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub group: String,
    /// Not shown.
    pub hidden: bool,
    /// Where it opens.
    pub open_in: OpenIn,
    /// Hint.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub tooltip: String,
    /// Newest task reports.
    #[serde(deserialize_with = "nullable")]
    pub statuses: Vec<AppStatus>,
}

/// How an app is watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// URL as seen from the agent; empty disables the watch.
    pub url: String,
    /// Seconds.
    pub interval: i64,
    /// Failures before it counts as unhealthy.
    pub threshold: i64,
}

/// A report of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppStatus {
    /// Id.
    pub id: Uuid,
    /// Written at.
    pub created_at: Time,
    /// Workspace.
    pub workspace_id: Uuid,
    /// Agent.
    pub agent_id: Uuid,
    /// App.
    pub app_id: Uuid,
    /// State.
    pub state: AppState,
    /// Text.
    pub message: String,
    /// Link.
    pub uri: String,
    /// Icon.
    pub icon: String,
    /// A human should look.
    pub needs_user_attention: bool,
}

/// One line of an agent's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceAgentLog {
    /// Increases within an agent.
    pub id: i64,
    /// Written at.
    pub created_at: Time,
    /// Text.
    pub output: String,
    /// Severity.
    pub level: LogLevel,
    /// Source.
    pub source_id: Uuid,
}

/// A metadata item with its newest value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentMetadata {
    /// Newest value.
    pub result: AgentMetadataResult,
    /// What it is.
    pub description: AgentMetadataDescription,
}

/// The newest value of a metadata item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentMetadataResult {
    /// Collected at.
    pub collected_at: Time,
    /// Seconds since then.
    pub age: i64,
    /// Output of the script.
    pub value: String,
    /// Why there is none.
    pub error: String,
}

/// What a metadata item is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentMetadataDescription {
    /// Display name.
    pub display_name: String,
    /// Unique key.
    pub key: String,
    /// Script.
    pub script: String,
    /// Seconds between runs.
    pub interval: i64,
    /// Seconds a run may take.
    pub timeout: i64,
}

/// `GET /workspaceagents/{id}/listening-ports`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListeningPortsResponse {
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ListeningPort>,
}

/// A port a process in the workspace listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListeningPort {
    /// Process, when known.
    pub process_name: String,
    /// `tcp`.
    pub network: String,
    /// Number.
    pub port: u16,
}

/// Why an agent is told to start afresh
/// (`GET /workspaceagents/me/reinit`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReinitializationEvent {
    /// Workspace.
    pub workspace_id: Uuid,
    /// `prebuild_claimed`.
    pub reason: String,
    /// New owner.
    #[serde(skip_serializing_if = "Uuid::is_nil", deserialize_with = "nullable")]
    pub owner_id: Uuid,
}
