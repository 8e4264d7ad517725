//! Rows as the rest of the server sees them.

use std::collections::BTreeMap;

use adit_rest::{
    AppHealth, AppState, AutomaticUpdates, BuildParameter, BuildReason, DisplayApp, JobStatus,
    JobType, LifecycleState, LogLevel, LogSource, LoginType, PresetParameter, ResourceMetadata,
    ScriptStatus, Time, Transition, UserStatus,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::spec::{AppSpec, VersionSpec};

/// Id of the system user that owns unclaimed prebuilt workspaces; the value is
/// part of the protocol.
pub const PREBUILDS_USER: Uuid = Uuid::from_u128(0xc42f_df75_3097_471c_8c33_fb52_454d_81c0);

/// An account.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct User {
    pub id: Uuid,
    pub username: String,
    pub email: String,
    pub name: String,
    pub avatar_url: String,
    /// PHC string; empty when the user has no password.
    pub password_hash: String,
    pub status: UserStatus,
    pub login_type: LoginType,
    /// Names of deployment-wide roles.
    pub roles: Vec<String>,
    pub created_at: Time,
    pub updated_at: Time,
    pub last_seen_at: Time,
    pub deleted: bool,
    /// Not a person; hidden from lists.
    pub is_system: bool,
}

impl User {
    /// Whether the user may do everything.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.roles.iter().any(|role| role == "owner")
    }
}

/// An organization.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Organization {
    pub id: Uuid,
    pub name: String,
    pub display_name: String,
    pub icon: String,
    pub description: String,
    pub is_default: bool,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A membership.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Member {
    pub organization_id: Uuid,
    pub user_id: Uuid,
    pub roles: Vec<String>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A session or named token. The secret itself is never stored.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ApiKey {
    pub id: String,
    pub user_id: Uuid,
    /// SHA-256 of the secret, lower-case hex.
    pub hashed_secret: String,
    pub login_type: LoginType,
    /// `all` or `application_connect`.
    pub scope: String,
    pub scopes: Vec<String>,
    pub allow_list: Vec<String>,
    pub token_name: String,
    pub lifetime_seconds: i64,
    pub last_used: Time,
    pub expires_at: Time,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A user's key for git over SSH.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub struct GitSshKey {
    pub user_id: Uuid,
    pub public_key: String,
    /// OpenSSH private key text.
    pub private_key: String,
    pub created_at: Time,
    pub updated_at: Time,
}

impl std::fmt::Debug for GitSshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitSshKey")
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// A template; rarely read settings are kept together in `options`.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Template {
    pub id: Uuid,
    pub organization_id: Uuid,
    pub name: String,
    /// Which driver carries out its builds: `local` or `echo`.
    pub provisioner: String,
    pub active_version_id: Uuid,
    pub created_by: Uuid,
    pub deleted: bool,
    pub options: TemplateOptions,
    pub created_at: Time,
    pub updated_at: Time,
}

/// Settings of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TemplateOptions {
    pub display_name: String,
    pub description: String,
    pub icon: String,
    /// Non-empty marks the template as deprecated.
    pub deprecation_message: String,
    pub default_ttl_ms: i64,
    pub activity_bump_ms: i64,
    pub allow_user_autostart: bool,
    pub allow_user_autostop: bool,
    pub allow_user_cancel_workspace_jobs: bool,
    pub failure_ttl_ms: i64,
    pub time_til_dormant_ms: i64,
    pub time_til_dormant_autodelete_ms: i64,
    pub require_active_version: bool,
    pub use_classic_parameter_flow: bool,
}

impl Default for TemplateOptions {
    fn default() -> Self {
        Self {
            display_name: String::new(),
            description: String::new(),
            icon: String::new(),
            deprecation_message: String::new(),
            default_ttl_ms: 0,
            activity_bump_ms: 3_600_000,
            allow_user_autostart: true,
            allow_user_autostop: true,
            allow_user_cancel_workspace_jobs: true,
            failure_ttl_ms: 0,
            time_til_dormant_ms: 0,
            time_til_dormant_autodelete_ms: 0,
            require_active_version: false,
            use_classic_parameter_flow: false,
        }
    }
}

