//! Finding workspaces: filters, order and paging happen in the database, so
//! that a page costs what is on it.

use adit_rest::{AgentStatus, JobStatus, Time, Transition, WorkspaceStatus};
use sqlx::QueryBuilder;
use uuid::Uuid;

use crate::engine::{Cols as _, Engine, Store};
use crate::model::{PREBUILDS_USER, Workspace};
use crate::workspaces::workspace;
use crate::{Result, users::MAX_PAGE};

/// Which workspaces to list, and which page of them. Texts are in lower case.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceFilter {
    /// Whose favourites and own workspaces come first.
    pub viewer: Uuid,
    /// Only workspaces of the viewer.
    pub own_only: bool,
    /// What holds for each of them.
    pub terms: Vec<WorkspaceTerm>,
    /// How long an agent may be silent and still count as connected, in
    /// microseconds.
    pub agent_silence: i64,
    /// The present.
    pub now: Time,
    /// How many to leave out at the start.
    pub offset: i64,
    /// The most to return; 0 is all.
    pub limit: i64,
}

/// A condition on a workspace.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum WorkspaceTerm {
    /// Holds for none.
    Never,
    Owner(Uuid),
    /// Part of its name.
    Name(String),
    TemplateName(String),
    Ids(Vec<Uuid>),
    Organization(Uuid),
    /// State of the newest build.
    Status(WorkspaceStatus),
    /// One of its agents has this state.
    HasAgent(AgentStatus),
    /// All of its agents are well.
    Healthy(bool),
    Dormant(bool),
    /// The newest build is not of the template's active version.
    Outdated(bool),
    UsedAfter(Time),
    UsedBefore(Time),
    /// The newest build has a parameter of that name, with that value if one
    /// is given.
    Parameter(String, Option<String>),
}

type Query = QueryBuilder<Engine>;

/// Live workspaces, each with owner, template, newest build and its job.
const FROM: &str = " FROM workspaces w
     JOIN users u ON u.id = w.owner_id
     JOIN templates t ON t.id = w.template_id
     JOIN workspace_builds b ON b.workspace_id = w.id AND b.build_number = (
         SELECT max(n.build_number) FROM workspace_builds n WHERE n.workspace_id = w.id)
     JOIN provisioner_jobs j ON j.id = b.job_id
     WHERE w.deleted = 0";

/// As [`crate::model::Job::status`].
const JOB_STATUS: &str = "CASE WHEN j.error <> '' THEN 'failed'
     WHEN j.completed_at IS NOT NULL AND j.canceled_at IS NOT NULL THEN 'canceled'
     WHEN j.completed_at IS NOT NULL THEN 'succeeded'
     WHEN j.canceled_at IS NOT NULL THEN 'canceling'
     WHEN j.started_at IS NOT NULL THEN 'running'
     ELSE 'pending' END";

/// The agents the newest build made.
const AGENTS: &str = "SELECT 1 FROM resources r JOIN agents a ON a.resource_id = r.id
     WHERE r.job_id = j.id AND a.deleted = 0
     AND j.error = '' AND j.completed_at IS NOT NULL AND j.canceled_at IS NULL";

/// Whether a connected agent is not well all the same.
const UNWELL: &str = "a.lifecycle_state IN ('start_error', 'shutting_down', 'shutdown_timeout', 'shutdown_error', 'off')";

/// The builds and jobs a workspace has in this state.
fn causes(status: WorkspaceStatus) -> Vec<(JobStatus, Transition)> {
    use JobStatus::{Canceled, Canceling, Failed, Pending, Running, Succeeded};
    let jobs = [Pending, Running, Succeeded, Canceling, Canceled, Failed];
    let transitions = [Transition::Start, Transition::Stop, Transition::Delete];
    jobs.into_iter()
        .flat_map(|job| transitions.map(|transition| (job, transition)))
        .filter(|(job, transition)| WorkspaceStatus::derive(*job, *transition) == status)
        .collect()
}

fn status(query: &mut Query, status: WorkspaceStatus) {
    query.push("(0 = 1");
    for (job, transition) in causes(status) {
        query.push(" OR (b.transition = ");
        query.push_bind(transition.as_str());
        query.push(" AND ").push(JOB_STATUS).push(" = ");
        query.push_bind(job.as_str());
        query.push(")");
    }
    query.push(")");
}

