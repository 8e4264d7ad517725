//! Agents: who they are, whether they are there, and their sub-agents.

use adit_rest::{AppHealth, JobStatus, LifecycleState, Time, Transition};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, json};
use crate::model::{Agent, AgentContext};
use crate::resources::{insert_agent, insert_app};
use crate::spec::{AgentSpec, AppSpec};
use crate::{Error, Result, optional};

/// What a sub-agent needs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewSubAgent {
    pub parent: Agent,
    pub spec: AgentSpec,
}

pub(crate) fn agent(row: &Row) -> Result<Agent> {
    Ok(Agent {
        id: row.uuid("id")?,
        parent_id: row.opt_uuid("parent_id")?,
        resource_id: row.uuid("resource_id")?,
        name: row.text("name")?,
        auth_token: row.uuid("auth_token")?,
        architecture: row.text("architecture")?,
        operating_system: row.text("operating_system")?,
        environment_variables: row.json("environment_variables")?,
        directory: row.text("directory")?,
        expanded_directory: row.text("expanded_directory")?,
        motd_file: row.text("motd_file")?,
        version: row.text("version")?,
        api_version: row.text("api_version")?,
        subsystems: row.json("subsystems")?,
        display_apps: row.json("display_apps")?,
        connection_timeout_seconds: row.int("connection_timeout_seconds")?,
        troubleshooting_url: row.text("troubleshooting_url")?,
        lifecycle_state: row.word("lifecycle_state", LifecycleState::parse)?,
        logs_length: row.int("logs_length")?,
        logs_overflowed: row.flag("logs_overflowed")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        first_connected_at: row.opt_time("first_connected_at")?,
        last_connected_at: row.opt_time("last_connected_at")?,
        disconnected_at: row.opt_time("disconnected_at")?,
        started_at: row.opt_time("started_at")?,
        ready_at: row.opt_time("ready_at")?,
    })
}

/// Index key of a token. Looking up the hash keeps the comparison's duration
/// independent of how much of a guess is right.
pub(crate) fn token_hash(token: Uuid) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

