//! Facts about the deployment as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::nullable;

/// Version that all programs report on the wire.
///
/// Clients compare it as semantic version to learn what the other side can
/// do, so it names the Coder release whose interfaces are spoken; which build
/// of ours it is stands in the build metadata.
pub const WIRE_VERSION: &str = concat!("v2.33.0+adit-", env!("CARGO_PKG_VERSION"));

/// Response header with the server's version, on every reply.
pub const BUILD_VERSION_HEADER: &str = "X-Coder-Build-Version";
/// Request header with the session or agent token.
pub const SESSION_TOKEN_HEADER: &str = "Coder-Session-Token";
/// Cookie and query parameter with the session token.
pub const SESSION_TOKEN_COOKIE: &str = "coder_session_token";
/// Request header by which owners skip rate limits.
pub const BYPASS_RATE_LIMIT_HEADER: &str = "X-Coder-Bypass-Ratelimit";

/// `GET /buildinfo`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildInfo {
    /// Where the source of this version is found.
    pub external_url: String,
    /// `vX.Y.Z…`.
    pub version: String,
    /// Access URL.
    pub dashboard_url: String,
    /// Whether the server reports usage.
    pub telemetry: bool,
    /// Always false: this is no proxy.
    pub workspace_proxy: bool,
    /// Deprecated marker of the agent API.
    pub agent_api_version: String,
    /// Provisioner API.
    pub provisioner_api_version: String,
    /// Text shown on a version mismatch.
    pub upgrade_message: String,
    /// Id of the deployment.
    pub deployment_id: String,
    /// Key of browser notifications.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub webpush_public_key: String,
}

/// A line of text in a coloured bar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BannerConfig {
    /// Shown.
    pub enabled: bool,
    /// Text, Markdown.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub message: String,
    /// `#rrggbb`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub background_color: String,
}

/// A link in the help menu.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkConfig {
    /// Text.
    pub name: String,
    /// URL.
    pub target: String,
    /// Icon name.
    pub icon: String,
    /// Menu.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub location: String,
}

/// `GET /appearance`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Appearance {
    /// Name in the title bar.
    pub application_name: String,
    /// Logo.
    pub logo_url: String,
    /// Root of the documentation.
    #[serde(deserialize_with = "nullable")]
    pub docs_url: String,
    /// Old single banner.
    pub service_banner: BannerConfig,
    /// Banners.
    #[serde(deserialize_with = "nullable")]
    pub announcement_banners: Vec<BannerConfig>,
    /// Help links.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub support_links: Vec<LinkConfig>,
}

/// `GET /deployment/ssh`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SshConfig {
    /// Host prefix of old SSH configurations, for example `coder.`.
    pub hostname_prefix: String,
    /// Host suffix, without a leading dot.
    pub hostname_suffix: String,
    /// Options the operator adds to every host.
    #[serde(deserialize_with = "nullable")]
    pub ssh_config_options: BTreeMap<String, String>,
}

/// `GET /regions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegionsResponse {
    /// The primary region and its proxies.
    #[serde(deserialize_with = "nullable")]
    pub regions: Vec<Region>,
}

/// A place apps are served from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Region {
    /// Id.
    pub id: Uuid,
    /// Name, `primary` for the control plane.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Icon.
    pub icon_url: String,
    /// Reachable.
    pub healthy: bool,
    /// Root URL of path apps.
    pub path_app_url: String,
    /// `*.example.com` for subdomain apps, or empty.
    pub wildcard_hostname: String,
}

/// `GET /applications/host`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppHostResponse {
    /// Wildcard host name, or empty.
    pub host: String,
}

/// `GET /updatecheck`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateCheck {
    /// Whether this is the newest version.
    pub current: bool,
    /// Newest version.
    pub version: String,
    /// Where to get it.
    pub url: String,
}

/// `POST /authcheck`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationRequest {
    /// Questions by a name of the caller's choice.
    #[serde(deserialize_with = "nullable")]
    pub checks: BTreeMap<String, AuthorizationCheck>,
}

/// One question: may I do this?
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationCheck {
    /// To what.
    pub object: AuthorizationObject,
    /// `create`, `read`, `update`, `delete`, ….
    #[serde(deserialize_with = "nullable")]
    pub action: String,
}

/// What a question is about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationObject {
    /// `workspace`, `template`, `user`, ….
    #[serde(deserialize_with = "nullable")]
    pub resource_type: String,
    /// Owner, a UUID or `me`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub owner_id: String,
    /// Organization.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub organization_id: String,
    /// A single object.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub resource_id: String,
    /// In any organization.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub any_org: bool,
}