impl WorkspaceFilter {
    /// An expression for the state of agent `a`.
    fn agent_status(&self, query: &mut Query) {
        let (now, silence) = (self.now.as_micros(), self.agent_silence);
        query.push(
            "CASE WHEN a.first_connected_at IS NULL OR a.last_connected_at IS NULL THEN
                 CASE WHEN a.connection_timeout_seconds > 0
                     AND a.connection_timeout_seconds * 1000000 + a.created_at < ",
        );
        query.push_bind(now);
        query.push(
            " THEN 'timeout' ELSE 'connecting' END
             WHEN a.disconnected_at >= a.last_connected_at OR a.last_connected_at < ",
        );
        query.push_bind(now.saturating_sub(silence));
        query.push(" THEN 'disconnected' ELSE 'connected' END");
    }

    fn conditions(&self, query: &mut Query) {
        if self.own_only {
            query.push(" AND w.owner_id = ");
            query.push_bind(self.viewer.to_string());
        }
        for term in &self.terms {
            query.push(" AND ");
            self.condition(term, query);
        }
    }

    fn condition(&self, term: &WorkspaceTerm, query: &mut Query) {
        let not = |is: bool| if is { "" } else { "NOT " };
        match term {
            WorkspaceTerm::Never => {
                query.push("0 = 1");
            }
            WorkspaceTerm::Owner(id) => {
                query.push("w.owner_id = ").push_bind(id.to_string());
            }
            WorkspaceTerm::Name(part) => {
                query.push("instr(lower(w.name), ").push_bind(part.clone());
                query.push(") > 0");
            }
            WorkspaceTerm::TemplateName(name) => {
                query.push("lower(t.name) = ").push_bind(name.clone());
            }
            WorkspaceTerm::Ids(ids) if ids.is_empty() => {
                query.push("0 = 1");
            }
            WorkspaceTerm::Ids(ids) => {
                query.push("w.id IN (");
                let mut list = query.separated(", ");
                for id in ids {
                    list.push_bind(id.to_string());
                }
                query.push(")");
            }
            WorkspaceTerm::Organization(id) => {
                query.push("w.organization_id = ").push_bind(id.to_string());
            }
            WorkspaceTerm::Status(wanted) => status(query, *wanted),
            WorkspaceTerm::HasAgent(wanted) => {
                query.push("EXISTS (").push(AGENTS).push(" AND ");
                self.agent_status(query);
                query.push(" = ").push_bind(wanted.as_str());
                query.push(")");
            }
            WorkspaceTerm::Healthy(healthy) => {
                query.push(not(!healthy)).push("EXISTS (").push(AGENTS);
                query.push(" AND a.parent_id IS NULL AND (").push(UNWELL);
                query.push(" OR ");
                self.agent_status(query);
                query.push(" <> 'connected'))");
            }
            WorkspaceTerm::Dormant(dormant) => {
                query
                    .push("w.dormant_at IS ")
                    .push(not(!dormant))
                    .push("NULL");
            }
            WorkspaceTerm::Outdated(outdated) => {
                query.push(not(*outdated));
                query.push("b.template_version_id <> t.active_version_id");
            }
            WorkspaceTerm::UsedAfter(time) => {
                query.push("w.last_used_at > ").push_bind(time.as_micros());
            }
            WorkspaceTerm::UsedBefore(time) => {
                query.push("w.last_used_at < ").push_bind(time.as_micros());
            }
            WorkspaceTerm::Parameter(name, value) => {
                // As they are stored: objects with exactly these two fields.
                let text = |text: &String| crate::engine::json(text);
                let part = match value {
                    Some(value) => {
                        format!("{{\"name\":{},\"value\":{}}}", text(name), text(value))
                    }
                    None => format!("{{\"name\":{},", text(name)),
                };
                query.push("instr(lower(b.parameters), ").push_bind(part);
                query.push(") > 0");
            }
        }
    }

