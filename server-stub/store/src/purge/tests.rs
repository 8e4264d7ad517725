use uuid::Uuid;

use super::{BATCH, DAY_MICROS, OWNERS, Purge, Purged};
use crate::engine::Cols as _;
use crate::{NewUser, Store};

const NOW: i64 = 1_000 * DAY_MICROS;

struct Fixture {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new(rows: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("test.db")).await.unwrap();
        let user = NewUser {
            username: "alice".into(),
            email: "alice@example.com".into(),
            ..NewUser::default()
        };
        let organization = store.default_organization().await.unwrap().id;
        let user = store.create_user(&user, &[organization]).await.unwrap().id;
        let mut tx = store.begin().await.unwrap();
        for row in rows {
            let row = row.replace(":user", &user.to_string());
            sqlx::query(sqlx::AssertSqlSafe(row))
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        Self { store, _dir: dir }
    }

    async fn step(&self, what: Purge) -> Purged {
        let now = adit_rest::Time::from_micros(NOW);
        self.store.purge(what, now).await.unwrap()
    }

    async fn purge(&self, what: Purge) -> u64 {
        self.step(what).await.rows
    }

    async fn left(&self, table: &str, column: &str) -> Vec<String> {
        let text = format!("SELECT {column} AS name FROM {table} ORDER BY 1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(text))
            .fetch_all(&self.store.read)
            .await
            .unwrap();
        rows.iter().map(|row| row.text("name").unwrap()).collect()
    }
}

fn at(days_ago: i64) -> i64 {
    NOW - days_ago * DAY_MICROS
}

#[tokio::test]
async fn a_batch_has_a_limit() {
    let id = Uuid::nil();
    let insert = format!(
        "INSERT INTO agent_stats
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
         SELECT NULL, '{id}', '{id}', ':user', {} + i % 2 * {}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM n",
        2 * BATCH + 10,
        at(8),
        2 * DAY_MICROS,
    );
    let f = Fixture::new(&[&insert]).await;
    assert_eq!(f.purge(Purge::AgentStats).await, BATCH as u64);
    assert_eq!(f.purge(Purge::AgentStats).await, 5);
    assert_eq!(f.purge(Purge::AgentStats).await, 0);
    f.store.shrink().await.unwrap();
}

#[tokio::test]
async fn reports_and_connections_go_but_the_newest_state_stays() {
    let status = |id: &str, app: &str, days| {
        format!(
            "INSERT INTO app_statuses VALUES ('{id}', 'w', 'a', '{app}', '', '', '', {})",
            at(days)
        )
    };
    let connection = |id: &str, end: Option<i64>| {
        let end = end.map_or("NULL".to_owned(), |days| at(days).to_string());
        format!("INSERT INTO connection_logs VALUES ('{id}', 'a', 'ssh', '', 1, {end}, NULL, '')")
    };
    let rows = [
        status("old", "one", 9),
        status("newest", "one", 8),
        status("only", "two", 500),
        connection("open", None),
        connection("recent", Some(80)),
        connection("long-ago", Some(100)),
    ];
    let f = Fixture::new(&rows.each_ref().map(String::as_str)).await;
    assert_eq!(f.purge(Purge::AppStatuses).await, 1);
    assert_eq!(f.left("app_statuses", "id").await, ["newest", "only"]);
    assert_eq!(f.purge(Purge::Connections).await, 1);
    let left = f.left("connection_logs", "connection_id").await;
    assert_eq!(left, ["open", "recent"]);
}

#[tokio::test]
async fn keys_go_a_week_after_their_end() {
    let key = |id: &str, days| {
        format!(
            "INSERT INTO api_keys VALUES ('{id}', ':user', '', 'token', 'all', '[]', '[]', '{id}', 1,
                 1, {}, 1, 1)",
            at(days)
        )
    };
    let rows = [key("valid", -1), key("ended", 6), key("forgotten", 8)];
    let f = Fixture::new(&rows.each_ref().map(String::as_str)).await;
    assert_eq!(f.purge(Purge::ApiKeys).await, 1);
    assert_eq!(f.left("api_keys", "id").await, ["ended", "valid"]);
}

/// A job that ended so many days ago, with log lines.
fn job(id: &str, kind: &str, days: i64, lines: i64) -> Vec<String> {
    vec![
        format!(
            "INSERT INTO provisioner_jobs (id, organization_id, initiator_id, job_type, input,
                 tags, file_id, error, error_code, logs_length, logs_overflowed, created_at,
                 updated_at, completed_at)
             VALUES ('{id}', '', '', '{kind}', '{{}}', '{{}}', '', '', '', 0, 0, 1, 1, {})",
            at(days)
        ),
        format!(
            "INSERT INTO provisioner_job_logs
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {lines})
             SELECT NULL, '{id}', 1, '', '', '', '' FROM n WHERE i <= {lines}"
        ),
    ]
}

