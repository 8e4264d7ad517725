//! Workspaces.

use adit_rest::{AutomaticUpdates, Time};
use uuid::Uuid;

use crate::builds::{NewBuild, insert_build};
use crate::engine::{Cols as _, Row, Store, Tx, micros};
use crate::model::{Build, Job, PREBUILDS_USER, PrebuildStage, Workspace};
use crate::prebuilds::claim;
use crate::{Error, Result};

/// What a new workspace needs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewWorkspace {
    pub owner_id: Uuid,
    pub organization_id: Uuid,
    pub template_id: Uuid,
    pub name: String,
    pub autostart_schedule: Option<String>,
    pub ttl_ms: Option<i64>,
    pub automatic_updates: AutomaticUpdates,
    pub next_start_at: Option<Time>,
    /// Take a ready prebuilt workspace of this preset if there is one.
    pub claim_preset: Option<Uuid>,
}

/// A new workspace with its build.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Created {
    pub workspace: Workspace,
    pub build: Build,
    pub job: Job,
    /// It was a prebuilt workspace.
    pub claimed: bool,
}

/// One change of a workspace.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum WorkspaceUpdate {
    Name(String),
    Autostart {
        schedule: Option<String>,
        next_start_at: Option<Time>,
    },
    Ttl(Option<i64>),
    /// Sets or clears dormancy; waking counts as use.
    Dormant(Option<Time>),
    AutomaticUpdates(AutomaticUpdates),
    LastUsed(Time),
    NextStart(Option<Time>),
}

