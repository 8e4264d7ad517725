//! Who carries out jobs, and what there is and was to do.

use std::collections::{BTreeMap, HashMap};

use adit_rest::{JobStatus, Time, Transition};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::engine::{Cols as _, Engine, Row, Store, json};
use crate::jobs::{default_tags, job};
use crate::model::{Job, TemplateOptions};
use crate::{Error, Result};

/// Somebody who takes jobs.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Provisioner {
    pub id: Uuid,
    pub organization_id: Uuid,
    /// Unique in its organization.
    pub name: String,
    pub version: String,
    /// Version of the API it speaks.
    pub api_version: String,
    /// What it can carry out.
    pub provisioners: Vec<String>,
    pub tags: BTreeMap<String, String>,
    pub created_at: Time,
    pub last_seen_at: Time,
}

/// A provisioner, with what it does and what it did last.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ListedProvisioner {
    pub provisioner: Provisioner,
    pub current: Option<ListedJob>,
    pub previous: Option<ListedJob>,
}

/// A job with the names lists show.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ListedJob {
    pub job: Job,
    /// Name of who took it; empty if nobody did or he is forgotten.
    pub worker_name: String,
    /// Of a build.
    pub workspace: Option<(Uuid, String, Transition)>,
    /// What it works with, if that still exists.
    pub template: Option<JobTemplate>,
}

/// The template version of a job.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct JobTemplate {
    pub version_name: String,
    /// `None` for a version of no template.
    pub id: Option<Uuid>,
    pub name: String,
    pub display_name: String,
    pub icon: String,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct JobFilter {
    pub organization_id: Uuid,
    /// Any of these; all if empty.
    pub ids: Vec<Uuid>,
    /// Any of these; all if empty.
    pub statuses: Vec<JobStatus>,
    pub initiator_id: Option<Uuid>,
    /// All of these.
    pub tags: BTreeMap<String, String>,
    /// The most to return.
    pub limit: i64,
}

type Query = QueryBuilder<Engine>;

/// Jobs with what is known beside them.
const LISTED: &str = "SELECT j.*, coalesce(d.name, '') AS worker_name,
         b.template_version_id AS build_version, b.transition AS transition,
         w.id AS workspace_id, w.name AS workspace_name
     FROM provisioner_jobs j
     LEFT JOIN provisioner_daemons d ON d.id = j.worker_id
     LEFT JOIN workspace_builds b ON b.job_id = j.id
     LEFT JOIN workspaces w ON w.id = b.workspace_id WHERE ";

fn provisioner(row: &Row) -> Result<Provisioner> {
    Ok(Provisioner {
        id: row.uuid("id")?,
        organization_id: row.uuid("organization_id")?,
        name: row.text("name")?,
        version: row.text("version")?,
        api_version: row.text("api_version")?,
        provisioners: row.json("provisioners")?,
        tags: row.json("tags")?,
        created_at: row.time("created_at")?,
        last_seen_at: row.time("last_seen_at")?,
    })
}

/// A job is in this state; see [`Job::status`].
const fn condition(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Failed => "j.error <> ''",
        JobStatus::Canceled => {
            "(j.error = '' AND j.completed_at IS NOT NULL AND j.canceled_at IS NOT NULL)"
        }
        JobStatus::Succeeded => {
            "(j.error = '' AND j.completed_at IS NOT NULL AND j.canceled_at IS NULL)"
        }
        JobStatus::Canceling => {
            "(j.error = '' AND j.completed_at IS NULL AND j.canceled_at IS NOT NULL)"
        }
        JobStatus::Running => {
            "(j.error = '' AND j.completed_at IS NULL AND j.canceled_at IS NULL
                 AND j.started_at IS NOT NULL)"
        }
        JobStatus::Pending => {
            "(j.error = '' AND j.completed_at IS NULL AND j.canceled_at IS NULL
                 AND j.started_at IS NULL)"
        }
        _ => "0 = 1",
    }
}

impl JobFilter {
    fn conditions(&self, query: &mut Query) {
        query.push("j.organization_id = ");
        query.push_bind(self.organization_id.to_string());
        if !self.ids.is_empty() {
            query.push(" AND j.id IN (");
            let mut ids = query.separated(", ");
            for id in &self.ids {
                ids.push_bind(id.to_string());
            }
            query.push(")");
        }
        for (index, status) in self.statuses.iter().enumerate() {
            query.push(if index == 0 { " AND (" } else { " OR " });
            query.push(condition(*status));
        }
        if !self.statuses.is_empty() {
            query.push(")");
        }
        if let Some(initiator) = self.initiator_id {
            query.push(" AND j.initiator_id = ");
            query.push_bind(initiator.to_string());
        }
        for (name, value) in &self.tags {
            // As it is stored; a quote inside a text is escaped.
            let pair = format!("{}:{}", json(name), json(value));
            query.push(" AND instr(j.tags, ").push_bind(pair);
            query.push(") > 0");
        }
    }
}