fn id(n: u128) -> String {
    Uuid::from_u128(n).to_string()
}

async fn fixture(rows: Vec<String>) -> Fixture {
    Fixture::new(&rows.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn logs_of_many_jobs_go_in_bounded_steps() {
    let jobs = OWNERS + 20;
    let (long, recent) = (id(1_000), id(1_001));
    let mut rows = job(&long, "workspace_build", 40, 3 * BATCH);
    rows.extend(job(&recent, "workspace_build", 20, 1));
    for n in 0..jobs {
        rows.extend(job(&id(n as u128), "workspace_build", 31, 2));
    }
    let f = fixture(rows).await;
    let (mut removed, mut steps) = (0, 0);
    loop {
        let step = f.step(Purge::JobLogs).await;
        assert!(step.rows <= BATCH as u64);
        removed += step.rows;
        steps += 1;
        if !step.more {
            break;
        }
    }
    assert_eq!(removed as i64, 3 * BATCH + 2 * jobs);
    assert!((4..=6).contains(&steps), "{steps}");
    assert_eq!(f.left("provisioner_job_logs", "job_id").await, [recent]);
    // They are not looked at again.
    assert_eq!(f.step(Purge::JobLogs).await, Purged::default());
    let marked = f
        .left("provisioner_jobs", "CAST(logs_removed AS TEXT)")
        .await;
    assert_eq!(marked.iter().filter(|is| *is == "0").count(), 1);
    // Builds are history; only what nothing refers to goes.
    assert_eq!(f.step(Purge::DryRuns).await, Purged::default());
}

#[tokio::test]
async fn dry_runs_go_with_what_they_would_have_made() {
    let (old, recent, import) = (id(1), id(2), id(3));
    let mut rows = job(&old, "template_version_dry_run", 31, 3);
    rows.extend(job(&recent, "template_version_dry_run", 29, 3));
    rows.extend(job(&import, "template_version_import", 500, 0));
    for (n, job) in [(10, &old), (20, &recent)] {
        let (resource, agent) = (id(n), id(n + 1));
        rows.extend([
            format!(
                "INSERT INTO resources VALUES ('{resource}', '{job}', 0, 'start', '', '', 0, '', 0,
                     '[]', 1)"
            ),
            format!(
                "INSERT INTO agents (id, resource_id, name, auth_token, auth_token_hash, deleted,
                     architecture, operating_system, environment_variables, directory,
                     expanded_directory, motd_file, version, api_version, subsystems,
                     display_apps, connection_timeout_seconds, troubleshooting_url,
                     lifecycle_state, logs_length, logs_overflowed, created_at, updated_at)
                 VALUES ('{agent}', '{resource}', '', '{agent}', '{agent}', 0, '', '', '{{}}', '',
                     '', '', '', '', '[]', '[]', 0, '', 'created', 0, 0, 1, 1)"
            ),
            format!("INSERT INTO agent_log_sources VALUES ('{agent}', 's', '', '', 1)"),
        ]);
    }
    let f = fixture(rows).await;
    // The logs go first.
    assert_eq!(f.purge(Purge::DryRuns).await, 0);
    assert_eq!(f.purge(Purge::JobLogs).await, 3);
    assert_eq!(f.purge(Purge::DryRuns).await, 3);
    assert_eq!(f.left("provisioner_jobs", "id").await, [recent, import]);
    assert_eq!(f.left("resources", "id").await, [id(20)]);
    assert_eq!(f.left("agents", "id").await, [id(21)]);
}

#[tokio::test]
async fn what_is_searched_for_is_in_an_index() {
    let f = Fixture::new(&[]).await;
    for what in Purge::ALL {
        let statement = match what.way() {
            super::Way::Rows(statement) => statement,
            super::Way::Owned(owned) => owned.owners,
        };
        // A handful of rows.
        if what == Purge::Provisioners {
            continue;
        }
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let plan = sqlx::query(sqlx::AssertSqlSafe(explain))
            .bind(NOW)
            .bind(10_i64)
            .fetch_all(&f.store.read)
            .await
            .unwrap();
        let plan: Vec<_> = plan.iter().map(|row| row.text("detail").unwrap()).collect();
        assert!(
            !plan.iter().any(|step| step.starts_with("SCAN")),
            "{plan:?}"
        );
    }
}
