//! Templates, versions, parameters and presets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{MatchedProvisioners, ProvisionerJob, SharingLevel, Time, nullable};

/// `GET /templates/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Id.
    pub id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// Organization.
    pub organization_id: Uuid,
    /// Organization's name.
    pub organization_name: String,
    /// Organization's display name.
    pub organization_display_name: String,
    /// Organization's icon.
    pub organization_icon: String,
    /// Name, unique in its organization.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Which program builds it.
    pub provisioner: String,
    /// Version new builds use.
    pub active_version_id: Uuid,
    /// Users with a recently used workspace.
    pub active_user_count: i64,
    /// Build durations by transition, milliseconds.
    #[serde(deserialize_with = "nullable")]
    pub build_time_stats: BTreeMap<String, TransitionStats>,
    /// Description.
    pub description: String,
    /// No new workspaces.
    pub deprecated: bool,
    /// Why.
    pub deprecation_message: String,
    /// Deleted.
    pub deleted: bool,
    /// Icon.
    pub icon: String,
    /// Autostop of new workspaces, milliseconds; 0 is none.
    pub default_ttl_ms: i64,
    /// By how much use moves the autostop, milliseconds.
    pub activity_bump_ms: i64,
    /// When to warn before the autostop, milliseconds.
    pub time_til_autostop_notify_ms: i64,
    /// Days of forced stops.
    pub autostop_requirement: AutostopRequirement,
    /// Days autostart is allowed on.
    pub autostart_requirement: AutostartRequirement,
    /// Author.
    pub created_by_id: Uuid,
    /// Author's login name.
    pub created_by_name: String,
    /// Users may set an autostart.
    pub allow_user_autostart: bool,
    /// Users may set an autostop.
    pub allow_user_autostop: bool,
    /// Users may cancel builds.
    pub allow_user_cancel_workspace_jobs: bool,
    /// Clean-up of failed builds, milliseconds; 0 is none.
    pub failure_ttl_ms: i64,
    /// Unused workspaces become dormant, milliseconds; 0 is never.
    pub time_til_dormant_ms: i64,
    /// Dormant workspaces are deleted, milliseconds; 0 is never.
    pub time_til_dormant_autodelete_ms: i64,
    /// Only the active version may be used.
    pub require_active_version: bool,
    /// Widest sharing of ports.
    pub max_port_share_level: SharingLevel,
    /// `simple` or `passthru`.
    pub cors_behavior: String,
    /// Parameters by the older flow.
    pub use_classic_parameter_flow: bool,
    /// Provisioner modules are not cached.
    pub disable_module_cache: bool,
}

/// Percentiles of build durations, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransitionStats {
    /// Median.
    #[serde(rename = "P50")]
    pub p50: Option<i64>,
    /// 95th percentile.
    #[serde(rename = "P95")]
    pub p95: Option<i64>,
}

/// Days of forced stops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutostopRequirement {
    /// Week days in lower case.
    #[serde(deserialize_with = "nullable")]
    pub days_of_week: Vec<String>,
    /// Every how many weeks.
    pub weeks: i64,
}

/// Days autostart is allowed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutostartRequirement {
    /// Week days in lower case.
    #[serde(deserialize_with = "nullable")]
    pub days_of_week: Vec<String>,
}

/// `GET /templateversions/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVersion {
    /// Id.
    pub id: Uuid,
    /// Template, unless just uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_id: Option<Uuid>,
    /// Organization.
    pub organization_id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// Name, unique in its template.
    pub name: String,
    /// What changed.
    pub message: String,
    /// Import job.
    pub job: ProvisionerJob,
    /// Text of the README file.
    pub readme: String,
    /// Author.
    pub created_by: MinimalUser,
    /// Hidden from lists.
    pub archived: bool,
    /// `UNSUPPORTED_WORKSPACES`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub warnings: Vec<String>,
    /// Provisioners that could take the import.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_provisioners: Option<MatchedProvisioners>,
    /// Agents are started by someone else.
    pub has_external_agent: bool,
}

/// A user in few words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MinimalUser {
    /// Id.
    pub id: Uuid,
    /// Login name.
    pub username: String,
    /// Full name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub name: String,
    /// Picture.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub avatar_url: String,
}

/// `GET /templateversions/{id}/rich-parameters`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVersionParameter {
    /// Name.
    pub name: String,
    /// Display name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub display_name: String,
    /// Description, Markdown.
    pub description: String,
    /// Description without mark-up.
    pub description_plaintext: String,
    /// `string`, `number`, `bool` or `list(string)`.
    #[serde(rename = "type")]
    pub parameter_type: String,
    /// Which control shows it.
    pub form_type: String,
    /// May change after creation.
    pub mutable: bool,
    /// Default value.
    pub default_value: String,
    /// Icon.
    pub icon: String,
    /// Allowed values; empty is any.
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<TemplateVersionParameterOption>,
    /// Text for a refused value.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub validation_error: String,
    /// Regular expression.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub validation_regex: String,
    /// Smallest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_min: Option<i64>,
    /// Largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_max: Option<i64>,
    /// `increasing` or `decreasing`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub validation_monotonic: String,
    /// Has no default.
    pub required: bool,
    /// Valid for one build only.
    pub ephemeral: bool,
}

