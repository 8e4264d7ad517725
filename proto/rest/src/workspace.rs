//! Workspaces, builds and provisioner jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AppStatus, AutomaticUpdates, BuildReason, JobStatus, JobType, LogLevel, LogSource, Resource,
    Time, Transition, WorkspaceStatus, nullable,
};

/// `GET /workspaces/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workspace {
    /// Id.
    pub id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Last change of the row.
    pub updated_at: Time,
    /// Owner.
    pub owner_id: Uuid,
    /// Owner's login name.
    pub owner_name: String,
    /// Owner's picture.
    #[serde(deserialize_with = "nullable")]
    pub owner_avatar_url: String,
    /// Organization.
    pub organization_id: Uuid,
    /// Organization's name.
    pub organization_name: String,
    /// Template.
    pub template_id: Uuid,
    /// Template's name.
    pub template_name: String,
    /// Template's display name.
    pub template_display_name: String,
    /// Template's icon.
    pub template_icon: String,
    /// Whether users may cancel builds.
    pub template_allow_user_cancel_workspace_jobs: bool,
    /// Version new builds should use.
    pub template_active_version_id: Uuid,
    /// Whether only that version may be used.
    pub template_require_active_version: bool,
    /// Parameters by the older flow.
    pub template_use_classic_parameter_flow: bool,
    /// Newest build with its resources and agents.
    pub latest_build: WorkspaceBuild,
    /// Newest status a task reported.
    pub latest_app_status: Option<AppStatus>,
    /// The newest build uses another version than the template's active one.
    pub outdated: bool,
    /// Name, unique per owner without regard to case.
    pub name: String,
    /// `CRON_TZ=<zone> m h * * dow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart_schedule: Option<String>,
    /// Milliseconds until autostop; none means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
    /// Last connection by its owner.
    pub last_used_at: Time,
    /// When it will be deleted for dormancy.
    pub deleting_at: Option<Time>,
    /// Since when it is dormant.
    pub dormant_at: Option<Time>,
    /// Summary over its agents.
    pub health: WorkspaceHealth,
    /// Whether starts take the active version.
    pub automatic_updates: AutomaticUpdates,
    /// Whether the server allows renames.
    pub allow_renames: bool,
    /// Marked by the caller.
    pub favorite: bool,
    /// Next autostart.
    pub next_start_at: Option<Time>,
    /// Waits to be claimed.
    pub is_prebuild: bool,
    /// Task it was made for.
    pub task_id: Option<Uuid>,
}

/// Summary over a workspace's agents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceHealth {
    /// No agent fails.
    pub healthy: bool,
    /// Those that do.
    #[serde(deserialize_with = "nullable")]
    pub failing_agents: Vec<Uuid>,
}

/// `GET /workspaces`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspacesResponse {
    /// One page.
    #[serde(deserialize_with = "nullable")]
    pub workspaces: Vec<Workspace>,
    /// Matches over all pages.
    pub count: i64,
}

/// `GET /workspacebuilds/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkspaceBuild {
    /// Id.
    pub id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// Workspace.
    pub workspace_id: Uuid,
    /// Workspace's name.
    pub workspace_name: String,
    /// Workspace's owner.
    pub workspace_owner_id: Uuid,
    /// Owner's login name.
    pub workspace_owner_name: String,
    /// Owner's picture.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub workspace_owner_avatar_url: String,
    /// Template version used.
    pub template_version_id: Uuid,
    /// Its name.
    pub template_version_name: String,
    /// 1 for the first build of a workspace.
    pub build_number: i64,
    /// What it does.
    pub transition: Transition,
    /// Who asked for it.
    pub initiator_id: Uuid,
    /// Who asked for it.
    pub initiator_name: String,
    /// The job that carries it out.
    pub job: ProvisionerJob,
    /// Why it was made.
    pub reason: BuildReason,
    /// What exists after it.
    #[serde(deserialize_with = "nullable")]
    pub resources: Vec<Resource>,
    /// Autostop.
    pub deadline: Option<Time>,
    /// Latest possible autostop.
    pub max_deadline: Option<Time>,
    /// Job and transition in one word.
    pub status: WorkspaceStatus,
    /// Cost units a day.
    pub daily_cost: i64,
    /// Provisioners that could take the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_provisioners: Option<MatchedProvisioners>,
    /// Preset used.
    pub template_version_preset_id: Option<Uuid>,
    /// Made for a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_ai_task: Option<bool>,
    /// Its agent is started by someone else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_external_agent: Option<bool>,
}