impl Store {
    /// Makes a provisioner known, with the id it had before if one of that name
    /// was known; returns the id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register_provisioner(
        &self,
        organization: Uuid,
        name: &str,
        version: &str,
        api_version: &str,
        provisioners: &[&str],
    ) -> Result<Uuid> {
        let row = sqlx::query(
            "INSERT INTO provisioner_daemons (id, organization_id, name, version, api_version,
                 provisioners, tags, created_at, last_seen_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
             ON CONFLICT (organization_id, name) DO UPDATE SET version = excluded.version,
                 api_version = excluded.api_version, provisioners = excluded.provisioners,
                 tags = excluded.tags, last_seen_at = excluded.last_seen_at
             RETURNING id",
        )
        .bind(Uuid::new_v4().to_string())
        .bind(organization.to_string())
        .bind(name)
        .bind(version)
        .bind(api_version)
        .bind(json(&provisioners))
        .bind(json(&default_tags()))
        .bind(Time::now().as_micros())
        .fetch_one(self.writer())
        .await?;
        row.uuid("id")
    }

    /// Notes a sign of life of a provisioner.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn provisioner_seen(&self, id: Uuid, at: Time) -> Result<()> {
        sqlx::query(
            "UPDATE provisioner_daemons SET last_seen_at = $2 WHERE id = $1 AND last_seen_at < $2",
        )
        .bind(id.to_string())
        .bind(at.as_micros())
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// The provisioners of an organization, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn provisioners(&self, organization: Uuid) -> Result<Vec<ListedProvisioner>> {
        let rows = sqlx::query(
            "SELECT * FROM provisioner_daemons WHERE organization_id = $1
             ORDER BY created_at DESC, id",
        )
        .bind(organization.to_string())
        .fetch_all(&self.read)
        .await?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in &rows {
            let provisioner = provisioner(row)?;
            let current = "j.completed_at IS NULL AND j.worker_id = ";
            let previous = "j.completed_at IS NOT NULL AND j.worker_id = ";
            listed.push(ListedProvisioner {
                current: self.job_of(&provisioner, current, "started_at").await?,
                previous: self.job_of(&provisioner, previous, "completed_at").await?,
                provisioner,
            });
        }
        Ok(listed)
    }

    /// The newest job of a provisioner among those of a kind.
    async fn job_of(
        &self,
        of: &Provisioner,
        kind: &'static str,
        newest_by: &'static str,
    ) -> Result<Option<ListedJob>> {
        let mut query = Query::new(LISTED);
        query.push(kind).push_bind(of.id.to_string());
        query.push(" ORDER BY j.").push(newest_by);
        query.push(" DESC LIMIT 1");
        Ok(self.listed_jobs(query).await?.pop())
    }

    /// The jobs that match, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_jobs(&self, filter: &JobFilter) -> Result<Vec<ListedJob>> {
        let mut query = Query::new(LISTED);
        filter.conditions(&mut query);
        query.push(" ORDER BY j.created_at DESC, j.id LIMIT ");
        query.push_bind(filter.limit);
        self.listed_jobs(query).await
    }

    async fn listed_jobs(&self, mut query: Query) -> Result<Vec<ListedJob>> {
        let rows = query.build().fetch_all(&self.read).await?;
        let mut versions: HashMap<Uuid, Option<JobTemplate>> = HashMap::new();
        let mut jobs = Vec::with_capacity(rows.len());
        for row in &rows {
            let job = job(row)?;
            let workspace = match row.opt_uuid("workspace_id")? {
                Some(id) => Some((
                    id,
                    row.text("workspace_name")?,
                    row.word("transition", Transition::parse)?,
                )),
                None => None,
            };
            let version = row.opt_uuid("build_version")?;
            let template = match version.or(job.input.template_version_id) {
                None => None,
                Some(id) => {
                    if let std::collections::hash_map::Entry::Vacant(unknown) = versions.entry(id) {
                        let template = crate::optional(self.job_template(id).await)?;
                        unknown.insert(template);
                    }
                    versions.get(&id).cloned().flatten()
                }
            };
            jobs.push(ListedJob {
                job,
                worker_name: row.text("worker_name")?,
                workspace,
                template,
            });
        }
        Ok(jobs)
    }

    async fn job_template(&self, version: Uuid) -> Result<JobTemplate> {
        let row = sqlx::query(
            "SELECT v.name AS version_name, t.id AS id, coalesce(t.name, '') AS name,
                 coalesce(t.options, '{}') AS options
             FROM template_versions v LEFT JOIN templates t ON t.id = v.template_id
             WHERE v.id = $1",
        )
        .bind(version.to_string())
        .fetch_optional(&self.read)
        .await?
        .ok_or(Error::NotFound)?;
        let options: TemplateOptions = row.json("options")?;
        Ok(JobTemplate {
            version_name: row.text("version_name")?,
            id: row.opt_uuid("id")?,
            name: row.text("name")?,
            display_name: options.display_name,
            icon: options.icon,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_states_agree() {
        // Each combination of times fulfils exactly the condition of its state.
        let at = Some(Time::from_micros(1));
        for bits in 0..16 {
            let set = |bit: u32| if bits & bit == 0 { None } else { at };
            let job = Job {
                error: if bits & 8 == 0 { "" } else { "e" }.to_owned(),
                started_at: set(1),
                canceled_at: set(2),
                completed_at: set(4),
                ..Job::default()
            };
            let holds = |status| {
                let text = condition(status);
                let known = |name: &str, is: bool| {
                    (!text.contains(&format!("{name} IS NULL")) || !is)
                        && (!text.contains(&format!("{name} IS NOT NULL")) || is)
                };
                known("started_at", job.started_at.is_some())
                    && known("canceled_at", job.canceled_at.is_some())
                    && known("completed_at", job.completed_at.is_some())
                    && text.contains("error <> ''") != job.error.is_empty()
            };
            let all = [
                JobStatus::Pending,
                JobStatus::Running,
                JobStatus::Succeeded,
                JobStatus::Canceling,
                JobStatus::Canceled,
                JobStatus::Failed,
            ];
            for status in all {
                assert_eq!(holds(status), status == job.status(), "{bits} {status}");
            }
        }
    }
}
