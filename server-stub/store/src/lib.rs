//! What `adit-server` remembers.
//!
//! [`Store`] is the only way to the database. The rest of the server sees rows
//! as plain Rust types ([`model`], [`spec`]) and never an SQL type: the engine
//! is chosen in one private module. The schema uses only what SQLite and
//! PostgreSQL share, so that a second engine needs another connection pool and
//! no other domain code.
//!
//! SQLite runs in WAL mode with one connection for writing and a few for
//! reading: writers never fail with "database is locked", and readers never
//! wait for them.

mod agent_logs;
mod agents;
mod builds;
mod engine;
mod jobs;
mod keys;
mod listing;
pub mod model;
mod prebuilds;
mod presence;
mod provisioners;
mod purge;
mod reports;
mod resources;
mod settings;
pub mod spec;
mod templates;
mod users;
mod workspaces;

pub use agent_logs::{LogsOutcome, NewAgentLog};
pub use agents::NewSubAgent;
pub use builds::NewBuild;
pub use engine::Store;
pub use jobs::{BuildResult, NewJobLog};
pub use listing::{WorkspaceFilter, WorkspaceTerm};
pub use prebuilds::Prebuild;
pub use provisioners::{JobFilter, JobTemplate, ListedJob, ListedProvisioner, Provisioner};
pub use purge::{Purge, Purged};
pub use reports::{ConnectionReport, MetadataValue};
pub use templates::{NewPreset, NewTemplate, NewVersion};
pub use users::{MAX_PAGE, NewUser, UserFilter};
pub use workspaces::{Created, NewWorkspace, WorkspaceUpdate};

/// Why a store call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such row.
    #[error("not found")]
    NotFound,
    /// A unique name or id is taken.
    #[error("already exists: {0}")]
    Taken(&'static str),
    /// A build of the workspace is not finished.
    #[error("a workspace build is already active")]
    BuildActive,
    /// The workspace is deleted.
    #[error("the workspace is deleted")]
    WorkspaceDeleted,
    /// The row is not in a state that allows the change.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The database failed.
    #[error("database")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("database migration")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A stored value cannot be read.
    #[error("stored value in column {column} is damaged: {reason}")]
    Damaged {
        /// Column.
        column: String,
        /// Why.
        reason: String,
    },
}

/// Result of store calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn unique(error: sqlx::Error, what: &'static str) -> Self {
        match &error {
            sqlx::Error::Database(db) if db.is_unique_violation() => Self::Taken(what),
            _ => Self::Database(error),
        }
    }
}

/// Turns "no such row" into `None`.
pub(crate) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
