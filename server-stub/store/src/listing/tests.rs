use adit_rest::{AgentStatus, Time, WorkspaceStatus};
use uuid::Uuid;

use super::{WorkspaceFilter, WorkspaceTerm as Term};
use crate::{NewTemplate, NewUser, NewVersion, Store};

const FEW: usize = 500;
const MANY: usize = 5000;
const NOW: i64 = 2_000_000_000_000_000;
const SILENCE: i64 = 30_000_000;

struct Fixture {
    store: Store,
    size: usize,
    zoe: Uuid,
    adam: Uuid,
    _dir: tempfile::TempDir,
}

/// What makes the rows; everything about a workspace follows from its number
/// `i`. There are two builds `b` of each.
const ROWS: [&str; 5] = [
    "INSERT INTO workspaces (id, owner_id, organization_id, template_id, name, deleted,
         automatic_updates, last_used_at, dormant_at, created_at, updated_at)
     :each
     SELECT printf('00000000-0000-4000-8000-%012x', i),
         CASE i % 2 WHEN 0 THEN ':zoe' ELSE ':adam' END, ':organization', ':template',
         printf('Ws-%05d', i), i % 100 = 99, 'never', :now - i,
         CASE i % 11 WHEN 0 THEN 1 END, 1, 1 FROM n",
    "INSERT INTO provisioner_jobs (id, organization_id, initiator_id, job_type, input, tags,
         file_id, error, error_code, logs_length, logs_overflowed, created_at, updated_at,
         started_at, completed_at)
     :each
     SELECT printf('%08x-0000-4000-8000-%012x', b, i), ':organization', ':zoe',
         'workspace_build', '{}', '{}', ':zoe',
         CASE WHEN b = 2 AND i % 5 = 0 THEN 'broken' ELSE '' END, '', 0, 0, 1, 1, 1,
         CASE WHEN b = 1 OR i % 7 > 0 THEN 2 END FROM n, builds",
    "INSERT INTO workspace_builds (id, workspace_id, build_number, template_version_id,
         transition, initiator_id, job_id, reason, daily_cost, provisioner_state, parameters,
         created_at, updated_at)
     :each
     SELECT printf('%08x-0000-4001-8000-%012x', b, i), printf('00000000-0000-4000-8000-%012x', i),
         b, CASE WHEN b = 2 AND i % 13 > 0 THEN ':version' ELSE ':zoe' END,
         CASE WHEN b = 2 AND i % 3 = 0 THEN 'stop' ELSE 'start' END, ':zoe',
         printf('%08x-0000-4000-8000-%012x', b, i), 'initiator', 0, '',
         printf('[{\"name\":\"Size\",\"value\":\"%d\"}]', b * 2 + i % 2), 1, 1 FROM n, builds",
    "INSERT INTO resources (id, job_id, position, transition, resource_type, name, hide, icon,
         daily_cost, metadata, created_at)
     :each
     SELECT printf('00000000-0000-4002-8000-%012x', i),
         printf('00000002-0000-4000-8000-%012x', i), 0, 'start', 'x', 'main', 0, '', 0, '[]', 1
     FROM n",
    // Never seen: 0 late, 1 not; 2 to 7 seen 0, 20 or 40 s ago; 8, 9 gone.
    "INSERT INTO agents (id, resource_id, name, auth_token, auth_token_hash, deleted,
         architecture, operating_system, environment_variables, directory, expanded_directory,
         motd_file, version, api_version, subsystems, display_apps, connection_timeout_seconds,
         troubleshooting_url, lifecycle_state, logs_length, logs_overflowed, created_at,
         updated_at, first_connected_at, last_connected_at, disconnected_at)
     :each
     SELECT printf('00000000-0000-4003-8000-%012x', i),
         printf('00000000-0000-4002-8000-%012x', i), 'main', '', '', 0, '', '', '{}', '', '', '',
         '', '', '[]', '[]', 60, '', CASE i % 6 WHEN 0 THEN 'start_error' ELSE 'ready' END, 0, 0,
         CASE i % 10 WHEN 1 THEN :now ELSE 1 END, 1, CASE WHEN i % 10 > 1 THEN 1 END,
         CASE WHEN i % 10 > 1 THEN :now - 20000000 * (i % 10 % 3) END,
         CASE WHEN i % 10 > 7 THEN :now END FROM n",
];

