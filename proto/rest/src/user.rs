//! Users, organizations, sessions and API keys.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{LoginType, Time, UserStatus, nullable};

/// A role a user holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Unique name, for example `owner`.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Set for roles within an organization.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub organization_id: String,
}

/// `GET /users/{user}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// Id.
    pub id: Uuid,
    /// Login name, unique without regard to case.
    pub username: String,
    /// Picture.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub avatar_url: String,
    /// Full name.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub name: String,
    /// E-mail address.
    pub email: String,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// Last request; year 1 if never.
    pub last_seen_at: Time,
    /// Account state.
    pub status: UserStatus,
    /// How the user signs in.
    pub login_type: LoginType,
    /// Set for accounts of programs.
    #[serde(skip_serializing_if = "crate::is_false")]
    pub is_service_account: bool,
    /// Colour scheme of the dashboard.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub theme_preference: String,
    /// Organizations the user is a member of.
    #[serde(deserialize_with = "nullable")]
    pub organization_ids: Vec<Uuid>,
    /// Deployment-wide roles.
    #[serde(deserialize_with = "nullable")]
    pub roles: Vec<Role>,
    /// Licence flag; always false here.
    pub has_ai_seat: bool,
}

impl User {
    /// Whether the user holds the role named `owner`.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.roles.iter().any(|role| role.name == "owner")
    }
}

/// `GET /users`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsersResponse {
    /// One page.
    #[serde(deserialize_with = "nullable")]
    pub users: Vec<User>,
    /// Matches over all pages.
    pub count: i64,
}

/// `POST /users`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateUserRequest {
    /// E-mail address.
    #[serde(deserialize_with = "nullable")]
    pub email: String,
    /// Login name.
    #[serde(deserialize_with = "nullable")]
    pub username: String,
    /// Full name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Clear text password; empty with other login types.
    #[serde(deserialize_with = "nullable")]
    pub password: String,
    /// `""`, `password`, `none`, `github` or `oidc`.
    #[serde(deserialize_with = "nullable")]
    pub login_type: String,
    /// Initial state; default dormant.
    pub user_status: Option<UserStatus>,
    /// Organizations to join; default is the default organization.
    #[serde(deserialize_with = "nullable")]
    pub organization_ids: Vec<Uuid>,
}

/// `PUT /users/{user}/profile`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateUserProfileRequest {
    /// New login name.
    pub username: String,
    /// New full name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
}

/// `PUT /users/{user}/roles`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateRoles {
    /// Names of all roles the user shall hold.
    #[serde(deserialize_with = "nullable")]
    pub roles: Vec<String>,
}

/// `POST /users/first`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateFirstUserRequest {
    /// E-mail address.
    #[serde(deserialize_with = "nullable")]
    pub email: String,
    /// Login name.
    #[serde(deserialize_with = "nullable")]
    pub username: String,
    /// Full name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Clear text password.
    #[serde(deserialize_with = "nullable")]
    pub password: String,
    /// Asks for a trial licence; ignored.
    pub trial: bool,
    /// Contact data for the trial; ignored.
    pub trial_info: TrialInfo,
}

/// Contact data of a trial request; a server of this product ignores it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TrialInfo {
    pub first_name: String,
    pub last_name: String,
    pub phone_number: String,
    pub job_title: String,
    pub company_name: String,
    pub country: String,
    pub developers: String,
}

/// Reply to [`CreateFirstUserRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateFirstUserResponse {
    /// The new user.
    pub user_id: Uuid,
    /// The default organization.
    pub organization_id: Uuid,
}

/// `POST /users/login`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginRequest {
    /// E-mail address.
    #[serde(deserialize_with = "nullable")]
    pub email: String,
    /// Clear text password.
    #[serde(deserialize_with = "nullable")]
    pub password: String,
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// Reply to [`LoginRequest`].
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginResponse {
    /// `<id>-<secret>`.
    pub session_token: String,
}

impl std::fmt::Debug for LoginResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginResponse")
    }
}

