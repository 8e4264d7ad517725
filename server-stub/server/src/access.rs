//! What a user may see. A thing that is not the caller's to see looks exactly
//! like one that does not exist.

use adit_store::model::{AgentContext, Build, User, Workspace};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Actor, scope::Objects};
use crate::error::{ApiError, ApiResult};

/// Whether the caller may see and use a workspace: its owner, and deployment
/// owners, with a key that is good for it.
pub(crate) fn may_use(actor: &Actor, workspace: &Workspace) -> bool {
    let allowed = match actor.workspaces() {
        Objects::All => true,
        Objects::Only(ids) => ids.contains(&workspace.id),
    };
    allowed && (actor.user.id == workspace.owner_id || actor.is_owner())
}

/// A workspace, also a deleted one.
pub(crate) async fn any_workspace(app: &App, actor: &Actor, id: Uuid) -> ApiResult<Workspace> {
    let workspace = app.store.workspace(id).await?;
    if may_use(actor, &workspace) {
        Ok(workspace)
    } else {
        Err(ApiError::not_found())
    }
}

/// A live workspace.
pub(crate) async fn workspace(app: &App, actor: &Actor, id: Uuid) -> ApiResult<Workspace> {
    let workspace = any_workspace(app, actor, id).await?;
    if workspace.deleted {
        return Err(deleted(&workspace));
    }
    Ok(workspace)
}

/// For a workspace that was there once.
pub(crate) fn deleted(workspace: &Workspace) -> ApiError {
    ApiError::new(
        http::StatusCode::GONE,
        format!(
            "Workspace {:?} was deleted, you can view this workspace by specifying \
             '?include_deleted=true' and trying again.",
            workspace.id.to_string()
        ),
    )
}

/// A build of a workspace, also of a deleted one.
pub(crate) async fn build(app: &App, actor: &Actor, id: Uuid) -> ApiResult<(Build, Workspace)> {
    let build = app.store.build(id).await?;
    let workspace = any_workspace(app, actor, build.workspace_id).await?;
    Ok((build, workspace))
}

/// An agent of a live workspace.
pub(crate) async fn agent(app: &App, actor: &Actor, id: Uuid) -> ApiResult<AgentContext> {
    let context = match app.store.agent_context(id).await {
        Ok(context) => context,
        Err(adit_store::Error::NotFound) => return Err(ApiError::agent_not_found()),
        Err(error) => return Err(error.into()),
    };
    if context.workspace.deleted || !may_use(actor, &context.workspace) {
        return Err(ApiError::agent_not_found());
    }
    Ok(context)
}

/// The user a path names: `me`, an id, or a name in any case. Members see only
/// themselves.
pub(crate) async fn user(app: &App, actor: &Actor, name: &str) -> ApiResult<User> {
    if name == "me" || name == actor.user.id.to_string() {
        return Ok(actor.user.clone());
    }
    let user = match Uuid::try_parse(name) {
        Ok(id) => app.store.user(id).await?,
        Err(_) => app.store.user_by_name(name).await?,
    };
    if user.deleted || (user.id != actor.user.id && !actor.is_owner()) {
        return Err(ApiError::not_found());
    }
    Ok(user)
}