async fn fixture(size: usize) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("test.db")).await.unwrap();
    let organization = store.default_organization().await.unwrap().id;
    let user = async |name: &str| {
        let new = NewUser {
            username: name.into(),
            email: format!("{name}@example.com"),
            ..NewUser::default()
        };
        store.create_user(&new, &[organization]).await.unwrap().id
    };
    let (zoe, adam) = (user("zoe").await, user("Adam").await);
    let template = store
        .create_template(&NewTemplate {
            organization_id: organization,
            created_by: zoe,
            name: "Local".into(),
            version: NewVersion {
                name: "v1".into(),
                ..NewVersion::default()
            },
            ..NewTemplate::default()
        })
        .await
        .unwrap();
    let mut tx = store.begin().await.unwrap();
    for row in ROWS {
        let each = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n
                 WHERE i + 1 < :many), builds (b) AS (VALUES (1), (2))";
        let text = row
            .replace(":each", each)
            .replace(":many", &size.to_string())
            .replace(":now", &NOW.to_string())
            .replace(":zoe", &zoe.to_string())
            .replace(":adam", &adam.to_string())
            .replace(":organization", &organization.to_string())
            .replace(":template", &template.id.to_string())
            .replace(":version", &template.active_version_id.to_string());
        sqlx::query(sqlx::AssertSqlSafe(text))
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    Fixture {
        store,
        size,
        zoe,
        adam,
        _dir: dir,
    }
}

fn id(number: usize) -> Uuid {
    Uuid::from_u128((0x4000_8000 << 48) | number as u128)
}

impl Fixture {
    fn filter(&self, terms: Vec<Term>) -> WorkspaceFilter {
        WorkspaceFilter {
            viewer: self.zoe,
            terms,
            agent_silence: SILENCE,
            now: Time::from_micros(NOW),
            ..WorkspaceFilter::default()
        }
    }

    /// Numbers of the workspaces on a page, and how many there are in all.
    async fn find(&self, filter: &WorkspaceFilter) -> (Vec<usize>, i64) {
        let (page, count) = self.store.find_workspaces(filter).await.unwrap();
        let number = |name: &str| name.trim_start_matches("Ws-").parse().unwrap();
        (page.iter().map(|w| number(&w.name)).collect(), count)
    }

    /// Compares with what is said of each live workspace's number.
    async fn holds(&self, term: Term, expected: impl Fn(usize) -> bool) {
        let filter = self.filter(vec![term.clone()]);
        let (mut found, count) = self.find(&filter).await;
        found.sort_unstable();
        let live = (0..self.size).filter(|i| i % 100 != 99);
        let expected: Vec<usize> = live.filter(|i| expected(*i)).collect();
        assert_eq!(count as usize, expected.len(), "{term:?}");
        assert_eq!(found, expected, "{term:?}");
    }
}

fn status(i: usize) -> WorkspaceStatus {
    let stop = i.is_multiple_of(3);
    match (i.is_multiple_of(5), i.is_multiple_of(7)) {
        (true, _) => WorkspaceStatus::Failed,
        (_, true) if stop => WorkspaceStatus::Stopping,
        (_, true) => WorkspaceStatus::Starting,
        _ if stop => WorkspaceStatus::Stopped,
        _ => WorkspaceStatus::Running,
    }
}

fn agent(i: usize) -> Option<AgentStatus> {
    let made = matches!(
        status(i),
        WorkspaceStatus::Running | WorkspaceStatus::Stopped
    );
    made.then_some(match i % 10 {
        0 => AgentStatus::Timeout,
        1 => AgentStatus::Connecting,
        8 | 9 => AgentStatus::Disconnected,
        seen if seen % 3 == 2 => AgentStatus::Disconnected,
        _ => AgentStatus::Connected,
    })
}

