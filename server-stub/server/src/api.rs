//! The REST API and its event streams (`/api/v2`).

mod agents;
mod builds;
mod deployment;
mod dry_run;
mod identity;
mod keys;
mod logs;
mod organizations;
pub(crate) mod pages;
mod parameters;
mod provisioners;
mod session;
mod templates;
mod terminal;
mod users;
mod versions;
mod watch;
mod workspace_settings;
mod workspaces;

use axum::Router;

use crate::app::App;

pub(crate) use users::is_name;

/// Routes of this part.
pub(crate) fn routes() -> Router<App> {
    let v2 = Router::new()
        .merge(identity::routes())
        .merge(agents::routes())
        .merge(builds::routes())
        .merge(deployment::routes())
        .merge(dry_run::routes())
        .merge(keys::routes())
        .merge(logs::routes())
        .merge(organizations::routes())
        .merge(parameters::routes())
        .merge(provisioners::routes())
        .merge(session::routes())
        .merge(templates::routes())
        .merge(terminal::routes())
        .merge(users::routes())
        .merge(versions::routes())
        .merge(watch::routes())
        .merge(workspace_settings::routes())
        .merge(workspaces::routes());
    Router::new()
        .nest("/api/v2", v2)
        .merge(deployment::root())
        .merge(pages::routes())
}