/// One allowed value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVersionParameterOption {
    /// Display name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Value.
    pub value: String,
    /// Icon.
    pub icon: String,
}

/// `GET /templateversions/{id}/variables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVersionVariable {
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// `string`, `number` or `bool`.
    #[serde(rename = "type")]
    pub variable_type: String,
    /// Value.
    pub value: String,
    /// Default.
    pub default_value: String,
    /// Has no default.
    pub required: bool,
    /// Not to be shown.
    pub sensitive: bool,
}

/// A named set of parameter values. The keys are capitalised on the wire, and
/// the list of a version without presets is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preset {
    /// Id.
    #[serde(rename = "ID")]
    pub id: Uuid,
    /// Name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Values; `null` when there are none.
    #[serde(rename = "Parameters")]
    pub parameters: Option<Vec<PresetParameter>>,
    /// Taken when a user asks for none.
    #[serde(rename = "Default")]
    pub default: bool,
    /// Workspaces kept ready.
    #[serde(rename = "DesiredPrebuildInstances")]
    pub desired_prebuild_instances: Option<i64>,
    /// Description.
    #[serde(rename = "Description")]
    pub description: String,
    /// Icon.
    #[serde(rename = "Icon")]
    pub icon: String,
}

/// One value of a [`Preset`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PresetParameter {
    /// Name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Value.
    #[serde(rename = "Value")]
    pub value: String,
}

/// `POST /templateversions/{id}/dry-run`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DryRunRequest {
    /// Name the workspace would have.
    #[serde(deserialize_with = "nullable")]
    pub workspace_name: String,
    /// Values.
    #[serde(deserialize_with = "nullable")]
    pub rich_parameter_values: Vec<crate::BuildParameter>,
    /// Variables.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub user_variable_values: Vec<crate::BuildParameter>,
}

/// A login the template needs (`GET /templateversions/{id}/external-auth`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateVersionExternalAuth {
    /// Id.
    pub id: String,
    /// Kind of provider.
    #[serde(rename = "type")]
    pub provider_type: String,
    /// Display name.
    pub display_name: String,
    /// Icon.
    pub display_icon: String,
    /// Where to log in.
    pub authenticate_url: String,
    /// Already logged in.
    pub authenticated: bool,
    /// May be left out.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub optional: bool,
}

/// Body of `POST /templateversions/{id}/dynamic-parameters/evaluate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DynamicParametersRequest {
    /// Number of the request.
    pub id: i64,
    /// Values by name.
    #[serde(deserialize_with = "nullable")]
    pub inputs: BTreeMap<String, String>,
    /// Owner of the workspace to be.
    #[serde(deserialize_with = "nullable")]
    pub owner_id: Uuid,
}

/// Reply to [`DynamicParametersRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DynamicParametersResponse {
    /// Number of the request.
    pub id: i64,
    /// Problems of the whole.
    #[serde(deserialize_with = "nullable")]
    pub diagnostics: Vec<Diagnostic>,
    /// Parameters; `null` when they could not be evaluated.
    pub parameters: Option<Vec<PreviewParameter>>,
}

/// A problem with a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Diagnostic {
    /// `error` or `warning`.
    pub severity: String,
    /// Short text.
    pub summary: String,
    /// Long text.
    pub detail: String,
    /// For programs.
    pub extra: DiagnosticExtra,
}

/// A problem in a form a program can act on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiagnosticExtra {
    /// For example `owner_not_found` or `required`.
    pub code: String,
}

/// A value that may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NullHclString {
    /// Text.
    pub value: String,
    /// Known.
    pub valid: bool,
}

/// A parameter as it looks with the given values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreviewParameter {
    /// Name.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Description.
    pub description: String,
    /// `string`, `number`, `bool` or `list(string)`.
    #[serde(rename = "type")]
    pub parameter_type: String,
    /// Which control shows it.
    pub form_type: String,
    /// Look of the control.
    pub styling: ParameterStyling,
    /// May change after creation.
    pub mutable: bool,
    /// Default.
    pub default_value: NullHclString,
    /// Icon.
    pub icon: String,
    /// Allowed values.
    #[serde(deserialize_with = "nullable")]
    pub options: Vec<PreviewOption>,
    /// Rules.
    #[serde(deserialize_with = "nullable")]
    pub validations: Vec<PreviewValidation>,
    /// Has no default.
    pub required: bool,
    /// Position.
    pub order: i64,
    /// Valid for one build only.
    pub ephemeral: bool,
    /// Value taken.
    pub value: NullHclString,
    /// Problems.
    #[serde(deserialize_with = "nullable")]
    pub diagnostics: Vec<Diagnostic>,
}

/// Look of a control.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParameterStyling {
    /// Text in an empty field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// Read only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Hide what is typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_input: Option<bool>,
}

/// One allowed value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreviewOption {
    /// Display name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Value.
    pub value: NullHclString,
    /// Icon.
    pub icon: String,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreviewValidation {
    /// Text for a refused value.
    pub validation_error: String,
    /// Regular expression.
    pub validation_regex: Option<String>,
    /// Smallest number.
    pub validation_min: Option<i64>,
    /// Largest number.
    pub validation_max: Option<i64>,
    /// `increasing` or `decreasing`.
    pub validation_monotonic: Option<String>,
}
