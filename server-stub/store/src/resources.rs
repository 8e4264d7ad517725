//! Resources and the children of an agent that come with a build.

use adit_rest::{AppHealth, ScriptStatus, Time, Transition};
use uuid::Uuid;

use crate::Result;
use crate::agents::{agent, token_hash};
use crate::engine::{Cols as _, Row, Store, Tx, json};
use crate::model::{Agent, App, LogSourceRow, Resource, Script};
use crate::spec::{AgentSpec, ResourceSpec, ScriptSpec};

fn resource(row: &Row) -> Result<Resource> {
    Ok(Resource {
        id: row.uuid("id")?,
        job_id: row.uuid("job_id")?,
        transition: row.word("transition", Transition::parse)?,
        resource_type: row.text("resource_type")?,
        name: row.text("name")?,
        hide: row.flag("hide")?,
        icon: row.text("icon")?,
        daily_cost: row.int("daily_cost")?,
        metadata: row.json("metadata")?,
        created_at: row.time("created_at")?,
    })
}

fn app(row: &Row) -> Result<App> {
    Ok(App {
        id: row.uuid("id")?,
        agent_id: row.uuid("agent_id")?,
        health: row.word("health", AppHealth::parse)?,
        spec: row.json("spec")?,
    })
}

fn script(row: &Row) -> Result<Script> {
    Ok(Script {
        id: row.uuid("id")?,
        agent_id: row.uuid("agent_id")?,
        log_source_id: row.uuid("log_source_id")?,
        display_name: row.text("display_name")?,
        log_path: row.text("log_path")?,
        script: row.text("script")?,
        cron: row.text("cron")?,
        run_on_start: row.flag("run_on_start")?,
        run_on_stop: row.flag("run_on_stop")?,
        start_blocks_login: row.flag("start_blocks_login")?,
        timeout_seconds: row.int("timeout_seconds")?,
        exit_code: row.opt_int("exit_code")?,
        status: row
            .opt_text("status")?
            .and_then(|text| ScriptStatus::parse(&text)),
    })
}

pub(crate) async fn insert_resources(
    tx: &mut Tx,
    job: Uuid,
    transition: Transition,
    specs: &[ResourceSpec],
    now: Time,
) -> Result<()> {
    for (position, spec) in specs.iter().enumerate() {
        let id = Uuid::new_v4();
        sqlx::query(
            "INSERT INTO resources (id, job_id, position, transition, resource_type, name, hide,
                 icon, daily_cost, metadata, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(id.to_string())
        .bind(job.to_string())
        .bind(position as i64)
        .bind(transition.as_str())
        .bind(&spec.resource_type)
        .bind(&spec.name)
        .bind(i64::from(spec.hide))
        .bind(&spec.icon)
        .bind(spec.daily_cost)
        .bind(json(&spec.metadata))
        .bind(now.as_micros())
        .execute(&mut **tx)
        .await?;
        for (position, agent) in (0..).zip(&spec.agents) {
            // Agents are listed by age.
            insert_agent(tx, id, None, agent, now.plus_micros(position)).await?;
        }
    }
    Ok(())
}

/// Stores what a build would make. Its agents exist in nobody's workspace, so
/// ids and tokens meant for real ones are left out.
pub(crate) async fn insert_preview(
    tx: &mut Tx,
    job: Uuid,
    transition: Transition,
    specs: &[ResourceSpec],
    now: Time,
) -> Result<()> {
    let mut specs = specs.to_vec();
    for agent in specs.iter_mut().flat_map(|spec| &mut spec.agents) {
        agent.id = None;
        agent.auth_token = None;
    }
    insert_resources(tx, job, transition, &specs, now).await
}

pub(crate) async fn insert_agent(
    tx: &mut Tx,
    resource: Uuid,
    parent: Option<Uuid>,
    spec: &AgentSpec,
    now: Time,
) -> Result<Uuid> {
    let id = spec.id.unwrap_or_else(Uuid::new_v4);
    let token = spec.auth_token.unwrap_or_else(Uuid::new_v4);
    sqlx::query(
        "INSERT INTO agents (id, parent_id, resource_id, name, auth_token, auth_token_hash,
             deleted, architecture, operating_system, environment_variables, directory,
             expanded_directory, motd_file, version, api_version, subsystems, display_apps,
             connection_timeout_seconds, troubleshooting_url, lifecycle_state, logs_length,
             logs_overflowed, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $10, '', $11, '', '', '[]', $12, $13,
             $14, 'created', 0, 0, $15, $15)",
    )
    .bind(id.to_string())
    .bind(parent.map(|id| id.to_string()))
    .bind(resource.to_string())
    .bind(&spec.name)
    .bind(token.to_string())
    .bind(token_hash(token))
    .bind(&spec.architecture)
    .bind(&spec.operating_system)
    .bind(json(&spec.environment_variables))
    .bind(&spec.directory)
    .bind(&spec.motd_file)
    .bind(json(&spec.display_apps))
    .bind(spec.connection_timeout_seconds)
    .bind(&spec.troubleshooting_url)
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await?;
    for (position, app) in spec.apps.iter().enumerate() {
        insert_app(tx, id, position, app, now).await?;
    }
    for script in &spec.scripts {
        insert_script(tx, id, script, now).await?;
    }
    for (position, item) in spec.metadata.iter().enumerate() {
        sqlx::query(
            "INSERT INTO agent_metadata (agent_id, key, position, display_name, script,
                 interval_seconds, timeout_seconds, value, error, collected_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', $8)",
        )
        .bind(id.to_string())
        .bind(&item.key)
        .bind(position as i64)
        .bind(&item.display_name)
        .bind(&item.script)
        .bind(item.interval_seconds)
        .bind(item.timeout_seconds)
        .bind(Time::default().as_micros())
        .execute(&mut **tx)
        .await?;
    }
    Ok(id)
}