    fn order(&self, query: &mut Query) {
        query.push(
            " ORDER BY (SELECT count(*) FROM workspace_favorites f
                 WHERE f.workspace_id = w.id AND f.user_id = ",
        );
        query.push_bind(self.viewer.to_string());
        query.push(") DESC, CASE WHEN ");
        status(query, WorkspaceStatus::Running);
        query.push(" THEN 0 ELSE 1 END, CASE WHEN w.owner_id = ");
        query.push_bind(self.viewer.to_string());
        query.push(" THEN 0 ELSE 1 END, lower(u.username), lower(w.name), w.id LIMIT ");
        query.push_bind(if self.limit > 0 { self.limit } else { MAX_PAGE });
        query.push(" OFFSET ").push_bind(self.offset);
    }
}

impl Store {
    /// One page of the live workspaces that match, and how many match in all.
    ///
    /// Favourites of the viewer come first, then running workspaces, then the
    /// viewer's own; those by names of owner and workspace.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_workspaces(&self, filter: &WorkspaceFilter) -> Result<(Vec<Workspace>, i64)> {
        let mut query = Query::new("SELECT w.*");
        query.push(FROM);
        filter.conditions(&mut query);
        filter.order(&mut query);
        let rows = query.build().fetch_all(&self.read).await?;
        let page = rows.iter().map(workspace).collect::<Result<Vec<_>>>()?;
        let seen = page.len() as i64;
        if filter.offset == 0 && (filter.limit == 0 || seen < filter.limit) {
            return Ok((page, seen));
        }
        let mut query = Query::new("SELECT count(*) AS n");
        query.push(FROM);
        filter.conditions(&mut query);
        let row = query.build().fetch_one(&self.read).await?;
        Ok((page, row.int("n")?))
    }

    /// Whether there are live workspaces of an owner or of a template.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_workspaces(&self, owner_or_template: Uuid) -> Result<bool> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM workspaces WHERE owner_id = $1 AND deleted = 0)
                 OR EXISTS (SELECT 1 FROM workspaces WHERE template_id = $1 AND deleted = 0)
                 AS found",
        )
        .bind(owner_or_template.to_string())
        .fetch_one(&self.read)
        .await?;
        row.flag("found")
    }

    /// How many live workspaces have a newest build of each kind and state.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_workspaces(&self) -> Result<Vec<(JobStatus, Transition, i64)>> {
        let mut query = Query::new("SELECT b.transition, ");
        query.push(JOB_STATUS).push(" AS status, count(*) AS n");
        query.push(FROM).push(" GROUP BY 1, 2");
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                Ok((
                    row.word("status", JobStatus::parse)?,
                    row.word("transition", Transition::parse)?,
                    row.int("n")?,
                ))
            })
            .collect()
    }

    /// Live workspaces that have a deadline or a schedule, except unclaimed
    /// ones.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clocked_workspaces(&self) -> Result<Vec<Workspace>> {
        let mut query = Query::new("SELECT w.*");
        query.push(FROM);
        query.push(" AND (w.autostart_schedule IS NOT NULL OR b.deadline IS NOT NULL)");
        query.push(" AND w.owner_id <> ");
        query.push_bind(PREBUILDS_USER.to_string());
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(workspace).collect()
    }

    /// Live workspaces of a provisioner whose newest build is a start that
    /// succeeded.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn running_workspaces(&self, provisioner: &str) -> Result<Vec<Workspace>> {
        let mut query = Query::new("SELECT w.*");
        query.push(FROM).push(" AND t.provisioner = ");
        query.push_bind(provisioner);
        query.push(" AND ");
        status(&mut query, WorkspaceStatus::Running);
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(workspace).collect()
    }

    /// How the database finds a page: one line for each table or index it goes
    /// through.
    ///
    /// # Errors
    /// When the database fails.
    #[cfg(test)]
    pub(crate) async fn explain(&self, filter: &WorkspaceFilter) -> Result<Vec<String>> {
        let mut query = Query::new("EXPLAIN QUERY PLAN SELECT w.*");
        query.push(FROM);
        filter.conditions(&mut query);
        filter.order(&mut query);
        let rows = query.build().fetch_all(&self.read).await?;
        rows.iter().map(|row| row.text("detail")).collect()
    }
}

#[cfg(test)]
mod tests;