/// A version of a template.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct TemplateVersion {
    pub id: Uuid,
    pub template_id: Option<Uuid>,
    pub organization_id: Uuid,
    pub name: String,
    pub message: String,
    pub readme: String,
    /// Import job.
    pub job_id: Uuid,
    pub created_by: Uuid,
    pub archived: bool,
    /// What builds of this version make, and its parameters.
    pub spec: VersionSpec,
    pub created_at: Time,
    pub updated_at: Time,
}

/// A named set of parameter values, optionally with workspaces kept ready.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Preset {
    pub id: Uuid,
    pub template_version_id: Uuid,
    pub name: String,
    pub description: String,
    pub icon: String,
    pub is_default: bool,
    /// How many unclaimed workspaces to keep; none: no prebuilds.
    pub desired_instances: Option<i64>,
    pub parameters: Vec<PresetParameter>,
    pub created_at: Time,
}

/// A workspace.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Workspace {
    pub id: Uuid,
    pub owner_id: Uuid,
    pub organization_id: Uuid,
    pub template_id: Uuid,
    pub name: String,
    pub deleted: bool,
    pub autostart_schedule: Option<String>,
    pub ttl_ms: Option<i64>,
    pub automatic_updates: AutomaticUpdates,
    pub last_used_at: Time,
    pub dormant_at: Option<Time>,
    pub deleting_at: Option<Time>,
    pub next_start_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Workspace {
    /// Whether it waits to be claimed.
    #[must_use]
    pub fn is_prebuild(&self) -> bool {
        self.owner_id == PREBUILDS_USER
    }
}

/// A build of a workspace.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Build {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub build_number: i64,
    pub template_version_id: Uuid,
    pub transition: Transition,
    pub initiator_id: Uuid,
    pub job_id: Uuid,
    pub reason: BuildReason,
    pub deadline: Option<Time>,
    pub max_deadline: Option<Time>,
    pub preset_id: Option<Uuid>,
    pub daily_cost: i64,
    pub parameters: Vec<BuildParameter>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// Which half of a prebuild's life a build belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrebuildStage {
    /// An ordinary build.
    None,
    /// Makes an unclaimed workspace.
    Create,
    /// Hands it to its new owner.
    Claim,
}

/// What a job works on; stored as JSON with the keys of Coder's job input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct JobInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_version_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_build_id: Option<Uuid>,
    /// Dry runs: the name the workspace would have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workspace_name: String,
    /// Dry runs: values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rich_parameter_values: Vec<BuildParameter>,
    /// 0 none, 1 create, 2 claim.
    #[serde(skip_serializing_if = "is_zero")]
    pub prebuilt_workspace_stage: i64,
    /// Delete without destroying resources.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphan: bool,
    /// `debug` or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_level: String,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl JobInput {
    /// The stage as a type.
    #[must_use]
    pub fn stage(&self) -> PrebuildStage {
        match self.prebuilt_workspace_stage {
            1 => PrebuildStage::Create,
            2 => PrebuildStage::Claim,
            _ => PrebuildStage::None,
        }
    }
}

/// A unit of provisioner work.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Job {
    pub id: Uuid,
    pub organization_id: Uuid,
    pub initiator_id: Uuid,
    pub job_type: JobType,
    pub input: JobInput,
    pub tags: BTreeMap<String, String>,
    pub file_id: Uuid,
    pub worker_id: Option<Uuid>,
    pub error: String,
    pub error_code: String,
    pub logs_overflowed: bool,
    pub created_at: Time,
    pub updated_at: Time,
    pub started_at: Option<Time>,
    pub canceled_at: Option<Time>,
    pub completed_at: Option<Time>,
}

impl Job {
    /// State, derived from the times as Coder's generated column does.
    #[must_use]
    pub fn status(&self) -> JobStatus {
        if !self.error.is_empty() {
            return JobStatus::Failed;
        }
        match (self.completed_at, self.canceled_at, self.started_at) {
            (Some(_), Some(_), _) => JobStatus::Canceled,
            (Some(_), None, _) => JobStatus::Succeeded,
            (None, Some(_), _) => JobStatus::Canceling,
            (None, None, Some(_)) => JobStatus::Running,
            (None, None, None) => JobStatus::Pending,
        }
    }

    /// Whether it has ended, in whatever way.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.completed_at.is_some()
    }
}

/// One line of a job's log.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct JobLog {
    pub id: i64,
    pub created_at: Time,
    pub source: LogSource,
    pub level: LogLevel,
    pub stage: String,
    pub output: String,
}