impl WorkspaceStatus {
    /// Job status and transition in one word.
    #[must_use]
    pub fn derive(job: JobStatus, transition: Transition) -> Self {
        match (job, transition) {
            (JobStatus::Running, Transition::Start) => Self::Starting,
            (JobStatus::Running, Transition::Stop) => Self::Stopping,
            (JobStatus::Running, Transition::Delete) => Self::Deleting,
            (JobStatus::Succeeded, Transition::Start) => Self::Running,
            (JobStatus::Succeeded, Transition::Stop) => Self::Stopped,
            (JobStatus::Succeeded, Transition::Delete) => Self::Deleted,
            (JobStatus::Pending, _) => Self::Pending,
            (JobStatus::Canceling, _) => Self::Canceling,
            (JobStatus::Canceled, _) => Self::Canceled,
            (JobStatus::Failed, _) => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

/// Provisioners whose tags fit a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MatchedProvisioners {
    /// All.
    pub count: i64,
    /// Those seen lately.
    pub available: i64,
    /// Last sign of life.
    pub most_recently_seen: Option<Time>,
}

/// A unit of provisioner work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisionerJob {
    /// Id.
    pub id: Uuid,
    /// Queued at.
    pub created_at: Time,
    /// Taken by a provisioner at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Ended at, whatever the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// Cancel asked for at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canceled_at: Option<Time>,
    /// Why it failed.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub error: String,
    /// Failure a program can act on, for example
    /// `REQUIRED_TEMPLATE_VARIABLES`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub error_code: String,
    /// State.
    pub status: JobStatus,
    /// Provisioner that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Uuid>,
    /// Its name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub worker_name: String,
    /// Archive with the template's files.
    pub file_id: Uuid,
    /// Tags a provisioner must have.
    #[serde(deserialize_with = "nullable")]
    pub tags: BTreeMap<String, String>,
    /// Jobs to be taken before this one.
    pub queue_position: i64,
    /// All waiting jobs.
    pub queue_size: i64,
    /// Organization.
    pub organization_id: Uuid,
    /// Who asked for it.
    pub initiator_id: Uuid,
    /// What it works on.
    pub input: ProvisionerJobInput,
    /// Kind.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// Workers that could take it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub available_workers: Vec<Uuid>,
    /// Names for lists.
    pub metadata: ProvisionerJobMetadata,
    /// Its log was cut.
    pub logs_overflowed: bool,
}

/// What a job works on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisionerJobInput {
    /// Version to import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_version_id: Option<Uuid>,
    /// Build to carry out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_build_id: Option<Uuid>,
    /// Why the input could not be read.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub error: String,
}

/// Names for job lists; empty inside other objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisionerJobMetadata {
    /// Version name.
    pub template_version_name: String,
    /// Template; nil when not known.
    #[serde(deserialize_with = "nullable")]
    pub template_id: Uuid,
    /// Template's name.
    pub template_name: String,
    /// Template's display name.
    pub template_display_name: String,
    /// Template's icon.
    pub template_icon: String,
    /// Workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Uuid>,
    /// Workspace's name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub workspace_name: String,
    /// What the build does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_build_transition: Option<Transition>,
}

/// One line of a job's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProvisionerJobLog {
    /// Increases within a job.
    pub id: i64,
    /// Written at.
    pub created_at: Time,
    /// By which part.
    pub log_source: LogSource,
    /// Severity.
    pub log_level: LogLevel,
    /// Heading; a line that announces a new stage has an empty output.
    pub stage: String,
    /// Text.
    pub output: String,
}

/// A parameter value of a build; lists are JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildParameter {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(deserialize_with = "nullable")]
    pub value: String,
}

/// `POST /users/{user}/workspaces`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateWorkspaceRequest {
    /// Template, if no version is given; nil is absent.
    #[serde(deserialize_with = "nullable")]
    pub template_id: Uuid,
    /// Version; nil is absent.
    #[serde(deserialize_with = "nullable")]
    pub template_version_id: Uuid,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Autostart schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart_schedule: Option<String>,
    /// Milliseconds until autostop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
    /// Parameter values.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub rich_parameter_values: Vec<BuildParameter>,
    /// `always` or `never`; empty takes the default.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub automatic_updates: String,
    /// Preset; nil is absent.
    #[serde(deserialize_with = "nullable")]
    pub template_version_preset_id: Uuid,
}

/// `POST /workspaces/{id}/builds`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateWorkspaceBuildRequest {
    /// Version; nil takes that of the last build.
    #[serde(deserialize_with = "nullable")]
    pub template_version_id: Uuid,
    /// `start`, `stop` or `delete`.
    #[serde(deserialize_with = "nullable")]
    pub transition: String,
    /// Only check the request.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub dry_run: bool,
    /// Provisioner state to start from, base64.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub state: String,
    /// With delete: forget the resources instead of destroying them.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub orphan: bool,
    /// Parameter values; absent ones keep their last value.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub rich_parameter_values: Vec<BuildParameter>,
    /// `debug` asks for detailed provisioner logs.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub log_level: String,
    /// Why: see [`BuildReason`]; empty is `initiator`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub reason: String,
    /// Preset; nil is absent.
    #[serde(deserialize_with = "nullable")]
    pub template_version_preset_id: Uuid,
}

/// `PATCH /workspaces/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateWorkspaceRequest {
    /// New name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub name: String,
}

/// `PUT /workspaces/{id}/autostart`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateAutostartRequest {
    /// Absent or empty removes the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// `PUT /workspaces/{id}/ttl`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateTtlRequest {
    /// Milliseconds; `null` removes autostop.
    pub ttl_ms: Option<i64>,
}

/// `PUT /workspaces/{id}/extend`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PutExtendRequest {
    /// New autostop.
    pub deadline: Time,
}

/// `PUT /workspaces/{id}/dormant`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateDormancy {
    /// Dormant or not.
    pub dormant: bool,
}

/// `PUT /workspaces/{id}/autoupdates`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateAutomaticUpdatesRequest {
    /// `always` or `never`.
    #[serde(deserialize_with = "nullable")]
    pub automatic_updates: String,
}

/// `POST /workspaces/{id}/usage`; the body may also be empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PostUsageRequest {
    /// Agent in use.
    #[serde(deserialize_with = "nullable")]
    pub agent_id: Uuid,
    /// `vscode`, `jetbrains`, `reconnecting-pty` or `ssh`.
    #[serde(deserialize_with = "nullable")]
    pub app_name: String,
}
