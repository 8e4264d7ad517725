use uuid::Uuid;

use super::{DAY_MICROS, PURGE_BATCH, Purge};
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

    async fn purge(&self, what: Purge) -> u64 {
        let now = adit_rest::Time::from_micros(NOW);
        self.store.purge(what, now).await.unwrap()
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
        2 * PURGE_BATCH + 10,
        at(8),
        2 * DAY_MICROS,
    );
    let f = Fixture::new(&[&insert]).await;
    assert_eq!(f.purge(Purge::AgentStats).await, PURGE_BATCH as u64);
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
