//! What a template version describes and what a provisioner hands back: the
//! same shapes serve both, because a build is its version's description with
//! the values filled in.

use std::collections::BTreeMap;

use adit_rest::{
    DisplayApp, Healthcheck, LogLevel, OpenIn, ResourceMetadata, SharingLevel,
    TemplateVersionParameter,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Content of a template version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionSpec {
    /// What a start build makes.
    pub resources: Vec<ResourceSpec>,
    /// What exists in a stopped workspace.
    pub stop_resources: Vec<ResourceSpec>,
    /// Parameters in display order.
    pub parameters: Vec<TemplateVersionParameter>,
    /// What planning a build says.
    pub plan_output: Vec<OutputLine>,
    /// Settings only the driver named by the template understands.
    pub driver: serde_json::Value,
}

/// A line a provisioner says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct OutputLine {
    pub level: LogLevel,
    pub output: String,
}

/// A resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ResourceSpec {
    pub resource_type: String,
    pub name: String,
    pub hide: bool,
    pub icon: String,
    pub daily_cost: i64,
    pub metadata: Vec<ResourceMetadata>,
    pub agents: Vec<AgentSpec>,
}

/// An agent.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AgentSpec {
    pub name: String,
    /// `linux`, `darwin`, `windows`.
    pub operating_system: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    pub directory: String,
    pub environment_variables: BTreeMap<String, String>,
    pub motd_file: String,
    /// 0 disables the time-out.
    pub connection_timeout_seconds: i64,
    pub troubleshooting_url: String,
    pub display_apps: Vec<DisplayApp>,
    pub apps: Vec<AppSpec>,
    pub scripts: Vec<ScriptSpec>,
    pub metadata: Vec<MetadataSpec>,
    /// Token the running compute already holds; generated when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<Uuid>,
    /// Id to use; generated when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

impl std::fmt::Debug for AgentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentSpec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AppSpec {
    pub slug: String,
    pub display_name: String,
    pub icon: String,
    pub url: String,
    pub command: String,
    pub external: bool,
    pub subdomain: bool,
    pub sharing_level: SharingLevel,
    pub healthcheck: Healthcheck,
    pub group: String,
    pub hidden: bool,
    pub open_in: OpenIn,
    pub tooltip: String,
}

/// A script.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ScriptSpec {
    pub display_name: String,
    pub icon: String,
    pub script: String,
    pub log_path: String,
    /// Six fields, seconds first; empty is never.
    pub cron: String,
    pub run_on_start: bool,
    pub run_on_stop: bool,
    pub start_blocks_login: bool,
    /// 0 is none.
    pub timeout_seconds: i64,
}

/// A metadata item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct MetadataSpec {
    pub key: String,
    pub display_name: String,
    pub script: String,
    pub interval_seconds: i64,
    pub timeout_seconds: i64,
}
