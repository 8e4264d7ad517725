//! Stored rows as the API's objects.

mod agent;
mod template;
mod workspace;

pub(crate) use agent::{AGENT_SILENCE, Names, agent, metadata, resources};
pub(crate) use template::{parameters, preset, preview, template, version};
pub(crate) use workspace::{build, job, job_log, matched, workspace};

use adit_rest as rest;
use adit_store::model::{ApiKey, Member, Organization, User};

use crate::app::App;
use crate::error::ApiResult;

/// A role by its name.
pub(crate) fn role(name: &str) -> rest::Role {
    let display = match name {
        "owner" => "Owner",
        "template-admin" => "Template Admin",
        "user-admin" => "User Admin",
        "auditor" => "Auditor",
        other => other,
    };
    rest::Role {
        name: name.to_owned(),
        display_name: display.to_owned(),
        organization_id: String::new(),
    }
}

pub(crate) async fn user(app: &App, user: &User) -> ApiResult<rest::User> {
    let organizations = app.store.organizations_of(user.id).await?;
    Ok(rest::User {
        id: user.id,
        username: user.username.clone(),
        avatar_url: user.avatar_url.clone(),
        name: user.name.clone(),
        email: user.email.clone(),
        created_at: user.created_at,
        updated_at: user.updated_at,
        last_seen_at: user.last_seen_at,
        status: user.status,
        login_type: user.login_type,
        organization_ids: organizations.iter().map(|item| item.id).collect(),
        roles: user.roles.iter().map(|name| role(name)).collect(),
        ..rest::User::default()
    })
}

pub(crate) fn organization(row: &Organization) -> rest::Organization {
    rest::Organization {
        id: row.id,
        name: row.name.clone(),
        display_name: row.display_name.clone(),
        icon: row.icon.clone(),
        description: row.description.clone(),
        created_at: row.created_at,
        updated_at: row.updated_at,
        is_default: row.is_default,
        default_org_member_roles: vec!["organization-workspace-access".to_owned()],
    }
}

pub(crate) fn member(row: &Member, user: &User) -> rest::OrganizationMember {
    rest::OrganizationMember {
        username: user.username.clone(),
        name: user.name.clone(),
        avatar_url: user.avatar_url.clone(),
        email: user.email.clone(),
        status: user.status,
        login_type: user.login_type,
        last_seen_at: user.last_seen_at,
        user_created_at: user.created_at,
        user_updated_at: user.updated_at,
        global_roles: user.roles.iter().map(|name| role(name)).collect(),
        has_ai_seat: false,
        user_id: row.user_id,
        organization_id: row.organization_id,
        created_at: row.created_at,
        updated_at: row.updated_at,
        roles: row.roles.iter().map(|name| role(name)).collect(),
    }
}

pub(crate) fn api_key(key: ApiKey) -> rest::ApiKey {
    rest::ApiKey {
        id: key.id,
        user_id: key.user_id,
        last_used: key.last_used,
        expires_at: key.expires_at,
        created_at: key.created_at,
        updated_at: key.updated_at,
        login_type: key.login_type,
        scope: key.scope,
        scopes: key.scopes,
        token_name: key.token_name,
        lifetime_seconds: key.lifetime_seconds,
        allow_list: key.allow_list,
    }
}
