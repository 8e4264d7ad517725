//! Keys by which git in a workspace acts for its owner.

use adit_store::model::GitSshKey;
use uuid::Uuid;

use crate::app::App;
use crate::auth::ssh_key;
use crate::error::{ApiError, ApiResult};

/// A user's key, made on first use.
pub(crate) async fn of_user(app: &App, user: Uuid) -> ApiResult<GitSshKey> {
    match app.store.git_ssh_key(user).await? {
        Some(key) => Ok(key),
        None => renew(app, user).await,
    }
}

/// Replaces a user's key.
pub(crate) async fn renew(app: &App, user: Uuid) -> ApiResult<GitSshKey> {
    let pair = ssh_key::generate();
    app.store
        .set_git_ssh_key(user, &pair.public, &pair.private)
        .await?;
    app.store
        .git_ssh_key(user)
        .await?
        .ok_or_else(ApiError::not_found)
}