/// Something a build made.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Resource {
    pub id: Uuid,
    pub job_id: Uuid,
    pub transition: Transition,
    pub resource_type: String,
    pub name: String,
    pub hide: bool,
    pub icon: String,
    pub daily_cost: i64,
    pub metadata: Vec<ResourceMetadata>,
    pub created_at: Time,
}

/// An agent. The auth token is a bearer secret and never printed.
#[derive(Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Agent {
    pub id: Uuid,
    pub parent_id: Option<Uuid>,
    pub resource_id: Uuid,
    pub name: String,
    pub auth_token: Uuid,
    pub architecture: String,
    pub operating_system: String,
    pub environment_variables: BTreeMap<String, String>,
    pub directory: String,
    pub expanded_directory: String,
    pub motd_file: String,
    pub version: String,
    pub api_version: String,
    pub subsystems: Vec<String>,
    pub display_apps: Vec<DisplayApp>,
    pub connection_timeout_seconds: i64,
    pub troubleshooting_url: String,
    pub lifecycle_state: LifecycleState,
    pub logs_length: i64,
    pub logs_overflowed: bool,
    pub created_at: Time,
    pub updated_at: Time,
    pub first_connected_at: Option<Time>,
    pub last_connected_at: Option<Time>,
    pub disconnected_at: Option<Time>,
    pub started_at: Option<Time>,
    pub ready_at: Option<Time>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("lifecycle_state", &self.lifecycle_state)
            .finish_non_exhaustive()
    }
}

/// An agent with everything it hangs on.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct AgentContext {
    pub agent: Agent,
    pub workspace: Workspace,
    pub build: Build,
    pub job: Job,
    /// Owner of the workspace.
    pub owner: User,
}

/// An app of an agent.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct App {
    pub id: Uuid,
    pub agent_id: Uuid,
    pub health: AppHealth,
    pub spec: AppSpec,
}

/// A report of a task.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct AppStatusRow {
    pub id: Uuid,
    pub workspace_id: Uuid,
    pub agent_id: Uuid,
    pub app_id: Uuid,
    pub state: AppState,
    pub message: String,
    pub uri: String,
    pub created_at: Time,
}

/// A script of an agent with its newest result.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Script {
    pub id: Uuid,
    pub agent_id: Uuid,
    pub log_source_id: Uuid,
    pub display_name: String,
    pub log_path: String,
    pub script: String,
    pub cron: String,
    pub run_on_start: bool,
    pub run_on_stop: bool,
    pub start_blocks_login: bool,
    pub timeout_seconds: i64,
    pub exit_code: Option<i64>,
    pub status: Option<ScriptStatus>,
}

/// One run of a script.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ScriptTiming {
    pub script_id: Uuid,
    pub started_at: Time,
    pub ended_at: Time,
    pub exit_code: i64,
    /// `start`, `stop` or `cron`.
    pub stage: String,
    pub status: ScriptStatus,
}

/// Where log lines of an agent come from.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct LogSourceRow {
    pub agent_id: Uuid,
    pub id: Uuid,
    pub display_name: String,
    pub icon: String,
    pub created_at: Time,
}

/// One line of an agent's log.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct AgentLog {
    pub id: i64,
    pub created_at: Time,
    pub level: LogLevel,
    pub output: String,
    pub log_source_id: Uuid,
}

/// A metadata item of an agent with its newest value.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Metadata {
    pub agent_id: Uuid,
    pub key: String,
    pub display_name: String,
    pub script: String,
    pub interval_seconds: i64,
    pub timeout_seconds: i64,
    pub value: String,
    pub error: String,
    /// Year 1 if never.
    pub collected_at: Time,
}

/// One traffic report of an agent; counters are deltas.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct AgentStats {
    pub agent_id: Uuid,
    pub workspace_id: Uuid,
    pub user_id: Uuid,
    pub created_at: Time,
    pub connection_count: i64,
    pub rx_packets: i64,
    pub rx_bytes: i64,
    pub tx_packets: i64,
    pub tx_bytes: i64,
    pub sessions_vscode: i64,
    pub sessions_jetbrains: i64,
    pub sessions_pty: i64,
    pub sessions_ssh: i64,
    /// Microseconds; negative when unknown.
    pub latency_us: i64,
}