pub(crate) async fn insert_app(
    tx: &mut Tx,
    agent: Uuid,
    position: usize,
    spec: &crate::spec::AppSpec,
    now: Time,
) -> Result<()> {
    let health = if spec.healthcheck.url.is_empty() {
        AppHealth::Disabled
    } else {
        AppHealth::Initializing
    };
    sqlx::query(
        "INSERT INTO agent_apps (id, agent_id, position, slug, health, spec, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(Uuid::new_v4().to_string())
    .bind(agent.to_string())
    .bind(position as i64)
    .bind(&spec.slug)
    .bind(health.as_str())
    .bind(json(spec))
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await
    .map_err(|error| crate::Error::unique(error, "app slug"))?;
    Ok(())
}

async fn insert_script(tx: &mut Tx, agent: Uuid, spec: &ScriptSpec, now: Time) -> Result<()> {
    let source = Uuid::new_v4();
    sqlx::query(
        "INSERT INTO agent_log_sources (agent_id, id, display_name, icon, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(agent.to_string())
    .bind(source.to_string())
    .bind(&spec.display_name)
    .bind(&spec.icon)
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO agent_scripts (id, agent_id, log_source_id, display_name, log_path, script,
             cron, run_on_start, run_on_stop, start_blocks_login, timeout_seconds)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(Uuid::new_v4().to_string())
    .bind(agent.to_string())
    .bind(source.to_string())
    .bind(&spec.display_name)
    .bind(&spec.log_path)
    .bind(&spec.script)
    .bind(&spec.cron)
    .bind(i64::from(spec.run_on_start))
    .bind(i64::from(spec.run_on_stop))
    .bind(i64::from(spec.start_blocks_login))
    .bind(spec.timeout_seconds)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// What a job made, in its own order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resources(&self, job: Uuid) -> Result<Vec<Resource>> {
        let rows = sqlx::query("SELECT * FROM resources WHERE job_id = $1 ORDER BY position")
            .bind(job.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(resource).collect()
    }

    /// Live agents of a resource, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agents_of_resource(&self, resource: Uuid) -> Result<Vec<Agent>> {
        let rows = sqlx::query(
            "SELECT * FROM agents WHERE resource_id = $1 AND deleted = 0 ORDER BY created_at, id",
        )
        .bind(resource.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(agent).collect()
    }

    /// Live agents a job made, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn agents_of_job(&self, job: Uuid) -> Result<Vec<Agent>> {
        let rows = sqlx::query(
            "SELECT a.* FROM agents a JOIN resources r ON r.id = a.resource_id
             WHERE r.job_id = $1 AND a.deleted = 0 ORDER BY r.position, a.created_at, a.id",
        )
        .bind(job.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(agent).collect()
    }

    /// Apps of an agent in the template's order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn apps(&self, agent: Uuid) -> Result<Vec<App>> {
        let rows = sqlx::query("SELECT * FROM agent_apps WHERE agent_id = $1 ORDER BY position")
            .bind(agent.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(app).collect()
    }

    /// Scripts of an agent with their newest result.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn scripts(&self, agent: Uuid) -> Result<Vec<Script>> {
        let rows = sqlx::query(
            "SELECT s.*, t.exit_code, t.status FROM agent_scripts s
             LEFT JOIN agent_script_timings t ON t.script_id = s.id AND t.started_at = (
                 SELECT max(started_at) FROM agent_script_timings WHERE script_id = s.id)
             WHERE s.agent_id = $1 ORDER BY s.id",
        )
        .bind(agent.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(script).collect()
    }

    /// Log sources of an agent.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn log_sources(&self, agent: Uuid) -> Result<Vec<LogSourceRow>> {
        let rows = sqlx::query("SELECT * FROM agent_log_sources WHERE agent_id = $1 ORDER BY id")
            .bind(agent.to_string())
            .fetch_all(&self.read)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(LogSourceRow {
                    agent_id: row.uuid("agent_id")?,
                    id: row.uuid("id")?,
                    display_name: row.text("display_name")?,
                    icon: row.text("icon")?,
                    created_at: row.time("created_at")?,
                })
            })
            .collect()
    }
}