#[tokio::test]
async fn every_term_means_what_it_says() {
    let f = fixture(FEW).await;
    f.holds(Term::Never, |_| false).await;
    f.holds(Term::Owner(f.adam), |i| i % 2 == 1).await;
    f.holds(Term::Name("s-0012".into()), |i| i / 10 == 12).await;
    f.holds(Term::TemplateName("local".into()), |_| true).await;
    f.holds(Term::Ids(vec![id(3), id(499), id(7)]), |i| i == 3 || i == 7)
        .await;
    f.holds(Term::Ids(Vec::new()), |_| false).await;
    f.holds(Term::Organization(f.zoe), |_| false).await;
    f.holds(Term::Dormant(true), |i| i % 11 == 0).await;
    f.holds(Term::Dormant(false), |i| i % 11 != 0).await;
    f.holds(Term::Outdated(true), |i| i % 13 == 0).await;
    f.holds(Term::Outdated(false), |i| i % 13 != 0).await;
    let time = Time::from_micros(NOW - 100);
    f.holds(Term::UsedAfter(time), |i| i < 100).await;
    f.holds(Term::UsedBefore(time), |i| i > 100).await;
    let parameter = |value: Option<&str>| Term::Parameter("size".into(), value.map(Into::into));
    f.holds(parameter(None), |_| true).await;
    f.holds(parameter(Some("5")), |i| i % 2 == 1).await;
    // What the build before had.
    f.holds(parameter(Some("3")), |_| false).await;
    for wanted in [
        WorkspaceStatus::Failed,
        WorkspaceStatus::Starting,
        WorkspaceStatus::Stopping,
        WorkspaceStatus::Running,
        WorkspaceStatus::Stopped,
        WorkspaceStatus::Pending,
    ] {
        f.holds(Term::Status(wanted), |i| status(i) == wanted).await;
    }
    for wanted in [
        AgentStatus::Timeout,
        AgentStatus::Connecting,
        AgentStatus::Connected,
        AgentStatus::Disconnected,
    ] {
        f.holds(Term::HasAgent(wanted), |i| agent(i) == Some(wanted))
            .await;
    }
    let well = |i: usize| match agent(i) {
        Some(status) => status == AgentStatus::Connected && !i.is_multiple_of(6),
        None => true,
    };
    f.holds(Term::Healthy(true), well).await;
    f.holds(Term::Healthy(false), |i| !well(i)).await;
}

#[tokio::test]
async fn pages_are_parts_of_one_order() {
    let f = fixture(MANY).await;
    f.store.set_favorite(f.zoe, id(4), true).await.unwrap();
    f.store.set_favorite(f.adam, id(5), true).await.unwrap();
    let mut expected: Vec<usize> = (0..MANY).filter(|i| i % 100 != 99).collect();
    expected.sort_by_key(|i| {
        let (others, running) = (i % 2 == 1, status(*i) == WorkspaceStatus::Running);
        (*i != 4, !running, others, *i)
    });
    let mut filter = f.filter(Vec::new());
    filter.limit = 100;
    for offset in [0, 100, 2400, 4850, 4950, 9000] {
        filter.offset = offset as i64;
        let end = (offset + 100).min(expected.len());
        let page = expected.get(offset..end).unwrap_or_default().to_vec();
        assert_eq!(f.find(&filter).await, (page, 4950), "{offset}");
    }
    filter.own_only = true;
    filter.offset = 0;
    filter.limit = 1;
    assert_eq!(f.find(&filter).await, (vec![4], 2500));
}

/// Only one table is gone through; of all others, the rows that belong to a
/// workspace are looked up.
#[tokio::test]
async fn a_page_reads_no_second_table_in_full() {
    let f = fixture(MANY).await;
    let terms = vec![
        Term::Name("ws".into()),
        Term::Status(WorkspaceStatus::Running),
        Term::HasAgent(AgentStatus::Connected),
        Term::Healthy(true),
    ];
    for terms in [Vec::new(), terms, vec![Term::Owner(f.adam)]] {
        let plan = f.store.explain(&f.filter(terms)).await.unwrap();
        let scans = plan.iter().filter(|line| line.starts_with("SCAN")).count();
        assert!(scans <= 1, "{plan:#?}");
        let automatic = plan.iter().any(|line| line.contains("AUTOMATIC"));
        assert!(!automatic, "{plan:#?}");
    }
}