impl Store {
    /// One live agent.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn agent(&self, id: Uuid) -> Result<Agent> {
        let row = sqlx::query("SELECT * FROM agents WHERE id = $1 AND deleted = 0")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        agent(&row.ok_or(Error::NotFound)?)
    }

    /// A live agent of a workspace's build with workspace, build, job and
    /// owner.
    ///
    /// # Errors
    /// [`Error::NotFound`] (also for agents of dry runs), or when the database
    /// fails.
    pub async fn agent_context(&self, id: Uuid) -> Result<AgentContext> {
        let agent = self.agent(id).await?;
        self.context_of(agent).await
    }

    async fn context_of(&self, agent: Agent) -> Result<AgentContext> {
        let row = sqlx::query(
            "SELECT b.id FROM workspace_builds b JOIN resources r ON r.job_id = b.job_id
             WHERE r.id = $1",
        )
        .bind(agent.resource_id.to_string())
        .fetch_optional(&self.read)
        .await?
        .ok_or(Error::NotFound)?;
        let build = self.build(row.uuid("id")?).await?;
        let job = self.job(build.job_id).await?;
        let workspace = self.workspace(build.workspace_id).await?;
        let owner = self.user(workspace.owner_id).await?;
        Ok(AgentContext {
            agent,
            workspace,
            build,
            job,
            owner,
        })
    }

    /// The agent a token authenticates, if it may act now: its workspace is not
    /// deleted, and its build is the newest one and done, or is a succeeded
    /// start right before a stop that has not ended (so that stop scripts can
    /// still report).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agent_by_token(&self, token: Uuid) -> Result<Option<AgentContext>> {
        let rows = sqlx::query(
            "SELECT * FROM agents WHERE auth_token_hash = $1 AND deleted = 0
             ORDER BY created_at DESC",
        )
        .bind(token_hash(token))
        .fetch_all(&self.read)
        .await?;
        for row in &rows {
            let Some(found) = optional(self.context_of(agent(row)?).await)? else {
                continue;
            };
            if found.workspace.deleted {
                continue;
            }
            let latest = self.latest_build(found.workspace.id).await?;
            if latest.id == found.build.id {
                if found.job.status() == JobStatus::Succeeded {
                    return Ok(Some(found));
                }
                continue;
            }
            let stopping = latest.transition == Transition::Stop
                && latest.build_number == found.build.build_number + 1
                && !self.job(latest.job_id).await?.is_done();
            if stopping
                && found.build.transition == Transition::Start
                && found.job.status() == JobStatus::Succeeded
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Stores a lifecycle state and the times that go with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_lifecycle(&self, id: Uuid, state: LifecycleState, at: Time) -> Result<()> {
        let query = match state {
            LifecycleState::Starting => sqlx::query(
                "UPDATE agents SET lifecycle_state = $2, started_at = $3, ready_at = NULL
                 WHERE id = $1",
            ),
            LifecycleState::Ready | LifecycleState::StartTimeout | LifecycleState::StartError => {
                sqlx::query(
                    "UPDATE agents SET lifecycle_state = $2, ready_at = $3,
                         started_at = coalesce(started_at, $3) WHERE id = $1",
                )
            }
            // What never started cannot end: after a claim, the agent of the
            // prebuilt workspace still reports its own end under its token,
            // which by then belongs to the new owner's agent.
            LifecycleState::ShuttingDown
            | LifecycleState::ShutdownTimeout
            | LifecycleState::ShutdownError
            | LifecycleState::Off => sqlx::query(
                "UPDATE agents SET lifecycle_state = $2, updated_at = coalesce(updated_at, $3)
                 WHERE id = $1 AND lifecycle_state <> 'created'",
            ),
            _ => sqlx::query(
                "UPDATE agents SET lifecycle_state = $2, updated_at = coalesce(updated_at, $3)
                 WHERE id = $1",
            ),
        };
        query
            .bind(id.to_string())
            .bind(state.as_str())
            .bind(at.as_micros())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Stores what an agent says about itself at start.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_startup(
        &self,
        id: Uuid,
        version: &str,
        api_version: &str,
        expanded_directory: &str,
        subsystems: &[String],
    ) -> Result<()> {
        sqlx::query(
            "UPDATE agents SET version = $2, api_version = $3, expanded_directory = $4,
                 subsystems = $5 WHERE id = $1",
        )
        .bind(id.to_string())
        .bind(version)
        .bind(api_version)
        .bind(expanded_directory)
        .bind(json(&subsystems))
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Stores new app healths.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_app_health(&self, agent: Uuid, updates: &[(Uuid, AppHealth)]) -> Result<()> {
        let mut tx = self.begin().await?;
        for (app, health) in updates {
            sqlx::query("UPDATE agent_apps SET health = $3 WHERE id = $2 AND agent_id = $1")
                .bind(agent.to_string())
                .bind(app.to_string())
                .bind(health.as_str())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Makes an agent below another one, in the same resource.
    ///
    /// # Errors
    /// [`Error::Taken`] if the build has an agent of that name, or when the
    /// database fails.
    pub async fn create_sub_agent(&self, new: &NewSubAgent) -> Result<Agent> {
        let mut tx = self.begin().await?;
        let clash = sqlx::query(
            "SELECT count(*) AS n FROM agents a JOIN resources r ON r.id = a.resource_id
             WHERE a.deleted = 0 AND lower(a.name) = lower($1) AND r.job_id = (
                 SELECT job_id FROM resources WHERE id = $2)",
        )
        .bind(&new.spec.name)
        .bind(new.parent.resource_id.to_string())
        .fetch_one(&mut *tx)
        .await?;
        if clash.int("n")? > 0 {
            return Err(Error::Taken("workspace agent name"));
        }
        let id = insert_agent(
            &mut tx,
            new.parent.resource_id,
            Some(new.parent.id),
            &new.spec,
            Time::now(),
        )
        .await?;
        tx.commit().await?;
        self.agent(id).await
    }

    /// Adds an app to an agent.
    ///
    /// # Errors
    /// [`Error::Taken`] if the slug is used, or when the database fails.
    pub async fn add_app(&self, agent: Uuid, position: usize, spec: &AppSpec) -> Result<()> {
        let mut tx = self.begin().await?;
        insert_app(&mut tx, agent, position, spec, Time::now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Live agents below an agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sub_agents(&self, parent: Uuid) -> Result<Vec<Agent>> {
        let rows = sqlx::query(
            "SELECT * FROM agents WHERE parent_id = $1 AND deleted = 0 ORDER BY created_at, id",
        )
        .bind(parent.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(agent).collect()
    }

    /// Retires an agent below `parent`: its token stops working.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not a live child, or when the database
    /// fails.
    pub async fn delete_sub_agent(&self, parent: Uuid, id: Uuid) -> Result<()> {
        let done = sqlx::query(
            "UPDATE agents SET deleted = 1 WHERE id = $2 AND parent_id = $1 AND deleted = 0",
        )
        .bind(parent.to_string())
        .bind(id.to_string())
        .execute(self.writer())
        .await?;
        if done.rows_affected() == 0 {
            return Err(Error::NotFound);
        }
        Ok(())
    }
}
