//! What all parts of the server share.

use std::ops::Deref;
use std::sync::Arc;

use adit_rest::Time;
use adit_store::Store;
use adit_store::model::Workspace;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;
use uuid::Uuid;

use crate::config::Config;
use crate::http::rate::RateLimiter;
use crate::pubsub::{PubSub, WorkspaceEvent, WorkspaceEventKind};

/// Cheap handle to everything shared; the state of every route.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

/// See [`App`].
#[derive(Debug)]
pub struct Shared {
    /// What the server remembers.
    pub store: Store,
    /// Who is told what.
    pub pubsub: PubSub,
    /// Settings.
    pub config: Config,
    /// URL by which agents and clients reach this server.
    pub access_url: Url,
    /// Identifies this deployment for ever.
    pub deployment_id: String,
    /// Cancelled when the server begins to shut down: streams end.
    pub shutdown: CancellationToken,
    /// Every background task; the server waits for them at its end.
    pub tasks: TaskTracker,
    /// When this process started.
    pub started_at: Time,
    pub(crate) rate: RateLimiter,
    pub(crate) coord: crate::coord::State,
    pub(crate) derp: crate::derp::State,
    pub(crate) provision: crate::provision::State,
    pub(crate) reach: crate::reach::State,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn new(store: Store, config: Config, access_url: Url) -> anyhow::Result<Self> {
        let deployment_id = store
            .setting_or("deployment_id", || Uuid::new_v4().to_string())
            .await?;
        let coord = crate::coord::State::new(&store).await?;
        let derp = crate::derp::State::new(&store).await?;
        let provision = crate::provision::State::new(&config, &access_url)?;
        Ok(Self(Arc::new(Shared {
            rate: RateLimiter::new(config.rate_limit),
            store,
            pubsub: PubSub::default(),
            access_url,
            deployment_id,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started_at: Time::now(),
            coord,
            derp,
            provision,
            reach: crate::reach::State::default(),
            config,
        })))
    }

    /// The version reported to clients.
    #[must_use]
    pub fn version(&self) -> &str {
        self.config.version.as_deref().unwrap_or(crate::VERSION)
    }

    /// Tells the listeners of a workspace's owner that it changed.
    pub fn workspace_changed(&self, workspace: &Workspace, kind: WorkspaceEventKind) {
        let event = WorkspaceEvent {
            workspace_id: workspace.id,
            kind,
        };
        self.pubsub.workspaces.publish(&workspace.owner_id, event);
    }

    /// As [`App::workspace_changed`] for a workspace known by its id only.
    pub async fn workspace_id_changed(&self, id: Uuid, kind: WorkspaceEventKind) {
        match self.store.workspace(id).await {
            Ok(workspace) => self.workspace_changed(&workspace, kind),
            Err(error) => tracing::warn!(%id, %error, "workspace event lost"),
        }
    }
}
