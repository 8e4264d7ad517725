//! The one place that knows which database engine is in use.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use adit_rest::Time;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use uuid::Uuid;

use crate::presence::Presence;
use crate::{Error, Result};

pub(crate) type Engine = sqlx::Sqlite;
pub(crate) type Row = SqliteRow;
pub(crate) type Tx = sqlx::Transaction<'static, Engine>;

/// Connections for reading. Each costs a thread and at most
/// [`CACHE_KIB`] of page cache.
const READERS: u32 = 2;
const CACHE_KIB: i64 = 1024;
/// Size to which the write-ahead log is cut once its content is in the
/// database, in bytes.
const LOG_BYTES: i64 = 4 << 20;
/// How long a statement may wait for a lock that another process holds.
const WAIT: Duration = Duration::from_secs(10);
/// How long a statement may wait for its turn.
const TURN: Duration = Duration::from_secs(30);

/// Handle to the database; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) read: SqlitePool,
    write: SqlitePool,
    pub(crate) presence: Presence,
}

impl Store {
    /// Opens (or makes) the database file and brings its schema up to date.
    ///
    /// What a transaction wrote outlives the process, however it ends. A crash
    /// of the whole machine may undo the last ones, but never half of one: the
    /// log is flushed when it is merged, not with every transaction.
    ///
    /// # Errors
    /// When the file cannot be opened or belongs to a newer version.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .foreign_keys(true)
            .busy_timeout(WAIT)
            .statement_cache_capacity(48)
            .pragma("cache_size", (-CACHE_KIB).to_string())
            .pragma("journal_size_limit", LOG_BYTES.to_string())
            .pragma("temp_store", "memory");
        let write = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&write).await?;
        let read = pool(READERS).connect_with(options.read_only(false)).await?;
        Ok(Self {
            read,
            write,
            presence: Presence::default(),
        })
    }

    /// Finishes open statements and closes the file.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// Returns at most 4 MiB of unused pages to the file system.
    pub(crate) async fn release_pages(&self) -> Result<()> {
        sqlx::query("PRAGMA incremental_vacuum(1024)")
            .fetch_all(&self.write)
            .await?;
        Ok(())
    }

    /// A write transaction; the only writer until it ends.
    pub(crate) async fn begin(&self) -> Result<Tx> {
        Ok(self.write.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// For single statements that write.
    pub(crate) fn writer(&self) -> &SqlitePool {
        &self.write
    }
}

fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(TURN)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Typed access to columns.
pub(crate) trait Cols {
    fn text(&self, column: &str) -> Result<String>;
    fn opt_text(&self, column: &str) -> Result<Option<String>>;
    fn int(&self, column: &str) -> Result<i64>;
    fn opt_int(&self, column: &str) -> Result<Option<i64>>;

    fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    fn time(&self, column: &str) -> Result<Time> {
        Ok(Time::from_micros(self.int(column)?))
    }

    fn opt_time(&self, column: &str) -> Result<Option<Time>> {
        Ok(self.opt_int(column)?.map(Time::from_micros))
    }

    fn uuid(&self, column: &str) -> Result<Uuid> {
        parse_uuid(column, &self.text(column)?)
    }

    fn opt_uuid(&self, column: &str) -> Result<Option<Uuid>> {
        let text = self.opt_text(column)?;
        text.map(|text| parse_uuid(column, &text)).transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| damaged(column, error))
    }

    fn word<T: Default>(&self, column: &str, parse: fn(&str) -> Option<T>) -> Result<T> {
        Ok(parse(&self.text(column)?).unwrap_or_default())
    }
}

impl Cols for Row {
    fn text(&self, column: &str) -> Result<String> {
        Ok(self.try_get(column)?)
    }

    fn opt_text(&self, column: &str) -> Result<Option<String>> {
        Ok(self.try_get(column)?)
    }

    fn int(&self, column: &str) -> Result<i64> {
        Ok(self.try_get(column)?)
    }

    fn opt_int(&self, column: &str) -> Result<Option<i64>> {
        Ok(self.try_get(column)?)
    }
}

fn parse_uuid(column: &str, text: &str) -> Result<Uuid> {
    Uuid::from_str(text).map_err(|error| damaged(column, error))
}

fn damaged(column: &str, reason: impl std::fmt::Display) -> Error {
    Error::Damaged {
        column: column.to_owned(),
        reason: reason.to_string(),
    }
}

/// JSON text of a value that always serialises.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// A parameter of a statement.
pub(crate) fn micros(time: Option<Time>) -> Option<i64> {
    time.map(Time::as_micros)
}