pub(crate) fn workspace(row: &Row) -> Result<Workspace> {
    Ok(Workspace {
        id: row.uuid("id")?,
        owner_id: row.uuid("owner_id")?,
        organization_id: row.uuid("organization_id")?,
        template_id: row.uuid("template_id")?,
        name: row.text("name")?,
        deleted: row.flag("deleted")?,
        autostart_schedule: row.opt_text("autostart_schedule")?,
        ttl_ms: row.opt_int("ttl_ms")?,
        automatic_updates: row.word("automatic_updates", AutomaticUpdates::parse)?,
        last_used_at: row.time("last_used_at")?,
        dormant_at: row.opt_time("dormant_at")?,
        deleting_at: row.opt_time("deleting_at")?,
        next_start_at: row.opt_time("next_start_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

pub(crate) async fn workspace_in(tx: &mut Tx, id: Uuid) -> Result<Workspace> {
    let row = sqlx::query("SELECT * FROM workspaces WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut **tx)
        .await?;
    workspace(&row.ok_or(Error::NotFound)?)
}

async fn insert(tx: &mut Tx, new: &NewWorkspace, now: Time) -> Result<Workspace> {
    let made = Workspace {
        id: Uuid::new_v4(),
        owner_id: new.owner_id,
        organization_id: new.organization_id,
        template_id: new.template_id,
        name: new.name.clone(),
        autostart_schedule: new.autostart_schedule.clone(),
        ttl_ms: new.ttl_ms,
        automatic_updates: new.automatic_updates,
        last_used_at: now,
        next_start_at: new.next_start_at,
        created_at: now,
        updated_at: now,
        ..Workspace::default()
    };
    sqlx::query(
        "INSERT INTO workspaces (id, owner_id, organization_id, template_id, name, deleted,
             autostart_schedule, ttl_ms, automatic_updates, last_used_at, next_start_at,
             created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $9, $9)",
    )
    .bind(made.id.to_string())
    .bind(made.owner_id.to_string())
    .bind(made.organization_id.to_string())
    .bind(made.template_id.to_string())
    .bind(&made.name)
    .bind(&made.autostart_schedule)
    .bind(made.ttl_ms)
    .bind(made.automatic_updates.as_str())
    .bind(now.as_micros())
    .bind(micros(made.next_start_at))
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::unique(error, "workspace"))?;
    Ok(made)
}

impl Store {
    /// Makes a workspace with its first start build, or claims a prebuilt one
    /// and queues its claim build, in one transaction. Of two concurrent
    /// claims, at most one gets a given prebuilt workspace.
    ///
    /// `build.workspace_id` and `build.stage` are filled in here.
    ///
    /// # Errors
    /// [`Error::Taken`] if the owner has a workspace of that name, or when the
    /// database fails.
    pub async fn create_workspace(&self, new: &NewWorkspace, build: &NewBuild) -> Result<Created> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        let claimed = match new.claim_preset {
            Some(preset) => claim(&mut tx, new, preset, now).await?,
            None => None,
        };
        let was_claimed = claimed.is_some();
        let workspace = match claimed {
            Some(workspace) => workspace,
            None => insert(&mut tx, new, now).await?,
        };
        let mut build = build.clone();
        build.workspace_id = workspace.id;
        if was_claimed {
            build.stage = PrebuildStage::Claim;
        } else if new.owner_id == PREBUILDS_USER {
            build.stage = PrebuildStage::Create;
        }
        let (build, job) = insert_build(&mut tx, &workspace, &build, now).await?;
        tx.commit().await?;
        Ok(Created {
            workspace,
            build,
            job,
            claimed: was_claimed,
        })
    }

    /// One workspace, deleted ones too.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn workspace(&self, id: Uuid) -> Result<Workspace> {
        let row = sqlx::query("SELECT * FROM workspaces WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        workspace(&row.ok_or(Error::NotFound)?)
    }

    /// An owner's workspace by name, without regard to case. With
    /// `include_deleted`, the live one wins, then the newest deleted one.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn workspace_by_name(
        &self,
        owner: Uuid,
        name: &str,
        include_deleted: bool,
    ) -> Result<Workspace> {
        let row = sqlx::query(
            "SELECT * FROM workspaces
             WHERE owner_id = $1 AND lower(name) = lower($2) AND (deleted = 0 OR $3 = 1)
             ORDER BY deleted, created_at DESC LIMIT 1",
        )
        .bind(owner.to_string())
        .bind(name)
        .bind(i64::from(include_deleted))
        .fetch_optional(&self.read)
        .await?;
        workspace(&row.ok_or(Error::NotFound)?)
    }

    /// Live workspaces in the order of owner name and name; of one owner if
    /// given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspaces(&self, owner: Option<Uuid>) -> Result<Vec<Workspace>> {
        let rows = sqlx::query(
            "SELECT w.* FROM workspaces w JOIN users u ON u.id = w.owner_id
             WHERE w.deleted = 0 AND ($1 = '' OR w.owner_id = $1)
             ORDER BY lower(u.username), lower(w.name)",
        )
        .bind(owner.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(workspace).collect()
    }

    /// Carries out one change.
    ///
    /// # Errors
    /// [`Error::Taken`] for a name in use, or when the database fails.
    pub async fn update_workspace(&self, id: Uuid, update: &WorkspaceUpdate) -> Result<()> {
        let now = Time::now().as_micros();
        let key = id.to_string();
        let query = match update {
            WorkspaceUpdate::Name(name) => {
                sqlx::query("UPDATE workspaces SET name = $2, updated_at = $3 WHERE id = $1")
                    .bind(key)
                    .bind(name.clone())
                    .bind(now)
            }
            WorkspaceUpdate::Autostart {
                schedule,
                next_start_at,
            } => sqlx::query(
                "UPDATE workspaces SET autostart_schedule = $2, next_start_at = $3 WHERE id = $1",
            )
            .bind(key)
            .bind(schedule.clone())
            .bind(micros(*next_start_at)),
            WorkspaceUpdate::Ttl(ttl) => {
                sqlx::query("UPDATE workspaces SET ttl_ms = $2 WHERE id = $1")
                    .bind(key)
                    .bind(*ttl)
            }
            WorkspaceUpdate::Dormant(since) => sqlx::query(
                "UPDATE workspaces SET dormant_at = $2, deleting_at = NULL,
                     last_used_at = CASE WHEN $2 IS NULL THEN $3 ELSE last_used_at END
                 WHERE id = $1",
            )
            .bind(key)
            .bind(micros(*since))
            .bind(now),
            WorkspaceUpdate::AutomaticUpdates(value) => {
                sqlx::query("UPDATE workspaces SET automatic_updates = $2 WHERE id = $1")
                    .bind(key)
                    .bind(value.as_str())
            }
            WorkspaceUpdate::LastUsed(time) => {
                sqlx::query("UPDATE workspaces SET last_used_at = $2 WHERE id = $1")
                    .bind(key)
                    .bind(time.as_micros())
            }
            WorkspaceUpdate::NextStart(time) => {
                sqlx::query("UPDATE workspaces SET next_start_at = $2 WHERE id = $1")
                    .bind(key)
                    .bind(micros(*time))
            }
        };
        query
            .execute(self.writer())
            .await
            .map_err(|error| Error::unique(error, "workspace"))?;
        Ok(())
    }

    /// Marks or unmarks a workspace for a user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_favorite(&self, user: Uuid, workspace: Uuid, on: bool) -> Result<()> {
        let query = if on {
            sqlx::query(
                "INSERT INTO workspace_favorites (user_id, workspace_id) VALUES ($1, $2)
                 ON CONFLICT DO NOTHING",
            )
        } else {
            sqlx::query("DELETE FROM workspace_favorites WHERE user_id = $1 AND workspace_id = $2")
        };
        query
            .bind(user.to_string())
            .bind(workspace.to_string())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Workspaces a user marked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn favorites(&self, user: Uuid) -> Result<Vec<Uuid>> {
        let rows = sqlx::query("SELECT workspace_id FROM workspace_favorites WHERE user_id = $1")
            .bind(user.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|row| row.uuid("workspace_id")).collect()
    }
}