/// `GET /users/authmethods`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthMethods {
    /// Terms a user must accept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub terms_of_service_url: String,
    /// Password login.
    pub password: AuthMethod,
    /// GitHub login.
    pub github: GithubAuthMethod,
    /// OpenID Connect login.
    pub oidc: OidcAuthMethod,
}

/// Whether a login method is on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthMethod {
    /// On.
    pub enabled: bool,
}

/// GitHub login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GithubAuthMethod {
    /// On.
    pub enabled: bool,
    /// Uses the vendor's application.
    pub default_provider_configured: bool,
}

/// OpenID Connect login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OidcAuthMethod {
    /// On.
    pub enabled: bool,
    /// Button text.
    pub sign_in_text: String,
    /// Button icon.
    pub icon_url: String,
}

/// An organization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Organization {
    /// Id.
    pub id: Uuid,
    /// Name in paths.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Icon.
    pub icon: String,
    /// Description.
    pub description: String,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// The one every deployment has.
    pub is_default: bool,
    /// Roles every member holds.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub default_org_member_roles: Vec<String>,
}

/// A membership with the fields of its user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrganizationMember {
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
    /// E-mail address.
    pub email: String,
    /// Account state.
    pub status: UserStatus,
    /// How the user signs in.
    pub login_type: LoginType,
    /// Last request; year 1 if never.
    pub last_seen_at: Time,
    /// Creation of the account.
    pub user_created_at: Time,
    /// Last change of the account.
    pub user_updated_at: Time,
    /// Deployment-wide roles.
    #[serde(deserialize_with = "nullable")]
    pub global_roles: Vec<Role>,
    /// Licence flag; always false here.
    pub has_ai_seat: bool,
    /// The user.
    pub user_id: Uuid,
    /// The organization.
    pub organization_id: Uuid,
    /// Start of the membership.
    pub created_at: Time,
    /// Last change of the membership.
    pub updated_at: Time,
    /// Roles within the organization.
    #[serde(deserialize_with = "nullable")]
    pub roles: Vec<Role>,
}

/// An API key; the secret is only in the reply that creates it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiKey {
    /// Id, the first part of the token.
    pub id: String,
    /// Owner.
    pub user_id: Uuid,
    /// Last use.
    pub last_used: Time,
    /// End of validity.
    pub expires_at: Time,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// `password` for sessions, `token` for named tokens.
    pub login_type: LoginType,
    /// Old single scope: `all` or `application_connect`.
    pub scope: String,
    /// Scopes.
    #[serde(deserialize_with = "nullable")]
    pub scopes: Vec<String>,
    /// Name of a named token.
    pub token_name: String,
    /// Length of validity in seconds.
    pub lifetime_seconds: i64,
    /// `<type>:<uuid or *>`.
    #[serde(deserialize_with = "nullable")]
    pub allow_list: Vec<AllowListEntry>,
}

/// What a scoped key may touch, as text `<type>:<id>`.
pub type AllowListEntry = String;

/// [`ApiKey`] with its owner's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ApiKeyWithOwner {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// Its owner.
    pub username: String,
}

/// `POST /users/{user}/keys/tokens`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateTokenRequest {
    /// Length of validity in nanoseconds; 0 takes the server's default.
    pub lifetime: i64,
    /// Old single scope.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "nullable"
    )]
    pub scope: String,
    /// Scopes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub scopes: Vec<String>,
    /// Name; generated when empty.
    #[serde(deserialize_with = "nullable")]
    pub token_name: String,
    /// `<type>:<uuid or *>`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub allow_list: Vec<AllowListEntry>,
}

/// Reply that carries a new key's token.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateApiKeyResponse {
    /// `<id>-<secret>`.
    pub key: String,
}

impl std::fmt::Debug for GenerateApiKeyResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GenerateApiKeyResponse")
    }
}

/// `GET /users/{user}/keys/tokens/tokenconfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenConfig {
    /// Nanoseconds.
    pub max_token_lifetime: i64,
}

/// `GET /users/{user}/gitsshkey`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GitSshKey {
    /// Owner.
    pub user_id: Uuid,
    /// Creation.
    pub created_at: Time,
    /// Last change.
    pub updated_at: Time,
    /// OpenSSH public key line, ending with a newline.
    pub public_key: String,
}
