//! Templates, versions and presets.

use adit_rest::{JobType, PresetParameter, Time, Transition};
use uuid::Uuid;

use crate::engine::{Cols as _, Row, Store, Tx, json};
use crate::jobs::insert_job;
use crate::model::{Job, JobInput, Preset, Template, TemplateOptions, TemplateVersion};
use crate::resources::insert_preview;
use crate::spec::VersionSpec;
use crate::{Error, Result};

/// What a new version needs. Its import counts as done: descriptions are
/// validated before they are stored.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewVersion {
    /// Generated when nil.
    pub id: Uuid,
    pub name: String,
    pub message: String,
    pub readme: String,
    pub spec: VersionSpec,
    pub presets: Vec<NewPreset>,
}

/// What a new preset needs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewPreset {
    pub name: String,
    pub description: String,
    pub icon: String,
    pub is_default: bool,
    pub desired_instances: Option<i64>,
    pub parameters: Vec<PresetParameter>,
}

/// What a new template needs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct NewTemplate {
    pub organization_id: Uuid,
    pub created_by: Uuid,
    pub name: String,
    /// Driver: `local` or `echo`.
    pub provisioner: String,
    pub options: TemplateOptions,
    pub version: NewVersion,
}

fn template(row: &Row) -> Result<Template> {
    Ok(Template {
        id: row.uuid("id")?,
        organization_id: row.uuid("organization_id")?,
        name: row.text("name")?,
        provisioner: row.text("provisioner")?,
        active_version_id: row.uuid("active_version_id")?,
        created_by: row.uuid("created_by")?,
        deleted: row.flag("deleted")?,
        options: row.json("options")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn version(row: &Row) -> Result<TemplateVersion> {
    Ok(TemplateVersion {
        id: row.uuid("id")?,
        template_id: row.opt_uuid("template_id")?,
        organization_id: row.uuid("organization_id")?,
        name: row.text("name")?,
        message: row.text("message")?,
        readme: row.text("readme")?,
        job_id: row.uuid("job_id")?,
        created_by: row.uuid("created_by")?,
        archived: row.flag("archived")?,
        spec: row.json("spec")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn preset(row: &Row) -> Result<Preset> {
    Ok(Preset {
        id: row.uuid("id")?,
        template_version_id: row.uuid("template_version_id")?,
        name: row.text("name")?,
        description: row.text("description")?,
        icon: row.text("icon")?,
        is_default: row.flag("is_default")?,
        desired_instances: row.opt_int("desired_instances")?,
        parameters: row.json("parameters")?,
        created_at: row.time("created_at")?,
    })
}

async fn insert_version(
    tx: &mut Tx,
    template: &Template,
    new: &NewVersion,
    now: Time,
) -> Result<Uuid> {
    let id = if new.id.is_nil() {
        Uuid::new_v4()
    } else {
        new.id
    };
    let job = Job {
        id: Uuid::new_v4(),
        organization_id: template.organization_id,
        initiator_id: template.created_by,
        job_type: JobType::TemplateVersionImport,
        input: JobInput {
            template_version_id: Some(id),
            ..JobInput::default()
        },
        file_id: Uuid::new_v4(),
        worker_id: Some(Uuid::new_v4()),
        created_at: now,
        started_at: Some(now),
        completed_at: Some(now),
        ..Job::default()
    };
    insert_job(tx, &job).await?;
    sqlx::query(
        "INSERT INTO template_versions (id, template_id, organization_id, name, message, readme,
             job_id, created_by, archived, spec, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $10)",
    )
    .bind(id.to_string())
    .bind(template.id.to_string())
    .bind(template.organization_id.to_string())
    .bind(&new.name)
    .bind(&new.message)
    .bind(&new.readme)
    .bind(job.id.to_string())
    .bind(template.created_by.to_string())
    .bind(json(&new.spec))
    .bind(now.as_micros())
    .execute(&mut **tx)
    .await
    .map_err(|error| Error::unique(error, "template version"))?;
    insert_preview(tx, job.id, Transition::Start, &new.spec.resources, now).await?;
    insert_preview(tx, job.id, Transition::Stop, &new.spec.stop_resources, now).await?;
    for preset in &new.presets {
        sqlx::query(
            "INSERT INTO template_version_presets (id, template_version_id, name, description,
                 icon, is_default, desired_instances, parameters, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(id.to_string())
        .bind(&preset.name)
        .bind(&preset.description)
        .bind(&preset.icon)
        .bind(i64::from(preset.is_default))
        .bind(preset.desired_instances)
        .bind(json(&preset.parameters))
        .bind(now.as_micros())
        .execute(&mut **tx)
        .await?;
    }
    Ok(id)
}

impl Store {
    /// Makes a template with its first version; [`Error::Taken`] if the name is
    /// used.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn create_template(&self, new: &NewTemplate) -> Result<Template> {
        let now = Time::now();
        let mut made = Template {
            id: Uuid::new_v4(),
            organization_id: new.organization_id,
            name: new.name.clone(),
            provisioner: new.provisioner.clone(),
            created_by: new.created_by,
            options: new.options.clone(),
            created_at: now,
            updated_at: now,
            ..Template::default()
        };
        let mut tx = self.begin().await?;
        made.active_version_id = insert_version(&mut tx, &made, &new.version, now).await?;
        sqlx::query(
            "INSERT INTO templates (id, organization_id, name, provisioner, active_version_id,
                 created_by, deleted, options, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $8)",
        )
        .bind(made.id.to_string())
        .bind(made.organization_id.to_string())
        .bind(&made.name)
        .bind(&made.provisioner)
        .bind(made.active_version_id.to_string())
        .bind(made.created_by.to_string())
        .bind(json(&made.options))
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .map_err(|error| Error::unique(error, "template"))?;
        tx.commit().await?;
        Ok(made)
    }

    /// Adds a version, which becomes the active one if `activate`.
    ///
    /// # Errors
    /// [`Error::Taken`] if the name is used, or when the database fails.
    pub async fn add_version(
        &self,
        template: &Template,
        new: &NewVersion,
        activate: bool,
    ) -> Result<Uuid> {
        let now = Time::now();
        let mut tx = self.begin().await?;
        let id = insert_version(&mut tx, template, new, now).await?;
        if activate {
            sqlx::query(
                "UPDATE templates SET active_version_id = $2, updated_at = $3 WHERE id = $1",
            )
            .bind(template.id.to_string())
            .bind(id.to_string())
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(id)
    }

    /// One template, deleted ones too.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn template(&self, id: Uuid) -> Result<Template> {
        let row = sqlx::query("SELECT * FROM templates WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        template(&row.ok_or(Error::NotFound)?)
    }

    /// One live template by name, without regard to case.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn template_by_name(&self, organization: Uuid, name: &str) -> Result<Template> {
        let row = sqlx::query(
            "SELECT * FROM templates
             WHERE organization_id = $1 AND lower(name) = lower($2) AND deleted = 0",
        )
        .bind(organization.to_string())
        .bind(name)
        .fetch_optional(&self.read)
        .await?;
        template(&row.ok_or(Error::NotFound)?)
    }

    /// All live templates in the order of names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn templates(&self) -> Result<Vec<Template>> {
        let rows = sqlx::query("SELECT * FROM templates WHERE deleted = 0 ORDER BY lower(name)")
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(template).collect()
    }

    /// Replaces a template's settings.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_template_options(&self, id: Uuid, options: &TemplateOptions) -> Result<()> {
        sqlx::query("UPDATE templates SET options = $2, updated_at = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(json(options))
            .bind(Time::now().as_micros())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Marks a template as deleted; [`Error::Refused`] while it has workspaces.
    ///
    /// # Errors
    /// As said, or when the database fails.
    pub async fn delete_template(&self, id: Uuid) -> Result<()> {
        let mut tx = self.begin().await?;
        let used = sqlx::query(
            "SELECT count(*) AS n FROM workspaces WHERE template_id = $1 AND deleted = 0",
        )
        .bind(id.to_string())
        .fetch_one(&mut *tx)
        .await?;
        if used.int("n")? > 0 {
            return Err(Error::Refused("workspaces exist"));
        }
        sqlx::query("UPDATE templates SET deleted = 1, updated_at = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(Time::now().as_micros())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Users that own a live workspace of a template, and the durations
    /// (milliseconds) of its successful builds by transition.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn template_usage(&self, id: Uuid) -> Result<(i64, Vec<(String, i64)>)> {
        let owners = sqlx::query(
            "SELECT count(DISTINCT w.owner_id) AS n FROM workspaces w
             JOIN users u ON u.id = w.owner_id
             WHERE w.template_id = $1 AND w.deleted = 0 AND u.is_system = 0
               AND EXISTS (SELECT 1 FROM agent_stats s WHERE s.workspace_id = w.id)",
        )
        .bind(id.to_string())
        .fetch_one(&self.read)
        .await?;
        let rows = sqlx::query(
            "SELECT b.transition, (j.completed_at - j.started_at) / 1000 AS ms
             FROM workspace_builds b JOIN provisioner_jobs j ON j.id = b.job_id
             JOIN workspaces w ON w.id = b.workspace_id
             WHERE w.template_id = $1 AND j.completed_at IS NOT NULL
               AND j.started_at IS NOT NULL AND j.error = '' AND j.canceled_at IS NULL
             ORDER BY j.completed_at DESC LIMIT 300",
        )
        .bind(id.to_string())
        .fetch_all(&self.read)
        .await?;
        let durations = rows
            .iter()
            .map(|row| Ok((row.text("transition")?, row.int("ms")?)))
            .collect::<Result<Vec<_>>>()?;
        Ok((owners.int("n")?, durations))
    }

    /// One version.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn version(&self, id: Uuid) -> Result<TemplateVersion> {
        let row = sqlx::query("SELECT * FROM template_versions WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        version(&row.ok_or(Error::NotFound)?)
    }

    /// Name of a version, or empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn version_name(&self, id: Uuid) -> Result<String> {
        let row = sqlx::query("SELECT name FROM template_versions WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        row.map_or_else(|| Ok(String::new()), |row| row.text("name"))
    }

    /// One version by name.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn version_by_name(&self, template: Uuid, name: &str) -> Result<TemplateVersion> {
        let row =
            sqlx::query("SELECT * FROM template_versions WHERE template_id = $1 AND name = $2")
                .bind(template.to_string())
                .bind(name)
                .fetch_optional(&self.read)
                .await?;
        version(&row.ok_or(Error::NotFound)?)
    }

    /// Versions of a template, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn versions(&self, template: Uuid) -> Result<Vec<TemplateVersion>> {
        let rows = sqlx::query(
            "SELECT * FROM template_versions WHERE template_id = $1 ORDER BY created_at, id",
        )
        .bind(template.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(version).collect()
    }

    /// Presets of a version, in the order of names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn presets(&self, version: Uuid) -> Result<Vec<Preset>> {
        let rows = sqlx::query(
            "SELECT * FROM template_version_presets WHERE template_version_id = $1 ORDER BY name",
        )
        .bind(version.to_string())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(preset).collect()
    }

    /// One preset.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the database fails.
    pub async fn preset(&self, id: Uuid) -> Result<Preset> {
        let row = sqlx::query("SELECT * FROM template_version_presets WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.read)
            .await?;
        preset(&row.ok_or(Error::NotFound)?)
    }

    /// Sets how many unclaimed workspaces of a preset are kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_desired_instances(&self, preset: Uuid, desired: Option<i64>) -> Result<()> {
        sqlx::query("UPDATE template_version_presets SET desired_instances = $2 WHERE id = $1")
            .bind(preset.to_string())
            .bind(desired)
            .execute(self.writer())
            .await?;
        Ok(())
    }
}
